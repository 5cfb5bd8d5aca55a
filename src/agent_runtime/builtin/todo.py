"""The todo server: one list of things to do, kept in the database of the service or in a SQLite file.

Alone on standard streams: `python -m agent_runtime.builtin.todo --data-dir DIR`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from agent_runtime.builtin.refusals import pluralize
from agent_runtime.builtin.todo_file import TodoFile
from agent_runtime.builtin.todo_list import MAX_LISTED, Status, Todo, TodoDatabase, TodoList
from agent_runtime.builtin.toolbox import ADDS, READS, REMOVES, Answer, Output, Toolbox, make_tool, make_toolbox

_MAX_TODO = 2000

TodoText = Annotated[str, Field(max_length=_MAX_TODO, description="What is to be done, in one line.")]
TodoId = Annotated[
    int | None, Field(ge=1, le=2**53 - 1, description="The id of the todo. Give either this or the text.")
]
PartOfText = Annotated[
    str | None,
    Field(
        max_length=_MAX_TODO,
        description="The text of the todo, a part of it or some of its words; it must fit one todo only.",
    ),
]

WholeText = Annotated[
    str | None,
    Field(max_length=_MAX_TODO, description="The whole text of the todo; a part of it deletes nothing."),
]


class TodoItem(Output):
    id: int
    text: str
    done: bool

    @classmethod
    def of(cls, todo: Todo) -> Self:
        return cls(id=todo.id, text=todo.text, done=todo.done)


class Todos(Output):
    """`count`: how many there are; at most 1,000 are listed."""

    todos: list[TodoItem]
    count: int


class Several(Output):
    """`count`: how many todos were changed."""

    count: int


class TodoTools:
    """The tools on one list."""

    def __init__(self, todos: TodoList) -> None:
        self._todos = todos

    def add(self, text: TodoText) -> Answer[TodoItem]:
        """Add a todo to the list."""
        todo = self._todos.add(text)
        return Answer(f"Added todo {todo.id}: {todo.text}", TodoItem.of(todo))

    def list_todos(self, status: Annotated[Status, Field(description="Which todos.")] = "open") -> Answer[Todos]:
        """List the todos of a status."""
        todos, count = self._todos.list(status)
        lines = [str(todo) for todo in todos]
        if not lines:
            lines = ["There are no todos." if status == "all" else f"There are no {status} todos."]
        if count > MAX_LISTED:
            lines.append(f"... and {count - MAX_LISTED} more.")
        return Answer("\n".join(lines), Todos(todos=[TodoItem.of(todo) for todo in todos], count=count))

    def complete(self, id: TodoId = None, text: PartOfText = None) -> Answer[TodoItem]:  # noqa: A002 - the argument's name on the wire
        """Mark one todo as done, by its id or by its text."""
        todo, was_open = self._todos.complete(id, text)
        said = f"Completed todo {todo.id}: {todo.text}" if was_open else f"Todo {todo.id} was done already: {todo.text}"
        return Answer(said, TodoItem.of(todo))

    def delete(self, id: TodoId = None, text: WholeText = None) -> Answer[TodoItem]:  # noqa: A002 - likewise
        """Delete one todo for good, by its id or by its whole text."""
        todo = self._todos.delete(id, text)
        return Answer(f"Deleted todo {todo.id}: {todo.text}", TodoItem.of(todo))

    def complete_all(self) -> Answer[Several]:
        """Complete all open todos."""
        count = self._todos.complete_all()
        return Answer(f"Completed {pluralize(count, 'todo')}.", Several(count=count))

    def delete_all(self, status: Annotated[Status, Field(description="Which todos.")]) -> Answer[Several]:
        """Delete all todos of a status for good."""
        count = self._todos.delete_all(status)
        return Answer(f"Deleted {pluralize(count, 'todo')}.", Several(count=count))


def create_server(database: TodoDatabase) -> Toolbox:
    """Return the server for the list in this database, which is opened on first use."""
    todos = TodoList(database)
    tools = TodoTools(todos)
    return make_toolbox(
        "todo",
        f"One list of todos; a listing shows {pluralize(MAX_LISTED, 'todo')} at most.",
        [
            make_tool(tools.add, ADDS),
            make_tool(tools.list_todos, READS, name="list"),
            # By text, a second call may mean another todo: neither is idempotent.
            make_tool(tools.complete, ADDS),
            make_tool(tools.delete, REMOVES),
            make_tool(tools.complete_all, ADDS),
            make_tool(tools.delete_all, REMOVES),
        ],
        todos.close,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the list on standard streams until they close."""
    parser = argparse.ArgumentParser(prog="agent_runtime.builtin.todo", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="the folder that holds todo.db")
    create_server(TodoFile(parser.parse_args(arguments).data_dir / "todo.db")).serve()


if __name__ == "__main__":
    main()
