"""A PostgreSQL database as the source or the target of a move; see `storage/moving.py`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from agent_runtime.domain.commits import CommitHead
from agent_runtime.domain.stored_journal import AuditFault, StoredJournal
from agent_runtime.storage.moving import Addition, Belongings, JournalEnd, MoveSource, MoveTarget, StateRow
from agent_runtime.storage.postgres.appends import INSERT_EVENT, INSERT_TASK, UPDATE_TASK
from agent_runtime.storage.postgres.commits import CommitLog, take_pending
from agent_runtime.storage.postgres.connecting import (
    Connection,
    Database,
    find_schema,
    make_channel,
    make_opening_error,
    make_unavailable_error,
)
from agent_runtime.storage.postgres.journals import select_stored_journal
from agent_runtime.storage.postgres.locks import own_database
from agent_runtime.storage.postgres.migrating import migrate
from agent_runtime.storage.postgres.read_only import ReadOnlyDatabase
from agent_runtime.storage.postgres.rows import select_request

_SELECT_ENDS = "SELECT position, task_id, version, head FROM tasks WHERE position > %s ORDER BY position LIMIT %s"
_SELECT_WITHOUT_ROW = "SELECT task_id FROM events EXCEPT SELECT task_id FROM tasks"
_SELECT_ATTEMPTS = "SELECT number, data FROM planning_attempts WHERE task_id = %s ORDER BY number"
_SELECT_START = "SELECT facts, count FROM starts WHERE task_id = %s"
_SELECT_IMAGES = "SELECT digest, data FROM images WHERE task_id = %s ORDER BY digest"
_SELECT_DEFINITIONS = "SELECT identity, definitions FROM definitions ORDER BY identity"
_SELECT_KNOWN = "SELECT task_id, version, head FROM tasks WHERE task_id = ANY(%s)"
_SELECT_HASH = "SELECT hash FROM events WHERE task_id = %s AND seq = %s"
_INSERT_ATTEMPT = "INSERT INTO planning_attempts (task_id, number, data) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_UPSERT_START = """
INSERT INTO starts (task_id, facts, count) VALUES (%s, %s, %s)
ON CONFLICT (task_id) DO UPDATE SET facts = excluded.facts, count = excluded.count
"""
_INSERT_IMAGE = "INSERT INTO images (task_id, digest, data) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_INSERT_DEFINITIONS = "INSERT INTO definitions (identity, definitions) VALUES (%s, %s) ON CONFLICT DO NOTHING"


_SELECT_STATES = """
SELECT agent, thread, number, data, saved_at FROM agent_states WHERE (agent, thread) > (%s, %s)
ORDER BY agent, thread LIMIT %s
"""
_UPSERT_STATE = """
INSERT INTO agent_states (agent, thread, number, data, saved_at) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (agent, thread) DO UPDATE SET number = excluded.number, data = excluded.data, saved_at = excluded.saved_at
WHERE excluded.saved_at > agent_states.saved_at
"""


class PostgresSource:
    """See `MoveSource`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._database = ReadOnlyDatabase(connection)

    def find_faults(self) -> list[AuditFault]:
        """See `MoveSource.find_faults`."""
        without_row = [str(task_id) for (task_id,) in self._connection.execute(_SELECT_WITHOUT_ROW)]
        missing = [AuditFault(one, None, "tasks", "the row of this task is missing.") for one in without_row]
        return [*self._database.verify_commits().faults, *missing]

    def list_ends(self, after: int, limit: int) -> list[JournalEnd]:
        """See `MoveSource.list_ends`."""
        return [JournalEnd(*row) for row in self._connection.execute(_SELECT_ENDS, (after, limit))]

    def read(self, task_id: str) -> StoredJournal:
        return select_stored_journal(self._connection, task_id)

    def read_belongings(self, task_id: str) -> Belongings:
        attempts = tuple((number, data) for number, data in self._connection.execute(_SELECT_ATTEMPTS, (task_id,)))
        start = self._connection.execute(_SELECT_START, (task_id,)).fetchone()
        found = self._connection.execute(_SELECT_IMAGES, (task_id,), binary=True)
        images = tuple((digest, bytes(data)) for digest, data in found)
        return Belongings(attempts, None if start is None else (start[0], start[1]), images)

    def list_definitions(self) -> list[tuple[str, str]]:
        """See `MoveSource.list_definitions`."""
        return [(identity, listing) for identity, listing in self._connection.execute(_SELECT_DEFINITIONS)]

    def list_states(self, after: tuple[str, str], limit: int) -> list[StateRow]:
        """See `MoveSource.list_states`."""
        return [(*row,) for row in self._connection.execute(_SELECT_STATES, (*after, limit))]

    def commit_head(self) -> CommitHead:
        return self._database.commit_head()


