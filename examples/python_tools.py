"""Tools as plain Python functions, for an entry of type `python`: a calculator and a list of todos.

    tool_registry:
      - id: own
        type: python
        config: {object: python_tools, folder: examples}
        tools:
          calculator: {effect: read, idempotent: true, open_world: false}
          todo_store: {effect: write, open_world: false}

Each function that does not begin with `_` is a tool. Its docstring is the description, its annotations are the schema,
and the text of an exception is the error that the caller sees. The todos are gone when the service stops.
"""

from threading import Lock
from typing import Literal
from uuid import uuid4

_todos: dict[str, dict[str, str | bool]] = {}
_lock = Lock()  # calls of several tasks come in threads of their own


def calculator(operation: Literal["add", "subtract", "multiply", "divide"], a: float, b: float) -> float:
    """Perform arithmetic operations: add, subtract, multiply, divide."""
    match operation:
        case "add":
            return a + b
        case "subtract":
            return a - b
        case "multiply":
            return a * b
        case "divide":
            if b == 0:
                raise ValueError("b must not be 0")
            return a / b


def todo_store(
    action: Literal["add", "list", "complete", "delete"], todo_id: str | None = None, text: str | None = None
) -> list[dict[str, str | bool]]:
    """Add a todo by its text; complete or delete one by its id; or list them. Returns the list as it is then."""
    with _lock:
        match action:
            case "add":
                if not text:
                    raise ValueError("text is needed to add a todo")
                made = uuid4().hex[:8]
                _todos[made] = {"id": made, "text": text, "done": False}
            case "complete":
                _find(todo_id)["done"] = True
            case "delete":
                del _todos[str(_find(todo_id)["id"])]
            case "list":
                pass
        return list(_todos.values())


def _find(todo_id: str | None) -> dict[str, str | bool]:
    if todo_id not in _todos:
        raise ValueError(f"there is no todo {todo_id}")
    return _todos[todo_id]
