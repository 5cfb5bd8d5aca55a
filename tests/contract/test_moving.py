"""All tasks are copied from one store to another, both ways: verified, in order, once, also where it is interrupted."""

import asyncio
import json
import signal
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.builtin.todo_file import TodoFile
from agent_runtime.builtin.todo_list import TodoList
from agent_runtime.config import StorageSettings
from agent_runtime.domain.errors import AlreadyOwnedError, ConfigurationError
from agent_runtime.domain.journal_verification import find_journal_faults
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.stored_journal import StoredJournal
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import JudgedDefinition
from agent_runtime.services.ports import TaskStore
from agent_runtime.storage.moving import MoveReport, move, open_source, open_target
from agent_runtime.storage.opening import open_for_reading, open_store
from agent_runtime.storage.owner import own_database
from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.store import PostgresStore
from agent_runtime.storage.postgres.todos import PostgresTodos
from audits import write_finished_task
from command_line import AGENT_RUNTIME, Folder
from journals import DEFINITION, claim, plan_approved, plan_proposed, task_submitted, write_cancelled_task
from pictures import make_image
from waiting import eventually_sync

MANY = 2000
PICTURE = make_image()


@pytest.fixture(params=["to PostgreSQL", "to SQLite"])
def ways(request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str) -> tuple[StorageSettings, StorageSettings]:
    """The source and the target of a move."""
    sqlite, postgres = StorageSettings(url=f"sqlite:///{tmp_path}/tasks.db"), StorageSettings(url=postgres_url)
    return (sqlite, postgres) if request.param == "to PostgreSQL" else (postgres, sqlite)


def run_move(source: StorageSettings, target: StorageSettings) -> MoveReport:
    with open_source(source) as reading, open_target(target) as writing:
        return move(reading, writing)


def counts(report: MoveReport) -> tuple[int, int, int, int]:
    return report.copied, report.continued, report.present, report.left_out


def read_all(storage: StorageSettings) -> dict[str, StoredJournal]:
    """Return all that is stored of each task. The spelling of metadata may differ."""
    with open_for_reading(storage) as database:
        assert database.verify_commits(database.commit_head()).faults == []
        found = {task_id: database.read(task_id) for task_id in database.ids()}
    for stored in found.values():
        assert find_journal_faults(stored) == []
        assert stored.index
    return {
        task_id: replace(stored, index=replace(stored.index, metadata=json.loads(stored.index.metadata)))
        for task_id, stored in found.items()
        if stored.index
    }


async def read_beside(storage: StorageSettings) -> tuple[list[str], dict[str, int], list[Any], list[Any], Any, Any]:
    """Return what a store has beside journals: the order of the list, starts, attempts and images, a listing, and a
    state.
    """
    async with open_store(storage) as store:
        order = [task.task_id for task in (await store.page()).tasks]
        order += [task.task_id for task in (await store.page(thread="thr\x00ead")).tasks]
        attempts: list[Any] = [await store.load_planning_attempts(task_id) for task_id in ("done", "open")]
        attempts += [await store.load_image(task_id, PICTURE.digest) for task_id in ("done", "asked")]
        requests = [await store.find_request("anonymous", key) for key in ("k\x00ey", "other")]
        state = await store.states.load("agent", "thread")
        return order, await store.starts(), attempts, requests, await store.load_definitions("sha256:1"), state


async def write_approved_task(store: TaskStore, task_id: str) -> Task:
    """Write a task whose approved plan is being carried out."""
    task = await claim(store, await store.append(Task(task_id), [task_submitted()]))
    task = await store.append(task, [plan_proposed()], epoch=task.epoch)
    return await claim(store, await store.append(task, [plan_approved()]))


