"""The lists of tasks are read by an index, also where there are a million of them. The databases show their plans."""

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

from agent_runtime.domain.cursors import LAST_POSITION
from agent_runtime.domain.status import TERMINAL, TaskStatus
from agent_runtime.storage.postgres import rows as postgres_rows
from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.migrating import migrate
from agent_runtime.storage.sqlite import rows as sqlite_rows
from agent_runtime.storage.sqlite.database import open_database

FEW = 20_000
MILLION = 1_000_000
GENEROUS_S = 0.5
"""A page takes about a millisecond, reading all rows takes seconds."""

# Of each hundred tasks 95 were completed, one waits, and one failed.
_STATUS = """
CASE i % 100 WHEN 1 THEN 'awaiting_approval' WHEN 2 THEN 'failed' WHEN 3 THEN 'cancelled' WHEN 4 THEN 'rejected'
             WHEN 5 THEN 'needs_attention' ELSE 'completed' END
"""
_COLUMNS = """
task_id, version, epoch, status, prompt, plan_revision, cancel_requested, metadata, created_at, updated_at, submitter,
head, thread
"""
_FILL_SQLITE = f"""
WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < :count)
INSERT INTO tasks ({_COLUMNS})
SELECT 'task-' || i, 9, 1, {_STATUS}, 'Add 15 and 27, and write the result into count.txt', 1, 0, '{{}}',
       strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1700000000 + i, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1700000060 + i, 'unixepoch'), 'anonymous', 'sha256:' || i,
       CASE WHEN i % 10 = 0 THEN 'c' || (i / 10) END
FROM numbers
"""  # noqa: S608 - only constants
_FILL_POSTGRES = f"""
INSERT INTO tasks ({_COLUMNS})
SELECT 'task-' || i, 9, 1, {_STATUS.replace("%", "%%")}, 'Add 15 and 27, and write it into count.txt', 1, false, '{{}}',
       to_char(to_timestamp(1700000000 + i) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       to_char(to_timestamp(1700000060 + i) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       'anonymous', 'sha256:' || i, CASE WHEN i %% 10 = 0 THEN ('c' || (i / 10))::bytea END
FROM generate_series(1, %s) i
"""  # noqa: S608 - likewise

EARLY = datetime(2023, 11, 15, tzinfo=UTC)
"""Some hours after the first task."""


Read = Callable[[Any, Any, int], object]
"""Reads a list with the statements of a store, on a connection, from a database with this many tasks."""

