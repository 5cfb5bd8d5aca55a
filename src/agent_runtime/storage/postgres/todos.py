"""The todo list in the database of the service. Several processes may use it at once."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import LiteralString

import psycopg

from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.storage.postgres.connecting import Connection, Database, make_unavailable_error
from agent_runtime.storage.postgres.locks import TODOS, lock_transaction

_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_INSERT = "INSERT INTO todos (text) VALUES (%s) RETURNING id, text, done"
_WITH_STATUS: LiteralString = "FROM todos WHERE %(status)s = 'all' OR done = (%(status)s = 'done')"
_COUNT: LiteralString = f"SELECT count(*) {_WITH_STATUS}"
_SELECT: LiteralString = f"SELECT id, text, done {_WITH_STATUS} ORDER BY id LIMIT %(limit)s"
_FIND = "SELECT id, text, done FROM todos WHERE id = %s"
_COMPLETE = "UPDATE todos SET done = true WHERE id = %s"
_HAS_HAD_ANY = "SELECT is_called FROM todos_id_seq"
_RESTORE = "INSERT INTO todos (id, text, done) OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s)"
_USE_IDS = "SELECT setval('todos_id_seq', %s)"
_DELETE = "DELETE FROM todos WHERE id = %s"

_Todo = tuple[int, str, bool]


class PostgresTodos:
    """The todos of the database, with a connection of their own that is opened on first use and again after `close`.

    Its methods block, and may be called on any thread.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            self._drop()

    def read(self) -> AbstractContextManager["_Table"]:
        """Return a transaction that sees one state. Raises: StoreUnavailableError."""
        return self._transaction(_BEGIN_READ)

    def write(self) -> AbstractContextManager["_Table"]:
        """Return a transaction of the only writer; an error undoes it. Raises: StoreUnavailableError, which says so if
        nobody knows whether it was committed.
        """
        return self._transaction("BEGIN", lock=True)

    @contextmanager
    def _transaction(self, begin: LiteralString, *, lock: bool = False) -> Iterator["_Table"]:
        with self._lock:
            committing = False
            try:
                connection = self._begin(begin)
                if lock:  # nothing happens between read and write
                    lock_transaction(connection, TODOS)
                yield _Table(connection)
                committing = lock
                connection.execute("COMMIT")
            except psycopg.Error as error:
                self._drop()
                if committing:
                    raise StoreUnavailableError(
                        "The connection to the database was lost before it confirmed the change: list the todos to see "
                        "whether it was made."
                    ) from error
                raise make_unavailable_error(error) from error
            except BaseException:
                self._roll_back()
                raise

    def _begin(self, begin: LiteralString) -> Connection:
        """Begin a transaction, on a new connection if the one at hand turns out to be lost."""
        if self._connection is not None:
            try:
                self._connection.execute(begin)
            except psycopg.Error:
                self._drop()
            else:
                return self._connection
        self._connection = self._database.connect()
        self._connection.execute("SET lock_timeout = '5s'")
        self._connection.execute("SET synchronous_commit = on")
        self._connection.execute(begin)
        return self._connection

    def _roll_back(self) -> None:
        if self._connection is not None:
            try:
                self._connection.execute("ROLLBACK")
            except psycopg.Error:
                self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()


class _Table:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, text: str) -> _Todo:
        row = self._connection.execute(_INSERT, (text.encode(),)).fetchone()
        assert row is not None  # noqa: S101 - RETURNING gives the row
        return _to_todo(*row)

    def count(self, status: str) -> int:
        found = self._connection.execute(_COUNT, {"status": status}).fetchone()
        return int(found[0]) if found else 0

    def select(self, status: str, limit: int) -> list[_Todo]:
        return [_to_todo(*row) for row in self._connection.execute(_SELECT, {"status": status, "limit": limit})]

    def find(self, todo_id: int) -> _Todo | None:
        row = self._connection.execute(_FIND, (todo_id,)).fetchone()
        return None if row is None else _to_todo(*row)

    def complete(self, todo_id: int) -> None:
        self._connection.execute(_COMPLETE, (todo_id,))

    def delete(self, todo_id: int) -> None:
        self._connection.execute(_DELETE, (todo_id,))

    def has_had_any(self) -> bool:
        """Return whether there has ever been a todo, also one that was deleted."""
        return self._connection.execute(_HAS_HAD_ANY).fetchone() == (True,)

    def restore(self, rows: Sequence[_Todo]) -> None:
        """Add the todos of another list, in order, with their ids."""
        with self._connection.cursor() as cursor:
            cursor.executemany(_RESTORE, [(todo_id, text.encode(), done) for todo_id, text, done in rows])
        self._connection.execute(_USE_IDS, (rows[-1][0],))


def _to_todo(todo_id: int, text: bytes, done: bool) -> _Todo:  # noqa: FBT001 - a column
    return todo_id, text.decode(), done
