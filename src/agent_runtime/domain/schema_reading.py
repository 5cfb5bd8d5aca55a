"""Normalize the input schemas of servers: correct common mistakes and translate older drafts to 2020-12.

Arguments are validated against the normalized schema. The pin of a tool covers the schema as the server wrote it.
"""

from collections.abc import Callable, Iterator, Mapping

from agent_runtime.domain.values import JsonObject, JsonValue

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_OTHER_NAMES = {
    "bool": "boolean",
    "dict": "object",
    "double": "number",
    "float": "number",
    "int": "integer",
    "list": "array",
    "none": "null",
    "str": "string",
}
"""Type names that schema generators use, and the JSON Schema types that they mean."""

_SCHEMAS = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_LISTS_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_TEXTS = frozenset({"$comment", "$schema", "description", "format", "title"})
_DATA = frozenset({"const", "default", "example", "examples"})
_OLDER_DRAFTS = ("draft-03", "draft-04", "draft-06", "draft-07", "2019-09")
"""Drafts that a schema may declare; its keywords then keep their meaning in that draft."""


def read_schema(schema: JsonObject) -> JsonObject:
    """Return the normalized schema, with keywords of JSON Schema 2020-12 unless it declares an older draft.

    Raises: RecursionError if it is nested too deeply.
    """
    named = schema.get("$schema")
    older = isinstance(named, str) and any(draft in named and "json-schema.org" in named for draft in _OLDER_DRAFTS)
    exact = older and ("draft-03" in str(named) or "draft-04" in str(named))
    return _read(schema, translate=not older, exclusive_flags=exact)


def _read(schema: JsonObject, *, translate: bool, exclusive_flags: bool) -> JsonObject:
    def inner(value: JsonValue) -> JsonValue:
        if value is None or value == []:  # PHP writes an empty object like this
            return {}
        if not isinstance(value, Mapping):
            return value
        return _read(dict(value), translate=translate, exclusive_flags=exclusive_flags)

    read = {name: new for name, value in schema.items() for new in _keyword(name, value, inner)}
    _accept_null(read)
    if not exclusive_flags:
        _read_exclusive_flags(read)
    if translate:
        _translate(read)
    return read


def _keyword(name: str, value: JsonValue, inner: Callable[[JsonValue], JsonValue]) -> Iterator[JsonValue]:
    """Yield the normalized value of a keyword, or nothing if the keyword should be dropped."""
    if name in _DATA:
        if name != "examples" or isinstance(value, list):
            yield value
    elif value is None or (name in _TEXTS and not isinstance(value, str)):
        return
    elif name == "type":
        yield from _types(value)
    elif name == "required":
        if isinstance(value, list):
            yield list(dict.fromkeys(item for item in value if isinstance(item, str)))
    elif name in _LISTS_OF_SCHEMAS or (name == "items" and isinstance(value, list)):
        if not isinstance(value, list):
            yield value
        elif value:
            yield [inner(item) for item in value]
    elif name in _SCHEMAS:
        yield inner(value)
    elif name in _NAMED_SCHEMAS and isinstance(value, Mapping):
        yield {key: inner(item) for key, item in value.items()}
    elif name in _NAMED_SCHEMAS and value == []:
        yield {}
    else:
        yield value


def _types(value: JsonValue) -> Iterator[JsonValue]:
    if isinstance(value, list):
        names = [_type_name(item) for item in value]
        if names and "any" not in names:
            yield list(dict.fromkeys(name if isinstance(name, str) else str(name) for name in names))
    elif (name := _type_name(value)) != "any":
        yield name


def _type_name(value: JsonValue) -> JsonValue:
    if value is None:
        return "null"
    if not isinstance(value, str) or value in _TYPES:
        return value
    return _OTHER_NAMES.get(value.lower(), value.lower() if value.lower() in _TYPES else value)


def _accept_null(schema: JsonObject) -> None:
    """Translate `nullable` of OpenAPI to the type `null`."""
    kind = schema.get("type")
    if schema.get("nullable") is not True or kind is None:
        return
    kinds = kind if isinstance(kind, list) else [kind]
    schema["type"] = [*kinds, *(["null"] if "null" not in kinds else [])]
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]


def _read_exclusive_flags(schema: JsonObject) -> None:
    """Translate the flags of draft 4 (`exclusiveMinimum: true` with `minimum`) to the bounds of later drafts."""
    for flag, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        said = schema.get(flag)
        if isinstance(said, bool):
            del schema[flag]
            if said and bound in schema:
                schema[flag] = schema.pop(bound)


def _translate(schema: JsonObject) -> None:
    """Translate keywords of drafts up to 2019-09 to 2020-12."""
    items = schema.get("items")
    if isinstance(items, list):
        schema.setdefault("prefixItems", schema.pop("items"))
        if "additionalItems" in schema:
            schema["items"] = schema.pop("additionalItems")
    elif "additionalItems" in schema:
        del schema["additionalItems"]  # it has no effect if `items` is a single schema
    dependencies = schema.get("dependencies")
    if isinstance(dependencies, Mapping):
        del schema["dependencies"]
        lists = {name: value for name, value in dependencies.items() if isinstance(value, list)}
        schemas = {name: value for name, value in dependencies.items() if not isinstance(value, list)}
        schema["dependentRequired"] = {**lists, **schema.get("dependentRequired", {})}
        schema["dependentSchemas"] = {**schemas, **schema.get("dependentSchemas", {})}
    if "$recursiveRef" in schema:
        schema.setdefault("$ref", schema.pop("$recursiveRef"))
    schema.pop("$recursiveAnchor", None)
