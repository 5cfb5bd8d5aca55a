"""Server-Sent Events from the journal: one stream of `frames` serves clients of both views (G8).

sse-starlette formats the frames. The response is our own: theirs runs four asyncio tasks per stream where two suffice,
and polls for the shutdown from a task that nobody owns.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_runtime.api.bodies import StreamQuery
from agent_runtime.api.frames import (
    DONE,
    Position,
    View,
    frames_after,
    join_frames,
    parse_position,
    piece_frames,
    sse_frame,
)
from agent_runtime.api.problems import BadRequestError, TooManyStreamsError, problem_of
from agent_runtime.bootstrap import Runtime
from agent_runtime.config import LimitSettings
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.task import Task
from agent_runtime.live.progress import Progress
from agent_runtime.services.task_manager import TaskManager

log = structlog.get_logger()

KEEP_ALIVE = b": keep-alive\n\n"


class Streams:
    """The open streams: at most `limit`. All are closed when the service stops."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def closed(self) -> bool:
        """True once the service stops."""
        return self._closed

    @contextmanager
    def admit(self, pump: "asyncio.Task[Any]") -> Iterator[None]:
        """Count a stream while it is open."""
        self._open.add(pump)
        if self._closed:
            pump.cancel()
        try:
            yield
        finally:
            self._open.discard(pump)

    def check(self) -> None:
        """Check that one more stream may open. Raises: TooManyStreamsError."""
        if len(self._open) >= self._limit or self._closed:
            allowed_by = "limits.stream_clients and the limit of open files allow"
            raise TooManyStreamsError(f"{self._limit} streams are open, as many as {allowed_by}.")

    def close(self) -> None:
        """End all streams now. Their clients reconnect to the next process."""
        self._closed = True
        for pump in self._open:
            pump.cancel()


@dataclass(frozen=True, slots=True)
class Request:
    """The stream that one client requested. `task` is its state at the time of the request."""

    task: Task
    seen: Position
    view: View

    @property
    def after(self) -> int:
        """The event to read after. An event that was sent only in part is read again."""
        return self.seen.seq if self.seen.part == DONE else max(0, self.seen.seq - 1)


def read_request(task: Task, last_event_id: str | None, after: str | None, view: str | None) -> Request | None:
    """Return the stream to send, or None if the task has ended and the client has all of it.

    `Last-Event-ID` takes precedence over `?after=`. Raises: BadRequestError.
    """
    given = last_event_id or after
    seen = parse_position(given) if given else Position(0, DONE)
    if seen.seq > task.version:
        raise BadRequestError(f"{given!r} is beyond the end of this journal, whose last event is {task.version}.")
    if view is not None and view not in {"events", "log"}:
        raise BadRequestError(f"There is no view {view[:40]!r}: use 'events' or 'log', or no view for both.")
    if task.terminal and seen == (task.version, DONE):
        return None
    return Request(task, seen, next((name for name in get_args(View) if name == view), "all"))


class StreamResponse(Response):
    """Sends the frames of `bodies` until they end, the client disconnects or the service stops.

    Frames of `asides` are sent in between, as long as `bodies` lasts.
    """

    media_type = "text/event-stream"

    def __init__(
        self, streams: Streams, bodies: AsyncGenerator[bytes, None], asides: AsyncGenerator[bytes, None] | None = None
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._streams = streams
        self._bodies = bodies
        self._asides = asides

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._streams.check()
        except TooManyStreamsError as error:
            await problem_of(scope, error)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if not scope.get("is_head"):
            await self._run(receive, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _run(self, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            pump = group.create_task(_pump(self._bodies, send))
            gone = group.create_task(_client_gone(receive))
            gone.add_done_callback(lambda _: pump.cancel())
            beside = [gone]
            if self._asides is not None:
                beside.append(group.create_task(_pump(self._asides, send)))
            with self._streams.admit(pump):
                await asyncio.wait([pump])
            for other in beside:
                other.cancel()


async def answer_stream(
    streams: Streams, runtime: Runtime, caller: Caller, task_id: str, last_event_id: str | None, query: StreamQuery
) -> Response:
    """Return the response that streams a task; 204 if it has ended, and the client has all of it.

    Raises: TaskNotFoundError, BadRequestError.
    """
    task = await runtime.tasks.get(task_id, caller)
    wanted = read_request(task, last_event_id, query.after, query.view)
    if wanted is None:
        return Response(status_code=204)
    bodies = task_bodies(runtime.tasks, caller, runtime.settings.limits, wanted)
    asides = None if task.terminal else progress_bodies(runtime.progress, task_id, wanted.view)
    return StreamResponse(streams, bodies, asides)


async def task_bodies(
    tasks: TaskManager, caller: Caller, limits: LimitSettings, request: Request
) -> AsyncGenerator[bytes, None]:
    """Yield all frames of a task that are ready, together, or a comment after a time without frames."""
    task = request.task
    follow = tasks.follow(task.task_id, caller, request.after, idle_s=idle_s(limits))
    try:
        async with aclosing(follow) as batches:
            async for records in batches:
                if not records:
                    yield KEEP_ALIVE
                for body in join_frames(frames_after(records, request.seen, request.view)):
                    yield body
    except TaskNotFoundError:  # deleted between the head of the response and its body
        log.info("stream_of_deleted_task", task_id=task.task_id)


async def progress_bodies(heard: Progress, task_id: str, view: View) -> AsyncGenerator[bytes, None]:
    """Yield the text that the models of a task are writing, and the progress reports of its servers."""
    with heard.listen(task_id) as listener:
        while True:
            pieces = await listener.take()
            body = b"".join(frame for piece in pieces for frame in piece_frames(task_id, piece, view, sse_frame))
            if body:
                yield body


def idle_s(limits: LimitSettings) -> float:
    """Return the seconds without frames after which a comment is sent: a little early, for a busy machine."""
    return 0.9 * limits.keep_alive_s


async def _pump(bodies: AsyncGenerator[bytes, None], send: Send) -> None:
    async with aclosing(bodies):
        async for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
