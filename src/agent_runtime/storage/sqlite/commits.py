"""The statements on the table `commits`: adding rows, and reading the feed from them."""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import structlog

from agent_runtime.domain.chain import GENESIS, format_time, parse_time, slice_holds
from agent_runtime.domain.commits import (
    CHANGES,
    CHECKPOINT,
    Change,
    Commit,
    CommitHead,
    CommitRow,
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

log = structlog.get_logger(__name__)

_COLUMNS = "SELECT position, at, type, data, hash FROM commits"
INSERT = "INSERT INTO commits (position, at, type, data, hash) VALUES (?, ?, ?, ?, ?)"
SELECT_NEWEST = f"{_COLUMNS} ORDER BY position DESC LIMIT 1"
SELECT_FIRST = f"{_COLUMNS} ORDER BY position LIMIT 1"
SELECT_ONE = f"{_COLUMNS} WHERE position = ?"
SELECT_FROM = f"{_COLUMNS} WHERE position >= ? ORDER BY position"
SELECT_NEWEST_HEAD = "SELECT position, hash FROM commits ORDER BY position DESC LIMIT 1"
DELETE_BEFORE = "DELETE FROM commits WHERE position < ?"
SELECT_HEADS = "SELECT task_id, version, head FROM tasks ORDER BY position"
SELECT_SLICE = """
SELECT seq, epoch, at, type, data, CAST(at AS BLOB), CAST(type AS BLOB), CAST(data AS BLOB), CAST(hash AS BLOB)
FROM events WHERE task_id = ? AND seq BETWEEN ? AND ? ORDER BY seq
"""


def add_commit(
    connection: sqlite3.Connection, head: CommitHead, at: str, changes: Iterable[TaskChange | TakeCheckpoint]
) -> CommitHead:
    """Write the rows of a transaction after `head`, and return the newest row: `head` if nothing was changed."""
    grown = [change for change in changes if not isinstance(change, TakeCheckpoint)]
    if grown:
        head = _insert(connection, chain_commit(head, at, CHANGES, encode_changes(merge_changes(grown))))
    for wanted in changes:
        if isinstance(wanted, TakeCheckpoint):
            head = _add_checkpoint(connection, head, at, drop=wanted.drop)
            if wanted.drop:
                connection.execute(DELETE_BEFORE, (head.position,))
    return head


def _insert(connection: sqlite3.Connection, row: CommitRow) -> CommitHead:
    connection.execute(INSERT, row)
    return CommitHead(row[0], row[4])


def _add_checkpoint(connection: sqlite3.Connection, head: CommitHead, at: str, *, drop: bool = False) -> CommitHead:
    heads = [Change(task_id, 1, version, hash_) for task_id, version, hash_ in connection.execute(SELECT_HEADS)]
    data = encode_checkpoint(heads, _select_one(connection, SELECT_ONE, head.position), drop=drop)
    return _insert(connection, chain_commit(head, at, CHECKPOINT, data))


def begin_commits(connection: sqlite3.Connection) -> None:
    """Write the first checkpoint of a database whose tasks are older than its commits; part of a migration."""
    if connection.execute(SELECT_HEADS).fetchone() is not None:
        _add_checkpoint(connection, CommitHead(), format_time(utc_now()))


def select_head(connection: sqlite3.Connection) -> CommitHead:
    """Return the newest commit in the database."""
    found = connection.execute(SELECT_NEWEST_HEAD).fetchone()
    return CommitHead(*found) if found else CommitHead()


def _select_one(connection: sqlite3.Connection, statement: str, *values: int) -> Commit | None:
    found = connection.execute(statement, values).fetchone()
    return Commit(*found) if found else None


def check_position(connection: sqlite3.Connection, seen: FeedPosition) -> None:
    """Check that this database has given this cursor. Raises: InvalidInputError."""
    check_cursor(seen, select_head(connection).position, _select_one(connection, SELECT_ONE, seen.commit))


def select_end(connection: sqlite3.Connection) -> FeedPosition | None:
    """Return the cursor of the newest entry; None if there are no commits."""
    return end_of(_select_one(connection, SELECT_NEWEST))


def select_feed(connection: sqlite3.Connection, seen: FeedPosition | None) -> FeedPage:
    """Return the next page of the feed."""
    first = _select_one(connection, SELECT_FIRST)

    def rows_from(position: int) -> Iterator[Commit]:
        return (Commit(*row) for row in connection.execute(SELECT_FROM, (position,)))

    return read_page(seen, first, rows_from, lambda change: _read_change(connection, change))


def _read_change(connection: sqlite3.Connection, change: Change) -> list[EventRecord]:
    """Return the records of a change; an empty list if they are deleted, or not those that were written."""
    found = connection.execute(SELECT_SLICE, (change.task_id, change.first - 1, change.last)).fetchall()
    if not found:
        return []  # the task was deleted
    if (records := _restore_records(change, found)) is None:
        log.error("feed_left_out", task_id=change.task_id, first=change.first, last=change.last)
        return []
    return records


def _restore_records(change: Change, found: list[Any]) -> list[EventRecord] | None:
    before = found.pop(0)[8] if change.first > 1 else GENESIS.encode()
    stored = [(row[0], row[1], *row[5:]) for row in found]
    if not slice_holds(change.task_id, before, stored, change.first, change.last, change.head):
        return None
    try:
        return [restore_record(change.task_id, row[0], row[1], parse_time(row[2]), row[3], row[4]) for row in found]
    except (KeyError, ValueError):  # a newer version wrote it
        return None


class CommitLog:
    """Adds commits. Only the writer's thread uses it, so it can remember the newest commit."""

    def __init__(self) -> None:
        self._head: CommitHead | None = None
        self._next: CommitHead | None = None

    def add(self, connection: sqlite3.Connection, changes: list[TaskChange | TakeCheckpoint]) -> None:
        """Add the changes of a transaction, within it."""
        at = format_time(utc_now())
        known, self._head = self._head, None  # until what follows is known to be durable
        if known is None or any(isinstance(change, TakeCheckpoint) for change in changes):
            known = select_head(connection)
        try:
            self._next = add_commit(connection, known, at, changes)
        except sqlite3.IntegrityError:  # another process wrote a row; the failed insert changed nothing
            self._next = add_commit(connection, select_head(connection), at, changes)

    def confirm(self) -> int:
        """Note that the transaction is durable, and return the newest position."""
        self._head = self._next
        return self._head.position if self._head else 0

    def forget(self) -> None:
        """Note that the transaction failed or may have failed: the next one reads the newest commit from
        the database.
        """
        self._head = None
