import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agent_runtime.domain.tools import StdioConfig, StdioServer, Tool, ToolDefinition, describe_tool
from agent_runtime.domain.values import JsonObject
from agent_runtime.planners.model.argument_schema import fit_arguments, read_json_texts
from agent_runtime.planners.model.plan_reader import read_plan
from agent_runtime.planners.model.plan_schema import MOST_TOOLS, build_general_schema, build_plan_schema
from unit.planners.planning import all_tools

KEPT = {"additionalProperties", "anyOf", "description", "enum", "items", "pattern", "properties", "required", "type"}
OPEN: JsonObject = {"type": "object", "additionalProperties": True}


def tool(name: str, schema: JsonObject, server: str = "srv") -> Tool:
    entry = StdioServer(id=server, type="local_stdio", config=StdioConfig(command="x"))
    return describe_tool(entry, ToolDefinition(name=name, inputSchema=schema))


def takes(**properties: Any) -> JsonObject:
    return {"type": "object", "properties": properties, "required": list(properties)}


def schemas_in(schema: JsonObject) -> list[JsonObject]:
    """Return a fitted schema and all schemas within it."""
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    inner += [schema["items"]] if "items" in schema else []
    return [schema, *(deeper for each in inner for deeper in schemas_in(each))]


def accepts(schema: JsonObject, arguments: JsonObject) -> bool:
    return Draft202012Validator(fit_arguments(schema, references=True)).is_valid(arguments)


def plan_of(server: str, name: str, arguments: Any) -> JsonObject:
    step = {"id": "s1", "title": "T", "kind": "tool", "server": server, "tool": name, "arguments": arguments}
    return {"goal": "G", "steps": [step]}


async def test_each_tool_has_its_own_kind_of_step() -> None:
    schema = Draft202012Validator(build_plan_schema(await all_tools(), agent_steps=False))
    assert schema.is_valid(plan_of("filesystem", "read_file", {"path": "a.txt"}))
    assert schema.is_valid(plan_of("calculator", "add", {"a": 1, "b": "${s1.output.result}"}))
    assert not schema.is_valid(plan_of("filesystem", "add", {"a": 1, "b": 2}))
    assert not schema.is_valid(plan_of("filesystem", "read_file", {"file": "a.txt"}))
    assert not schema.is_valid(plan_of("filesystem", "read_file", {}))
    assert not schema.is_valid(plan_of("calculator", "add", {"a": 1, "b": "two"}))
    assert schema.is_valid({"cannot": "no mail", "steps": []})


@pytest.mark.parametrize("extras", [False, True])
async def test_an_agent_step_keeps_its_place_and_names_tools_that_there_are(extras: bool) -> None:  # noqa: FBT001
    tools = await all_tools()
    step: JsonObject = {"title": "T", "instruction": "Do", "tools": []}
    step |= {"id": "s1", "kind": "agent"} if extras else {}
    allowed = {"server": "filesystem", "tool": "read_file", "max_calls": 3}
    schema = Draft202012Validator(build_plan_schema(tools, agent_steps=True, extras=extras))
    assert schema.is_valid({"steps": [step]})
    assert schema.is_valid({"steps": [{**step, "tools": [allowed]}]})
    assert not schema.is_valid({"steps": [{**step, "tools": [{**allowed, "server": "calculator"}]}]})
    assert schema.is_valid({"steps": [{**step, "when": "exists(${s1.text})"}]}) == extras
    without = Draft202012Validator(build_plan_schema(tools, agent_steps=False, extras=extras))
    assert not without.is_valid({"steps": [step]})


async def test_without_extras_an_answer_is_steps_of_few_fields_or_a_reason() -> None:
    tools = await all_tools()
    schema = Draft202012Validator(build_plan_schema(tools, agent_steps=False, extras=False))
    step: JsonObject = {"title": "T", "server": "filesystem", "tool": "read_file", "arguments": {"path": "a"}}
    assert schema.is_valid({"steps": [step]})
    assert schema.is_valid({"cannot": "no mail"})
    assert not schema.is_valid({"steps": [step], "cannot": "no mail"})
    for name, value in {"when": "x", "depends_on": ["s1"], "timeout_s": 3, "retries": 1, "id": "s1"}.items():
        assert not schema.is_valid({"steps": [{**step, name: value}]})
        full = {"id": "s1", "kind": "tool", **step, name: value}
        assert Draft202012Validator(build_plan_schema(tools, agent_steps=False)).is_valid({"steps": [full]})


