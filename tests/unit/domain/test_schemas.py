import contextlib
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.domain.contract import Limits
from agent_runtime.domain.drafting import MOST_FAULTS, argument_faults, find_faults
from agent_runtime.domain.plan import Plan, ToolStep
from agent_runtime.domain.references import resolve
from agent_runtime.domain.schemas import OutOfTimeError, UnusableSchemaError, check_schema, errors_of, matches
from agent_runtime.domain.tools import BuiltinConfig, BuiltinServer, StoredResult, ToolDefinition, describe_tool

Schema = dict[str, Any]


def list_faults(arguments: dict[str, Any], schema: Schema, *, resolved: bool = False) -> list[str]:
    return [str(fault) for fault in argument_faults(arguments, schema, "arguments", resolved=resolved)]


def of(schema: object, **more: Any) -> Schema:
    return {"type": "object", "properties": {"a": schema}} | more


@pytest.mark.parametrize("whole", ["${s.text}", "${s.output.x.0}"])
@pytest.mark.parametrize("schema", [{"type": "integer"}, {"enum": [1]}, {"type": "object", "required": ["q"]}, False])
def test_a_whole_reference_may_turn_out_to_be_anything(whole: str, schema: Schema) -> None:
    assert list_faults({"a": whole}, of(schema)) == []


NO_STRINGS: list[Schema] = [
    {"type": "integer"},
    {"type": ["array", "null"]},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"oneOf": [{"type": "integer"}, {"anyOf": [{"type": "boolean"}]}]},
    {"anyOf": [{"$ref": "#/$defs/n"}, {"allOf": [{"type": "null"}]}]},
    {"anyOf": [{"enum": [1], "minLength": 99}, {"type": "null"}]},
    {"anyOf": [{"type": "integer", "const": "n"}, {"type": "null"}]},
    {"enum": [1, 2]},
    {"const": 5},
]
STRINGS: list[Schema | bool] = [
    {"type": "string", "maxLength": 1},
    {"type": ["integer", "string"]},
    {"anyOf": [{"type": "integer"}, {"type": "string", "format": "uri", "pattern": "^http"}]},
    {"enum": [1, "one"]},
    {"const": "n"},
    {"not": {"const": "n"}},
    {"oneOf": [{"type": "string"}, {"minLength": 1}]},
    {"anyOf": []},
    True,
]


@pytest.mark.parametrize("schema", NO_STRINGS)
def test_text_around_a_reference_must_be_allowed_to_be_a_string(schema: Schema) -> None:
    (fault,) = list_faults({"a": "n = ${s.text}"}, of(schema, **{"$defs": {"n": {"type": "number"}}}))
    assert fault.startswith("arguments.a: Text is not allowed here: ")


def test_a_fault_of_text_with_a_reference_shows_the_text_as_the_plan_has_it() -> None:
    said = "arguments.a: Text is not allowed here: 'n = ${s.text}' is not of type 'integer'"
    assert list_faults({"a": "n = ${s.text}"}, of({"type": "integer"})) == [said]


def test_where_no_argument_is_known_none_is_offered() -> None:
    schema: Schema = {"type": "object", "additionalProperties": False}
    assert list_faults({"a": 1}, schema) == ["arguments.a: There is no such argument; there are: none."]


@pytest.mark.parametrize("schema", STRINGS[:7] + STRINGS[8:])
def test_text_around_a_reference_passes_where_some_string_may(schema: Schema) -> None:
    assert list_faults({"a": "n = ${s.text}"}, of(schema)) == []


def test_what_is_missing_or_unknown_counts_beside_a_reference() -> None:
    schema = {
        "properties": {"a": {}, "b": {"properties": {"c": {}}, "required": ["d", "e"], "additionalProperties": False}},
        "required": ["a", "f"],
        "additionalProperties": False,
    }
    assert set(list_faults({"a": "${s.text}", "b": {"c": "${s.text}", "x": 1}, "y": "${s.text}"}, schema)) == {
        "arguments.f: This is required and missing.",
        "arguments.b.d: This is required and missing.",
        "arguments.b.e: This is required and missing.",
        "arguments.b.x: There is no such argument; there are: c.",
        "arguments.y: There is no such argument; there are: a, b.",
    }


