"""A list of todos in a SQLite file. Several processes may use it at once."""

import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent_runtime.builtin.toolbox import Refusal

Status = Literal["open", "done", "all"]

MAX_LISTED = 1000
"""The most todos of a listing."""
MAX_TODOS = 10_000
_CANDIDATES_SHOWN = 10
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
_DELETE = "DELETE FROM todos WHERE id = ?"


@dataclass(frozen=True, slots=True)
class Todo:
    id: int
    text: str
    done: bool

    def __str__(self) -> str:
        return f"{self.id}. {self.text}" + (" (done)" if self.done else "")


class TodoList:
    """One connection, opened on first use and again after `close`. Its methods block, and may be called on any thread.

    Every method raises Refusal if the request is invalid or the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def add(self, text: str) -> Todo:
        """Add an open todo, on one line, and return it. Durable on return."""
        line = " ".join(text.split())
        if not line:
            raise Refusal("The text of the todo is empty: say what is to be done.")
        with self._transaction() as connection:
            if _count(connection, "all") >= MAX_TODOS:
                raise Refusal(f"There are {MAX_TODOS} todos already: delete some first.")
            return _to_todo(connection.execute(_ADD, (line,)).fetchone())

    def list(self, status: Status) -> tuple[tuple[Todo, ...], int]:
        """Return the first todos in this status, oldest first, and the number of all."""
        with self._transaction("BEGIN") as connection:
            return _select(connection, status, MAX_LISTED), _count(connection, status)

    def complete(self, todo_id: int | None, text: str | None) -> tuple[Todo, bool]:
        """Complete a todo. Return it, and whether it was open before. By text, only open ones are found."""
        with self._transaction() as connection:
            todo = _choose(connection, todo_id, text, "open")
            connection.execute(_COMPLETE, (todo.id,))
            return Todo(todo.id, todo.text, done=True), not todo.done

    def delete(self, todo_id: int | None, text: str | None) -> Todo:
        """Delete a todo and return it."""
        with self._transaction() as connection:
            todo = _choose(connection, todo_id, text, "all")
            connection.execute(_DELETE, (todo.id,))
            return todo

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Run alone in this process; with IMMEDIATE as the only writer of all, so that nothing happens between read and
        write.
        """
        try:
            with self._lock:
                connection = self._connection = self._connection or _connect(self._path)
                connection.execute(begin)
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:  # refused, or the disk is full: undo everything
                        connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise Refusal(f"The file of the todo list cannot be used now: {error}.") from error
        except OSError as error:
            raise Refusal(f"The folder of the todo list cannot be made: {error.strerror}.") from error


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


def _to_todo(row: tuple[int, str, int]) -> Todo:
    return Todo(row[0], row[1], bool(row[2]))


def _select(connection: sqlite3.Connection, status: Status, limit: int) -> tuple[Todo, ...]:
    return tuple(map(_to_todo, connection.execute(_LIST, {"status": status, "limit": limit})))


def _count(connection: sqlite3.Connection, status: Status) -> int:
    return int(connection.execute(_COUNT, {"status": status}).fetchone()[0])


def _choose(connection: sqlite3.Connection, todo_id: int | None, text: str | None, status: Status) -> Todo:
    """Return the one todo that is meant, by its id or by its text."""
    if (todo_id is None) == (text is None):
        raise Refusal("Say which todo, by its id or by its text, and not by both.")
    if todo_id is not None:
        row = connection.execute(_GET, (todo_id,)).fetchone()
        if row is None:
            raise Refusal(f"There is no todo {todo_id}: list the todos to see what there is.")
        return _to_todo(row)
    wanted = " ".join((text or "").split())
    if not wanted:
        raise Refusal("The text is empty: say which todo, by its id or by a part of its text.")
    known = _select(connection, "all", MAX_TODOS)
    found = find_matching(wanted, [todo for todo in known if status == "all" or not todo.done])
    if len(found) == 1:
        return found[0]
    if found:
        shown = "; ".join(map(str, found[:_CANDIDATES_SHOWN])) + ("; ..." if len(found) > _CANDIDATES_SHOWN else "")
        raise Refusal(f"{len(found)} todos match {wanted!r}: {shown}. Say which one by its id.")
    done = find_matching(wanted, known)
    if done:
        raise Refusal(f"No open todo matches {wanted!r}; {done[0].text!r} ({done[0].id}) is done already.")
    raise Refusal(f"No todo matches {wanted!r}: list the todos to see what there is.")


def find_matching(wanted: str, todos: list[Todo] | tuple[Todo, ...]) -> list[Todo]:
    """Return the todos with exactly this text; else those that contain it; else those with all its
    words. Ignores case.
    """
    folded = wanted.casefold()
    words = _split_words(folded)
    return (
        [todo for todo in todos if todo.text.casefold() == folded]
        or [todo for todo in todos if folded in todo.text.casefold()]
        or [todo for todo in todos if words and words <= _split_words(todo.text.casefold())]
    )


def _split_words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))