CHANGED = ("task-7", "task-11")
READINGS: dict[str, tuple[Read, str]] = {
    "first page": (lambda rows, on, _: rows.select_page(on, None, (), LAST_POSITION, 50), "by position"),
    "later page": (lambda rows, on, count: rows.select_page(on, None, (), count // 2, 50), "by position"),
    "first page of a status": (
        lambda rows, on, _: rows.select_page(on, TaskStatus.FAILED, (), LAST_POSITION, 50),
        "tasks_by_status",
    ),
    "later page of a status": (
        lambda rows, on, count: rows.select_page(on, TaskStatus.FAILED, (), count // 2, 50),
        "tasks_by_status",
    ),
    "status that no task has": (
        lambda rows, on, _: rows.select_page(on, TaskStatus.EXECUTING, CHANGED, LAST_POSITION, 50),
        "tasks_by_status",
    ),
    "page beside changed journals": (
        lambda rows, on, _: rows.select_page(on, TaskStatus.NEEDS_ATTENTION, CHANGED, LAST_POSITION, 50),
        "tasks_by_status",
    ),
    "page of a thread": (
        lambda rows, on, _: rows.select_thread_page(on, "c7", None, CHANGED, LAST_POSITION, 50),
        "tasks_by_thread",
    ),
    "tasks to delete": (lambda rows, on, _: rows.select_ended(on, TaskStatus.COMPLETED, EARLY, 20), "tasks_ended"),
    "tasks that a runner takes up": (lambda rows, on, _: rows.select_unfinished(on), "tasks_by_status"),
    "tasks that may expire": (lambda rows, on, _: rows.select_awaiting(on, (), 100), "tasks_by_status"),
    "counts": (lambda rows, on, _: rows.select_counts(on, ()), "tasks_by_status"),
}
LISTS = [name for name in READINGS if name != "counts"]  # to count, PostgreSQL may rather read all rows, side by side
PAGES = [name for name in READINGS if "page" in name or name in {"status that no task has", "tasks to delete"}]


class Explaining:
    """A connection that has the database explain each statement before it runs."""

    def __init__(self, connection: Any, explain: str) -> None:
        self._connection = connection
        self._explain = explain
        self.plan = ""

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        found = self._connection.execute(f"{self._explain} {statement}", values).fetchall()
        self.plan += "".join(f"{row[-1]}\n" for row in found)
        return self._connection.execute(statement, values)


@dataclass(frozen=True)
class Filled:
    """A database with many tasks."""

    connection: Any
    rows: ModuleType
    explain: str
    by_position: str
    reads_all: str

    def read(self, name: str, count: int) -> str:
        """Read a list, and return the plan."""
        explaining = Explaining(self.connection, self.explain)
        READINGS[name][0](self.rows, explaining, count)
        return explaining.plan

    def measure_s(self, name: str, count: int) -> float:
        began = time.perf_counter()
        READINGS[name][0](self.rows, self.connection, count)
        return time.perf_counter() - began


Fill = Callable[[int], Filled]


@pytest.fixture(params=["sqlite", "postgresql"])
def fill(request: pytest.FixtureRequest) -> Iterator[Fill]:
    """Fill an empty database with as many tasks as are asked for."""
    opened = ExitStack()

    def on_sqlite(count: int) -> Filled:
        connection = opened.enter_context(closing(open_database(request.getfixturevalue("tmp_path") / "tasks.db")))
        connection.execute(_FILL_SQLITE, {"count": count})
        return Filled(
            connection, sqlite_rows, "EXPLAIN QUERY PLAN", "USING INTEGER PRIMARY KEY", r"SCAN tasks(?! USING)"
        )

    def on_postgresql(count: int) -> Filled:
        database = Database(request.getfixturevalue("postgres_url"))
        connection = opened.enter_context(database.connect())
        migrate(connection)
        connection.execute(_FILL_POSTGRES, (count,))
        connection.execute("VACUUM ANALYZE tasks")
        return Filled(connection, postgres_rows, "EXPLAIN", "using tasks_pkey", r"Seq Scan on tasks")

    with opened:
        yield on_sqlite if request.param == "sqlite" else on_postgresql


def check_plans(filled: Filled, count: int, names: Collection[str]) -> None:
    for name in names:
        index = READINGS[name][1]
        plan = filled.read(name, count)
        assert (filled.by_position if index == "by position" else index) in plan, (name, plan)
        assert not re.search(filled.reads_all, plan), (name, plan)


def test_every_list_of_tasks_is_read_by_an_index(fill: Fill) -> None:
    check_plans(fill(FEW), FEW, LISTS)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_tasks_are_paged_and_counted_quickly(fill: Fill) -> None:
    filled = fill(MILLION)
    check_plans(filled, MILLION, LISTS)
    for name in PAGES:
        assert filled.measure_s(name, MILLION) < GENEROUS_S, name
    assert filled.measure_s("counts", MILLION) < 20 * GENEROUS_S


def test_the_index_of_ended_tasks_has_every_final_status() -> None:
    final = sorted(TERMINAL)
    assert " OR ".join(f"status = '{status}'" for status in final) in sqlite_rows.SELECT_ENDED
    named = ", ".join(f"'{status}'" for status in final)
    assert f"status IN ({named})" in postgres_rows._SELECT_ENDED  # noqa: SLF001
