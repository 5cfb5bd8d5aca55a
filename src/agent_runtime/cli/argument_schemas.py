"""Reads the schema of a tool for people: the types of its arguments in words, and a sample of a value."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agent_runtime.text.escaping import one_line

_DEPTH = 6
"""How deep schemas are followed into each other."""


def get_properties(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the schema of each argument or property that a schema names."""
    found = schema.get("properties")
    items = found.items() if isinstance(found, Mapping) else ()
    return {str(name): wanted if isinstance(wanted, Mapping) else {} for name, wanted in items}


def find_types(schema: Mapping[str, Any], name: str) -> set[str]:
    """Return the types that the schema of a tool names for an argument; an empty set if it names none."""
    wanted = get_properties(schema).get(name, {})
    return {kind for part in _iter_alternatives(wanted, schema, _DEPTH) for kind in _get_types(part)}


def describe_type(wanted: Any, schema: Mapping[str, Any], depth: int = _DEPTH) -> str:
    """Return the types of a value in words, such as `array of {path: string, size?: integer}`."""
    alternatives = _iter_alternatives(wanted, schema, depth)
    words = [_describe(kind, part, schema, depth - 1) for part in alternatives for kind in _get_types(part)]
    return " or ".join(dict.fromkeys(words)) or "any"


def _describe(kind: str, part: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> str:
    if kind == "array" and part.get("items") and depth > 0:
        item = describe_type(part["items"], schema, depth)
        return f"array of ({item})" if " or " in item else f"array of {item}"
    if kind == "object" and depth > 0 and (fields := get_properties(part)):
        required = part.get("required", ())
        named = (
            f"{one_line(name)}{'' if name in required else '?'}: {describe_type(wanted, schema, depth)}"
            for name, wanted in fields.items()
        )
        return f"{{{', '.join(named)}}}"
    return kind


def make_sample(wanted: Any, schema: Mapping[str, Any], name: str, depth: int = _DEPTH) -> Any:
    """Return a value that a schema takes, with the name in capitals for a text."""
    for part in _iter_alternatives(wanted, schema, depth):
        if part.get("enum"):
            return part["enum"][0]
        match next(_get_types(part), ""):
            case "array":
                return [make_sample(part.get("items"), schema, name, depth - 1)]
            case "object":
                fields, required = get_properties(part), part.get("required", ())
                needed = {key: field for key, field in fields.items() if key in required}
                return {key: make_sample(field, schema, key, depth - 1) for key, field in needed.items()}
            case "integer" | "number":
                return 1
            case "boolean":
                return True
            case "string":
                return one_line(name).upper()
    return one_line(name).upper()


def write_sample(wanted: Any, schema: Mapping[str, Any], name: str) -> str:
    """Return a word of the command line that gives an argument: `path=PATH` or `paths:=["PATHS"]`."""
    kinds = {kind for part in _iter_alternatives(wanted, schema, _DEPTH) for kind in _get_types(part)}
    if kinds.isdisjoint({"array", "object"}):
        return f"{one_line(name)}={one_line(name).upper()}"
    return f"{one_line(name)}:={json.dumps(make_sample(wanted, schema, name))}"


def _get_types(part: Mapping[str, Any]) -> Iterator[str]:
    """Yield the types that one schema names itself."""
    named = part.get("type")
    yield from [named] if isinstance(named, str) else named if isinstance(named, list) else []
    for value in part.get("enum", [part["const"]] if "const" in part else []):
        if isinstance(value, str) and not named:
            yield "string"


def _iter_alternatives(wanted: Any, schema: Mapping[str, Any], depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and those that it combines or refers to."""
    if not isinstance(wanted, Mapping) or depth <= 0:
        return
    yield wanted
    for keyword in ("anyOf", "oneOf", "allOf"):
        for part in wanted.get(keyword, ()):
            yield from _iter_alternatives(part, schema, depth - 1)
    kind, _, of = str(wanted.get("$ref", "")).removeprefix("#/").partition("/")
    if of:
        yield from _iter_alternatives(schema.get(kind, {}).get(of), schema, depth - 1)
