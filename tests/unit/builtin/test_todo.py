import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from agent_runtime.builtin import todo_list
from agent_runtime.builtin.refusals import Refusal
from agent_runtime.builtin.serving import make_mcp_server
from agent_runtime.builtin.todo import create_server
from agent_runtime.builtin.todo_file import TodoFile
from agent_runtime.builtin.todo_list import MAX_LISTED, TodoDatabase, TodoList, copy_todos
from agent_runtime.builtin.toolbox import Toolbox
from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.migrating import migrate
from agent_runtime.storage.postgres.todos import PostgresTodos
from postgres_server import PostgresServer

Ask = Callable[..., Awaitable[Any]]
OpenList = Callable[[], TodoDatabase]
"""Opens the same list each time, as another process does."""


@pytest.fixture(params=["file", "postgresql"])
def open_list(request: pytest.FixtureRequest, tmp_path: Path) -> OpenList:
    if request.param == "file":
        return lambda: TodoFile(tmp_path / "data" / "todo.db")
    database = Database(request.getfixturevalue("postgres_url"))
    with database.connect() as connection:
        migrate(connection)
    return lambda: PostgresTodos(database)


@pytest.fixture
def server(open_list: OpenList) -> Toolbox:
    return create_server(open_list())


@pytest.fixture
async def todo_server(server: Toolbox, ask: Ask) -> Toolbox:
    for text in ("buy milk", "Call the bank", "call the dentist"):
        await ask(server, "add", text=text)
    return server


async def test_a_todo_is_added_and_listed(server: Toolbox, ask: Ask) -> None:
    answer = await ask(server, "add", text="  buy\n milk ")
    assert answer.text == "Added todo 1: buy milk"
    assert answer.output == {"id": 1, "text": "buy milk", "done": False}
    listed = await ask(server, "list")
    assert listed.text == "1. buy milk"
    assert listed.output == {"todos": [{"id": 1, "text": "buy milk", "done": False}], "count": 1}


@pytest.mark.parametrize(("status", "text"), [("open", "There are no open todos."), ("all", "There are no todos.")])
async def test_an_empty_list_says_so(status: str, text: str, server: Toolbox, ask: Ask) -> None:
    answer = await ask(server, "list", status=status)
    assert answer.text == text
    assert answer.output == {"todos": [], "count": 0}


async def test_the_list_tells_open_from_done(todo_server: Toolbox, ask: Ask) -> None:
    assert (await ask(todo_server, "complete", id=1)).text == "Completed todo 1: buy milk"
    assert (await ask(todo_server, "list")).text == "2. Call the bank\n3. call the dentist"
    assert (await ask(todo_server, "list", status="done")).text == "1. buy milk (done)"
    assert (await ask(todo_server, "list", status="all")).output["count"] == 3


@pytest.mark.parametrize("text", ["buy milk", "MILK", "milk buy", "uy mi"])
async def test_a_todo_is_found_by_its_text(text: str, todo_server: Toolbox, ask: Ask) -> None:
    assert (await ask(todo_server, "complete", text=text)).output == {"id": 1, "text": "buy milk", "done": True}


async def test_the_exact_text_wins_over_a_part(todo_server: Toolbox, ask: Ask) -> None:
    await ask(todo_server, "add", text="milk")
    assert (await ask(todo_server, "delete", text="milk")).text == "Deleted todo 4: milk"


@pytest.mark.parametrize("text", ["milk", "milk buy", "uy mi"])
async def test_a_part_of_its_text_deletes_no_todo_and_the_whole_one_is_named(
    text: str, todo_server: Toolbox, ask: Ask
) -> None:
    answer = await ask(todo_server, "delete", text=text)
    assert answer.is_error
    assert answer.text == (
        f"No todo has the text {text!r} as a whole; 'buy milk' (1) fits it in part. To delete that one, give its id or "
        "its whole text."
    )
    assert (await ask(todo_server, "delete", text=" BUY  milk")).text == "Deleted todo 1: buy milk"


