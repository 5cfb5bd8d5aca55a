"""The notices with which the processes that share a database tell each other what they have committed.

A payload is lines: `t VERSION TASK` for a journal that has grown, `x TASK` for one that got a cancellation, `d TASK`
for a deleted task, `c POSITION` for the newest commit, `p` for changes that the chain does not have yet, `l NUMBER KEY`
for the listing of a server that was stored, and `w KEY` for one that is wanted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent_runtime.domain.commits import Change, TaskChange
from agent_runtime.storage.postgres.connecting import Connection

_NOTIFY = "SELECT pg_notify(%s, %s)"
_MOST_BYTES = 7900
"""PostgreSQL refuses payloads of 8000 bytes."""


@dataclass(frozen=True, slots=True)
class News:
    """The commits of other processes: journals that have grown, with their new versions; deleted and cancelled tasks;
    the newest position; and whether something is pending. Of the catalogue: the numbers of the stored listings, and
    the keys of those that are wanted.
    """

    grown: dict[str, int]
    deleted: frozenset[str] = frozenset()
    cancelled: frozenset[str] = frozenset()
    position: int = 0
    pending: bool = False
    listings: Mapping[str, int] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()


def notify(connection: Connection, channel: str, payload: str) -> None:
    """Send a payload to all who listen on the channel, with the transaction. Raises: psycopg.Error."""
    connection.execute(_NOTIFY, (channel, payload))


def make_payloads(
    changes: Sequence[TaskChange], position: int | None, *, pending: bool, cancelled: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the payloads for a transaction. An id that is too long is left out: its followers catch up later."""
    lines = [f"t {one.last} {one.task_id}" if isinstance(one, Change) else f"d {one.task_id}" for one in changes]
    lines += [f"x {task_id}" for task_id in cancelled]
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
    cancelled: set[str] = set()
    listings: dict[str, int] = {}
    wanted: set[str] = set()
    position, pending = 0, False
    for line in payload.split("\n"):
        kind, _, rest = line.partition(" ")
        number, _, task_id = rest.partition(" ")
        if kind == "t" and number.isdecimal():
            grown[task_id] = int(number)
        elif kind == "d":
            deleted.add(rest)
        elif kind == "x":
            cancelled.add(rest)
        elif kind == "c" and rest.isdecimal():
            position = int(rest)
        elif kind == "p":
            pending = True
        elif kind == "l" and number.isdecimal():
            listings[task_id] = int(number)
        elif kind == "w":
            wanted.add(rest)
    return News(grown, frozenset(deleted), frozenset(cancelled), position, pending, listings, frozenset(wanted))
