"""The notices with which the processes that share a database tell each other what they have committed.

A payload is lines: `t VERSION TASK` for a journal that has grown, `d TASK` for a deleted task, `c POSITION` for the
newest commit, and `p` for changes that the chain does not have yet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent_runtime.domain.commits import Change, TaskChange

_MOST_BYTES = 7900
"""PostgreSQL refuses payloads of 8000 bytes."""


@dataclass(frozen=True, slots=True)
class News:
    """The commits of other processes: journals that have grown, with their new versions; deleted tasks; the newest
    position; and whether something is pending.
    """

    grown: dict[str, int]
    deleted: frozenset[str] = frozenset()
    position: int = 0
    pending: bool = False


def make_payloads(changes: Sequence[TaskChange], position: int | None, *, pending: bool) -> Iterator[str]:
    """Yield the payloads for a transaction. An id that is too long is left out: its followers catch up later."""
    lines = [f"t {one.last} {one.task_id}" if isinstance(one, Change) else f"d {one.task_id}" for one in changes]
    if position is not None:
        lines.append(f"c {position}")
    if pending:
        lines.append("p")
    payload, size = "", 0
    for line in lines:
        more = len(line.encode()) + 1
        if more > _MOST_BYTES or "\n" in line:
            continue
        if size + more > _MOST_BYTES:
            yield payload
            payload, size = "", 0
        payload, size = f"{payload}{line}\n", size + more
    if payload:
        yield payload


def read_payload(payload: str) -> News:
    """Read a payload. Lines that another version may have written and this one does not know are ignored."""
    grown: dict[str, int] = {}
    deleted: set[str] = set()
    position, pending = 0, False
    for line in payload.split("\n"):
        kind, _, rest = line.partition(" ")
        number, _, task_id = rest.partition(" ")
        if kind == "t" and number.isdecimal():
            grown[task_id] = int(number)
        elif kind == "d":
            deleted.add(rest)
        elif kind == "c" and rest.isdecimal():
            position = int(rest)
        elif kind == "p":
            pending = True
    return News(grown, frozenset(deleted), position, pending)