class PostgresTarget:
    """See `MoveTarget`."""

    def __init__(self, connection: Connection, log: CommitLog) -> None:
        self._connection = connection
        self._log = log

    def find_ends(self, task_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """See `MoveTarget.find_ends`."""
        found = self._connection.execute(_SELECT_KNOWN, ([*task_ids],))
        return {task_id: (version, head) for task_id, version, head in found}

    def find_hash(self, task_id: str, seq: int) -> str | None:
        found = self._connection.execute(_SELECT_HASH, (task_id, seq)).fetchone()
        return str(found[0]) if found else None

    def has_request(self, submitter: str, request_key: str) -> bool:
        return select_request(self._connection, submitter, request_key) is not None

    def add(self, additions: Sequence[Addition]) -> None:
        """See `MoveTarget.add`."""
        self._log.reset()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            pending = take_pending(self._connection)  # left behind by processes that are gone
            cursor.executemany(INSERT_TASK, [_to_insert(one) for one in additions if not one.known])
            cursor.executemany(UPDATE_TASK, [_to_update(one) for one in additions if one.known])
            records = [(one.task_id, record) for one in additions for record in one.records]
            cursor.executemany(
                INSERT_EVENT,
                [(task_id, one.seq, one.epoch, one.at, one.type, one.data, one.hash) for task_id, one in records],
            )
            attempts = [(one.task_id, *attempt) for one in additions for attempt in one.belongings.attempts]
            cursor.executemany(_INSERT_ATTEMPT, attempts)
            images = [(one.task_id, *image) for one in additions for image in one.belongings.images]
            cursor.executemany(_INSERT_IMAGE, images)
            starts = [(one.task_id, *one.belongings.start) for one in additions if one.belongings.start is not None]
            cursor.executemany(_UPSERT_START, starts)
            self._log.add(self._connection, [addition.change for addition in additions], pending)
        self._log.confirm()

    def add_definitions(self, definitions: Iterable[tuple[str, str]]) -> None:
        """See `MoveTarget.add_definitions`."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(_INSERT_DEFINITIONS, [*definitions])

    def add_states(self, states: Sequence[StateRow]) -> None:
        """See `MoveTarget.add_states`."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(_UPSERT_STATE, states)

    def commit_head(self) -> CommitHead:
        return self._log.head


def _to_insert(addition: Addition) -> tuple[object, ...]:
    index = addition.index
    state = (index.version, index.epoch, index.status, index.prompt.encode(), index.plan_revision)
    metadata = json.dumps(json.loads(index.metadata))
    times = (index.created_at, index.updated_at)
    key = None if index.request_key is None else index.request_key.encode()
    request = ((index.submitter or "").encode(), key, None if index.thread is None else index.thread.encode())
    return (addition.task_id, *state, bool(index.cancel_requested), metadata, *times, *request, index.head)


def _to_update(addition: Addition) -> tuple[object, ...]:
    index = addition.index
    state = (index.version, index.epoch, index.status, index.plan_revision, bool(index.cancel_requested))
    return (*state, index.updated_at, index.head, addition.task_id)


@contextmanager
def open_source(database: Database) -> Iterator[MoveSource]:
    """See `moving.open_source`."""
    with _own(database), _connect(database, read_only=True) as connection:
        yield PostgresSource(connection)


@contextmanager
def open_target(database: Database) -> Iterator[MoveTarget]:
    """See `moving.open_target`."""
    with _own(database) as connection:
        migrate(connection)
        connection.execute("SET synchronous_commit = on")
        log = CommitLog(exclusive=True)
        log.begin(connection, make_channel(find_schema(connection)), leads=True)
        yield PostgresTarget(connection, log)


@contextmanager
def _own(database: Database) -> Iterator[Connection]:
    with _connect(database) as connection:
        find_schema(connection)
        own_database(connection, exclusive=True)
        yield connection


@contextmanager
def _connect(database: Database, *, read_only: bool = False) -> Iterator[Connection]:
    try:
        connection = database.connect(read_only=read_only)
    except psycopg.Error as error:
        raise make_opening_error(error) from error
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        raise make_unavailable_error(error) from error
