"""The notices with which processes pass on what models write and servers report, to followers of a task elsewhere.

A payload is a JSON array: `["here"]` from a process that has just begun to listen, `["want", [TASK, ...]]` from one
with followers of these tasks, and `["said", TASK, [PIECE, ...]]`. A piece is `[STEP, TEXT]`, or `[STEP, PROGRESS,
TOTAL, MESSAGE]` for the report of a server.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agent_runtime.domain.patience import Report, report_line
from agent_runtime.live.progress import Piece, Reported

_MOST_BYTES = 7000
"""PostgreSQL refuses payloads of 8000 bytes."""

_PART = 500
"""The most characters of a piece. Even if each of them is escaped, a piece and a long id fit into a payload."""

_MOST_WANTED = 100
_LONGEST_ID = 300


@dataclass(frozen=True, slots=True)
class Notice:
    """The content of a payload; empty for one that nobody can read."""

    kind: Literal["here", "want", "said", ""] = ""
    task_ids: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = field(default=())


HERE = json.dumps(["here"])


def make_wants(task_ids: Collection[str]) -> Iterator[str]:
    """Yield the payloads that ask for the progress of these tasks."""
    ids = [task_id for task_id in task_ids if len(task_id) <= _LONGEST_ID]
    for start in range(0, len(ids), _MOST_WANTED // 5):
        yield json.dumps(["want", ids[start : start + _MOST_WANTED // 5]])


def make_said(task_id: str, pieces: Sequence[Piece]) -> tuple[str, list[Piece]]:
    """Return the payload with the first of these pieces, and the pieces that did not fit."""
    left = [part for piece in pieces for part in _split(piece)]
    fitting: list[Any] = []
    size = len(json.dumps(["said", task_id, []]))
    while left:
        encoded = _encode(left[0])
        size += len(json.dumps(encoded)) + 2
        if fitting and size > _MOST_BYTES:
            break
        fitting.append(encoded)
        left.pop(0)
    return json.dumps(["said", task_id, fitting]), left


def read_payload(payload: str) -> Notice:
    """Read a payload. What another version wrote, or somebody else, says nothing."""
    try:
        match json.loads(payload):
            case ["here"]:
                return Notice("here")
            case ["want", [*task_ids]]:
                return Notice("want", tuple(filter(_is_text, task_ids)))
            case ["said", str(task_id), [*pieces]]:
                return Notice("said", (task_id,), tuple(filter(None, map(_decode, pieces))))
    except ValueError:
        pass
    return Notice()


def _split(piece: Piece) -> Iterator[Piece]:
    if isinstance(piece, Reported) or len(piece.text) <= _PART:
        yield piece
        return
    for start in range(0, len(piece.text), _PART):
        yield Piece(piece.step_id, piece.text[start : start + _PART])


def _encode(piece: Piece) -> list[Any]:
    if isinstance(piece, Reported):
        report = piece.report
        return [piece.step_id, report.progress, report.total, report.message[:_PART]]
    return [piece.step_id, piece.text]


def _decode(encoded: object) -> Piece | None:
    match encoded:
        case [str() | None as step_id, str(text)]:
            return Piece(step_id, text)
        case [str(step_id), int() | float() | None as progress, int() | float() | None as total, str(message)]:
            report = Report(progress, total, message)
            return Reported(step_id, report_line(step_id, report), report)
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str)
