"""Server-Sent Events, read from the journal: one stream for the old client and the new one (G8).

For event 7 a named frame `7.0` with its JSON, and where it is worth a line to a person an unnamed frame `7.1` with
that line; after the terminal event one unnamed `[DONE]`, `<last>.2`. What a model is writing just now comes in between
as named `progress` frames without an id: they are no facts, and are not sent again.

sse-starlette puts the frames into the words of the wire; the response around them is our own, because theirs runs four
tasks for each stream where two suffice, and polls for the shutdown from a task that nobody owns.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import structlog
from sse_starlette.event import ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_runtime.api.problems import BadRequestError, TooManyStreamsError, of_error
from agent_runtime.api.views import record_json
from agent_runtime.config import LimitSettings
from agent_runtime.domain import events as ev
from agent_runtime.domain.contract import Contract
from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.task import Task
from agent_runtime.services.progress import Piece, Progress
from agent_runtime.services.task_manager import TaskManager
from agent_runtime.text.escaping import one_line

log = structlog.get_logger()

View = Literal["all", "events", "log"]

EVENT, LINE, DONE = 0, 1, 2
"""The parts of an event's frame ids: the named frame, the log line, the end of the stream."""

_ID = re.compile(r"(?P<seq>[0-9]{1,15})(?:\.(?P<part>[012]))?")
_LAST = (ev.PlanRejected, ev.TaskCompleted, ev.TaskFailed, ev.TaskCancelled, ev.TaskExpired)
_MOST_BYTES = 256 * 1024
"""What is sent at once at most, give or take one frame, so that a slow client costs little memory."""

_KEEP_ALIVE = b": keep-alive\n\n"


class Position(NamedTuple):
    """The last frame that a client has seen; `(0, 2)` before the first."""

    seq: int
    part: int


def position(text: str) -> Position:
    """Read a frame id; a bare `7` means all of event 7. Raises: BadRequestError."""
    match = _ID.fullmatch(text)
    if match is None:
        raise BadRequestError(f"{text[:40]!r} is not the id of a frame: send back one that this stream gave, as '7.1'.")
    return Position(int(match["seq"]), DONE if match["part"] is None else int(match["part"]))


def encode(record: EventRecord) -> tuple[bytes, bytes]:
    """The frames of an event: the named one, and the unnamed one with its log line, empty where it has none."""
    seq = record.seq
    line = log_line(record)
    event = _frame(f"{seq}.{EVENT}", record_json(record), record.type)
    return event, _frame(f"{seq}.{LINE}", line) if line else b""


def progress(task_id: str, piece: Piece) -> bytes:
    """The frame of some text that a model has just written."""
    data = json.dumps({"task_id": task_id, "step_id": piece.step_id, "text": piece.text})
    return ServerSentEvent(data, event="progress", sep="\n").encode()


def done(seq: int) -> bytes:
    """The frame that ends the stream of a task whose last event is number `seq`."""
    return _frame(f"{seq}.{DONE}", "[DONE]")


def _frame(frame_id: str, data: str, event: str | None = None) -> bytes:
    return ServerSentEvent(data, event=event, id=frame_id, sep="\n").encode()


def frames_after(records: Iterable[EventRecord], seen: Position, view: View) -> Iterator[bytes]:
    """The frames that follow a position, in order, `[DONE]` included."""
    for record in records:
        event, line = encode(record)
        first = seen.part + 1 if record.seq == seen.seq else EVENT
        if view != "log" and first <= EVENT:
            yield event
        if view != "events" and first <= LINE and line:
            yield line
        if isinstance(record.event, _LAST) and first <= DONE:
            yield done(record.seq)


def log_line(record: EventRecord) -> str | None:
    """The event in one plain line to a person, or None where it is not worth one."""
    say = _LINES.get(type(record.event))
    return one_line(say(record.event)) if say else None


def _proposed(event: ev.PlanProposed) -> str:
    revision = f" as revision {event.revision}" if event.revision > 1 else ""
    return f"Plan proposed{revision}, {_steps(event.contract)}"


def _edited(event: ev.PlanEdited) -> str:
    return f"Plan edited{_by(event.actor)}, now revision {event.revision}, {_steps(event.contract)}"


