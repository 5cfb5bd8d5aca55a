"""The feed from a database file: what it leaves out of a changed file, and the chain of commits (decision 19)."""

import asyncio
import sqlite3
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent_runtime.domain import events as ev
from agent_runtime.domain.chain import GENESIS, commit_hash
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.task import Task
from agent_runtime.storage.sqlite.store import SqliteStore
from journals import task_submitted

PATIENCE_S = 20.0
CANCELLED = [ev.TaskCancelRequested(), ev.TaskCancelled()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


async def records(store: SqliteStore) -> list[tuple[str, int]]:
    """Return the task and the number of each event in the feed."""
    found: list[tuple[str, int]] = []
    async with aclosing(await store.subscribe(idle_s=0.05)) as pages:
        async for page in pages:
            if not page:
                break
            found += [(one.content.task_id, one.content.seq) for one in page if isinstance(one.content, EventRecord)]
    return found


@pytest.mark.parametrize(
    ("column", "value"), [("data", "replace(data, 'hello', 'goodbye')"), ("at", "'2020-01-01T00:00:00.000000Z'")]
)
async def test_a_record_that_was_changed_in_the_file_is_left_out_and_the_feed_goes_on(
    path: Path, column: str, value: str
) -> None:
    async with asyncio.timeout(PATIENCE_S), SqliteStore(path) as store:
        task = await store.append(Task("a"), [task_submitted("say hello")])
        await store.append(Task("b"), [task_submitted("say hello")])
        await store.append(task, CANCELLED)
        assert await records(store) == [("a", 1), ("b", 1), ("a", 2), ("a", 3)]
        change(path, f"UPDATE events SET {column} = {value} WHERE task_id = 'a' AND seq = 1")  # noqa: S608
        with capture_logs() as logs:
            assert await records(store) == [("b", 1), ("a", 2), ("a", 3)]
    assert [log for log in logs if log["event"] == "feed_left_out"] == [
        {"event": "feed_left_out", "log_level": "error", "task_id": "a", "first": 1, "last": 1}
    ]


def types_of_chained_commits(path: Path) -> list[str]:
    """Return the types of all commits, after checking that each follows from the one before it."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT position, at, type, data, hash FROM commits ORDER BY position").fetchall()
    before = GENESIS
    for number, (position, at, kind, data, hash_) in enumerate(rows, start=1):
        assert (position, hash_) == (number, commit_hash(before, number, at, kind, data))
        before = hash_
    return [kind for _, _, kind, _, _ in rows]


async def write_commits(path: Path, task_id: str) -> None:
    """Write two commits, and two more after opening the store again."""
    for name in (f"{task_id}1", f"{task_id}2"):
        async with asyncio.timeout(PATIENCE_S), SqliteStore(path) as store:
            task = await store.append(Task(name), [task_submitted()])
            await store.append(task, CANCELLED)


async def test_each_commit_follows_from_the_one_before_it(path: Path) -> None:
    await write_commits(path, "a")
    async with asyncio.timeout(PATIENCE_S), SqliteStore(path) as store:
        await store.checkpoint()
        await store.delete(await store.load("a1"))
    assert types_of_chained_commits(path) == [*["changes"] * 4, "checkpoint", "changes"]


async def test_the_commit_that_a_migration_writes_is_the_first_of_the_chain(path: Path) -> None:
    await write_commits(path, "a")
    later = (
        *(f"DROP TABLE {table}" for table in ("commits", "planning_attempts", "agent_states", "images")),
        *(f"DROP INDEX {index}" for index in ("tasks_ended", "tasks_by_thread")),
        "ALTER TABLE tasks DROP COLUMN thread",
    )
    change(path, *later, "PRAGMA user_version = 4")  # as it was before
    await write_commits(path, "b")
    assert types_of_chained_commits(path) == ["checkpoint", *["changes"] * 4]
