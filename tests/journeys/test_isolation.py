"""G9, G10, G11: a server that hangs affects only the tasks that use it, and many tasks leave nothing behind."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.config import ApprovalSettings
from agent_runtime.domain.approval import Approve, Cancel
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import Effect
from agent_runtime.services.task_manager import Submission
from agent_runtime.storage.followers import Followers
from agent_runtime.storage.sqlite.store import SqliteStore
from harness import House, names, submit_plan, until_settled, until_status
from shifty import ShiftyHouse, plan_of, run_plan, submit_and_approve
from waiting import eventually

HANGING = 40
SHARE = 16


@pytest.fixture
def house(tmp_path: Path) -> ShiftyHouse:
    return ShiftyHouse(tmp_path)


@asynccontextmanager
async def lag_below(limit_s: float) -> AsyncIterator[None]:
    """Check that the event loop is never blocked for longer than this."""
    beats: list[float] = []

    async def beat() -> None:
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        pulse = group.create_task(beat())
        yield
        pulse.cancel()
    lags = sorted(after - before for before, after in pairwise(beats))
    assert lags[int(len(lags) * 0.95)] < limit_s


def sums() -> Plan:
    return plan_of("calculator.add", a=1, b=2)


async def all_settled(runtime: Runtime, tasks: Sequence[Task]) -> list[Task]:
    return await asyncio.gather(*(until_settled(runtime, task.task_id) for task in tasks))


async def in_calls(runtime: Runtime, tasks: Sequence[Task]) -> int:
    now = [await runtime.tasks.get(task.task_id, ANYBODY) for task in tasks]
    return sum(any(step.open_call for step in task.steps.values()) for task in now)


async def until_called(runtime: Runtime, tasks: Sequence[Task], count: int) -> None:
    async def are_called() -> bool:
        return await in_calls(runtime, tasks) >= count

    await eventually(are_called)


@pytest.mark.slow
async def test_forty_tasks_on_a_server_that_hangs_stop_no_others_and_all_end_once_it_answers(
    house: ShiftyHouse,
) -> None:
    async with house.open() as runtime:
        hanging = [await submit_and_approve(runtime, plan_of(f"gate:{number}")) for number in range(HANGING)]
        await until_called(runtime, hanging, SHARE)
        async with lag_below(1), asyncio.timeout(5):
            for _ in range(20):
                assert (await run_plan(runtime, sums())).status is TaskStatus.COMPLETED
            await runtime.store.check()
        assert await in_calls(runtime, hanging) == SHARE
        house.open_gate()
        async with asyncio.timeout(20):
            assert {task.status for task in await all_settled(runtime, hanging)} == {TaskStatus.COMPLETED}
    assert sorted(house.counted, key=int) == [str(number) for number in range(HANGING)]


async def test_tasks_that_use_a_hanging_server_beside_another_do_not_stop_the_other(house: ShiftyHouse) -> None:
    mixed = plan_of("gate:x").model_dump(mode="json")
    mixed["steps"] += sums().model_dump(mode="json")["steps"]
    mixed["steps"][1] |= {"id": "s2", "depends_on": ["s1"]}
    async with house.open() as runtime:
        hanging = [await submit_and_approve(runtime, Plan.model_validate(mixed)) for _ in range(HANGING)]
        await until_called(runtime, hanging, SHARE)
        async with asyncio.timeout(5):
            assert (await run_plan(runtime, sums())).status is TaskStatus.COMPLETED
        await asyncio.gather(*(runtime.tasks.decide(task.task_id, Cancel(), ANYBODY) for task in hanging))
        house.open_gate()
        async with asyncio.timeout(10):
            assert {task.status for task in await all_settled(runtime, hanging)} == {TaskStatus.CANCELLED}
    assert len(house.counted) <= SHARE


@pytest.mark.slow
async def test_a_server_that_hangs_at_its_start_stops_no_others(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        tasks = [await submit_plan(runtime, plan_of("count:one")) for _ in range(HANGING)]
    house.write_entry(hang="tools/list")
    house.limit(server_start_s=2.0)
    async with house.open() as runtime:
        for task in tasks:
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        async with asyncio.timeout(1.5):
            assert (await run_plan(runtime, sums())).status is TaskStatus.COMPLETED
        async with asyncio.timeout(5):
            await asyncio.gather(*(runtime.tasks.decide(task.task_id, Cancel(), ANYBODY) for task in tasks))
            await all_settled(runtime, tasks)
    assert house.counted == []


@pytest.mark.slow
async def test_a_task_that_waits_for_its_turn_is_cancelled_at_once(house: ShiftyHouse) -> None:
    house.limit(tasks_on_same_servers=1)
    async with house.open() as runtime:
        first = await submit_and_approve(runtime, plan_of("gate:first"))
        await until_called(runtime, [first], 1)
        second = await submit_and_approve(runtime, plan_of("count:second"))
        third = await submit_and_approve(runtime, plan_of("count:third"))
        async with asyncio.timeout(2):
            assert (await runtime.tasks.decide(second.task_id, Cancel(), ANYBODY)).status is TaskStatus.CANCELLED
            await runtime.tasks.delete(second.task_id, ANYBODY)
        house.open_gate()
        assert {task.status for task in await all_settled(runtime, [first, third])} == {TaskStatus.COMPLETED}
    assert house.counted == ["first", "third"]


@pytest.mark.slow
async def test_with_one_place_in_all_tasks_run_one_after_another_to_their_end(house: ShiftyHouse) -> None:
    house.limit(tasks_on_same_servers=1, concurrent_tasks=1)
    house.open_gate()
    async with house.open() as runtime:
        tasks = [await submit_and_approve(runtime, plan_of(f"gate:{number}")) for number in range(10)]
        tasks += [await submit_and_approve(runtime, sums()) for _ in range(10)]
        assert {task.status for task in await all_settled(runtime, tasks)} == {TaskStatus.COMPLETED}
    assert house.counted == [str(number) for number in range(10)]


def automatic(house: House, *effects: Effect) -> None:
    house.settings = house.settings.model_copy(update={"approval": ApprovalSettings(auto_effects=effects)})


@pytest.mark.slow
async def test_a_plan_runs_unasked_only_where_every_effect_is_allowed(house: ShiftyHouse) -> None:
    automatic(house, Effect.READ)
    house.write_entry(tools={"count": {"effect": "read"}, "gate": {"effect": "write"}})
    house.open_gate()
    async with house.open() as runtime:
        reading = await runtime.tasks.submit(Submission("read", plan=plan_of("count:one"), approval="auto"), ANYBODY)
        mixed = plan_of("count:two", "gate:three")
        writing = await runtime.tasks.submit(Submission("write", plan=mixed, approval="auto"), ANYBODY)
        manual = await runtime.tasks.submit(Submission("read", plan=plan_of("count:four")), ANYBODY)
        assert (await until_settled(runtime, reading.task_id)).status is TaskStatus.COMPLETED
        assert writing.status is manual.status is TaskStatus.AWAITING_APPROVAL
        planned = await runtime.tasks.submit(Submission("what is 2 + 2", approval="auto"), ANYBODY)
        end = await until_settled(runtime, planned.task_id)
        assert end.status is TaskStatus.COMPLETED
        assert end.approvals[0].actor == "policy"
        assert names(await runtime.tasks.records(planned.task_id, ANYBODY)).count("plan.approved") == 1
        waiting = await runtime.tasks.submit(Submission("write 'hello' to x.txt", approval="auto"), ANYBODY)
        await until_status(runtime, waiting.task_id, TaskStatus.AWAITING_APPROVAL)
    assert house.counted == ["one"]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _followers(runtime: Runtime) -> Followers:
    assert isinstance(runtime.store, SqliteStore)
    return runtime.store._followers  # noqa: SLF001 - counted, not used


@pytest.mark.sqlite
@pytest.mark.slow
async def test_three_hundred_tasks_leave_nothing_behind(house: ShiftyHouse) -> None:
    async def batch(runtime: Runtime, size: int) -> tuple[int, int, int]:
        plans = [plan_of("count:x") if number % 10 == 0 else sums() for number in range(size)]
        tasks = [await submit_and_approve(runtime, plan) for plan in plans]
        async with asyncio.timeout(30):
            await all_settled(runtime, tasks)
            await eventually(lambda: not any(task.get_name().startswith("task_") for task in asyncio.all_tasks()))
        gc.collect()
        return open_files(), len(asyncio.all_tasks()), len(_followers(runtime))

    async with house.open() as runtime:
        before = await batch(runtime, 50)
        after = await batch(runtime, 250)
    assert after == before
    assert len(house.counted) == 30