def _repinned(event: ev.PlanRepinned) -> str:
    return f"The plan awaits approval anew, as revision {event.revision}: {' '.join(event.differences)}"


def _steps(contract: Contract) -> str:
    count = "1 step" if len(contract.steps) == 1 else f"{len(contract.steps)} steps"
    return f"{count}: {'; '.join(step.title for step in contract.steps)}"


def _by(actor: str) -> str:
    if actor == ev.ANONYMOUS:
        return ""
    return " by the operator's policy" if actor == ev.POLICY else f" by {actor}"


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else "."


def _answered(event: ev.ModelAnswered) -> str:
    if not event.calls:
        return f"The model answered for step {event.step_id}."
    return f"The model asks for {', '.join(call.name for call in event.calls)} in step {event.step_id}."


def _called(event: ev.ToolCalled) -> str:
    again = f", attempt {event.attempt}" if event.attempt > 1 else ""
    return f"Step {event.step_id} calls {event.server}.{event.tool}{again}."


def _returned(event: ev.ToolReturned) -> str:
    verb = "got an error" if event.result.is_error else "got its answer"
    return f"Step {event.step_id} {verb} after {event.duration_ms:.0f} ms{_because(event.result.text)}"


def _unknown(event: ev.StepOutcomeUnknown) -> str:
    return f"Step {event.step_id} needs you: whether its call took effect is not known{_because(event.reason)}"


def _cancelled(event: ev.TaskCancelled) -> str:
    steps = f" The outcome is not known of: {', '.join(event.unknown_steps)}." if event.unknown_steps else ""
    return f"Cancelled.{steps}"


_LINES: dict[type[ev.Event], Callable[[Any], str]] = {
    ev.TaskSubmitted: lambda event: f"Submitted: {event.prompt}",
    ev.PlanProposed: _proposed,
    ev.PlanApproved: lambda event: f"Plan approved{_by(event.actor)}.",
    ev.PlanRejected: lambda event: f"Plan rejected{_by(event.actor)}{_because(event.reason)}",
    ev.PlanRevisionRequested: lambda event: f"Another plan was asked for{_by(event.actor)}: {event.feedback}",
    ev.PlanEdited: _edited,
    ev.PlanRepinned: _repinned,
    ev.StepStarted: lambda event: f"Step {event.step_id} started: {event.title}",
    ev.ModelAnswered: _answered,
    ev.ToolCalled: _called,
    ev.ToolReturned: _returned,
    ev.ToolDenied: lambda event: f"Step {event.step_id} was not allowed its call: {event.message}",
    ev.CallApprovalRequested: lambda event: (
        f"Step {event.step_id} asks for its call of {event.server}.{event.tool}: {event.reason}"
    ),
    ev.CallApproved: lambda event: f"Call of step {event.step_id} approved{_by(event.actor)}.",
    ev.CallDenied: lambda event: f"Call of step {event.step_id} denied{_by(event.actor)}{_because(event.comment)}",
    ev.StepCompleted: lambda event: f"Step {event.step_id} completed.",
    ev.StepFailed: lambda event: f"Step {event.step_id} failed: {event.message}",
    ev.StepSkipped: lambda event: f"Step {event.step_id} skipped: {event.reason}",
    ev.StepOutcomeUnknown: _unknown,
    ev.StepResolved: lambda event: f"Step {event.step_id} resolved{_by(event.actor)} as {event.resolution}.",
    ev.TaskCancelRequested: lambda event: f"Cancel requested{_by(event.actor)}{_because(event.reason)}",
    ev.TaskCompleted: lambda event: f"Completed{_because(event.result)}",
    ev.TaskFailed: lambda event: f"Failed: {event.message}",
    ev.TaskCancelled: _cancelled,
    ev.TaskExpired: lambda event: f"Expired: revision {event.revision} of the plan was not approved in time.",
}


