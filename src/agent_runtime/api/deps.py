"""Dependencies of the handlers: the running service, the caller, and the headers of a request."""

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
"""The caller that the edge has authenticated."""


def runtime_of(request: Request) -> Runtime:
    """Return the running service."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def whole_journals(request: Request) -> asyncio.Semaphore:
    """Return the semaphore to hold while an answer reads a whole journal: one at a time, so that threads remain."""
    gate: asyncio.Semaphore = request.app.state.whole_journals
    return gate


async def make_answer(request: Request, task: Task, make: Callable[[], Response]) -> Response:
    """Return the answer that `make` creates from a task, in a thread if the task is large."""
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
        description="A repeated request with the same key and body returns the same task.",
        json_schema_extra={"pattern": f"^{_KEY.pattern}$"},
    ),
]


async def _if_match(request: Request, if_match: _IfMatch = None) -> frozenset[str] | None:
    """Return the strong entity tags of the header `If-Match` (RFC 9110, section 13.1.1), without their quotes.

    None without the header, or if it is `*`, which names no tag. Weak tags are left out, as they never match (section
    8.8.3.2). Raises: BadRequestError if the header is malformed.
    """
    del if_match  # declared for the API description; the header may be sent in several lines
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
    """Identifies a repeated request, which returns the same task: the key of the caller, and the digest of the body."""

    key: str | None = None
    digest: str | None = None


async def _repeat_key(request: Request, idempotency_key: _IdempotencyKey = None) -> RepeatKey:
    """Return the header `Idempotency-Key` and the digest of the body. Raises: InvalidInputError."""
    if idempotency_key is None:
        return RepeatKey()
    if not _KEY.fullmatch(idempotency_key):
        raise InvalidInputError([Fault("Idempotency-Key", "It must be 1 to 255 visible ASCII characters, no spaces.")])
    assert isinstance(request, JudgedRequest)  # noqa: S101 - every `JsonRoute` passes one
    size = int(request.headers.get("content-length", LARGE_BYTES + 1))
    return RepeatKey(idempotency_key, await off_loop(request, size, partial(_digest, request.value)))


RequestKey = Annotated[RepeatKey, Depends(_repeat_key)]


def _digest(value: JsonValue) -> str:
    try:
        return digest(value)
    except ValueError as error:
        raise InvalidInputError([Fault(WHOLE, f"A value cannot be represented exactly: {error}.")]) from error
