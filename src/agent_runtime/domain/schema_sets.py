"""Sort the lists of a JSON Schema whose order has no meaning; some servers reorder them at every start."""

from collections.abc import Mapping

from agent_runtime.domain.values import JsonValue, canonical

_SETS = frozenset({"enum", "required", "type"})
_SCHEMA_KEYWORDS = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "allOf",
        "anyOf",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "oneOf",
        "prefixItems",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""Keywords that hold a schema, or a list of schemas."""

_NAMED_SCHEMAS = frozenset(
    {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
)
"""Keywords that hold schemas by name."""


def with_sorted_sets(schema: JsonValue) -> JsonValue:
    """Return the schema with each `required`, `enum` and `type` list sorted and without duplicates.

    Only keywords change: a property named `required` and the data in `default`, `const` or `enum` stay as they are.
    Raises: ValueError if JSON cannot carry a value exactly, or if the schema is nested too deeply.
    """
    try:
        return _schema(schema)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _schema(schema: JsonValue) -> JsonValue:
    if isinstance(schema, list | tuple):
        return [_schema(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {name: _keyword(name, value) for name, value in schema.items()}


def _keyword(name: str, value: JsonValue) -> JsonValue:
    if name in _SETS and isinstance(value, list | tuple):
        distinct = {canonical(item): item for item in value}
        return [distinct[form] for form in sorted(distinct)]
    if name in _SCHEMA_KEYWORDS:
        return _schema(value)
    if name in _NAMED_SCHEMAS and isinstance(value, Mapping):
        return {key: _schema(item) for key, item in value.items()}
    return value
