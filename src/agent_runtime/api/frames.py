"""The frames of a stream as pure functions of its events, for every door that streams (G8).

Event 7 becomes the named frame `7.0` with its JSON and, if it has a log line, the unnamed frame `7.1` with that line.
After the last event comes an unnamed frame `[DONE]` with the id `<last>.2`. Text that a model is writing is sent in
between as named `progress` frames, and progress reports of a server as named `call.progress` frames and as log lines.
These have no id; they are not stored and not sent again.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

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


def encode(record: EventRecord) -> tuple[bytes, bytes]:
    """Return the two frames of an event: the named frame, and that of its log line, which may be empty."""
    seq = record.seq
    line = log_line(record)
    event = _frame(f"{seq}.{EVENT}", record_json(record), record.type)
    return event, _frame(f"{seq}.{LINE}", line) if line else b""


def encode_piece(task_id: str, piece: Piece, view: View) -> bytes:
    """Return the frames of a piece of text or a progress report, without ids. A report has a log line too."""
    data: JsonObject = {"task_id": task_id, "step_id": piece.step_id, "text": piece.text}
    name, line = "progress", ""
    if isinstance(piece, Reported):
        report, name, line = piece.report, "call.progress", piece.text
        data |= {"progress": report.progress, "total": report.total, "message": one_line(report.message)}
    event = ServerSentEvent(json.dumps(data), event=name, sep="\n").encode() if view != "log" else b""
    return event + (ServerSentEvent(line, sep="\n").encode() if line and view != "events" else b"")


def end_frame(seq: int) -> bytes:
    """Return the frame that ends the stream of a task whose last event is number `seq`."""
    return _frame(f"{seq}.{DONE}", "[DONE]")


def _frame(frame_id: str, data: str, event: str | None = None) -> bytes:
    return ServerSentEvent(data, event=event, id=frame_id, sep="\n").encode()


def frames_after(records: Iterable[EventRecord], seen: Position, view: View) -> Iterator[bytes]:
    """Yield the frames after a position, in order, with `[DONE]`."""
    for record in records:
        event, line = encode(record)
        first = seen.part + 1 if record.seq == seen.seq else EVENT
        if view != "log" and first <= EVENT:
            yield event
        if view != "events" and first <= LINE and line:
            yield line
        if record.event.ends_task and first <= DONE:
            yield end_frame(record.seq)


def feed_frame(entry: FeedEntry) -> bytes:
    """Return the frame of an entry in the feed of all tasks. Its id is the cursor to resume after."""
    cursor, content = str(entry.position), entry.content
    if isinstance(content, EventRecord):
        return _frame(cursor, record_json(content), content.type)
    if isinstance(content, Tombstone):
        gone = {"task_id": content.task_id, "last_seq": content.last, "at": content.at}
        return _frame(cursor, json.dumps(gone), "task.deleted")
    return _frame(cursor, json.dumps({"restarts": content.restarts, "at": content.at}), "feed.checkpoint")


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
