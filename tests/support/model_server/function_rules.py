"""The schemas of functions that OpenAI and Gemini refuse, with their words."""

import re
from typing import Any

_KEY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_NOT_AT_THE_TOP = ("oneOf", "anyOf", "allOf", "enum", "not")
_GEMINI_WORDS = frozenset(
    {"type", "format", "title", "description", "nullable", "enum", "items", "maxItems", "minItems", "properties"}
    | {"required", "minProperties", "maxProperties", "minLength", "maxLength", "pattern", "anyOf", "minimum", "maximum"}
)


def find_fault(schema: dict[str, Any]) -> str | None:
    """Return OpenAI's complaint about the schema of a function; None if it has none."""
    if wrong := [word for word in _NOT_AT_THE_TOP if word in schema]:
        return f"schema must have type 'object' and not have {wrong[0]!r} at the top level."
    if "properties" not in schema:
        return "In context=(), object schema missing properties."
    return _find_inner_fault(schema, ())


def _find_inner_fault(schema: Any, path: tuple[str, ...]) -> str | None:
    if isinstance(schema, bool):
        return f"In context={path}, {schema} is not of type 'object'."
    if not isinstance(schema, dict):
        return None
    kind = schema.get("type")
    if "array" in (kind if isinstance(kind, list) else [kind]) and "items" not in schema:
        return f"In context={path}, array schema missing items."
    inner = {(*path, "properties", name): value for name, value in (schema.get("properties") or {}).items()}
    for place in inner:
        if not _KEY.fullmatch(place[-1]):
            return f"Invalid property key '{place[-1][:10]}': Property keys should match pattern '{_KEY.pattern}'"
    for word in ("anyOf", "oneOf", "allOf"):
        inner |= {(*path, word, str(number)): value for number, value in enumerate(schema.get(word) or ())}
    if "items" in schema:
        inner[*path, "items"] = schema["items"]
    return next((fault for place, value in inner.items() if (fault := _find_inner_fault(value, place))), None)


def find_gemini_fault(schema: dict[str, Any], where: str) -> str | None:
    """Return Gemini's complaint about the schema of a function; None if it has none."""
    for word in schema:
        if word not in _GEMINI_WORDS:
            return f"Invalid JSON payload received. Unknown name \"{word}\" at '{where}': Cannot find field."
    kind = schema.get("type")
    if isinstance(kind, list):
        return f"Proto field is not repeating, cannot start list. At '{where}.type'"
    if "anyOf" in schema and set(schema) - {"anyOf"}:
        return f"* GenerateContentRequest.{where}.any_of: when using any_of, it must be the only field set."
    if "anyOf" not in schema and kind not in {"string", "number", "integer", "boolean", "array", "object"}:
        return f"* GenerateContentRequest.{where}.type: must be specified"
    if "enum" in schema and kind != "string":
        return f"* GenerateContentRequest.{where}.enum: only allowed for STRING type"
    if kind == "string" and schema.get("format") not in {None, "enum", "date-time"}:
        return f"* GenerateContentRequest.{where}.format: only 'enum' and 'date-time' are supported for STRING type"
    if kind == "array" and not schema.get("items"):
        return f"* GenerateContentRequest.{where}.items: missing field."
    if kind == "object" and not schema.get("properties"):
        return f"* GenerateContentRequest.{where}.properties: should be non-empty for OBJECT type"
    inner = {f"{where}.properties[{name}]": value for name, value in (schema.get("properties") or {}).items()}
    inner |= {f"{where}.any_of[{number}]": value for number, value in enumerate(schema.get("anyOf") or ())}
    if "items" in schema:
        inner[f"{where}.items"] = schema["items"]
    return next((fault for place, value in inner.items() if (fault := find_gemini_fault(value, place))), None)