def test_an_error_above_a_reference_waits_and_one_beside_it_counts() -> None:
    schema = of({"type": "array", "maxItems": 1, "items": {"type": "integer"}})
    assert list_faults({"a": ["${s.text}", "x"]}, schema) == ["arguments.a[1]: 'x' is not of type 'integer'"]
    assert list_faults({"a": [1, 2]}, schema) == ["arguments.a: [1, 2] is too long"]


def test_a_condition_on_a_reference_is_not_decided() -> None:
    schema = {"if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}, "else": {"required": ["c"]}}
    assert list_faults({"a": "${s.text}"}, schema) == []
    assert list_faults({"a": 1}, schema) == ["arguments.b: This is required and missing."]
    assert list_faults({"a": 2}, schema) == ["arguments.c: This is required and missing."]
    assert list_faults({"a": 2}, {"if": True}) == []


def test_literal_text_is_judged_as_what_will_be_sent() -> None:
    schema = of({"enum": ["${HOME}"]})
    assert list_faults({"a": "$${HOME}"}, schema) == []
    assert list_faults({"a": "$$${HOME}"}, schema) != []


def test_text_that_was_put_in_is_not_taken_for_a_reference_again() -> None:
    schema = of({"type": "integer"})
    assert list_faults({"a": "${s.text}"}, schema) == []
    assert list_faults({"a": "${s.text}"}, schema, resolved=True) == [
        "arguments.a: '${s.text}' is not of type 'integer'"
    ]


# Hypothesis: whatever the arguments will be, a plan that leads to valid ones has no faults.

leaves: st.SearchStrategy[Schema] = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "minimum": 0},
        {"enum": ["k", 1, None]},
        {"type": ["string", "null"], "maxLength": 3},
        {"anyOf": [{"type": "string", "pattern": "^a+$"}, {"type": "boolean"}]},
        {"oneOf": [{"type": "object", "required": ["x"]}, {"type": "array", "uniqueItems": True}]},
        {"not": {"const": "k"}},
    ]
)
conditions = st.builds(
    lambda test, then, other: {
        "if": test,
        "then": {"required": [then]},
        "else": {"properties": {other: {"type": "null"}}},
    },
    st.sampled_from([{"properties": {"a": {"const": "k"}}}, {"required": ["a"]}, {"minProperties": 2}]),
    st.sampled_from("abc"),
    st.sampled_from("abc"),
)


