"""JSON bodies: limited in size, depth and number of parts, without repeated keys, and large ones parsed in a thread
(G11, G13).
"""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic_core import from_json
from starlette.requests import HTTPConnection, Request

from agent_runtime.api.edge import too_large
from agent_runtime.api.faults import WHOLE
from agent_runtime.api.problems import BadRequestError, BodyTooLargeError
from agent_runtime.config import LimitSettings
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.domain.plan import FREE_FIELDS
from agent_runtime.domain.values import LARGE_BYTES, JsonValue, has_more_parts, is_deeper_than
from agent_runtime.text.escaping import cut

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BOTH_HALVES = (
    r"a \u escape there is half of a surrogate pair, which is no character: send the character itself in UTF-8, "
    "or both halves"
)

_MOST_PARTS = 20_000
"""The limit of fields and entries. No plan has as many, and validation would visit all of them to list every fault."""

_FREE_FIELDS = FREE_FIELDS | {"output", "preview"}
_TOO_MANY_PARTS = (
    f"It has more than {_MOST_PARTS} fields and entries, beside the arguments of steps; the fields are listed at /docs."
)

Made = TypeVar("Made")


async def judge_body(request: Request, judge: Callable[[JsonValue], Made]) -> Made:
    """Parse the JSON body and return the result of `judge`, which gets an empty object if there is no body.

    A large body is parsed and judged in a thread, one at a time, so that other requests are still answered.
    Raises: all errors of `judge`; BodyTooLargeError; InvalidInputError if the body has too many parts;
    BadRequestError if it is not JSON, if it is incomplete, or if a key is repeated. JSON readers differ on which value
    of a repeated key counts, so a person and a program could see different values.
    """
    limits: LimitSettings = request.app.state.runtime.settings.limits
    data = await _read(request, limits.body_bytes)
    _check_complete(request, len(data))
    return await off_loop(request, len(data), lambda: judge(parse_json(data, limits.json_depth)))


async def off_loop(request: HTTPConnection, size: int, make: Callable[[], Made]) -> Made:
    """Return the result of `make`. For a large `size` in bytes it runs in a thread, for one request at a time."""
    if size <= LARGE_BYTES:
        return make()
    gate: asyncio.Semaphore = request.app.state.large_bodies
    async with gate:
        return await asyncio.to_thread(make)


def parse_json(data: bytes, depth: int, what: str = "body") -> JsonValue:
    """Parse a body or a message; no bytes are an empty object. Raises: BadRequestError, InvalidInputError."""
    if not data:
        return {}
    try:
        value = from_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        why = str(error)
        if "hex escape" in why and _SURROGATE.search(data):
            why = f"{why}: {_BOTH_HALVES}"
        raise BadRequestError(f"The {what} is not JSON: {why}.") from error
    if is_deeper_than(value, depth):
        raise BadRequestError(f"The {what} is nested more than {depth} deep (limits.json_depth).")
    if len(data) > 2 * _MOST_PARTS and has_more_parts(value, _MOST_PARTS, _FREE_FIELDS):
        raise InvalidInputError([Fault(WHOLE, _TOO_MANY_PARTS)])
    # The fast parser does not report repeated keys. The body is valid and not too deep for the slow one by now.
    json.loads(data.decode(), object_pairs_hook=_check_keys, parse_int=float)
    return value


def _check_keys(pairs: Sequence[tuple[str, None]]) -> None:
    if len(dict(pairs)) == len(pairs):
        return
    seen = set[str]()
    for name, _ in pairs:
        if name in seen:
            raise BadRequestError(f"The field {cut(name, 80)!r} is there more than once in one object: send it once.")
        seen.add(name)


def _check_complete(request: Request, size: int) -> None:
    """Check that the body has the length that the head announced. Raises: BadRequestError.

    A missing body must never count as an empty one, whatever HTTP server is used: an approval without a body approves
    a plan without naming it.
    """
    length = request.headers.get("content-length")
    announced = length not in {None, "0", str(size)} or (size == 0 and "transfer-encoding" in request.headers)
    if announced:
        raise BadRequestError(
            f"The head of the request announced another body: {size} bytes arrived. "
            "Send all of it, or neither Content-Length nor Transfer-Encoding."
        )


async def _read(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise BodyTooLargeError(too_large(limit))
        chunks.append(chunk)
    return b"".join(chunks)