class Streams:
    """The streams that are open now: at most `limit`, all of them closed at once when the service stops."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def admit(self, pump: "asyncio.Task[None]") -> Iterator[None]:
        """Count a stream while it is open."""
        self._open.add(pump)
        if self._closed:
            pump.cancel()
        try:
            yield
        finally:
            self._open.discard(pump)

    def check(self) -> None:
        """Raises: TooManyStreamsError where there is no room for one more."""
        if len(self._open) >= self._limit or self._closed:
            allowed_by = "limits.stream_clients and the limit of open files allow"
            raise TooManyStreamsError(f"{self._limit} streams are open, as many as {allowed_by}.")

    def close(self) -> None:
        """End all streams now; their clients come back to whoever serves them next."""
        self._closed = True
        for pump in self._open:
            pump.cancel()


@dataclass(frozen=True, slots=True)
class Request:
    """What one client asked for. `task` is the state when it asked."""

    task: Task
    seen: Position
    view: View

    @property
    def after(self) -> int:
        """From which event on to read: where a part of one is still to be sent, it is read once more."""
        return self.seen.seq if self.seen.part == DONE else max(0, self.seen.seq - 1)


def requested(task: Task, last_event_id: str | None, after: str | None, view: str | None) -> Request | None:
    """What the client is to get; None where the task has ended and the client has it all.

    `Last-Event-ID` beats `?after=`. Raises: BadRequestError.
    """
    given = last_event_id or after
    seen = position(given) if given else Position(0, DONE)
    if seen.seq > task.version:
        raise BadRequestError(f"{given!r} is beyond the end of this journal, whose last event is {task.version}.")
    if view is not None and view not in {"events", "log"}:
        raise BadRequestError(f"There is no view {view[:40]!r}; there are 'events' and 'log', and both without it.")
    if task.terminal and seen == (task.version, DONE):
        return None
    return Request(task, seen, next((name for name in get_args(View) if name == view), "all"))


class StreamResponse(Response):
    """The frames after a position, live, until the task ends, the client goes or the service stops."""

    media_type = "text/event-stream"

    def __init__(
        self,
        tasks: TaskManager,
        limits: LimitSettings,
        streams: Streams,
        request: Request,
        heard: Progress | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._tasks = tasks
        self._streams = streams
        self._request = request
        self._heard = None if request.view == "log" or request.task.terminal else heard
        # A little early, so that the promise holds on a busy machine.
        self._idle_s = 0.9 * limits.keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._streams.check()
        except TooManyStreamsError as error:
            await of_error(scope, error)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if not scope.get("is_head"):
            await self._run(receive, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _run(self, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            pump = group.create_task(self._pump(send))
            gone = group.create_task(_client_gone(receive))
            gone.add_done_callback(lambda _: pump.cancel())
            beside = [gone]
            if self._heard is not None:
                beside.append(group.create_task(self._repeat(self._heard, send)))
            with self._streams.admit(pump):
                await asyncio.wait([pump])
            for other in beside:
                other.cancel()

    async def _repeat(self, heard: Progress, send: Send) -> None:
        """What the models of the task say, as they say it."""
        task_id = self._request.task.task_id
        with heard.listen(task_id) as listener:
            while True:
                body = b"".join(progress(task_id, piece) for piece in await listener.take())
                await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._bodies()) as bodies:
            async for body in bodies:
                await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _bodies(self) -> AsyncGenerator[bytes, None]:
        """All frames that are ready, together; a comment where there was nothing to say for a while."""
        task, seen, view = self._request.task, self._request.seen, self._request.view
        follow = self._tasks.follow(task.task_id, self._request.after, idle_s=self._idle_s)
        try:
            async with aclosing(follow) as batches:
                async for records in batches:
                    if not records:
                        yield _KEEP_ALIVE
                    for body in joined(frames_after(records, seen, view)):
                        yield body
        except TaskNotFoundError:  # deleted between the answer's head and its body
            log.info("stream_of_deleted_task", task_id=task.task_id)


def joined(frames: Iterable[bytes]) -> Iterator[bytes]:
    """The frames in as few pieces as may be."""
    ready: list[bytes] = []
    size = 0
    for frame in frames:
        ready.append(frame)
        size += len(frame)
        if size >= _MOST_BYTES:
            yield b"".join(ready)
            ready, size = [], 0
    if ready:
        yield b"".join(ready)


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
