"""The schema, and the scalars that SDL cannot describe."""

from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from graphql import GraphQLError, GraphQLScalarType, GraphQLSchema, build_schema

_LONGEST_TIME = 40


@cache
def load_schema() -> GraphQLSchema:
    """Return the schema of `schema.graphql`."""
    schema = build_schema(files(__package__).joinpath("schema.graphql").read_text(encoding="utf-8"))
    _scalar(schema, "DateTimeISO").coerce_input_value = _read_time
    _scalar(schema, "JSONObject").coerce_input_value = _read_object
    return schema


def _scalar(schema: GraphQLSchema, name: str) -> GraphQLScalarType:
    kind = schema.type_map[name]
    assert isinstance(kind, GraphQLScalarType)  # noqa: S101 - as `schema.graphql` says
    return kind


def _read_time(value: Any) -> Any:
    """Return the time as it was sent. Raises: GraphQLError if it is none."""
    try:
        if isinstance(value, str) and len(value) <= _LONGEST_TIME:
            datetime.fromisoformat(value)
            return value
    except ValueError:
        pass
    raise GraphQLError("It must be a time in ISO 8601, such as 2026-01-02T03:04:05Z.")


def _read_object(value: Any) -> Any:
    """Return the JSON object. Raises: GraphQLError if it is none."""
    if isinstance(value, dict):
        return value
    raise GraphQLError("It must be a JSON object.")
