"""JSON values, their canonical form and their digests."""

import hashlib
import re
from typing import Annotated, Any

import rfc8785
from pydantic import AfterValidator, BaseModel, ConfigDict

JsonValue = Any
"""A value that JSON can carry. Spelled `Any` because mypy has no useful recursive type for it."""

JsonObject = dict[str, JsonValue]

IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class Value(BaseModel):
    """A frozen value: unknown fields are refused, and it never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


def _checked_identifier(text: str) -> str:
    if not IDENTIFIER.fullmatch(text):
        raise ValueError("must start with a letter and hold at most 64 letters, digits, '_' and '-'")
    return text


Identifier = Annotated[str, AfterValidator(_checked_identifier)]
"""The name of a step or a server: a letter, then up to 63 letters, digits, `_` and `-`."""


def canonical(value: JsonValue) -> bytes:
    """The RFC 8785 form of a JSON value.

    Raises: ValueError where RFC 8785 cannot carry the value exactly (an integer beyond 2**53 - 1, NaN or
    infinity, a lone surrogate) or it is nested too deeply to be walked.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(str(error) or "nested too deeply") from error


def deeper_than(value: JsonValue, limit: int) -> bool:
    """Whether arrays and objects are nested in each other more than `limit` deep; safe to ask of any value."""
    level = [value]
    for _ in range(limit + 1):
        nested = [item for item in level if isinstance(item, dict | list | tuple)]
        level = [inner for item in nested for inner in (item.values() if isinstance(item, dict) else item)]
        if not nested:
            return False
    return True


def digest(value: JsonValue) -> str:
    """`sha256:` and the hex SHA-256 of the RFC 8785 form. Raises: ValueError as `canonical` does."""
    return digest_of_bytes(canonical(value))


def digest_of_bytes(data: bytes) -> str:
    """`sha256:` and the hex SHA-256 of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