async def test_all_todos_are_completed_at_once(todo_server: Toolbox, ask: Ask) -> None:
    await ask(todo_server, "complete", id=2)
    answer = await ask(todo_server, "complete_all")
    assert (answer.text, answer.output) == ("Completed 2 todos.", {"count": 2})
    assert (await ask(todo_server, "list", status="done")).output["count"] == 3


@pytest.mark.parametrize(
    ("status", "left"), [("open", ["buy milk"]), ("done", ["Call the bank", "call the dentist"]), ("all", [])]
)
async def test_all_todos_in_a_status_are_deleted_at_once(
    status: str, left: list[str], todo_server: Toolbox, ask: Ask
) -> None:
    await ask(todo_server, "complete", id=1)
    answer = await ask(todo_server, "delete_all", status=status)
    assert answer.output == {"count": 3 - len(left)}
    listed = (await ask(todo_server, "list", status="all")).output["todos"]
    assert [todo["text"] for todo in listed] == left


@pytest.mark.parametrize("tool", ["complete", "delete"])
async def test_an_ambiguous_text_names_the_candidates_and_changes_nothing(
    tool: str, todo_server: Toolbox, ask: Ask
) -> None:
    answer = await ask(todo_server, tool, text="call")
    assert answer.is_error
    assert answer.text == ("2 todos match 'call': 2. Call the bank; 3. call the dentist. Say which one by its id.")
    assert (await ask(todo_server, "list")).output["count"] == 3


@pytest.mark.parametrize("tool", ["complete", "delete"])
@pytest.mark.parametrize("arguments", [{}, {"id": 1, "text": "milk"}, {"id": 99}, {"text": "nothing"}, {"text": " "}])
async def test_a_todo_must_be_named_once_and_exist(
    tool: str, arguments: dict[str, object], todo_server: Toolbox, ask: Ask
) -> None:
    assert (await ask(todo_server, tool, **arguments)).is_error
    assert (await ask(todo_server, "list")).output["count"] == 3


async def test_completing_again_says_that_it_was_done(todo_server: Toolbox, ask: Ask) -> None:
    await ask(todo_server, "complete", id=1)
    assert (await ask(todo_server, "complete", id=1)).text == "Todo 1 was done already: buy milk"
    by_text = await ask(todo_server, "complete", text="milk")
    assert by_text.is_error
    assert by_text.text == "No open todo matches 'milk'; 'buy milk' (1) is done already."


async def test_a_deleted_id_never_comes_back(todo_server: Toolbox, ask: Ask) -> None:
    await ask(todo_server, "delete", id=3)
    assert (await ask(todo_server, "add", text="new")).output["id"] == 4


async def test_an_empty_todo_is_refused(server: Toolbox, ask: Ask) -> None:
    assert (await ask(server, "add", text=" \n ")).is_error


def test_the_list_is_bounded(open_list: OpenList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(todo_list, "MAX_TODOS", 2)
    todos = TodoList(open_list())
    todos.add("a")
    todos.add("b")
    with pytest.raises(Refusal, match="delete some first"):
        todos.add("c")
    todos.close()


async def test_a_long_list_is_cut_and_says_how_long_it_is(open_list: OpenList, ask: Ask) -> None:
    todos = open_list()
    with todos.write() as table:
        for _ in range(MAX_LISTED + 1):
            table.insert("x")
    todos.close()
    server = create_server(open_list())
    answer = await ask(server, "list")
    assert answer.output["count"] == MAX_LISTED + 1
    assert len(answer.output["todos"]) == MAX_LISTED
    assert answer.text.endswith("... and 1 more.")


async def test_todos_outlive_the_server(open_list: OpenList, ask: Ask) -> None:
    await ask(create_server(open_list()), "add", text="buy milk \x00")
    assert (await ask(create_server(open_list()), "list")).text == "1. buy milk \x00"


async def test_a_session_that_ends_does_not_disturb_another(server: Toolbox, ask: Ask) -> None:
    async with asyncio.timeout(10), Client(make_mcp_server(server)) as client:
        await client.call_tool("add", {"text": "one"})
        await ask(server, "add", text="two")
        await client.call_tool("add", {"text": "three"})
    assert (await ask(server, "list")).text == "1. one\n2. two\n3. three"


async def test_no_call_is_lost_among_many(server: Toolbox, ask: Ask) -> None:
    async with asyncio.timeout(20), Client(make_mcp_server(server)) as client, asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(client.call_tool("add", {"text": f"todo {number}"}))
    assert (await ask(server, "list")).output["count"] == 50


@pytest.mark.slow
def test_several_processes_share_one_list(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agent_runtime.builtin.todo_list import TodoList\n"
        "from agent_runtime.builtin.todo_file import TodoFile\n"
        "todos = TodoList(TodoFile(Path(sys.argv[1])))\n"
        "for number in range(10): todos.add(f'{sys.argv[2]} {number}')\n"
        "todos.close()"
    )
    path = tmp_path / "todo.db"
    workers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(number)]) for number in range(3)]
    assert [worker.wait(30) for worker in workers] == [0, 0, 0]
    todos = TodoList(TodoFile(path))
    assert todos.list("open")[1] == 30
    todos.close()


