"""Functions that are fitted to what endpoints accept, and the calls that are read back."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from agent_runtime.domain.model_requests import OfferedTool
from agent_runtime.models.functions import FittedFunction, FunctionCache, fit_function
from model_server.function_rules import find_fault, find_gemini_fault


def fit(schema: Mapping[str, Any], *, plain: bool = False) -> FittedFunction:
    return fit_function(OfferedTool("f", "Do it.", dict(schema)), plain=plain)


def properties(**schemas: Any) -> dict[str, Any]:
    return {"type": "object", "properties": schemas}


ODD: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no properties": {"type": "object"},
    "an array without items": properties(tags={"type": "array"}),
    "a list of types with an array": properties(tags={"type": ["array", "null"]}),
    "an array of arrays": properties(rows={"type": "array", "items": {"type": "array"}}),
    "boolean schemas": properties(any=True, none=False, list={"type": "array", "items": True}),
    "alternatives at the top": {
        "type": "object",
        "anyOf": [properties(a={"type": "string"}) | {"required": ["a"]}, {"$ref": "#/$defs/b"}],
        "$defs": {"b": properties(b={"type": "array"}) | {"required": ["b"]}},
    },
    "all of several": {"allOf": [properties(a={"type": "string"}), properties(b={"type": "integer"})]},
    "a condition at the top": properties(a={"type": "string"}) | {"not": {"required": ["b"]}, "enum": [{"a": "x"}]},
    "odd names": properties(**{"$filter": {"type": "string"}, "a" * 70: {"type": "string"}, "日": {}, "": {}}),
    "references": {
        **properties(node={"$ref": "#/$defs/node"}, away={"$ref": "https://example.com/x.json"}),
        "$defs": {"node": properties(value={"type": "string"}, next={"$ref": "#/$defs/node"})},
    },
    "a reference to the whole": properties(children={"type": "array", "items": {"$ref": "#"}}),
    "places of an array": properties(point={"type": "array", "items": [{"type": "number"}, {"type": "string"}]}),
    "values": properties(level={"enum": [1, 2]}, kind={"const": "x"}, on={"const": True}, mixed={"enum": ["a", None]}),
    "formats and limits": properties(
        url={"type": "string", "format": "uri", "default": "https://example.com"},
        n={"type": "integer", "exclusiveMinimum": 0, "multipleOf": 5},
        when={"type": "string", "format": "date-time", "minLength": 1},
    ),
    "maps": properties(labels={"type": "object", "additionalProperties": {"type": "string"}}, free={"type": "object"}),
    "nullable": properties(a={"type": ["string", "null"]}, b={"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    "one of several": properties(
        x={"oneOf": [{"type": "string"}, properties(y={"const": 1}), {"type": "array"}], "description": "An x."}
    ),
    "several types": properties(x={"type": ["string", "integer", "object"]}),
    "old required": properties(a={"type": "string", "required": True}),
}


@pytest.mark.parametrize("schema", ODD.values(), ids=ODD)
def test_a_function_is_fitted_to_what_openai_accepts(schema: dict[str, Any]) -> None:
    before = json.dumps(schema)
    assert find_fault(fit(schema).schema) is None
    assert json.dumps(schema) == before


@pytest.mark.parametrize("schema", ODD.values(), ids=ODD)
def test_a_plain_function_is_what_gemini_accepts(schema: dict[str, Any]) -> None:
    fitted = fit(schema, plain=True).schema
    assert find_fault(fitted) is None
    assert find_gemini_fault(fitted, "tools[0].function_declarations[0].parameters") is None


def test_a_schema_that_endpoints_accept_stays_as_it_is() -> None:
    schema = {
        **properties(path={"type": "string", "pattern": "^/"}, tags={"type": "array", "items": {"type": "string"}}),
        "required": ["path"],
        "additionalProperties": False,
    }
    assert fit(schema).schema == schema
    assert not fit(schema).changes


def test_arguments_are_called_as_the_tool_calls_them() -> None:
    inner = properties(**{"@type": {"type": "string"}})
    schema = properties(**{"$filter": {"type": "string"}, "list": {"type": "array", "items": inner}, "x": {}})
    function = fit(schema)
    assert set(function.schema["properties"]) == {"filter", "list", "x"}
    assert json.loads(function.restore('{"filter": "a", "list": [{"type": "b"}], "x": {"type": 1}, "more": 2}')) == {
        "$filter": "a",
        "list": [{"@type": "b"}],
        "x": {"type": 1},
        "more": 2,
    }


def test_names_that_are_fitted_stay_apart() -> None:
    function = fit(properties(**{"$a": {}, "@a": {}, "a": {}}))
    assert len(function.schema["properties"]) == 3
    fitted = dict.fromkeys(function.schema["properties"], 1)
    assert json.loads(function.restore(json.dumps(fitted))) == {"$a": 1, "@a": 1, "a": 1}


@pytest.mark.parametrize("arguments", ["", "{not", "[1]", "7", '"text"'])
def test_arguments_that_are_no_object_are_left_to_the_judge(arguments: str) -> None:
    assert fit(properties(**{"$a": {}})).restore(arguments) == arguments


def test_a_plain_function_takes_free_values_as_text() -> None:
    schema = properties(data={"type": "object"}, any={}, rows={"type": "array"})
    function = fit(schema, plain=True)
    written = {"data": '{"a": {"b": 1}}', "any": "words", "rows": ["[1, 2]", "x", "{"]}
    assert json.loads(function.restore(json.dumps(written))) == {
        "data": {"a": {"b": 1}},
        "any": "words",
        "rows": [[1, 2], "x", "{"],
    }


def test_a_plain_function_without_arguments_has_one_that_is_left_out() -> None:
    function = fit({"type": "object"}, plain=True)
    assert list(function.schema["properties"]) == ["unused"]
    assert function.restore('{"unused": "x"}') == "{}"


@pytest.mark.parametrize("plain", [False, True])
def test_an_argument_of_the_tool_that_has_the_name_of_the_one_left_out_is_kept(*, plain: bool) -> None:
    function = fit(properties(unused={"type": "string"}, **{"$filter": {"type": "string"}}), plain=plain)
    assert json.loads(function.restore('{"unused": "x", "filter": "y"}')) == {"unused": "x", "$filter": "y"}


def test_the_descriptions_of_a_plain_function_say_what_its_schema_cannot() -> None:
    schema = fit(ODD["formats and limits"] | {"required": ["url", 7]}, plain=True).schema
    assert schema["properties"]["url"] == {
        "type": "string",
        "description": 'Format: uri. Default: "https://example.com".',
    }
    assert schema["properties"]["n"]["description"] == "Greater than 0. A multiple of 5."
    assert schema["properties"]["when"] == {"type": "string", "format": "date-time", "minLength": 1}
    assert schema["required"] == ["url"]
    assert "It needs a or b." in fit(ODD["alternatives at the top"]).schema["description"]


@pytest.mark.parametrize("name", ["references", "a reference to the whole"])
def test_a_schema_that_refers_to_itself_is_written_once(name: str) -> None:
    assert len(json.dumps(fit(ODD[name]).schema)) < 500


def test_a_schema_that_grows_with_each_reference_is_cut() -> None:
    names = {f"d{n}": properties(a={"$ref": f"#/$defs/d{n + 1}"}, b={"$ref": f"#/$defs/d{n + 1}"}) for n in range(30)}
    schema = properties(x={"$ref": "#/$defs/d0"}) | {"$defs": names | {"d30": {"type": "array"}}}
    for plain in (True, False):
        assert len(json.dumps(fit(schema, plain=plain).schema)) < 400_000


def test_a_plain_function_has_a_description_of_the_length_that_openai_takes() -> None:
    tool = OfferedTool("f", "word " * 1000, {})
    assert fit_function(tool, plain=False).description == tool.description
    assert len(fit_function(tool, plain=True).description) == 1024


def test_a_definition_is_fitted_once_and_again_where_it_changed() -> None:
    cache = FunctionCache()
    tool = OfferedTool("f", "Do it.", ODD["odd names"])
    (first,) = cache.fit([tool], plain=False)
    (again,) = cache.fit([OfferedTool("f", "Do it.", tool.input_schema)], plain=False)
    assert again is first
    (plain,), (other,) = (
        cache.fit([tool], plain=True),
        cache.fit([OfferedTool("f", "No.", tool.input_schema)], plain=False),
    )
    assert (plain.schema == first.schema, other.description) == (False, "No.")
    for number in range(1000):
        (fitted,) = cache.fit([OfferedTool("f", "Do it.", properties(**{f"a{number}": {}}))], plain=False)
        assert list(fitted.schema["properties"]) == [f"a{number}"]
