"""The statements on the tables `commits` and `pending_commits`: adding to the chain, and reading the feed from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import LiteralString

import structlog

from agent_runtime.domain.chain import GENESIS, format_time, parse_time, slice_holds
from agent_runtime.domain.commits import (
    CHANGES,
    CHECKPOINT,
    Change,
    Commit,
    CommitHead,
    TaskChange,
    chain_commit,
    encode_changes,
    encode_checkpoint,
    merge_changes,
)
from agent_runtime.domain.events import EventRecord, restore_record
from agent_runtime.domain.feed import FeedPage, FeedPosition, check_cursor, end_of
from agent_runtime.storage.base import TakeCheckpoint, utc_now
from agent_runtime.storage.feed import read_page
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.notices import make_payloads, notify

log = structlog.get_logger(__name__)

_COLUMNS: LiteralString = "SELECT position, at, type, data, hash FROM commits"
_INSERT = "INSERT INTO commits (position, at, type, data, hash) VALUES (%s, %s, %s, %s, %s)"
_SELECT_FIRST: LiteralString = f"{_COLUMNS} ORDER BY position LIMIT 1"
_SELECT_NEWEST: LiteralString = f"{_COLUMNS} ORDER BY position DESC LIMIT 1"
_SELECT_ONE: LiteralString = f"{_COLUMNS} WHERE position = %s"
_SELECT_FROM: LiteralString = f"{_COLUMNS} WHERE position >= %s ORDER BY position LIMIT %s"
_SELECT_HEAD = "SELECT position, hash FROM commits ORDER BY position DESC LIMIT 1"
_DELETE_BEFORE = "DELETE FROM commits WHERE position < %s"
_SELECT_HEADS = "SELECT task_id, version, head FROM tasks ORDER BY position"
_SELECT_SLICE = """
SELECT seq, epoch, at, type, data, hash FROM events WHERE task_id = %s AND seq BETWEEN %s AND %s ORDER BY seq
"""
_INSERT_PENDING = "INSERT INTO pending_commits (type, data) VALUES (%s, %s)"
TAKE_PENDING = "DELETE FROM pending_commits RETURNING id, type, data"
_SELECT_PENDING = "SELECT id, type, data FROM pending_commits ORDER BY id"
_HAS_PENDING = "SELECT EXISTS (SELECT 1 FROM pending_commits)"

_CHUNK = 200
"""How many commits are read at a time: few at the end of the feed, many for a reader far behind."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A transaction of another process that is not in the chain yet."""

    id: int
    type: str
    data: str


class CommitLog:
    """Adds commits. Only the writer's thread uses it, so it can remember the newest commit.

    `leads` is True while the writer's session holds the lock of the chain: only then may it add commits. Otherwise it
    leaves its changes to the process that does. Unless the database is owned by this process alone, each transaction
    notifies the others of what it changed.
    """

    def __init__(self, *, exclusive: bool) -> None:
        self.leads = False
        self._exclusive = exclusive
        self._channel = ""
        self._head = CommitHead()
        self._next = CommitHead()

    @property
    def head(self) -> CommitHead:
        """The newest commit that is surely durable."""
        return self._head

    @property
    def takes_pending(self) -> bool:
        """Return whether each transaction must look for what other processes have committed."""
        return self.leads and not self._exclusive

    def begin(self, connection: Connection, channel: str, *, leads: bool) -> bool:
        """Take up the chain where the database has it, in a new session. Return whether it has grown meanwhile."""
        known, self._head = self._head, select_head(connection)
        self._next, self.leads, self._channel = self._head, leads, channel
        return known != self._head

    def reset(self) -> None:
        """Begin a transaction after the newest durable commit."""
        self._next = self._head

    def add(
        self,
        connection: Connection,
        changes: Sequence[TaskChange],
        pending: Sequence[Pending] = (),
        cancelled: Sequence[str] = (),
    ) -> None:
        """Add the changes of a transaction, within it, after those of others that are pending. It has added a
        cancellation to the journals of `cancelled`.
        """
        self._move(connection, pending)
        merged = merge_changes(changes) if changes else ()
        if merged and self.leads:
            self._insert(connection, CHANGES, encode_changes(merged))
        elif merged:
            connection.execute(_INSERT_PENDING, (CHANGES, encode_changes(merged)))
        self._notify(connection, merged, cancelled)

    def take_checkpoint(self, connection: Connection, wanted: TakeCheckpoint) -> None:
        """Name the heads of all journals, in a transaction that sees one state; or ask the leader to do so."""
        if not self.leads:
            connection.execute(_INSERT_PENDING, (CHECKPOINT, "drop" if wanted.drop else ""))
        else:
            self._move(connection, take_pending(connection))
            self._insert_checkpoint(connection, drop=wanted.drop)
        self._notify(connection, ())

    def confirm(self) -> int:
        """Note that the transaction is durable, and return the newest position."""
        self._head = self._next
        return self._head.position

    def _notify(self, connection: Connection, changes: Sequence[TaskChange], cancelled: Sequence[str] = ()) -> None:
        if not self._exclusive:
            position = self._next.position if self._next != self._head else None
            for payload in make_payloads(changes, position, pending=not self.leads, cancelled=cancelled):
                notify(connection, self._channel, payload)

    def _move(self, connection: Connection, pending: Sequence[Pending]) -> None:
        for one in sorted(pending, key=lambda one: one.id):
            if one.type == CHECKPOINT:
                self._insert_checkpoint(connection, drop=one.data == "drop")
            else:
                self._insert(connection, one.type, one.data)

    def _insert(self, connection: Connection, kind: str, data: str) -> None:
        row = chain_commit(self._next, format_time(utc_now()), kind, data)
        connection.execute(_INSERT, row)
        self._next = CommitHead(row[0], row[4])

    def _insert_checkpoint(self, connection: Connection, *, drop: bool) -> None:
        heads = [Change(task_id, 1, version, head) for task_id, version, head in connection.execute(_SELECT_HEADS)]
        previous = _select_one(connection, _SELECT_ONE, self._next.position)
        self._insert(connection, CHECKPOINT, encode_checkpoint(heads, previous, drop=drop))
        if drop:
            connection.execute(_DELETE_BEFORE, (self._next.position,))