async def fill(storage: StorageSettings) -> None:
    """Write tasks of several kinds, with everything that belongs to them."""
    said = PlanningAttempt(
        revision=1, at=datetime.now(UTC), duration_ms=1, instructions="", messages=(), answer="\x00é", outcome="planned"
    )
    async with open_store(storage) as store:
        await write_cancelled_task(store, "gone")
        await write_finished_task(store, "done")
        await write_approved_task(store, "open")
        asked = task_submitted("Say \x00 and é", request_key="k\x00ey").model_copy(update={"thread": "thr\x00ead"})
        await store.append(Task("asked"), [asked])
        for _ in range(3):
            await store.save_planning_attempt("done", said)
        await store.save_images("done", [PICTURE], PICTURE.size)
        await store.note_starts(["open"])
        await store.save_definitions("sha256:1", [JudgedDefinition(definition=DEFINITION, fault=None)])
        await store.delete(await store.load("gone"))
        for number in range(3):
            await store.states.save("agent", "thread", f'{{"number":{number}}}')


async def test_everything_is_copied_once_and_what_has_grown_is_continued(
    ways: tuple[StorageSettings, StorageSettings],
) -> None:
    source, target = ways
    await fill(source)
    first = await asyncio.to_thread(run_move, source, target)
    assert (counts(first), first.faults, first.refused) == ((3, 0, 0, 0), [], False)
    assert read_all(target) == read_all(source)
    assert (beside := await read_beside(target)) == await read_beside(source)
    assert beside[2][2:] == [PICTURE, None]
    again = await asyncio.to_thread(run_move, source, target)
    assert counts(again) == (0, 0, 3, 0)
    assert again.target_head == first.target_head
    async with open_store(source) as store:
        await claim(store, await store.load("asked"))
        await write_cancelled_task(store, "new")
        await store.states.save("agent", "new", '{"at":"the source"}')
    async with open_store(target) as store:
        await claim(store, await store.load("open"))
        await store.states.save("agent", "thread", '{"at":"the target"}')
    assert counts(await asyncio.to_thread(run_move, source, target)) == (1, 1, 2, 0)
    moved, left = read_all(target), read_all(source)
    assert [moved[name] == left[name] for name in ("asked", "new", "done", "open")] == [True, True, True, False]
    async with open_store(target) as store:
        states = [await store.states.load("agent", thread) for thread in ("thread", "new")]
    assert [state.data for state in states if state] == ['{"at":"the target"}', '{"at":"the source"}']


async def test_what_contradicts_the_target_is_named_and_left_out(ways: tuple[StorageSettings, StorageSettings]) -> None:
    source, target = ways
    await fill(source)
    async with open_store(target) as store:
        await store.append(Task("mine"), [task_submitted(request_key="k\x00ey")])
        await write_cancelled_task(store, "open")
    before = read_all(target)
    report = await asyncio.to_thread(run_move, source, target)
    assert counts(report) == (1, 0, 0, 2)
    assert sorted(map(str, report.faults)) == [
        "asked, request_key: another task of the target has its request key.",
        "open, journal: the target has another journal of this task.",
    ]
    after = read_all(target)
    assert {name: after[name] for name in before} == before


async def test_a_changed_journal_is_named_and_left_out_and_a_cut_chain_is_refused(
    tmp_path: Path, postgres_url: str
) -> None:
    source, target = StorageSettings(url=f"sqlite:///{tmp_path}/tasks.db"), StorageSettings(url=postgres_url)
    await fill(source)
    async with open_store(source) as store:
        for name in ("rewritten", "headless"):
            await write_finished_task(store, name)
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as connection, connection:
        connection.execute("UPDATE events SET data = replace(data, 'hello', 'hallo') WHERE task_id = 'rewritten'")
        connection.execute("DELETE FROM tasks WHERE task_id = 'headless'")
    report = await asyncio.to_thread(run_move, source, target)
    assert counts(report) == (3, 0, 0, 2)
    assert {fault.task_id for fault in report.faults} == {"rewritten", "headless"}
    assert set(read_all(target)) == {"done", "open", "asked"}
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as connection, connection:
        connection.execute("DELETE FROM commits WHERE position = 2")
    report = await asyncio.to_thread(run_move, source, target)
    assert (report.refused, counts(report)) == (True, (0, 0, 0, 0))


