"""Journals and commits as they are stored, for the audit. Nothing here trusts the data, or fails on it.

Texts are read as bytes. An invalid byte becomes a lone surrogate (PEP 383), which no valid text contains. So a changed
text can still be shown, and does not match its hash.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

from agent_runtime.domain.chain import GENESIS, chain_holds, record_hash
from agent_runtime.domain.commits import Commit
from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.stored_journal import StoredIndex, StoredJournal, StoredRecord

SELECT_CONTENT = """
SELECT seq, epoch, CAST(at AS BLOB), CAST(type AS BLOB), CAST(data AS BLOB)
FROM events WHERE task_id = CAST(? AS TEXT) ORDER BY seq
"""
SELECT_ENTRIES = """
SELECT seq, epoch, CAST(at AS BLOB), CAST(type AS BLOB), CAST(data AS BLOB), CAST(hash AS BLOB)
FROM events WHERE task_id = CAST(? AS TEXT) ORDER BY seq
"""
SELECT_INDEX = """
SELECT version, epoch, CAST(status AS BLOB), CAST(prompt AS BLOB), plan_revision, cancel_requested,
       CAST(metadata AS BLOB), CAST(created_at AS BLOB), CAST(updated_at AS BLOB), CAST(submitter AS BLOB),
       CAST(request_key AS BLOB), CAST(thread AS BLOB), CAST(head AS BLOB)
FROM tasks WHERE task_id = CAST(? AS TEXT)
"""
LATER_COLUMNS = ("submitter", "thread")
SELECT_COLUMNS = "SELECT CAST(name AS BLOB) FROM pragma_table_info('tasks')"
SELECT_IDS = """
SELECT CAST(task_id AS BLOB) FROM (SELECT task_id FROM tasks UNION SELECT task_id FROM events) ORDER BY task_id
"""
SELECT_HASH = "SELECT CAST(hash AS BLOB) FROM events WHERE task_id = CAST(? AS TEXT) AND seq = ?"
SELECT_LAST = "SELECT max(seq) FROM events WHERE task_id = CAST(? AS TEXT)"
SELECT_COMMITS = """
SELECT position, CAST(at AS BLOB), CAST(type AS BLOB), CAST(data AS BLOB), CAST(hash AS BLOB)
FROM commits ORDER BY position
"""
UPDATE_HASH = "UPDATE events SET hash = ? WHERE task_id = CAST(? AS TEXT) AND seq = ?"
UPDATE_HEAD = "UPDATE tasks SET head = ? WHERE task_id = CAST(? AS TEXT)"


def select_stored_journal(connection: sqlite3.Connection, task_id: str) -> StoredJournal:
    """Return everything stored of a task, as of one instant. Raises: TaskNotFoundError where there is nothing."""
    raw_id = _to_raw(task_id)
    connection.execute("BEGIN")
    try:
        entries = [_to_entry(*row) for row in connection.execute(SELECT_ENTRIES, (raw_id,))]
        columns, select = {_to_text(name) for (name,) in connection.execute(SELECT_COLUMNS)}, SELECT_INDEX
        for name in LATER_COLUMNS:  # a database of an earlier version does not have them
            select = select if name in columns else select.replace(f"CAST({name} AS BLOB)", "NULL")
        index = connection.execute(select, (raw_id,)).fetchone()
    finally:
        connection.execute("ROLLBACK")
    if index is None and not entries:
        raise TaskNotFoundError(task_id)
    return StoredJournal(task_id, tuple(entries), None if index is None else _to_index(*index))


def is_as_written(connection: sqlite3.Connection, task_id: str, version: int, head: str) -> bool:
    """Return whether the journal has `version` records that match their hashes, the last of which is `head`."""
    return chain_holds(task_id, connection.execute(SELECT_ENTRIES, (_to_raw(task_id),)), version, head)


def select_ids(connection: sqlite3.Connection) -> list[str]:
    """Return the ids of everything that has a row or a journal."""
    return [_to_text(task_id) for (task_id,) in connection.execute(SELECT_IDS)]


def select_stored_commits(connection: sqlite3.Connection) -> Iterator[Commit]:
    """Return the rows of all commits, in order."""
    for position, *texts in connection.execute(SELECT_COMMITS):
        yield Commit(_to_integer(position), *map(_to_text, texts))


class JournalEnds:
    """The stored hashes and lengths of the journals: `StoredJournals` for the verification of commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def hash_of(self, task_id: str, seq: int) -> str | None:
        """See `StoredJournals.hash_of`."""
        try:
            found = self._connection.execute(SELECT_HASH, (_to_raw(task_id), seq)).fetchone()
        except (OverflowError, UnicodeEncodeError):  # no record has such a number, and no task such an id
            return None
        return _to_text(found[0]) if found else None

    def lengths(self) -> Iterator[tuple[str, int]]:
        """See `StoredJournals.lengths`."""
        for task_id in select_ids(self._connection):
            (last,) = self._connection.execute(SELECT_LAST, (_to_raw(task_id),)).fetchone()
            yield task_id, 0 if last is None else _to_integer(last)


def fill_hashes(connection: sqlite3.Connection) -> None:
    """Add the hashes of records that were written without; part of a migration, in its transaction."""
    for task_id in select_ids(connection):
        head, raw_id = GENESIS, _to_raw(task_id)
        hashes: list[tuple[str, bytes, int]] = []
        for seq, epoch, *texts in connection.execute(SELECT_CONTENT, (raw_id,)):
            head = record_hash(head, task_id, seq, epoch, *map(_to_text, texts))
            hashes.append((head, raw_id, seq))
        connection.executemany(UPDATE_HASH, hashes)
        connection.execute(UPDATE_HEAD, (head, raw_id))


def _to_entry(seq: Any, epoch: Any, *texts: Any) -> StoredRecord:
    at, kind, data, hash_ = map(_to_text, texts)
    return StoredRecord(_to_integer(seq), None if epoch is None else _to_integer(epoch), at, kind, data, hash_)


def _to_index(
    version: Any,
    epoch: Any,
    status: Any,
    prompt: Any,
    plan_revision: Any,
    cancel_requested: Any,
    metadata: Any,
    created_at: Any,
    updated_at: Any,
    submitter: Any,
    request_key: Any,
    thread: Any,
    head: Any,
) -> StoredIndex:
    return StoredIndex(
        version=_to_integer(version),
        epoch=_to_integer(epoch),
        status=_to_text(status),
        prompt=_to_text(prompt),
        plan_revision=_to_integer(plan_revision),
        cancel_requested=_to_integer(cancel_requested),
        metadata=_to_text(metadata),
        created_at=_to_text(created_at),
        updated_at=_to_text(updated_at),
        submitter=None if submitter is None else _to_text(submitter),
        request_key=None if request_key is None else _to_text(request_key),
        head=_to_text(head),
        thread=None if thread is None else _to_text(thread),
    )


def _to_raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _to_text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else ""


def _to_integer(value: Any) -> int:
    """Return the integer; -1, which is never valid, where a broken file holds something else."""
    return value if isinstance(value, int) else -1
