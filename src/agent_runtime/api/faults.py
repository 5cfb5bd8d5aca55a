"""Faults of an input in our own words: the one place that translates the errors of pydantic."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from agent_runtime.domain.errors import Fault
from agent_runtime.text.escaping import cut, escape_hidden

WHOLE = "body"
"""The place of a fault that belongs to no single field."""

MOST_FAULTS = 100
"""The number of faults that one answer lists at most."""

_LONGEST_NAME = 80

_OBJECT = "It must be a JSON object."
_ARRAY = "It must be an array."
_WHOLE_NUMBER = "It must be a whole number."
_NUMBER = "It must be a number."
_BOOLEAN = "It must be true or false."

_SENTENCES = {
    "extra_forbidden": "There is no such field; the fields are listed at /docs.",
    "missing": "This field is required.",
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dict_type": _OBJECT,
    "list_type": _ARRAY,
    "tuple_type": _ARRAY,
    "string_type": "It must be a string.",
    "int_type": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_from_float": _WHOLE_NUMBER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "It must be a finite number.",
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "string_too_short": "It must not be empty.",  # the lower limit of every text is 1
    "string_too_long": "It must be at most {max_length} characters long.",
    "too_short": "Its length must be at least {min_length}, and is {actual_length}.",
    "too_long": "Its length must be at most {max_length}.",
    "greater_than": "It must be greater than {gt:.17g}.",
    "greater_than_equal": "It must be at least {ge:.17g}.",
    "less_than": "It must be less than {lt:.17g}.",
    "less_than_equal": "It must be at most {le:.17g}.",
    "literal_error": "It must be {expected}.",
    "enum": "It must be {expected}.",
    "value_error": "It {error}.",  # ours begin with `must`
    "union_tag_not_found": "This field is required: 'tool' or 'agent'.",
    "union_tag_invalid": "It must be 'tool' or 'agent'.",
}


def faults_of(errors: Sequence[Mapping[str, Any]], within: str = "") -> list[Fault]:
    """Return the first faults that pydantic found, each with its place as the caller wrote it, below field `within`."""
    shown = islice((item for item in errors if not _only_follows(item, errors)), MOST_FAULTS)
    return [Fault(_place(item, within), _sentence(item)) for item in shown]


def _only_follows(item: Mapping[str, Any], errors: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if pydantic counted too few items only because it had dropped invalid ones."""
    if item["type"] != "too_short":
        return False
    place = item["loc"]
    return any(len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in errors)


def _place(item: Mapping[str, Any], within: str) -> str:
    place = within
    for part in _place_parts(item):
        if isinstance(part, int):
            place += f"[{part}]"
        else:
            # A name that is not one of our fields comes from the caller; its beginning is enough to find it.
            place += f".{cut(escape_hidden(part), _LONGEST_NAME)}" if part else '[""]'
    return place.removeprefix(".") or WHOLE


def _place_parts(item: Mapping[str, Any]) -> Sequence[str | int]:
    """Return the place without the parts that pydantic adds: the kind of a step, and `[key]`."""
    place: tuple[str | int, ...] = item["loc"]
    if place[-1:] == ("[key]",):
        return place[:-1]
    if item["type"].startswith("union_tag_"):
        return (*place, "kind")
    match place:
        case ("steps", int(), "tool" | "agent", *inner):
            return (*place[:2], *inner)
    return place


def _sentence(item: Mapping[str, Any]) -> str:
    said = _SENTENCES.get(item["type"])
    if said:
        return said.format(**item.get("ctx", {}))
    message: str = item["msg"]
    return f"{message.replace('Input should be', 'It must be').removesuffix('.')}."
