"""A SQLite file as the source or the target of a move; see `storage/moving.py`."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from agent_runtime.domain.chain import format_time
from agent_runtime.domain.commits import CommitHead
from agent_runtime.domain.stored_journal import AuditFault, StoredJournal
from agent_runtime.storage.base import utc_now
from agent_runtime.storage.moving import Addition, Belongings, JournalEnd, MoveSource, MoveTarget, StateRow
from agent_runtime.storage.owner import own_database
from agent_runtime.storage.sqlite.commits import add_commit, select_head
from agent_runtime.storage.sqlite.database import connect_reader, make_unavailable_error, open_database
from agent_runtime.storage.sqlite.journals import select_stored_journal
from agent_runtime.storage.sqlite.read_only import ReadOnlyDatabase
from agent_runtime.storage.sqlite.rows import INSERT_EVENT, INSERT_TASK, SELECT_REQUEST, UPDATE_TASK

_SELECT_ENDS = "SELECT position, task_id, version, head FROM tasks WHERE position > ? ORDER BY position LIMIT ?"
_SELECT_WITHOUT_ROW = "SELECT task_id FROM events EXCEPT SELECT task_id FROM tasks"
_SELECT_ATTEMPTS = "SELECT number, data FROM planning_attempts WHERE task_id = ? ORDER BY number"
_SELECT_START = "SELECT facts, count FROM starts WHERE task_id = ?"
_SELECT_IMAGES = "SELECT digest, data FROM images WHERE task_id = ? ORDER BY digest"
_SELECT_DEFINITIONS = "SELECT identity, definitions FROM definitions ORDER BY identity"
_SELECT_END = "SELECT version, head FROM tasks WHERE task_id = ?"
_SELECT_HASH = "SELECT hash FROM events WHERE task_id = ? AND seq = ?"
_INSERT_ATTEMPT = "INSERT OR IGNORE INTO planning_attempts (task_id, number, data) VALUES (?, ?, ?)"
_INSERT_START = "INSERT OR REPLACE INTO starts (task_id, facts, count) VALUES (?, ?, ?)"
_INSERT_IMAGE = "INSERT OR IGNORE INTO images (task_id, digest, data) VALUES (?, ?, ?)"
_INSERT_DEFINITIONS = "INSERT OR IGNORE INTO definitions (identity, definitions) VALUES (?, ?)"


_SELECT_STATES = """
SELECT agent, thread, number, data, saved_at FROM agent_states WHERE (agent, thread) > (?, ?)
ORDER BY agent, thread LIMIT ?
"""
_UPSERT_STATE = """
INSERT INTO agent_states (agent, thread, number, data, saved_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (agent, thread) DO UPDATE SET number = excluded.number, data = excluded.data, saved_at = excluded.saved_at
WHERE excluded.saved_at > saved_at
"""


class SqliteSource:
    """See `MoveSource`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._database = ReadOnlyDatabase(connection)

    def find_faults(self) -> list[AuditFault]:
        """See `MoveSource.find_faults`."""
        without_row = [str(task_id) for (task_id,) in self._connection.execute(_SELECT_WITHOUT_ROW)]
        missing = [AuditFault(one, None, "tasks", "the row of this task is missing.") for one in without_row]
        return [*self._database.damages(), *self._database.verify_commits().faults, *missing]

    def list_ends(self, after: int, limit: int) -> list[JournalEnd]:
        """See `MoveSource.list_ends`."""
        return [JournalEnd(*row) for row in self._connection.execute(_SELECT_ENDS, (after, limit))]

    def read(self, task_id: str) -> StoredJournal:
        return select_stored_journal(self._connection, task_id)

    def read_belongings(self, task_id: str) -> Belongings:
        attempts = tuple(self._connection.execute(_SELECT_ATTEMPTS, (task_id,)).fetchall())
        images = tuple(self._connection.execute(_SELECT_IMAGES, (task_id,)).fetchall())
        return Belongings(attempts, self._connection.execute(_SELECT_START, (task_id,)).fetchone(), images)

    def list_definitions(self) -> list[tuple[str, str]]:
        """See `MoveSource.list_definitions`."""
        return self._connection.execute(_SELECT_DEFINITIONS).fetchall()

    def list_states(self, after: tuple[str, str], limit: int) -> list[StateRow]:
        """See `MoveSource.list_states`."""
        return self._connection.execute(_SELECT_STATES, (*after, limit)).fetchall()

    def commit_head(self) -> CommitHead:
        return self._database.commit_head()


class SqliteTarget:
    """See `MoveTarget`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find_ends(self, task_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """See `MoveTarget.find_ends`."""
        found = ((one, self._connection.execute(_SELECT_END, (one,)).fetchone()) for one in task_ids)
        return {one: end for one, end in found if end is not None}

    def find_hash(self, task_id: str, seq: int) -> str | None:
        found = self._connection.execute(_SELECT_HASH, (task_id, seq)).fetchone()
        return found[0] if found else None

    def has_request(self, submitter: str, request_key: str) -> bool:
        return self._connection.execute(SELECT_REQUEST, (submitter, request_key)).fetchone() is not None

    def add(self, additions: Sequence[Addition]) -> None:
        """See `MoveTarget.add`."""
        connection = self._connection
        with self._transaction():
            for addition in additions:
                self._write(addition)
            changes = [addition.change for addition in additions]
            add_commit(connection, select_head(connection), format_time(utc_now()), changes)

    def add_definitions(self, definitions: Iterable[tuple[str, str]]) -> None:
        """See `MoveTarget.add_definitions`."""
        with self._transaction():
            self._connection.executemany(_INSERT_DEFINITIONS, definitions)

    def add_states(self, states: Sequence[StateRow]) -> None:
        """See `MoveTarget.add_states`."""
        with self._transaction():
            self._connection.executemany(_UPSERT_STATE, states)

    def commit_head(self) -> CommitHead:
        return select_head(self._connection)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _write(self, addition: Addition) -> None:
        task_id, index, connection = addition.task_id, addition.index, self._connection
        state = (index.version, index.epoch, index.status)
        rest = (index.plan_revision, index.cancel_requested)
        if addition.known:
            place = (task_id, addition.known)
            connection.execute(UPDATE_TASK, (*state, *rest, index.updated_at, index.head, *place))
        else:
            metadata = json.dumps(json.loads(index.metadata), ensure_ascii=False)
            times, request = (index.created_at, index.updated_at), (index.submitter, index.request_key, index.thread)
            told = (index.prompt, *rest, metadata, *times, *request, index.head)
            connection.execute(INSERT_TASK, (task_id, *state, *told))
        records = ((task_id, one.seq, one.epoch, one.at, one.type, one.data, one.hash) for one in addition.records)
        connection.executemany(INSERT_EVENT, records)
        belongings = addition.belongings
        connection.executemany(_INSERT_ATTEMPT, ((task_id, *attempt) for attempt in belongings.attempts))
        connection.executemany(_INSERT_IMAGE, ((task_id, *image) for image in belongings.images))
        if belongings.start is not None:
            connection.execute(_INSERT_START, (task_id, *belongings.start))


@contextmanager
def open_source(path: Path) -> Iterator[MoveSource]:
    """See `moving.open_source`."""
    with own_database(path), _translate_errors(), closing(connect_reader(path)) as connection:
        yield SqliteSource(connection)


@contextmanager
def open_target(path: Path) -> Iterator[MoveTarget]:
    """See `moving.open_target`."""
    with own_database(path), _translate_errors(), closing(open_database(path)) as connection:
        yield SqliteTarget(connection)


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise make_unavailable_error(error) from error
