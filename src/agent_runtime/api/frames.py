"""The frames of a stream as pure functions of its events, for every door that streams (G8).

Event 7 becomes the named frame `7.0` with its JSON and, if it has a log line, the unnamed frame `7.1` with that line.
After the last event comes an unnamed frame `[DONE]` with the id `<last>.2`. Text that a model is writing is sent in
between as named `progress` frames, and progress reports of a server as named `call.progress` frames and as log lines.
These have no id; they are not stored and not sent again.

A frame is written in one of two forms: as bytes of Server-Sent Events, or as a JSON message of a WebSocket.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Protocol, TypeVar

from sse_starlette.event import ServerSentEvent

from agent_runtime.api.problems import BadRequestError
from agent_runtime.api.views import record_json
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.feed import FeedEntry, Tombstone
from agent_runtime.domain.log_lines import log_line
from agent_runtime.domain.values import JsonObject
from agent_runtime.live.progress import Piece, Reported
from agent_runtime.text.escaping import one_line

View = Literal["all", "events", "log"]

EVENT, LINE, DONE = 0, 1, 2
"""The second number of a frame id: the named frame, the log line, the end of the stream."""

_ID = re.compile(r"(?P<seq>[0-9]{1,15})(?:\.(?P<part>[012]))?")
_MOST_BYTES = 256 * 1024
"""The size of a piece that is sent at once, to which one frame may add, so that slow clients use little memory."""


Written = TypeVar("Written", bytes, str)
Written_co = TypeVar("Written_co", bytes, str, covariant=True)


class Form(Protocol[Written_co]):
    """Writes one frame. Frames of an `event` have JSON as `data`; frames without one are lines of text."""

    def __call__(self, frame_id: str | None, data: str, event: str | None = None) -> Written_co: ...


class Position(NamedTuple):
    """The last frame that a client has seen; `(0, 2)` before the first."""

    seq: int
    part: int


def parse_position(text: str) -> Position:
    """Parse a frame id; a bare `7` means all frames of event 7. Raises: BadRequestError."""
    match = _ID.fullmatch(text)
    if match is None:
        raise BadRequestError(f"{text[:40]!r} is not the id of a frame: send an id from this stream, such as '7.1'.")
    return Position(int(match["seq"]), DONE if match["part"] is None else int(match["part"]))


def sse_frame(frame_id: str | None, data: str, event: str | None = None) -> bytes:
    """Return a frame of Server-Sent Events."""
    return ServerSentEvent(data, event=event, id=frame_id, sep="\n").encode()


def json_message(frame_id: str | None, data: str, event: str | None = None) -> str:
    """Return a frame as a JSON message: `{"id": ..., "event": ..., "data": ...}`.

    A line has the event `message`, as in a browser's `EventSource`, and is a string.
    """
    shown = json.dumps(data) if event is None else data
    return f'{{"id":{json.dumps(frame_id)},"event":{json.dumps(event or "message")},"data":{shown}}}'


def encode(record: EventRecord, form: Form[Written] = sse_frame) -> tuple[Written, Written | None]:  # type: ignore[assignment]  # mypy binds no default to a type variable
    """Return the two frames of an event: the named frame, and that of its log line, if it has one."""
    seq = record.seq
    line = log_line(record)
    event = form(f"{seq}.{EVENT}", record_json(record), record.type)
    return event, form(f"{seq}.{LINE}", line) if line else None


def piece_frames(task_id: str, piece: Piece, view: View, form: Form[Written]) -> Iterator[Written]:
    """Yield the frames of a piece of text or a progress report, without ids. A report has a log line too."""
    data: JsonObject = {"task_id": task_id, "step_id": piece.step_id, "text": piece.text}
    name, line = "progress", ""
    if isinstance(piece, Reported):
        report, name, line = piece.report, "call.progress", piece.text
        data |= {"progress": report.progress, "total": report.total, "message": one_line(report.message)}
    if view != "log":
        yield form(None, json.dumps(data), name)
    if line and view != "events":
        yield form(None, line)


def frames_after(
    records: Iterable[EventRecord],
    seen: Position,
    view: View,
    form: Form[Written] = sse_frame,  # type: ignore[assignment]  # as above
) -> Iterator[Written]:
    """Yield the frames after a position, in order, with `[DONE]`."""
    for record in records:
        event, line = encode(record, form)
        first = seen.part + 1 if record.seq == seen.seq else EVENT
        if view != "log" and first <= EVENT:
            yield event
        if view != "events" and first <= LINE and line is not None:
            yield line
        if record.event.ends_task and first <= DONE:
            yield form(f"{record.seq}.{DONE}", "[DONE]")


def feed_frame(entry: FeedEntry) -> bytes:
    """Return the frame of an entry in the feed of all tasks. Its id is the cursor to resume after."""
    cursor, content = str(entry.position), entry.content
    if isinstance(content, EventRecord):
        return sse_frame(cursor, record_json(content), content.type)
    if isinstance(content, Tombstone):
        gone = {"task_id": content.task_id, "last_seq": content.last, "at": content.at}
        return sse_frame(cursor, json.dumps(gone), "task.deleted")
    return sse_frame(cursor, json.dumps({"restarts": content.restarts, "at": content.at}), "feed.checkpoint")


def join_frames(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Join frames into pieces of about `_MOST_BYTES`."""
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