def test_too_many_or_too_large_tools_share_one_kind_of_step() -> None:
    general = build_general_schema(agent_steps=True)
    many = [tool(f"t{number}", takes(a={"type": "string"})) for number in range(MOST_TOOLS + 1)]
    assert build_plan_schema(many, agent_steps=True) == general
    assert build_plan_schema(many[1:], agent_steps=True) != general
    long = takes(**{f"argument_{number}": {"type": "boolean"} for number in range(30)})
    assert build_plan_schema([tool(f"t{number}", long) for number in range(60)], agent_steps=True) == general
    assert build_plan_schema([], agent_steps=True) == general


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (takes(n={"type": "integer", "minimum": 3, "format": "int64"}), {"n": 1}, {"n": "x"}),
        (takes(n={"type": "integer"}), {"n": "${s2.output.items.0.id}"}, {"n": "${s2.nothing}"}),
        (takes(n={"enum": ["a", "b"]}), {"n": "a"}, {"n": "c"}),
        (takes(n={"enum": ["a", "b"]}), {"n": "${s1.text}"}, {"n": "see ${s1.text}"}),
        (takes(n={"const": 4}), {"n": 4}, {"n": 5}),
        (takes(n={"type": ["string", "null"]}), {"n": None}, {"n": 1}),
        (takes(n={"anyOf": [{"type": "boolean"}, takes(a={"type": "number"})]}), {"n": {"a": 1}}, {"n": {"b": 1}}),
        (takes(n={"oneOf": [{"type": "boolean"}, {"type": "null"}]}), {"n": None}, {"n": 1}),
        (takes(n={"type": "string", "anyOf": [{"format": "date"}, {"format": "time"}]}), {"n": "x"}, {"n": 1}),
        (takes(n={"allOf": [{"type": ["number", "string"]}, {"type": "number"}]}), {"n": 1}, {"n": "x"}),
        (takes(n={"type": "array", "items": {"type": "number"}}), {"n": [1, "${s1.text}"]}, {"n": ["x"]}),
        (takes(n={"type": "array"}), {"n": [1, "x", True]}, {"n": 1}),
        (takes(n={}), {"n": "x"}, {"n": {"a": 1}}),
        (takes(n={"$ref": "#/$defs/N"}) | {"$defs": {"N": {"type": "boolean"}}}, {"n": True}, {"n": 1}),
        (takes(n={"type": "string"}) | {"anyOf": [{"required": ["n"]}, {"required": ["m"]}]}, {"n": "x"}, {}),
        ({"type": "object", "properties": {"n": {"type": ["integer", "null"]}}}, {}, {"n": None}),
        ({"type": "object", "properties": {}}, {}, {"n": 1}),
        ({"type": "object", "required": ["n"], "properties": {"m": {"type": "boolean"}}}, {"n": 1}, {"m": True}),
        ({"anyOf": [takes(a={"type": "number"}), takes(b={"type": "number"})]}, {"b": 1}, {"a": 1, "b": 1}),
    ],
)
def test_arguments_are_held_to_what_the_schema_of_the_tool_says(
    schema: JsonObject, good: JsonObject, bad: JsonObject
) -> None:
    assert accepts(schema, good)
    assert not accepts(schema, bad)


def test_a_value_is_a_reference_only_where_there_can_be_one() -> None:
    fitted = fit_arguments(takes(n={"type": "integer"}), references=False)
    assert fitted["properties"]["n"] == {"type": "integer"}


RECURSIVE = takes(tree={"$ref": "#/$defs/Tree"}) | {
    "$defs": {"Tree": {"type": "object", "properties": {"more": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}}}
}
DEEP: JsonObject = {"type": "string"}
for _ in range(80):
    DEEP = takes(a=DEEP)
