"""The form of a server's question: what of its schema can be shown, with the names of what cannot."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent_runtime.domain.values import JsonObject, JsonValue, canonical, is_deeper_than
from agent_runtime.text.escaping import cut, one_line

_MOST_BYTES = 16 * 1024
_MOST_VALUE_BYTES = 12 * 1024
"""The most bytes of all fields together, and of one value in them, such as all choices of a field."""

_MOST_CHARACTERS = 1000
_MOST_NAMES = 5
_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})


def read_form(given: JsonValue) -> tuple[JsonObject, list[str]]:
    """Return a valid schema of an object with simple fields, as MCP allows, and the names of fields that do not fit.

    A field keeps the keywords that can be used, and names the others in its description.
    """
    form = given if isinstance(given, dict) else {}
    fields, required = form.get("properties"), form.get("required")
    properties: JsonObject = {}
    left_out: list[str] = []
    room: float = _MOST_BYTES
    for name, value in fields.items() if isinstance(fields, dict) else ():
        field = _read_field(value)
        size = _size(name) + _size(field)
        if size > room:
            left_out.append(name)
        else:
            properties[name] = field
            room -= size
    wanted = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
    needed = [name for name in properties if name in wanted]
    return {"type": "object", "properties": properties, **({"required": needed} if needed else {})}, left_out


def list_names(names: Sequence[str]) -> str:
    """Return the first few names on one line, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(one_line(name, 40) for name in names[:_MOST_NAMES]) + more


def _read_field(given: JsonValue) -> JsonObject:
    if not isinstance(given, dict):
        return {}
    wanted = {name: value for name, value in _unwrap(given).items() if value is not None}
    field = {name: read(value) for name, value in wanted.items() if (read := _KEYWORDS.get(name))}
    field = {name: value for name, value in field.items() if value is not None}
    left_out = [name for name in wanted if name not in field]
    if left_out:
        note = f"Parts of this field that cannot be shown: {list_names(left_out)}."
        field["description"] = " ".join(filter(None, (field.get("description"), note)))
    return field


def _unwrap(given: JsonObject) -> JsonObject:
    """Return a field that need not have a value as the field that it otherwise is."""
    for name in ("anyOf", "oneOf"):
        choices = given.get(name)
        others = [one for one in choices if one != {"type": "null"}] if isinstance(choices, list) else []
        if len(others) == 1 and isinstance(others[0], dict) and "const" not in others[0]:
            return others[0] | {key: value for key, value in given.items() if key != name}
    return given


def _size(value: JsonValue) -> float:
    """Return the bytes of a value as JSON; infinity if JSON cannot carry it exactly."""
    try:
        return len(canonical(value))
    except ValueError:
        return float("inf")


def _is_small(value: JsonValue, depth: int) -> bool:
    return not is_deeper_than(value, depth) and _size(value) <= _MOST_VALUE_BYTES


def _read_type(value: JsonValue) -> JsonValue:
    names = value if isinstance(value, list) else [value]
    return value if names and all(isinstance(name, str) and name in _TYPES for name in names) else None


def _read_text(value: JsonValue) -> JsonValue:
    return cut(value, _MOST_CHARACTERS) if isinstance(value, str) and _is_small(value[:_MOST_CHARACTERS], 0) else None


def _read_value(value: JsonValue) -> JsonValue:
    return value if _is_small(value, 1) else None


def _read_choices(value: JsonValue) -> JsonValue:
    return value if isinstance(value, list) and value and _is_small(value, 2) else None


def _read_names(value: JsonValue) -> JsonValue:
    return _read_choices(value) if isinstance(value, list) and all(isinstance(name, str) for name in value) else None


def _read_titled_choices(value: JsonValue) -> JsonValue:
    if not isinstance(value, list) or not all(isinstance(one, dict) and "const" in one for one in value):
        return None
    titles = ("const", "title")
    return _read_choices(
        [{key: one[key] for key in titles if key == "const" or isinstance(one.get(key), str)} for one in value]
    )


def _read_items(value: JsonValue) -> JsonValue:
    nested = isinstance(value, dict) and "items" in value
    return _read_field({name: one for name, one in value.items() if name != "items"} if nested else value)


def _read_count(value: JsonValue) -> JsonValue:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _read_number(value: JsonValue) -> JsonValue:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and _is_small(value, 0) else None


def _read_flag(value: JsonValue) -> JsonValue:
    return value if isinstance(value, bool) else None


_KEYWORDS: Mapping[str, Callable[[Any], JsonValue]] = {
    "type": _read_type,
    **dict.fromkeys(("title", "description", "format"), _read_text),
    **dict.fromkeys(("const", "default"), _read_value),
    **dict.fromkeys(("oneOf", "anyOf"), _read_titled_choices),
    "enum": _read_choices,
    "enumNames": _read_names,
    "items": _read_items,
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _read_count),
    **dict.fromkeys(("minimum", "maximum"), _read_number),
    "uniqueItems": _read_flag,
}
"""Reads the value of each keyword that a field may have; None if it cannot be used."""
