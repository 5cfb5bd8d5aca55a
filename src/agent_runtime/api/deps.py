"""Dependencies of the handlers: the running service, the caller, and the headers of a request."""

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from fastapi import Depends, Header, Request
from pydantic.json_schema import SkipJsonSchema
from starlette.responses import Response

from agent_runtime.api.auth import caller_of
from agent_runtime.api.bodies import FRAME_ID
from agent_runtime.api.json_bodies import off_loop
from agent_runtime.api.json_route import JudgedRequest
from agent_runtime.api.problems import BadRequestError
from agent_runtime.api.submissions import RepeatKey, digest_body
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import LARGE_BYTES

_TAG = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
_ENTITY_TAG = re.compile(_TAG)
_ENTITY_TAGS = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def _runtime(request: Request) -> Runtime:
    return runtime_of(request)


async def _caller(request: Request) -> Caller:
    return caller_of(request.scope)


LastEventId = Annotated[
    str | SkipJsonSchema[None],
    Header(
        alias="Last-Event-ID",
        description="The id of the last frame that the client has received.",
        json_schema_extra=FRAME_ID,
    ),
]
"""The header `Last-Event-ID` of a stream."""

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


ENTITY_TAGS_PATTERN = rf"^(\*|{_ENTITY_TAGS.pattern})$"
"""A regular expression for `If-Match` and `If-None-Match`."""

EntityTags = frozenset[str] | Literal["*"] | None
"""The strong entity tags of a header, without their quotes; None without the header."""


def read_entity_tags(request: Request, header: str) -> EntityTags:
    """Return the entity tags of `If-Match` or `If-None-Match` (RFC 9110, section 13.1).

    Weak tags are left out, as they never match (section 8.8.3.2). Raises: BadRequestError if the header is malformed.
    """
    lines = request.headers.getlist(header)
    text = ", ".join(lines).strip()
    if not lines:
        return None
    if text == "*":
        return "*"
    if not _ENTITY_TAGS.fullmatch(text):
        raise BadRequestError(f'{header} must be an ETag of this address, in its quotes: "...".')
    return frozenset(tag for weak, tag in _ENTITY_TAG.findall(text) if not weak)


_IfMatch = Annotated[
    str | SkipJsonSchema[None],
    Header(
        alias="If-Match",
        description="The digest of the plan that was edited, in quotes.",
        json_schema_extra={"pattern": ENTITY_TAGS_PATTERN},
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
    """Return the entity tags of the header `If-Match`; None without it, or if it is `*`, which names no tag.

    Raises: BadRequestError if the header is malformed.
    """
    del if_match  # declared for the API description; the header may be sent in several lines
    tags = read_entity_tags(request, "If-Match")
    return None if tags == "*" else tags


EditedDigests = Annotated[frozenset[str] | None, Depends(_if_match)]
"""The digests of the plan that was edited, from `If-Match`."""


async def _repeat_key(request: Request, idempotency_key: _IdempotencyKey = None) -> RepeatKey:
    """Return the header `Idempotency-Key` and the digest of the body. Raises: InvalidInputError."""
    if idempotency_key is None:
        return RepeatKey()
    if not _KEY.fullmatch(idempotency_key):
        raise InvalidInputError([Fault("Idempotency-Key", "It must be 1 to 255 visible ASCII characters, no spaces.")])
    assert isinstance(request, JudgedRequest)  # noqa: S101 - every `JsonRoute` passes one
    size = int(request.headers.get("content-length", LARGE_BYTES + 1))
    return RepeatKey(idempotency_key, await off_loop(request, size, partial(digest_body, request.value)))


RequestKey = Annotated[RepeatKey, Depends(_repeat_key)]
