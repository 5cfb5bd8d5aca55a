"""The nulls that language models write for optional arguments without a value."""

from typing import Any

import pytest

from agent_runtime.domain.events import ModelCall
from agent_runtime.domain.model_arguments import (
    call_without_optional_nulls,
    plan_without_optional_nulls,
    without_optional_nulls,
)
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.tools import StdioServer, ToolDefinition, describe_tool

SCHEMA: dict[str, Any] = {
    "properties": {"a": {"type": "string"}, "b": {"type": ["string", "null"]}, "c": {"type": "integer"}, "d": {}},
    "required": ["a"],
}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"a": "x", "c": None}, {"a": "x"}),
        ({"a": "x", "b": None, "d": None}, {"a": "x", "b": None, "d": None}),
        ({"a": None, "c": None}, {"a": None}),
        ({"a": "x", "unknown": None}, {"a": "x", "unknown": None}),
        ({"a": "x", "c": "five"}, {"a": "x", "c": "five"}),
        ({"a": "${s1.text}", "c": None}, {"a": "${s1.text}"}),
    ],
)
def test_null_for_an_optional_argument_that_cannot_be_null_is_dropped(given: Any, read: Any) -> None:
    assert without_optional_nulls(given, SCHEMA) == read


@pytest.mark.parametrize("schema", [{}, {"properties": 5}, {"properties": {"c": {"$ref": "#/nowhere"}}}])
def test_without_a_schema_that_says_so_nothing_is_dropped(schema: Any) -> None:
    assert without_optional_nulls({"c": None}, schema) == {"c": None}


def test_the_plan_of_a_model_is_read_without_them() -> None:
    entry = StdioServer.model_validate({"id": "s", "type": "local_stdio", "config": {"command": "x"}})
    tool = describe_tool(entry, ToolDefinition(name="t", inputSchema=SCHEMA))
    step = {"id": "s1", "title": "s1", "kind": "tool", "server": "s", "tool": "t"}
    plan = Plan.model_validate({"goal": "g", "steps": [{**step, "arguments": {"a": "x", "c": None}}]})
    assert [one.arguments for one in plan_without_optional_nulls(plan, [tool]).steps if one.kind == "tool"] == [
        {"a": "x"}
    ]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"a":"x","c":null}', '{"a":"x"}'),
        ('{"a": "null"}', '{"a": "null"}'),
        ("null", "null"),
        ("{null", "{null"),
    ],
)
def test_the_call_of_a_model_is_read_without_them(text: str, read: str) -> None:
    call = call_without_optional_nulls(ModelCall(call_id="1", name="t", arguments=text), SCHEMA)
    assert call.arguments == read