@pytest.mark.slow
async def test_a_store_that_a_service_uses_is_refused(tmp_path: Path, postgres_url: str) -> None:
    sqlite, postgres = StorageSettings(url=f"sqlite:///{tmp_path}/tasks.db"), StorageSettings(url=postgres_url)
    for storage in (sqlite, postgres):
        async with open_store(storage) as store:
            await store.append(Task("t"), [task_submitted()])
    with own_database(sqlite.database_path), pytest.raises(AlreadyOwnedError, match="owned by process"):
        run_move(postgres, sqlite)
    for exclusive in (True, False):
        async with PostgresStore(Database(postgres_url), exclusive=exclusive):
            for source, target in ((postgres, sqlite), (sqlite, postgres)):
                with pytest.raises(AlreadyOwnedError, match="owned by another process"):
                    await asyncio.to_thread(run_move, source, target)
    with pytest.raises(ConfigurationError, match="no tasks in it"):
        open_source(StorageSettings(url=f"sqlite:///{tmp_path}/nothing.db"))
    assert not (tmp_path / "nothing.db").exists()


async def test_the_to_do_list_in_the_data_directory_is_copied_to_the_database(
    tmp_path: Path, postgres_url: str
) -> None:
    (tmp_path / "here").mkdir()
    folder = Folder(tmp_path / "here")
    source = StorageSettings(url=f"sqlite:///{folder.path}/data/tasks.db")
    (folder.path / "data").mkdir(mode=0o700)
    await fill(source)
    with closing(TodoFile(folder.path / "data" / "todo.db")) as file:
        TodoList(file).add("buy milk")
    words = ["move", "--from", str(source.url), "--to", postgres_url]
    assert (await asyncio.to_thread(move_to_the_end, folder, words))["todos"] == 1
    again = await asyncio.to_thread(move_to_the_end, folder, words)
    assert (again["todos"], again["present"]) == (None, 3)
    with closing(PostgresTodos(Database(postgres_url))) as todos:
        assert [todo.text for todo in TodoList(todos).list("all")[0]] == ["buy milk"]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_move_that_is_killed_again_and_again_ends_with_the_same_result(
    tmp_path: Path, ways: tuple[StorageSettings, StorageSettings]
) -> None:
    source, target = ways
    async with open_store(source) as store, asyncio.TaskGroup() as group:
        for number in range(MANY):
            group.create_task(write_finished_task(store, f"task-{number:04}"))
    kept = read_all(source)
    (tmp_path / "here").mkdir()
    folder = Folder(tmp_path / "here")
    words = ["move", "--from", str(source.url), "--to", str(target.url)]
    seen = 0
    for _ in range(4):
        seen = await asyncio.to_thread(move_and_kill, folder, words, target, seen)
    assert 0 < seen < MANY, "it was not killed in the middle"
    assert seen % 200 == 0, "a transaction was torn"
    done = await asyncio.to_thread(move_to_the_end, folder, words)
    assert (done["copied"], done["present"], done["faults"]) == (MANY - seen, seen, [])
    assert read_all(target) == kept
    assert (await asyncio.to_thread(move_to_the_end, folder, words))["present"] == MANY


def move_and_kill(folder: Folder, words: list[str], target: StorageSettings, seen: int) -> int:
    """Kill a move as soon as it has copied something. Return how many tasks the target has then."""
    with subprocess.Popen([*AGENT_RUNTIME, *words], cwd=folder.path, env=folder.env) as process:
        eventually_sync(lambda: process.poll() is not None or count_tasks(target) > seen, 150)
        process.send_signal(signal.SIGKILL)
    return count_tasks(target)


def move_to_the_end(folder: Folder, words: list[str]) -> Any:
    """Return the document that the command prints. A move of so many tasks may take longer than other commands."""
    command = [*AGENT_RUNTIME, *words, "--json"]
    done = subprocess.run(command, cwd=folder.path, env=folder.env, capture_output=True, timeout=200, check=True)
    return json.loads(done.stdout)


def count_tasks(storage: StorageSettings) -> int:
    try:
        with open_for_reading(storage) as database:
            return len(database.ids())
    except ConfigurationError:  # it is not there yet
        return 0
