"""The schema that a model's arguments are held to while it writes them, made of a tool's own schema.

Endpoints turn a schema into a grammar, and each understands other keywords. So only these are kept: `type`, `enum`,
`anyOf`, `items`, `properties`, `required`; every object is closed. What else a schema says (lengths, patterns, bounds,
conditions, formats) is dropped here; the contract judges the arguments by the tool's own schema.

There is no free object, because some endpoints refuse it and others have it be empty. Where a tool takes any object,
the model writes JSON as text, and `read_json_texts` reads it.
"""

from collections.abc import Iterable, Mapping, Sequence
from json import dumps
from typing import Any

from agent_runtime.domain.tools import Tool
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.planners.model.json_answer import read_object

_DEEPEST = 6
"""The deepest nesting of arguments. What is nested deeper is written as text."""

_MOST_PARTS = 300
"""The most schemas in the schema of a tool, after `$ref` is followed. A tool with more, or with a schema of more than
`_MOST_BYTES`, takes its arguments as text.
"""

_MOST_BYTES = 8000
_MOST_PROPERTIES = 100
_MOST_CHOICES = 100
_LONGEST_NAME = 200

_TEXT: JsonObject = {"type": "string"}
_SCALARS = ("string", "number", "boolean", "null")
_TELLING = frozenset({"type", "enum", "const", "properties", "anyOf"})
"""The keywords that say of which type a value is."""

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})

JSON_TEXT: JsonObject = {"type": "string", "description": "A JSON object, as text"}
"""The place of a free object."""

REFERENCE: JsonObject = {
    "type": "string",
    "pattern": r"^\$\{s[1-9][0-9]?\.(text|output(\.[A-Za-z0-9_-]+)*)\}$",
}
"""A string that is one reference. It may stand for a value of any type."""


class _TooLargeError(Exception):
    """The schema has too many parts."""


def fit_arguments(schema: JsonObject, *, references: bool) -> JsonObject:
    """Return the schema of the arguments of a tool. `references`: a value may be a reference to an earlier step."""
    try:
        fitted = _Fitting(schema, references=references).fit_arguments()
    except _TooLargeError:
        return JSON_TEXT
    return fitted if len(dumps(fitted)) <= _MOST_BYTES else JSON_TEXT


def read_json_texts(arguments: JsonObject, tool: Tool) -> JsonObject:
    """Return the arguments with JSON in place of its text, wherever the schema of the tool takes an object only."""
    schema = tool.definition.arguments_schema
    read = _read_texts(arguments, schema, schema, _DEEPEST)
    return read if isinstance(read, dict) else arguments


class _Fitting:
    """The fitting of one schema; counts its parts."""

    def __init__(self, root: JsonObject, *, references: bool) -> None:
        self._root = root
        self._references = references
        self._parts = 0

    def fit_arguments(self) -> JsonObject:
        whole = resolve_schema(self._root, self._root)
        if not whole.get("properties") and _list_options(whole, self._root):
            return self._fit_value(whole, _DEEPEST)
        if "properties" not in whole and not _is_closed(whole):
            return {"anyOf": [close_object({}, ()), JSON_TEXT]}  # mostly a tool without arguments, but it may take any
        return JSON_TEXT if _is_free(whole) else self._fit_object(whole, _DEEPEST)

    def _fit(self, schema: JsonValue, depth: int) -> JsonObject:
        """Return the fitted schema of one value, which may be a reference as well."""
        fitted = self._fit_value(schema, depth)
        if not self._references or _takes_any_text(fitted):
            return fitted
        options = fitted["anyOf"] if set(fitted) == {"anyOf"} else [fitted]
        return {"anyOf": [*options, REFERENCE]}

    def _fit_value(self, schema: JsonValue, depth: int) -> JsonObject:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _TooLargeError
        known = resolve_schema(schema, self._root)
        choices = [known["const"]] if "const" in known else known.get("enum")
        if isinstance(choices, list) and 0 < len(choices) <= _MOST_CHOICES and all(map(_is_scalar, choices)):
            return name_choices(choices)
        options = _list_options(known, self._root)
        if options:
            return _join(self._fit_value(option, depth - 1) for option in options)
        return _join(self._fit_type(kind, known, depth) for kind in _list_types(known))

    def _fit_type(self, kind: str, schema: JsonObject, depth: int) -> JsonObject:
        if kind == "object":
            return JSON_TEXT if depth <= 0 or _is_free(schema) else self._fit_object(schema, depth - 1)
        if kind == "array":
            items = {"type": list(_SCALARS)} if depth <= 0 else schema.get("items", {})
            return {"type": "array", "items": self._fit(items, depth - 1)}
        return {"type": kind}

    def _fit_object(self, schema: JsonObject, depth: int) -> JsonObject:
        known = schema.get("properties")
        named = known if isinstance(known, dict) else {}
        said = schema.get("required")
        required = [name for name in said if isinstance(name, str)] if isinstance(said, list) else []
        # Required ones first: some endpoints have the model write them in this order.
        names = [*(name for name in named if name in required), *(name for name in named if name not in required)]
        if len(names) > _MOST_PROPERTIES or any(len(name) > _LONGEST_NAME for name in names):
            raise _TooLargeError
        missing = {name: {"type": list(_SCALARS)} for name in required if name not in named}
        properties = {name: self._fit_property(named[name], depth, name in required) for name in names}
        properties |= {name: self._fit(item, depth) for name, item in missing.items()}
        return close_object(properties, required)

    def _fit_property(self, schema: JsonValue, depth: int, required: bool) -> JsonObject:  # noqa: FBT001 - one call
        fitted = self._fit(schema, depth)
        return fitted if required else _without_null(fitted)


