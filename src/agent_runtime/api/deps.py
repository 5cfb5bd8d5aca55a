"""What handlers need of a request: the running service, the task it names, the body it carries."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, TypeVar

from fastapi import Path, Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.responses import Response

from agent_runtime.api.edge import too_large
from agent_runtime.api.faults import WHOLE, faults_of
from agent_runtime.api.problems import BadRequestError, BodyTooLargeError
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.errors import Fault, InvalidInputError, InvalidPlanError, TaskNotFoundError
from agent_runtime.domain.plan import FREE_FIELDS, Plan
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import LARGE_BYTES, JsonValue, deeper_than, has_more_parts
from agent_runtime.text.escaping import cut

TaskId = Annotated[str, Path(description="The id that `POST /v1/tasks` gave.", examples=["task_0193c2f5a1b2"])]

_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BOTH_HALVES = (
    r"a \u escape there is half of a surrogate pair, which is no character: send the character itself in UTF-8, "
    "or both halves"
)
_TAG = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
_ENTITY_TAG = re.compile(_TAG)
_ENTITY_TAGS = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")

_MOST_PARTS = 20_000
"""More fields and entries than any plan has: the checker would go through all of them, and name every fault."""

_FREE_FIELDS = FREE_FIELDS | {"output", "preview"}
_TOO_MANY_PARTS = (
    f"It has more than {_MOST_PARTS} fields and entries, beside the arguments of steps; the fields are listed at /docs."
)

Body = TypeVar("Body", bound=BaseModel)
Judged = TypeVar("Judged")


def runtime_of(request: Request) -> Runtime:
    """The running service."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def whole_journals(request: Request) -> asyncio.Semaphore:
    """Return what is held while an answer is made from a whole journal. One at a time: many would take all threads."""
    gate: asyncio.Semaphore = request.app.state.whole_journals
    return gate


def known_form(task_id: str) -> str:
    """The id, if it could be one of ours. Raises: TaskNotFoundError."""
    if not _TASK_ID.fullmatch(task_id):
        raise TaskNotFoundError(task_id[:100])
    return task_id


async def judge_body(request: Request, judge: Callable[[JsonValue], Judged]) -> Judged:
    """Return what `judge` makes of the JSON body; it gets an empty object where the request has no body.

    A large body is parsed and judged in a thread, one at a time, so that everybody else is still answered.
    Raises: as `judge`, and BodyTooLargeError, InvalidInputError where there is so much in it that to name what is wrong
    would take long, BadRequestError saying where the JSON is broken, or which key is repeated
    (readers differ on which value of it counts, so that a person and a program could see different ones), or that the
    body is not all there.
    """
    limits = runtime_of(request).settings.limits
    data = await _read(request, limits.body_bytes)
    _check_complete(request, len(data))
    if len(data) <= LARGE_BYTES:
        return judge(_parse(data, limits.json_depth))
    gate: asyncio.Semaphore = request.app.state.large_bodies
    async with gate:
        return await asyncio.to_thread(lambda: judge(_parse(data, limits.json_depth)))


def _parse(data: bytes, depth: int) -> JsonValue:
    if not data:
        return {}
    try:
        value = from_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        why = str(error)
        if "hex escape" in why and _SURROGATE.search(data):
            why = f"{why}: {_BOTH_HALVES}"
        raise BadRequestError(f"The body is not JSON: {why}.") from error
    if deeper_than(value, depth):
        raise BadRequestError(f"The body is nested more than {depth} deep (limits.json_depth).")
    if len(data) > 2 * _MOST_PARTS and has_more_parts(value, _MOST_PARTS, _FREE_FIELDS):
        raise InvalidInputError([Fault(WHOLE, _TOO_MANY_PARTS)])
    # The quick parser does not tell of repeated keys. By now the body is sound and not too deep for the other one.
    json.loads(data.decode(), object_pairs_hook=_check_keys, parse_int=float)
    return value


def _check_keys(pairs: Sequence[tuple[str, None]]) -> None:
    if len(dict(pairs)) == len(pairs):
        return
    seen = set[str]()
    for name, _ in pairs:
        if name in seen:
            raise BadRequestError(
                f"The body has the field {cut(name, 80)!r} more than once in one object: send it once."
            )
        seen.add(name)


def _check_complete(request: Request, size: int) -> None:
    """Raise BadRequestError unless all of the body came that the head announced.

    What was announced and did not come is never "no body", whatever server carried the request here: an approval
    without a body approves without naming a plan.
    """
    length = request.headers.get("content-length")
    announced = length not in {None, "0", str(size)} or (size == 0 and "transfer-encoding" in request.headers)
    if announced:
        raise BadRequestError(
            f"The body is not the one that the head of the request announced: {size} bytes of it came. "
            "Send all of it, or neither Content-Length nor Transfer-Encoding."
        )


async def make_answer(request: Request, task: Task, make: Callable[[], Response]) -> Response:
    """Return the answer that `make` makes of a task; of a large one in a thread, as a large body is judged."""
    if task.journal_bytes <= LARGE_BYTES:
        return make()
    gate: asyncio.Semaphore = request.app.state.large_bodies
    async with gate:
        return await asyncio.to_thread(make)


async def _read(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise BodyTooLargeError(too_large(limit))
        chunks.append(chunk)
    return b"".join(chunks)


async def read_body(request: Request, task_id: str, kind: type[Body]) -> Body:
    """The body of a call on one task. Raises: as `known_form`, `judge_body` and `decode`, in this order."""
    known_form(task_id)
    return await judge_body(request, partial(decode, kind))


def decode(kind: type[Body], value: JsonValue) -> Body:
    """The body as a checked value. Raises: InvalidInputError naming every fault."""
    try:
        return kind.model_validate(value, strict=True)
    except ValidationError as error:
        raise InvalidInputError(faults_of(error.errors(include_url=False, include_input=False))) from error


def parse_plan(value: JsonValue) -> Plan:
    """The ready-made plan of a body. A `preview` in a step, which is ours, is passed over.

    Raises: InvalidPlanError naming every fault.
    """
    try:
        return Plan.model_validate(_without_previews(value))
    except ValidationError as error:
        raise InvalidPlanError(faults_of(error.errors(include_url=False, include_input=False), "plan")) from error


def _without_previews(value: JsonValue) -> JsonValue:
    steps = value.get("steps") if isinstance(value, dict) else None
    if not isinstance(steps, list):
        return value
    without = [
        {name: field for name, field in step.items() if name != "preview"} if isinstance(step, dict) else step
        for step in steps
    ]
    return {**value, "steps": without}


def if_match(request: Request) -> frozenset[str] | None:
    """The strong entity tags of the header `If-Match` (RFC 9110, section 13.1.1), without their quotes.

    None where there is no such header, or `*`, which names none. A weak tag never matches (section 8.8.3.2), so it is
    left out. Raises: BadRequestError where it is not of that form.
    """
    lines = request.headers.getlist("if-match")
    text = ", ".join(lines).strip()
    if not lines or text == "*":
        return None
    if not _ENTITY_TAGS.fullmatch(text):
        raise BadRequestError('If-Match must be the ETag of the task, in its quotes: "sha256:...".')
    return frozenset(tag for weak, tag in _ENTITY_TAG.findall(text) if not weak)


def idempotency_key(request: Request) -> str | None:
    """The header `Idempotency-Key`: 1 to 255 visible ASCII characters. Raises: InvalidInputError."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidInputError([Fault("Idempotency-Key", "It must be 1 to 255 visible ASCII characters, no spaces.")])
    return key