WIDE = takes(**{f"n{number}": takes(**{f"m{inner}": {} for inner in range(20)}) for number in range(20)})
CYCLE = {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}
ODD: list[JsonObject] = [
    {},
    OPEN,
    RECURSIVE,
    DEEP,
    WIDE,
    CYCLE,
    takes(**{"x" * 5000: {}}),
    takes(a={"enum": ["y" * 9000]}),
    takes(a={"enum": list(range(5000))}),
    takes(a={"type": "string", "pattern": "(?=x)(a+)+$", "maxLength": 10**9}),
    takes(a={"not": {"type": "string"}}, b={"prefixItems": [{}]}, c={"patternProperties": {"^a": {}}}),
    takes(a={"$ref": "https://example.com/schema"}, b={"$ref": 3}, c={"$ref": "#/nowhere/~0~1"}),
    takes(a=True, b=[], c=None, d={"type": "nonsense"}, e={"type": []}, f={"anyOf": [True, 3]}),
    {"type": "object", "properties": [1], "required": 3},
    {"type": "object", "additionalProperties": {"type": "integer"}},
]
"""Schemas as servers write them, and as hostile ones might."""

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["object", "string", "#/a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "required", "items", "anyOf", "allOf", "oneOf", "$ref", "a", "enum", "const"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def check_fitted(schema: JsonObject) -> None:
    fitted = fit_arguments(schema, references=True)
    Draft202012Validator.check_schema(fitted)
    assert len(json.dumps(fitted)) < 8200
    for each in schemas_in(fitted):
        assert each.keys() <= KEPT
        assert "pattern" not in each or each["pattern"].startswith(r"^\$\{s")
        if each.get("type") == "object":
            assert each["additionalProperties"] is False
            assert set(each["required"]) <= set(each["properties"])
        else:
            assert each.keys() & {"type", "anyOf", "enum"}


@pytest.mark.parametrize("schema", ODD)
def test_a_schema_of_any_shape_is_fitted_and_holds_no_free_object(schema: JsonObject) -> None:
    check_fitted(schema)


@given(schema=st.dictionaries(st.sampled_from(["type", "properties", "items", "anyOf", "allOf", "$ref"]), ANY_JSON))
def test_no_schema_breaks_the_fitting(schema: JsonObject) -> None:
    check_fitted(schema)


@pytest.mark.parametrize(
    ("schema", "written", "read"),
    [
        (takes(data=OPEN), {"data": '{"a": [1]}'}, {"data": {"a": [1]}}),
        (takes(data={"type": ["object", "null"]}), {"data": "{}"}, {"data": {}}),
        (takes(rows={"type": "array", "items": OPEN}), {"rows": ['{"a": 1}']}, {"rows": [{"a": 1}]}),
        (takes(one=takes(two=OPEN)), {"one": {"two": '{"a": 1}'}}, {"one": {"two": {"a": 1}}}),
        (takes(data=OPEN), {"data": "${s1.output}"}, {"data": "${s1.output}"}),
        (takes(data=OPEN), {"data": "{broken"}, {"data": "{broken"}),
        (takes(data={}), {"data": '{"a": 1}'}, {"data": '{"a": 1}'}),
        (takes(data={"type": ["object", "string"]}), {"data": "{}"}, {"data": "{}"}),
        (takes(data={"type": "string"}), {"data": '{"a": 1}'}, {"data": '{"a": 1}'}),
        (takes(data={"anyOf": [OPEN, {"type": "string"}]}), {"data": "{}"}, {"data": "{}"}),
    ],
)
def test_json_that_is_written_as_text_is_read_where_the_tool_takes_an_object_only(
    schema: JsonObject, written: JsonObject, read: JsonObject
) -> None:
    assert read_json_texts(written, tool("t", schema)) == read
    (step,) = read_plan(json.dumps(plan_of("srv", "t", written)), [tool("t", schema)], "G").steps
    assert step.templates == read
    assert accepts(schema, written) or written["data"] == "{broken"


def test_arguments_of_any_kind_are_written_as_text() -> None:
    any_arguments = tool("t", OPEN)
    plan = plan_of("srv", "t", '{"a": {"b": 1}}')
    assert Draft202012Validator(build_plan_schema([any_arguments], agent_steps=False)).is_valid(plan)
    (step,) = read_plan(json.dumps(plan), [any_arguments], "G").steps
    assert step.templates == {"a": {"b": 1}}