def take_pending(connection: Connection) -> list[Pending]:
    """Remove and return what other processes have committed and the chain does not have."""
    return [Pending(*row) for row in connection.execute(TAKE_PENDING)]


def has_pending(connection: Connection) -> bool:
    """Return whether there are changes that the chain does not have."""
    return connection.execute(_HAS_PENDING).fetchone() == (True,)


def select_head(connection: Connection) -> CommitHead:
    """Return the newest commit in the database."""
    found = connection.execute(_SELECT_HEAD).fetchone()
    return CommitHead(*found) if found else CommitHead()


def _select_one(connection: Connection, statement: LiteralString, *values: int) -> Commit | None:
    found = connection.execute(statement, values).fetchone()
    return Commit(*found) if found else None


def check_position(connection: Connection, seen: FeedPosition) -> None:
    """Check that this database has given this cursor. Raises: InvalidInputError."""
    check_cursor(seen, select_head(connection).position, _select_one(connection, _SELECT_ONE, seen.commit))


def select_end(connection: Connection) -> FeedPosition | None:
    """Return the cursor of the newest entry; None if there are no commits."""
    return end_of(_select_one(connection, _SELECT_NEWEST))


def select_commits(connection: Connection, position: int) -> Iterator[Commit]:
    """Yield the commits from a position on, in order."""
    size = 2
    while True:
        rows = connection.execute(_SELECT_FROM, (position, size)).fetchall()
        yield from (Commit(*row) for row in rows)
        if len(rows) < size:
            return
        position, size = rows[-1][0] + 1, _CHUNK


def select_stored_commits(connection: Connection) -> Iterator[Commit]:
    """Yield all commits for the audit, and what is pending as if it were in the chain already."""
    head = CommitHead()
    for commit in select_commits(connection, 0):
        yield commit
        head = commit.head
    for _, kind, data in connection.execute(_SELECT_PENDING).fetchall():
        if kind == CHANGES:
            row = chain_commit(head, format_time(utc_now()), kind, data)
            yield Commit(*row)
            head = CommitHead(row[0], row[4])


def select_feed(connection: Connection, seen: FeedPosition | None) -> FeedPage:
    """Return the next page of the feed."""
    first = _select_one(connection, _SELECT_FIRST)
    return read_page(
        seen,
        first,
        lambda position: select_commits(connection, position),
        lambda change: _read_change(connection, change),
    )


def _read_change(connection: Connection, change: Change) -> list[EventRecord]:
    """Return the records of a change; an empty list if they are deleted, or not those that were written."""
    found = connection.execute(_SELECT_SLICE, (change.task_id, change.first - 1, change.last)).fetchall()
    if not found:
        return []  # the task was deleted
    before = found.pop(0)[5] if change.first > 1 else GENESIS
    stored = ((seq, epoch, *(text.encode() for text in texts)) for seq, epoch, *texts in found)
    held = slice_holds(change.task_id, before.encode(), stored, change.first, change.last, change.head)
    try:
        if held:
            return [
                restore_record(change.task_id, seq, epoch, parse_time(at), kind, data)
                for seq, epoch, at, kind, data, _ in found
            ]
    except (KeyError, ValueError):  # a newer version wrote it
        pass
    log.error("feed_left_out", task_id=change.task_id, first=change.first, last=change.last)
    return []
