"""The lists of a schema that are sets: three keywords, in every subschema but not in data."""

from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.domain.schema_sets import with_sorted_sets

A, B = {"required": ["b", "a"]}, {"required": ["a", "b"]}


PLACES: dict[str, Callable[[Any], Any]] = {
    "alone": lambda schema: schema,
    "property": lambda schema: {"properties": {"p": schema}},
    "property called required": lambda schema: {"properties": {"required": schema}},
    "defs": lambda schema: {"$defs": {"enum": schema}},
    "definitions": lambda schema: {"definitions": {"d": schema}},
    "pattern": lambda schema: {"patternProperties": {"^a": schema}},
    "dependent": lambda schema: {"dependentSchemas": {"a": schema}},
    "items": lambda schema: {"items": schema},
    "tuple": lambda schema: {"items": [schema, True]},
    "any of": lambda schema: {"anyOf": [{"type": "null"}, schema]},
    "not": lambda schema: {"not": {"additionalProperties": schema}},
}


@pytest.mark.parametrize("place", PLACES)
def test_wherever_a_schema_may_stand_its_sets_have_one_order(place: str) -> None:
    holder = PLACES[place]
    assert with_sorted_sets(holder(A)) == with_sorted_sets(holder(B)) == holder(B)


@pytest.mark.parametrize(
    "data",
    [
        {"default": A},
        {"const": A},
        {"examples": [["b", "a"]]},
        {"enum": [A]},
        {"prefixItems": [{"type": "string"}, {"type": "integer"}]},
        {"dependentRequired": {"a": ["c", "b"]}},
        {"x-notes": {"required": ["b", "a"]}},
        {"required": "b"},
        True,
    ],
    ids=str,
)
def test_what_is_no_set_of_a_schema_stays_as_it_is(data: Any) -> None:
    assert with_sorted_sets(data) == data


def test_values_of_an_enum_are_told_apart_as_json_tells_them() -> None:
    found = with_sorted_sets({"enum": [True, 1, "1", 1, None, 2**60 + 1, 2**60]})
    assert [repr(value) for value in found["enum"]] == [
        "'1'",
        "1",
        "1152921504606846976",
        "1152921504606846977",
        "None",
        "True",
    ]


def test_a_schema_that_is_nested_too_deeply_to_be_walked_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"not": schema}
    with pytest.raises(ValueError, match="nested too deeply"):
        with_sorted_sets(schema)
