"""The todo list in a SQLite file."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from agent_runtime.builtin.todo_list import Row, Status
from agent_runtime.domain.errors import StoreUnavailableError

_BUSY_S = 10.0

# AUTOINCREMENT: the id of a deleted todo is never used again.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS todos (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL,
    done INTEGER NOT NULL DEFAULT 0 CHECK (done IN (0, 1))
) STRICT
"""
_ADD = "INSERT INTO todos (text) VALUES (?) RETURNING id, text, done"
_COUNT = "SELECT count(*) FROM todos WHERE :status = 'all' OR done = (:status = 'done')"
_LIST = "SELECT id, text, done FROM todos WHERE :status = 'all' OR done = (:status = 'done') ORDER BY id LIMIT :limit"
_GET = "SELECT id, text, done FROM todos WHERE id = ?"
_COMPLETE = "UPDATE todos SET done = 1 WHERE id = ?"
_LAST_ID = "SELECT seq FROM sqlite_sequence WHERE name = 'todos'"
_RESTORE = "INSERT INTO todos (id, text, done) VALUES (?, ?, ?)"
_DELETE = "DELETE FROM todos WHERE id = ?"


class TodoFile:
    """A `TodoDatabase` in a file, which is created on first use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def read(self) -> AbstractContextManager["_Table"]:
        """See `TodoDatabase.read`."""
        return self._transaction("BEGIN")

    def write(self) -> AbstractContextManager["_Table"]:
        """See `TodoDatabase.write`."""
        return self._transaction("BEGIN IMMEDIATE")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator["_Table"]:
        """Run alone in this process; with IMMEDIATE as the only writer of all, so that nothing happens between read and
        write.
        """
        try:
            with self._lock:
                connection = self._connection = self._connection or _connect(self._path)
                connection.execute(begin)
                try:
                    yield _Table(connection)
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:  # refused, or the disk is full: undo everything
                        connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"The file of the todo list cannot be used now: {error}.") from error
        except OSError as error:
            raise StoreUnavailableError(f"The folder of the todo list cannot be made: {error.strerror}.") from error


class _Table:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def insert(self, text: str) -> Row:
        return _to_row(self._connection.execute(_ADD, (text,)).fetchone())

    def count(self, status: Status) -> int:
        return int(self._connection.execute(_COUNT, {"status": status}).fetchone()[0])

    def select(self, status: Status, limit: int) -> list[Row]:
        return list(map(_to_row, self._connection.execute(_LIST, {"status": status, "limit": limit})))

    def find(self, todo_id: int) -> Row | None:
        row = self._connection.execute(_GET, (todo_id,)).fetchone()
        return None if row is None else _to_row(row)

    def complete(self, todo_id: int) -> None:
        self._connection.execute(_COMPLETE, (todo_id,))

    def delete(self, todo_id: int) -> None:
        self._connection.execute(_DELETE, (todo_id,))

    def has_had_any(self) -> bool:
        """See `TodoTable.has_had_any`."""
        return self._connection.execute(_LAST_ID).fetchone() is not None

    def restore(self, rows: Sequence[Row]) -> None:
        """See `TodoTable.restore`."""
        self._connection.executemany(_RESTORE, rows)


def _to_row(row: tuple[int, str, int]) -> Row:
    return row[0], row[1], bool(row[2])


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # as private as the journal beside it
    # All worker threads share one connection; the lock of the list keeps them apart.
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
