"""A plan that nobody approves in time ends its task: by itself, over a restart, and before a late approval."""

import asyncio
import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Cancel, Decision, Edit, Reject, Revise
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import DecisionRefusedError
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.storage.sqlite.store import SqliteStore
from harness import House, ledger_plan, names, submit_plan, until, until_status


class SlowStore(SqliteStore):
    """A store that takes for ever to list the plans that await approval, so that the late approval comes first."""

    async def list_awaiting_approval(self, limit: int) -> list[tuple[str, datetime]]:
        await asyncio.Event().wait()
        return await super().list_awaiting_approval(limit)


async def test_a_waiting_task_ends_by_itself_about_when_its_time_comes(house: House) -> None:
    house.set_approval(expires_after_s=0.5)
    async with house.open() as runtime:
        first = await submit_plan(runtime, ledger_plan("one"))
        second = await submit_plan(runtime, ledger_plan("two"))
        for task in (first, second):
            ended = await until_status(runtime, task.task_id, TaskStatus.EXPIRED)
            assert ended.updated_at
            assert task.planned_at
            assert timedelta(seconds=0.5) <= ended.updated_at - task.planned_at < timedelta(seconds=2)
            assert names(await runtime.tasks.records(task.task_id, ANYBODY))[-1] == "task.expired"


async def test_a_task_whose_time_came_while_nothing_ran_ends_at_the_next_start(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    house.set_approval(expires_after_s=0.001)
    async with house.open() as runtime:
        await until_status(runtime, task.task_id, TaskStatus.EXPIRED)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "change", ["UPDATE events SET epoch = 99", "UPDATE events SET seq = seq + 7", "UPDATE events SET data = '{}'"]
)
async def test_a_broken_journal_keeps_neither_the_service_from_starting_nor_others_from_expiring(
    house: House, change: str
) -> None:
    async with house.open() as runtime:
        broken = await submit_plan(runtime, ledger_plan("one"))
        task = await submit_plan(runtime, ledger_plan("two"))
    with contextlib.closing(sqlite3.connect(house.settings.storage.database_path)) as database, database:
        database.execute(f"{change} WHERE task_id = ? AND type = 'plan.proposed'", (broken.task_id,))
    house.set_approval(expires_after_s=0.001)
    async with house.open() as runtime:
        await until_status(runtime, task.task_id, TaskStatus.EXPIRED)
        third = await submit_plan(runtime, ledger_plan("three"))
        await until_status(runtime, third.task_id, TaskStatus.EXPIRED)


@pytest.mark.sqlite
@pytest.mark.parametrize("what", ["approve", "reject", "revise", "edit"])
async def test_who_comes_too_late_is_refused_and_the_task_has_expired(house: House, what: str) -> None:
    house.use_store(SlowStore)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    house.set_approval(expires_after_s=0.001)
    digest = task.plan_digest or ""
    decisions: dict[str, Decision] = {
        "approve": Approve(digest=digest),
        "reject": Reject(),
        "revise": Revise(feedback="x"),
    }
    async with house.open() as runtime:
        if what == "edit":
            late = runtime.tasks.decide(
                task.task_id, Edit(plan=ledger_plan("two"), digests=frozenset({digest})), ANYBODY
            )
        else:
            late = runtime.tasks.decide(task.task_id, decisions[what], ANYBODY)
        with pytest.raises(DecisionRefusedError, match="is expired"):
            await late
        assert (await runtime.tasks.get(task.task_id, ANYBODY)).status is TaskStatus.EXPIRED
        with pytest.raises(DecisionRefusedError, match="can no longer be cancelled"):
            await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
    assert house.counted == []


@pytest.mark.slow
@pytest.mark.sqlite
async def test_a_plan_whose_time_ends_while_it_is_made_anew_has_expired(house: House) -> None:
    house.use_store(SlowStore)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    assert task.planned_at
    go = house.folder / "go"
    start = f'while [ ! -e "{go}" ]; do sleep 0.05; done; exec "$@"'
    entry = next(entry for entry in house.entries if entry["id"] == "ledger")["config"]
    house.write_registry(
        config={**entry, "command": "sh", "args": ["-c", start, "sh", entry["command"], *entry["args"]]}
    )
    house.set_approval(expires_after_s=(datetime.now(UTC) - task.planned_at).total_seconds() + 3)
    async with house.open() as runtime, asyncio.timeout(20), asyncio.TaskGroup() as group:
        late = group.create_task(expect_refusal(runtime, task))
        await asyncio.wait([late], timeout=3)
        go.touch()
        assert "is expired" in await late
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert journal[-1] == "task.expired"
    assert "plan.repinned" not in journal


async def expect_refusal(runtime: Runtime, task: Task) -> str:
    with pytest.raises(DecisionRefusedError) as refusal:
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
    return str(refusal.value)


async def test_every_revision_has_its_own_time(house: House) -> None:
    house.set_approval(expires_after_s=2)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        edited = await runtime.tasks.decide(
            task.task_id, Edit(plan=ledger_plan("two"), digests=frozenset({task.plan_digest or ""})), ANYBODY
        )
        ended = await until_status(runtime, task.task_id, TaskStatus.EXPIRED)
    assert ended.updated_at
    assert edited.planned_at
    assert ended.updated_at - edited.planned_at >= timedelta(seconds=2)


async def test_a_plan_that_was_approved_in_time_runs_past_its_time(house: House) -> None:
    house.write_registry(delay_s=1.5)
    house.set_approval(expires_after_s=0.7)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        ended = await until(runtime, task.task_id, lambda now: now.terminal)
    assert ended.status is TaskStatus.COMPLETED


async def test_many_tasks_that_are_over_all_end(house: House) -> None:
    async with house.open() as runtime:
        tasks = [await submit_plan(runtime, ledger_plan("one")) for _ in range(120)]
    house.set_approval(expires_after_s=0.001)
    async with house.open() as runtime:
        for task in tasks:
            await until_status(runtime, task.task_id, TaskStatus.EXPIRED)