def name_choices(choices: Sequence[JsonValue]) -> JsonObject:
    """Return the schema of one of these values. One value is a list, too: `const` is less widely understood."""
    return {**(_TEXT if all(isinstance(one, str) for one in choices) else {}), "enum": list(choices)}


def close_object(properties: JsonObject, required: Iterable[str]) -> JsonObject:
    """Return the schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(dict.fromkeys(required)),
        "additionalProperties": False,
    }


def _join(options: Iterable[JsonObject]) -> JsonObject:
    """Return the schema of a value that fits one of these."""
    flat: list[JsonObject] = []
    for option in options:
        flat += [one for one in (option["anyOf"] if set(option) == {"anyOf"} else [option]) if one not in flat]
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _without_null(schema: JsonObject) -> JsonObject:
    """Return the schema of an optional value without `null`: leaving it out says the same."""
    options = schema.get("anyOf")
    if not isinstance(options, list):
        return schema
    return _join([option for option in options if option != {"type": "null"}] or options)


def _takes_any_text(schema: JsonObject) -> bool:
    return any(
        option.get("type") == "string" and not option.keys() & {"enum", "pattern"}
        for option in schema.get("anyOf", [schema])
    )


def _is_scalar(value: JsonValue) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_closed(schema: JsonObject) -> bool:
    return schema.get("additionalProperties") is False or schema.get("unevaluatedProperties") is False


def _is_free(schema: JsonObject) -> bool:
    """Return whether an object may have properties that its schema does not name, and names none."""
    if isinstance(schema.get("properties"), dict) and schema["properties"]:
        return False
    if "patternProperties" in schema or schema.get("required"):
        return True
    if "properties" in schema:
        return schema.get("additionalProperties", False) is not False
    return not _is_closed(schema)


def _list_options(schema: JsonObject, root: JsonObject) -> list[JsonObject]:
    """Return the schemas of `anyOf`, resolved; none of them where they only add conditions to what is beside them."""
    said = schema.get("anyOf")
    if not isinstance(said, list) or schema.get("properties"):
        return []
    options = [resolve_schema(option, root) for option in said]
    return options if all(option.keys() & _TELLING for option in options) else []


def _list_types(schema: JsonObject) -> list[str]:
    """Return the types that a value may have, by the keywords of its schema where it names none."""
    said = schema.get("type")
    kinds = [kind for kind in (said if isinstance(said, list) else [said]) if kind in _TYPES]
    if kinds:
        return kinds
    if any(name in schema for name in ("properties", "additionalProperties", "patternProperties", "required")):
        return ["object"]
    if any(name in schema for name in ("items", "prefixItems")):
        return ["array"]
    return list(_SCALARS)


def resolve_schema(schema: JsonValue, root: JsonObject) -> JsonObject:
    """Return the schema with `$ref`, `allOf` and `oneOf` put into the keywords that are fitted."""
    known: JsonObject = dict(schema) if isinstance(schema, Mapping) else {}
    for _ in range(_DEEPEST):
        if "$ref" not in known:
            break
        found = _find_referred(known.pop("$ref"), root)
        known = {**found, **known}
    parts = known.pop("allOf", None)
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping):
            known = _merge(known, {**_find_referred(part.get("$ref"), root), **part})
    if "oneOf" in known:
        known.setdefault("anyOf", known.pop("oneOf"))
    return known


def _find_referred(name: JsonValue, root: JsonObject) -> JsonObject:
    """Return the schema that a local `$ref` names; one that allows anything where there is none."""
    found: Any = root
    if not isinstance(name, str) or not name.startswith("#"):
        return {}
    for part in name[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def _merge(one: JsonObject, other: JsonObject) -> JsonObject:
    """Return the keywords of both schemas; a value must fit both."""
    merged = {**other, **one}
    if "type" in one and "type" in other:
        merged["type"] = [kind for kind in _list_types(one) if kind in _list_types(other)] or one["type"]
    if isinstance(one.get("properties"), dict) and isinstance(other.get("properties"), dict):
        merged["properties"] = {**other["properties"], **one["properties"]}
    if isinstance(one.get("required"), list) and isinstance(other.get("required"), list):
        merged["required"] = [*one["required"], *other["required"]]
    return merged


def _read_texts(value: JsonValue, schema: JsonValue, root: JsonObject, depth: int) -> JsonValue:
    known = resolve_schema(schema, root)
    if depth <= -1:
        return value
    if isinstance(value, str):
        return _read_text(value, known, root)
    if isinstance(value, dict):
        named = known.get("properties")
        inner = named if isinstance(named, dict) else {}
        return {name: _read_texts(item, inner.get(name), root, depth - 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_read_texts(item, known.get("items"), root, depth - 1) for item in value]
    return value


def _read_text(text: str, schema: JsonObject, root: JsonObject) -> JsonValue:
    every = _list_options(schema, root) or [schema]
    kinds = {kind for option in every for kind in _list_types(option)}
    if "object" not in kinds or "string" in kinds:
        return text
    read = read_object(text)
    return text if read is None else read
