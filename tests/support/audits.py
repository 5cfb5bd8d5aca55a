"""Valid tasks in a real database, and ways to tamper with them without the service."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from agent_runtime.domain import events as ev
from agent_runtime.domain.chain import GENESIS, record_hash
from agent_runtime.domain.commits import CommitHead, chain_commit, parse_head
from agent_runtime.domain.journal_verification import find_journal_faults
from agent_runtime.domain.stored_journal import AuditFault, StoredJournal
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import digest
from agent_runtime.services.ports import TaskStore
from agent_runtime.storage.sqlite.read_only import open_read_only
from agent_runtime.storage.sqlite.store import SqliteStore
from journals import claim, plan_approved, plan_proposed, task_submitted, tool_returned

LAST = 14
"""The number of the last record of a finished task."""


def call(step: str, **other: Any) -> ev.ToolCalled:
    """Return the event of the call that the plan has for a step; `other` fields make it differ."""
    arguments = other.pop("arguments", {"text": "hello"})
    event = ev.ToolCalled(
        step_id=step,
        call_id=f"call-{step}",
        server="text",
        tool="echo",
        arguments=arguments,
        arguments_digest=digest(arguments),
        attempt=1,
    )
    return event.model_copy(update=other)


async def write_finished_task(store: TaskStore, task_id: str) -> Task:
    """Write a completed task, whose two calls match its plan: 14 records."""
    task = await store.append(Task(task_id), [task_submitted()])
    task = await claim(store, task)
    task = await store.append(task, [plan_proposed()], epoch=task.epoch)
    task = await store.append(task, [plan_approved()])
    task = await claim(store, task)
    task = await store.append(task, [ev.StepStarted(step_id="s1", title="one"), call("s1")], epoch=task.epoch)
    first = [tool_returned("call-s1", "s1"), ev.StepCompleted(step_id="s1")]
    second = [ev.StepStarted(step_id="s2", title="two"), call("s2")]
    task = await store.append(task, [*first, *second], epoch=task.epoch)
    last = [tool_returned("call-s2", "s2"), ev.StepCompleted(step_id="s2"), ev.TaskCompleted(result="hello")]
    return await store.append(task, last, epoch=task.epoch)


async def database(folder: Path, *task_ids: str) -> Path:
    """Create a closed database with completed tasks, and return its path."""
    path = folder / "agent-runtime.db"
    async with SqliteStore(path) as store:
        for task_id in task_ids or ("t",):
            assert (await write_finished_task(store, task_id)).version == LAST
    return path


def tamper(path: Path, *statements: str, values: tuple[Any, ...] = ()) -> None:
    """Change the database directly, with SQL."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement, values)


def read(path: Path, task_id: str = "t") -> StoredJournal:
    with open_read_only(path) as file:
        return file.read(task_id)


def faults(path: Path, task_id: str = "t") -> list[AuditFault]:
    return find_journal_faults(read(path, task_id))


def places(path: Path, task_id: str = "t") -> list[tuple[int | None, str]]:
    return [(fault.seq, fault.field) for fault in faults(path, task_id)]


def rechain(path: Path, task_id: str = "t") -> None:
    """Recompute the hash chain of a changed journal, as a forger would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        head = GENESIS
        columns = "seq, epoch, at, type, data"
        found = connection.execute(f"SELECT {columns} FROM events WHERE task_id = ? ORDER BY seq", (task_id,))  # noqa: S608
        for seq, epoch, at, kind, data in found.fetchall():
            head = record_hash(head, task_id, seq, epoch, at, kind, data)
            connection.execute("UPDATE events SET hash = ? WHERE task_id = ? AND seq = ?", (head, task_id, seq))
        connection.execute("UPDATE tasks SET head = ?, version = ? WHERE task_id = ?", (head, seq, task_id))


def rewrite(path: Path, seq: int, event: ev.Event, task_id: str = "t") -> None:
    """Replace the event of a record, and recompute the hash chain."""
    tamper(
        path,
        "UPDATE events SET data = ? WHERE seq = ? AND task_id = ?",
        values=(event.model_dump_json(), seq, task_id),
    )
    rechain(path, task_id)


def spoil_index(path: Path) -> None:
    """Corrupt the index of the task list, which no journal needs."""
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'tasks_by_status'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    raw = bytearray(path.read_bytes())
    raw[page * size - 3] ^= 4
    path.write_bytes(bytes(raw))


def find_commit_places(path: Path, kept_head: str | None = None) -> list[str]:
    """Return the places of faults in the commits and their journals: task, record and field."""
    with open_read_only(path) as file:
        found = file.verify_commits(parse_head(kept_head) if kept_head else None)
    return [str(fault).partition(": ")[0] for fault in found.faults]


def read_kept_head(path: Path) -> str:
    """Return the head that `audit head` prints."""
    with open_read_only(path) as file:
        return str(file.commit_head())


def rechain_commits(path: Path) -> None:
    """Recompute the chain of changed commits, without gaps, as a forger would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        found = connection.execute("SELECT position, at, type, data FROM commits ORDER BY position").fetchall()
        connection.execute("DELETE FROM commits")
        head = CommitHead()
        for _, at, kind, data in found:
            row = chain_commit(head, at, kind, data)
            connection.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?)", row)
            head = CommitHead(row[0], row[4])