def objects(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.builds(
        lambda properties, required, closed, condition: {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": closed,
            **condition,
        },
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        st.lists(st.sampled_from("abc"), max_size=2, unique=True),
        st.sampled_from([True, False, {"type": "string"}]),
        st.just({}) | conditions,
    )


schemas = objects(
    st.recursive(leaves, lambda inner: objects(inner) | st.builds(lambda i: {"items": i}, inner), max_leaves=4)
)
data = st.recursive(
    st.sampled_from(["k", "a", "", 0, 1, -1, True, None, "long text"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcx"), inner, max_size=3),
    max_leaves=6,
)


def hide_parts(value: Any, draw: st.DataObject, results: dict[str, StoredResult]) -> Any:
    """Return the value with some of its parts replaced by references."""
    choice = draw.draw(st.integers(0, 3))
    step = f"s{len(results)}"
    if choice == 0:
        results[step] = StoredResult(text=str(value), output={"v": value})
        return f"${{{step}.output.v}}"
    if choice == 1 and isinstance(value, str):
        results[step] = StoredResult(text=value[1:])
        return f"{value[:1]}${{{step}.text}}"
    if isinstance(value, dict):
        return {name: hide_parts(item, draw, results) for name, item in value.items()}
    if isinstance(value, list):
        return [hide_parts(item, draw, results) for item in value]
    return value


@given(schemas, st.dictionaries(st.sampled_from("abcx"), data, max_size=3), st.data())
def test_what_resolves_to_valid_arguments_has_no_faults(
    schema: Schema, value: dict[str, Any], draw: st.DataObject
) -> None:
    results: dict[str, StoredResult] = {}
    arguments = {name: hide_parts(item, draw, results) for name, item in value.items()}
    assert resolve(arguments, results, 1000) == value
    found = list_faults(arguments, schema)
    judged = list_faults(value, schema, resolved=True)
    assert not found or judged, (arguments, found)
    if not results:
        assert found == judged


# What a hostile definition may not do: see guarantee G9.

CHAIN: Schema = {f"a{n}": {"KEY": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)} | {"a40": {"type": "string"}}
META = "https://json-schema.org/draft/2020-12/schema"


def chain(keyword: str) -> Schema:
    return {name: {keyword: item["KEY"]} if "KEY" in item else item for name, item in CHAIN.items()}


def nest(depth: int) -> Schema:
    schema: Schema = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


UNUSABLE: dict[str, tuple[Schema, str]] = {
    "a fetch": ({"$ref": "http://127.0.0.1:1/schema"}, "Unresolvable"),
    "a file": ({"$ref": "file:///etc/passwd"}, "Unresolvable"),
    "a reference to nowhere": ({"$ref": "#/$defs/none"}, "PointerToNowhere"),
    "a circle": ({"$ref": "#"}, "recursion"),
    "circles": ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "recursion"),
    "a list for a dialect": ({"$schema": []}, "unhashable"),
    "a number for a dialect": ({"$schema": 3}, "attribute"),
    "a bad URL for a dialect": ({"$schema": "http://[bad"}, "IPv6"),
    "no such type": ({"type": "strng"}, "Unknown type 'strng'"),
    "a deep schema": (nest(20_000), "recursion"),  # 3,000 are enough before Python 3.12
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_hostile_schema_is_a_fault_and_nothing_worse(name: str) -> None:
    schema, said = UNUSABLE[name]
    before = time.thread_time()
    (fault,) = argument_faults({"a": 1}, schema, "arguments")
    assert time.thread_time() - before < 2
    assert fault.field == "arguments"
    assert "input schema cannot be used" in fault.message
    assert said in fault.message
    with pytest.raises(UnusableSchemaError, match=re.escape(said)):
        errors_of(schema, {"a": 1})


DOUBLINGS: dict[str, Schema] = {
    "of alternatives": {"$defs": chain("anyOf"), "$ref": "#/$defs/a0"},
    "that is not evaluated": {
        "$defs": chain("allOf") | {"a40": {}},
        "$ref": "#/$defs/a0",
        "unevaluatedProperties": False,
    },
    "behind another dialect": {
        "$schema": META,
        "$dynamicAnchor": "meta",
        "$defs": chain("anyOf"),
        "allOf": [{"$ref": META}],
        "properties": {"a": {"$schema": META, "$ref": "#/$defs/a0"}},
    },
}


@pytest.mark.parametrize("name", DOUBLINGS)
def test_a_check_that_would_never_end_is_broken_off_and_left_to_the_server(name: str) -> None:
    before = time.thread_time()
    assert list_faults({"a": 1}, DOUBLINGS[name]) == []
    assert time.thread_time() - before < 5  # it would take for ever


def test_what_was_found_before_the_time_ran_out_counts() -> None:
    schema = {"additionalProperties": False, "anyOf": [{"$ref": "#/$defs/a0"}], "$defs": chain("anyOf")}
    assert list_faults({"a": 1}, schema) == ["arguments.a: There is no such argument; there are: none."]


def test_the_steps_of_a_plan_share_the_time_of_their_checks() -> None:
    server = BuiltinServer(id="s", type="builtin", config=BuiltinConfig(server="text"))
    slow = describe_tool(server, ToolDefinition(name="t", inputSchema=DOUBLINGS["of alternatives"]))
    plan = Plan(steps=tuple(ToolStep(id=f"s{n}", kind="tool", server="s", tool="t") for n in range(50)))
    before = time.thread_time()
    assert list(find_faults(plan, Limits(max_steps=50), {"s/t": slow}, agent_steps=False)) == []
    assert time.thread_time() - before < 10  # it would take for ever, fifty times


@pytest.mark.parametrize("wrong", [{"type": "strng"}, {"properties": 5}, {"required": ["a", "a"]}, {"$ref": "#/no"}])
def test_a_schema_that_its_dialect_forbids_or_that_leads_nowhere_is_refused(wrong: Schema) -> None:
    with pytest.raises(UnusableSchemaError):
        check_schema(wrong, 1)


@pytest.mark.parametrize("wrong", ["string", ["array", "null"]])
def test_a_schema_that_allows_no_object_is_refused_because_arguments_are_one(wrong: Any) -> None:
    with pytest.raises(UnusableSchemaError, match="the arguments of a call are an object"):
        check_schema({"type": wrong}, 1)
    check_schema({"type": ["object", "null"]}, 1)


def test_a_pattern_that_is_no_pattern_to_python_is_none_of_our_business() -> None:
    check_schema(of({"pattern": r"^\p{L}+$"}), 1)


STALLS: dict[str, Schema] = {
    **DOUBLINGS,
    "that must differ": {"required": [{"a": n} for n in range(5000)]},
    "of one dialect that must differ": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "enum": [{"a": n} for n in range(5000)],
    },
    "of very many": {"properties": {f"p{n}": {"type": "string"} for n in range(3000)}},
}


@pytest.mark.parametrize("name", STALLS)
def test_judging_a_schema_ends_in_time_with_or_without_a_verdict(name: str) -> None:
    before = time.thread_time()
    with contextlib.suppress(UnusableSchemaError, OutOfTimeError):
        check_schema(STALLS[name], 0.1)
    assert time.thread_time() - before < 2


@pytest.mark.timeout(5)  # its own analysis took minutes
def test_an_endless_pattern_is_not_even_read() -> None:
    assert matches("[" * 65536, "a") is None


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^(a+)+$", "a" * 50 + "b"),
        ("a?" * 40 + "a" * 40, "a" * 39),
        ("(a|a)" * 40 + "b", "a" * 60),
        (r"(x{0,50}){0,50}y", "x" * 60),
        ("a*" * 9 + "b", "a" * 90),
        (r"(?x) # [\n(a+)+ # ]", "a" * 60),
        (r"^\p{L}+$", "é"),
        (r"(", ""),
        (r"[[a]b]", "a"),
        (r"[a--b]", "a"),
        (r"a{99999999999}", "a"),
    ],
)
def test_a_pattern_that_may_take_long_or_is_not_pythons_is_left_to_the_server(pattern: str, text: str) -> None:
    assert matches(pattern, text) is None
    assert list_faults({"a": text}, of({"pattern": pattern})) == []
    closed = {"patternProperties": {pattern: {"type": "null"}}, "additionalProperties": False}
    assert list_faults({text: 1}, closed) == []


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"^[a-z]+$", "abc", True),
        (r"^[a-z]+$", "ABC" * 100, False),
        (r"^\d{4}-\d\d-\d\d$", "2026-11-21", True),
        (r"^[^@]+@[^@]+\.[^@]+$", "a@b.example", True),
        (r"^(?:red|green)\.[(*+)\]]{1,3}$", "red.)*]", True),
        (r"^([0-9a-f]{8}-[0-9a-f]{4}|0)$", "0123abcd-01f", False),
    ],
)
def test_an_ordinary_pattern_counts(pattern: str, text: str, *, found: bool) -> None:
    assert matches(pattern, text) is found
    assert (list_faults({"a": text}, of({"pattern": pattern})) == []) is found
    assert list_faults({"a": 5}, of({"pattern": pattern})) == []


