"""A list of todos in a database that several processes may use at once."""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from agent_runtime.builtin.refusals import Refusal
from agent_runtime.domain.errors import StoreUnavailableError

Status = Literal["open", "done", "all"]

MAX_LISTED = 1000
"""The most todos of a listing."""
MAX_TODOS = 10_000
_CANDIDATES_SHOWN = 10

Row = tuple[int, str, bool]
"""A stored todo: id, text, done."""


class TodoTable(Protocol):
    """The todos within a transaction. The id of a deleted todo is never used again."""

    def insert(self, text: str) -> Row: ...
    def count(self, status: Status) -> int: ...
    def select(self, status: Status, limit: int) -> list[Row]:
        """Return the first todos in this status, oldest first."""

    def find(self, todo_id: int) -> Row | None: ...
    def complete(self, todo_id: int) -> None: ...
    def delete(self, todo_id: int) -> None: ...
    def has_had_any(self) -> bool:
        """Return whether there has ever been a todo, also one that was deleted."""

    def restore(self, rows: Sequence[Row]) -> None:
        """Add the todos of another list, in order, with their ids. There has been none so far."""


class TodoDatabase(Protocol):
    """Keeps a list on a connection that is opened on first use and again after `close`. Its methods block, and may be
    called on any thread.
    """

    def read(self) -> AbstractContextManager[TodoTable]:
        """Return a transaction that sees one state. Entering and leaving raise: StoreUnavailableError."""

    def write(self) -> AbstractContextManager[TodoTable]:
        """Return a transaction of the only writer. It is durable on leaving, and undone by an error.

        Entering and leaving raise: StoreUnavailableError.
        """

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Todo:
    id: int
    text: str
    done: bool

    def __str__(self) -> str:
        return f"{self.id}. {self.text}" + (" (done)" if self.done else "")


class TodoList:
    """The verbs of the list. Its methods block, and may be called on any thread.

    Every method raises Refusal if the request is invalid or the database cannot be used.
    """

    def __init__(self, database: TodoDatabase) -> None:
        self._database = database

    def close(self) -> None:
        self._database.close()

    def add(self, text: str) -> Todo:
        """Add an open todo, on one line, and return it. Durable on return."""
        line = " ".join(text.split())
        if not line:
            raise Refusal("The text of the todo is empty: say what is to be done.")
        with _refuse_in_outage(), self._database.write() as todos:
            if todos.count("all") >= MAX_TODOS:
                raise Refusal(f"There are {MAX_TODOS} todos already: delete some first.")
            return Todo(*todos.insert(line))

    def list(self, status: Status) -> tuple[tuple[Todo, ...], int]:
        """Return the first todos in this status, oldest first, and the number of all."""
        with _refuse_in_outage(), self._database.read() as todos:
            return _select(todos, status, MAX_LISTED), todos.count(status)

    def complete(self, todo_id: int | None, text: str | None) -> tuple[Todo, bool]:
        """Complete a todo. Return it, and whether it was open before. By text, only open ones are found."""
        with _refuse_in_outage(), self._database.write() as todos:
            todo = _choose(todos, todo_id, text, "open")
            todos.complete(todo.id)
            return Todo(todo.id, todo.text, done=True), not todo.done

    def delete(self, todo_id: int | None, text: str | None) -> Todo:
        """Delete a todo and return it. By text, only the whole text counts."""
        with _refuse_in_outage(), self._database.write() as todos:
            todo = _choose(todos, todo_id, text, "all")
            wanted = " ".join((text or todo.text).split())
            if todo.text.casefold() != wanted.casefold():
                raise Refusal(
                    f"No todo has the text {wanted!r} as a whole; {todo.text!r} ({todo.id}) fits it in part. To delete "
                    "that one, give its id or its whole text."
                )
            todos.delete(todo.id)
            return todo

    def complete_all(self) -> int:
        """Complete all open todos. Return how many there were."""
        with _refuse_in_outage(), self._database.write() as todos:
            found = _select(todos, "open", MAX_TODOS)
            for todo in found:
                todos.complete(todo.id)
            return len(found)

    def delete_all(self, status: Status) -> int:
        """Delete all todos in this status. Return how many there were."""
        with _refuse_in_outage(), self._database.write() as todos:
            found = _select(todos, status, MAX_TODOS)
            for todo in found:
                todos.delete(todo.id)
            return len(found)


def copy_todos(source: TodoDatabase, target: TodoDatabase) -> int | None:
    """Copy all todos with their ids, in one transaction, and return their number.

    Returns None, and copies nothing, if the target has ever had a todo: one of its own, or a copy from before. Raises:
    StoreUnavailableError.
    """
    with source.read() as todos:
        rows = todos.select("all", MAX_TODOS)
    if not rows:
        return 0
    with target.write() as todos:
        if todos.has_had_any():
            return None
        todos.restore(rows)
    return len(rows)


@contextmanager
def _refuse_in_outage() -> Iterator[None]:
    try:
        yield
    except StoreUnavailableError as error:
        raise Refusal(str(error)) from error


def _select(todos: TodoTable, status: Status, limit: int) -> tuple[Todo, ...]:
    return tuple(Todo(*row) for row in todos.select(status, limit))


def _choose(todos: TodoTable, todo_id: int | None, text: str | None, status: Status) -> Todo:
    """Return the one todo that is meant, by its id or by its text."""
    if (todo_id is None) == (text is None):
        raise Refusal("Say which todo, by its id or by its text, and not by both.")
    if todo_id is not None:
        row = todos.find(todo_id)
        if row is None:
            raise Refusal(f"There is no todo {todo_id}: list the todos to see what there is.")
        return Todo(*row)
    wanted = " ".join((text or "").split())
    if not wanted:
        raise Refusal("The text is empty: say which todo, by its id or by a part of its text.")
    known = _select(todos, "all", MAX_TODOS)
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
