"""What handlers need of a request: the running service, the caller, the task it names, what its headers say."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic.json_schema import SkipJsonSchema
from starlette.responses import Response

from agent_runtime.api.auth import caller_of
from agent_runtime.api.faults import WHOLE
from agent_runtime.api.json_bodies import off_loop
from agent_runtime.api.json_route import JudgedRequest
from agent_runtime.api.problems import BadRequestError
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import LARGE_BYTES, JsonValue, digest

_TAG = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
_ENTITY_TAG = re.compile(_TAG)
_ENTITY_TAGS = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def _runtime(request: Request) -> Runtime:
    return runtime_of(request)


async def _caller(request: Request) -> Caller:
    return caller_of(request.scope)


Service = Annotated[Runtime, Depends(_runtime)]
"""The running service."""

CurrentCaller = Annotated[Caller, Depends(_caller)]
"""Who calls, as the edge found out."""


def runtime_of(request: Request) -> Runtime:
    """The running service."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def whole_journals(request: Request) -> asyncio.Semaphore:
    """Return what is held while an answer is made from a whole journal. One at a time: many would take all threads."""
    gate: asyncio.Semaphore = request.app.state.whole_journals
    return gate


async def make_answer(request: Request, task: Task, make: Callable[[], Response]) -> Response:
    """Return the answer that `make` makes of a task; of a large one in a thread, as a large body is judged."""
    return await off_loop(request, task.journal_bytes, make)


_IfMatch = Annotated[
    str | SkipJsonSchema[None],
    Header(
        alias="If-Match",
        description="The digest of the plan that was edited, in quotes.",
        json_schema_extra={"pattern": rf"^(\*|{_ENTITY_TAGS.pattern})$"},
    ),
]
_IdempotencyKey = Annotated[
    str | SkipJsonSchema[None],
    Header(
        alias="Idempotency-Key",
        description="Makes a repetition give the same task.",
        json_schema_extra={"pattern": f"^{_KEY.pattern}$"},
    ),
]


async def _if_match(request: Request, if_match: _IfMatch = None) -> frozenset[str] | None:
    """Return the strong entity tags of the header `If-Match` (RFC 9110, section 13.1.1), without their quotes.

    None where there is no such header, or `*`, which names none. A weak tag never matches (section 8.8.3.2), so it is
    left out. Raises: BadRequestError where it is not of that form.
    """
    del if_match  # it may have several lines
    lines = request.headers.getlist("if-match")
    text = ", ".join(lines).strip()
    if not lines or text == "*":
        return None
    if not _ENTITY_TAGS.fullmatch(text):
        raise BadRequestError('If-Match must be the ETag of the task, in its quotes: "sha256:...".')
    return frozenset(tag for weak, tag in _ENTITY_TAG.findall(text) if not weak)


EditedDigests = Annotated[frozenset[str] | None, Depends(_if_match)]
"""The digests of the plan that was edited, from `If-Match`."""


@dataclass(frozen=True, slots=True)
class RepeatKey:
    """What makes a repetition of a request give the same task: the caller's key, and the digest of the body."""

    key: str | None = None
    digest: str | None = None


async def _repeat_key(request: Request, idempotency_key: _IdempotencyKey = None) -> RepeatKey:
    """Return the header `Idempotency-Key` and the digest of the body. Raises: InvalidInputError."""
    if idempotency_key is None:
        return RepeatKey()
    if not _KEY.fullmatch(idempotency_key):
        raise InvalidInputError([Fault("Idempotency-Key", "It must be 1 to 255 visible ASCII characters, no spaces.")])
    assert isinstance(request, JudgedRequest)  # noqa: S101 - of every `JsonRoute`
    size = int(request.headers.get("content-length", LARGE_BYTES + 1))
    return RepeatKey(idempotency_key, await off_loop(request, size, partial(_digest, request.value)))


RequestKey = Annotated[RepeatKey, Depends(_repeat_key)]


def _digest(value: JsonValue) -> str:
    try:
        return digest(value)
    except ValueError as error:
        raise InvalidInputError([Fault(WHOLE, f"A value cannot be carried exactly: {error}.")]) from error
