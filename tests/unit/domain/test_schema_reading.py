"""The normalization of the schemas of servers."""

from typing import Any

import pytest

from agent_runtime.domain.schema_reading import read_schema
from agent_runtime.domain.schemas import check_schema, errors_of
from agent_runtime.domain.tools import ToolDefinition

DRAFT_4 = "http://json-schema.org/draft-04/schema#"


def of(**of_a: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": of_a}}


@pytest.mark.parametrize(
    ("schema", "fits", "does_not"),
    [
        ({"type": "object", "properties": None, "required": None}, 1, ...),
        ({"properties": [], "required": True}, 1, ...),
        ({"required": ["a", None, "a"]}, 1, ...),
        (of(type="str"), "x", 1),
        (of(type="Float"), 1.5, "x"),
        (of(type=["int", None]), None, "x"),
        (of(type="any", description=None, title=5, format=None, examples="x"), [1], ...),
        (of(type="string", enum=None, minLength=None, default=None), "x", 1),
        (of(type="string", enum=["x"], nullable=True), None, "y"),
        (of(anyOf=[], allOf=None, type="integer"), 1, "x"),
        (of(const=None), None, 1),
        (of(type="array", items=None), ["x"], 1),
        (
            of(type="array", items=[{"type": "integer"}, {}], additionalItems=False),
            [1, "x"],
            [1, "x", 2],
        ),
        (of(type="array", items=[{"type": "integer"}]), [1, "x"], ["x"]),
        (of(minimum=0, exclusiveMinimum=True), 1, 0),
        (of(maximum=9, exclusiveMaximum=False), 9, 10),
        (of(dependencies={"x": ["y"], "z": {"required": ["w"]}}), {"x": 1, "y": 2}, {"x": 1}),
        (of(properties={"a": {"$recursiveRef": "#"}}, type="object"), {"a": {}}, 1),
        ({"$schema": DRAFT_4, **of(minimum=0, exclusiveMinimum=True)}, 1, 0),
        ({"$schema": "http://json-schema.org/draft-07/schema#", **of(minimum=0, exclusiveMinimum=True)}, 1, 0),
        ({"$schema": 5, **of(type="integer")}, 1, "x"),
        (of(multipleOf=0.01), 4.02, 0.005),
        (of(multipleOf=0.1), 300.5, 0.25),
        (of(multipleOf=3), 9, 10),
        (of(multipleOf=1e-8), 0.12345678, 1e-9),
        (of(multipleOf=0.01), 10**400, ...),
        (of(multipleOf=0.01), 1e308, ...),
        (of(maximum=2**63 - 1), 2**63 - 1, 2**63),
    ],
)
def test_a_schema_is_applied_as_it_is_meant(schema: dict[str, Any], fits: Any, does_not: Any) -> None:
    read = ToolDefinition(name="t", inputSchema=schema).arguments_schema
    check_schema(read, 1)
    assert not errors_of(read, {"a": fits})
    if does_not is not ...:
        assert errors_of(read, {"a": does_not})


def test_properties_that_are_called_like_keywords_are_properties() -> None:
    schema = {"type": "object", "properties": {"required": {"type": "string"}, "type": {"enum": [None]}}}
    assert read_schema(schema) == schema


@pytest.mark.parametrize(
    "fault", [{"type": "strng"}, {"properties": "x"}, {"required": 5, "minLength": "3"}, {"enum": 5}]
)
def test_what_has_no_obvious_meaning_stays_a_fault(fault: dict[str, Any]) -> None:
    read = read_schema(of(**fault))
    assert read == of(**{name: value for name, value in fault.items() if name != "required"})


def test_the_pin_covers_the_schema_as_it_was_written() -> None:
    written = ToolDefinition(name="t", inputSchema={"required": None})
    assert written.pin != ToolDefinition(name="t", inputSchema={}).pin
    assert written.arguments_schema == {}
