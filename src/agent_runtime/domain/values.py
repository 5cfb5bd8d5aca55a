"""JSON values, their canonical form and their digests."""

import hashlib
import re
from collections.abc import Collection
from json import JSONEncoder
from typing import Annotated, Any

import rfc8785
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

JsonValue = Any
"""A value that JSON can carry. Spelled `Any` because mypy has no useful recursive type for it."""

JsonObject = dict[str, JsonValue]

_LONGEST_SHOWN = 300
_LEAST_EXPONENT = 1e21
"""The smallest number that RFC 8785 writes with an exponent."""

LARGE_BYTES = 64 * 1024
"""JSON larger than this is processed in a thread, because it would block the event loop."""

IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class Value(BaseModel):
    """A frozen model that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


def _check_identifier(text: str) -> str:
    if not IDENTIFIER.fullmatch(text):
        raise ValueError("must start with a letter and hold at most 64 letters, digits, '_' and '-'")
    return text


Identifier = Annotated[
    str, AfterValidator(_check_identifier), Field(json_schema_extra={"pattern": f"^{IDENTIFIER.pattern}$"})
]
"""The name of a step or a server: a letter, then up to 63 letters, digits, `_` and `-`."""


def canonical(value: JsonValue) -> bytes:
    """Return the canonical encoding of a JSON value, from which digests are computed.

    It is RFC 8785 with one extension: integers above 2**53 - 1 are written with all their digits.

    Raises: ValueError for what JSON cannot carry exactly (NaN, infinity, a lone surrogate, an integer of thousands of
    digits) and for a value that is nested too deeply.
    """
    try:
        return _encode(value).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise ValueError(str(error) or "nested too deeply") from error


_quoted = JSONEncoder(ensure_ascii=False).encode


def _encode(value: JsonValue) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=_utf_16)
        return "{" + ",".join([f"{_quoted(name)}:{_encode(item)}" for name, item in ordered]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([str(item) if type(item) is int else _encode(item) for item in value]) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    return rfc8785.dumps(value).decode()  # None, a boolean or a float; raises for anything else


def _utf_16(item: tuple[JsonValue, JsonValue]) -> bytes:
    name = item[0]
    if not isinstance(name, str):
        raise ValueError("object keys must be strings")  # noqa: TRY004 - all that cannot be carried is a ValueError
    return name.encode("utf-16-be")


_PLAIN = frozenset({bool, int, str, type(None)})


def as_digested(value: JsonValue) -> JsonValue:
    """Return the value with each number as in its canonical form: 5 for 5.0.

    A server that distinguishes 5 from 5.0 then receives exactly what was hashed.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < _LEAST_EXPONENT:
        return int(value)
    if isinstance(value, dict):
        return {name: item if type(item) in _PLAIN else as_digested(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) in _PLAIN else as_digested(item) for item in value]
    return value


def shorten(text: str) -> str:
    """Return the text; one of more than 300 characters without its middle."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:200]} ... {text[-80:]}"


def is_deeper_than(value: JsonValue, limit: int) -> bool:
    """Return whether arrays and objects are nested more than `limit` levels deep. Safe for any depth."""
    level = [value]
    for _ in range(limit + 1):
        nested = [item for item in level if isinstance(item, dict | list | tuple)]
        level = [inner for item in nested for inner in (item.values() if isinstance(item, dict) else item)]
        if not nested:
            return False
    return True


def has_more_parts(value: JsonValue, limit: int, free: Collection[str]) -> bool:
    """Return whether a value has more than `limit` fields and items. Contents of fields named in `free` do not count.

    Takes time for at most `limit` parts, so it can guard validation, which takes time for each part.
    """
    parts = 0
    left = [value]
    while left and parts <= limit:
        item = left.pop()
        if isinstance(item, dict):
            item = [inner for name, inner in item.items() if name not in free]
        if isinstance(item, list):
            parts += len(item)
            left += [inner for inner in item[:limit] if isinstance(inner, dict | list)]
    return parts > limit


def digest(value: JsonValue) -> str:
    """Return `sha256:` and the hex SHA-256 of the canonical form. Raises: ValueError, as `canonical`."""
    return digest_of_bytes(canonical(value))


def digest_of_bytes(data: bytes) -> str:
    """Return `sha256:` and the hex SHA-256 of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