def test_one_todo_is_completed_by_one_caller_only(open_list: OpenList) -> None:
    lists = [TodoList(open_list()) for _ in range(2)]
    lists[0].add("buy milk")
    outcomes: list[bool] = []

    def complete(todos: TodoList) -> None:
        outcomes.append(todos.complete(1, None)[1])

    threads = [threading.Thread(target=complete, args=(lists[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    for todos in lists:
        todos.close()
    assert sorted(outcomes) == [False] * 7 + [True]


async def test_a_file_that_is_no_list_is_refused_and_recovers(tmp_path: Path, ask: Ask) -> None:
    path = tmp_path / "todo.db"
    path.write_text("not a database " * 100, encoding="utf-8")
    server = create_server(TodoFile(path))
    answer = await ask(server, "list")
    assert answer.is_error
    assert answer.text == "The file of the todo list cannot be used now: file is not a database."
    path.unlink()
    assert (await ask(server, "list")).text == "There are no open todos."


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert (await ask(create_server(TodoFile(tmp_path / "file" / "todo.db")), "list")).is_error


def test_a_list_is_copied_once_with_its_ids_and_over_no_other_list(open_list: OpenList, tmp_path: Path) -> None:
    source, target, back = TodoFile(tmp_path / "old" / "todo.db"), open_list(), TodoFile(tmp_path / "back" / "todo.db")
    assert copy_todos(source, target) == 0
    todos = TodoList(source)
    for text in ("one", "two é", "three"):
        todos.add(text)
    todos.delete(1, None)
    todos.complete(2, None)
    assert copy_todos(source, target) == 2
    copied = TodoList(target)
    assert copied.list("all") == todos.list("all")
    copied.delete(2, None)
    copied.delete(3, None)
    assert copy_todos(source, target) is None
    assert copied.list("all") == ((), 0)
    assert copied.add("four").id == 4
    assert copy_todos(target, back) == 1
    assert TodoList(back).list("all") == copied.list("all")
    for database in (source, target, back):
        database.close()


async def test_a_list_in_a_database_goes_on_after_an_outage(
    postgres_server: PostgresServer, postgres_url: str, ask: Ask
) -> None:
    database = Database(postgres_url)
    with database.connect() as connection:
        migrate(connection)
    todos = PostgresTodos(database)
    async with asyncio.timeout(40), Client(make_mcp_server(create_server(todos))) as client:
        await client.call_tool("add", {"text": "one"})
        await asyncio.to_thread(postgres_server.stop)
        try:
            refused = await client.call_tool("add", {"text": "two"})
        finally:
            await asyncio.to_thread(postgres_server.start)
        assert refused.is_error
        assert "The store cannot be used now" in str(refused.content)
        await client.call_tool("add", {"text": "three"})
    assert (await ask(create_server(todos), "list")).text == "1. one\n2. three"