@given(st.text("ab*+?|(){}[]^\\12,", max_size=9), st.text("ab", max_size=9))
def test_no_pattern_ever_breaks_a_check(pattern: str, text: str) -> None:
    found = matches(pattern, text)
    if found is not None:
        assert found is (re.search(pattern, text) is not None)


def test_properties_may_be_told_by_a_pattern() -> None:
    schema = {
        "properties": {"a": {}},
        "patternProperties": {"^x-": {"type": "integer"}},
        "additionalProperties": {"type": "null"},
    }
    assert list_faults({"a": 1, "x-1": 1, "b": None}, schema) == []
    assert list_faults({"x-1": "1", "b": 1}, schema) == [
        "arguments.b: 1 is not of type 'null'",
        "arguments.x-1: '1' is not of type 'integer'",
    ]
    assert list_faults({"b": 1, "x-1": 1}, schema | {"additionalProperties": False}) == [
        "arguments.b: There is no such argument; there are: a, any that match ^x-."
    ]
    assert list_faults({"x": [1]}, {"properties": {"x": schema | {"required": ["a"]}}}) == []


def test_unevaluated_properties_count_unless_patterns_are_in_play() -> None:
    schema = {"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}
    assert len(list_faults({"a": 1, "b": 1}, schema)) == 1
    assert list_faults({"a": 1, "b": 1}, schema | {"patternProperties": {"^(c+)+$": {}}}) == []


def test_items_that_must_differ_are_compared_in_good_time() -> None:
    schema = of({"uniqueItems": True})
    before = time.thread_time()
    assert list_faults({"a": [{"n": n} for n in range(20_000)]}, schema) == []
    assert time.thread_time() - before < 1
    assert len(list_faults({"a": [{"n": 1, "m": 2}, {"m": 2, "n": 1}]}, schema)) == 1
    assert list_faults({"a": [True, 1]}, schema) == []
    assert list_faults({"a": [1, 1]}, of({"uniqueItems": False})) == []


def test_very_many_faults_are_not_all_named() -> None:
    faults = list_faults({"a": ["x"] * 5000, "b": "y" * 5000}, of({"items": {"type": "integer"}}, required=["z"]))
    assert len(faults) == MOST_FAULTS
    (long,) = list_faults({"a": "y" * 5000}, of({"type": "integer"}))
    assert len(long) < 400


def test_an_old_dialect_is_understood() -> None:
    draft3 = {
        "$schema": "http://json-schema.org/draft-03/schema#",
        "properties": {"a": {"type": "string", "required": True}},
    }
    assert list_faults({}, draft3) == ["arguments.a: 'a' is a required property"]
    draft4 = {"$schema": "http://json-schema.org/draft-04/schema#", "required": ["a"]}
    assert list_faults({}, draft4) == ["arguments.a: This is required and missing."]


@pytest.mark.parametrize(
    ("pattern", "most"),
    [
        ("x*", 99),  # (length + 1) ** 3 steps: a start, a repeat and the text itself
        ("^" + "a?" * 10, 975),  # (length + 1) * 2 ** 10
        ("^" + "a*" * 5, 9),  # (length + 1) ** 6, which is the limit exactly
        ("^" + "a*" * 50, 0),
    ],
)
def test_a_pattern_is_applied_as_long_as_its_worst_case_is_within_the_limit(pattern: str, most: int) -> None:
    assert matches(pattern, "a" * most) is True
    assert matches(pattern, "a" * (most + 1)) is None


def test_a_pattern_of_very_many_choices_is_left_to_the_server() -> None:
    assert matches("^" + "a*" * 51, "") is None
