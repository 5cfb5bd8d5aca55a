"""Replicas on one PostgreSQL database: each task is run by one of them, and by another if that one is lost.

One replica or two are in this process. One that is killed or stopped is a process of its own.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from agent_runtime.api.metrics import exposition
from agent_runtime.bootstrap import Runtime, open_runtime
from agent_runtime.config import Secrets
from agent_runtime.config.retention import RetentionSettings
from agent_runtime.domain.approval import Approve, Cancel, Resolve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.events import PlanApproved, TaskClaimed, ToolCalled
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.services.task_manager import Submission
from harness import House, ledger_plan, submit_plan, until_settled, until_status
from postgres_server import PostgresServer
from replica import QUICK, SILENCE_S, Replica
from waiting import eventually

HELD = "SELECT lock, worker_id FROM procrastinate_jobs WHERE status = 'doing'"
WORKERS = "SELECT count(*) FROM procrastinate_workers"


@pytest.fixture
def house(house: House, postgres_url: str) -> House:
    """A house on PostgreSQL that notices soon that a replica is dead."""
    house.use_postgresql(postgres_url)
    house.wait(heartbeat_s=QUICK.heartbeat_s, silence_s=QUICK.silence_s, look_s=QUICK.look_s)
    return house


@pytest.fixture
async def replicas(house: House) -> AsyncIterator[tuple[Runtime, Runtime]]:
    async with AsyncExitStack() as opened:
        yield await opened.enter_async_context(house.open()), await opened.enter_async_context(house.open())


async def approve(runtime: Runtime, *labels: str, tool: str = "count") -> str:
    """Have these calls planned and approved, and return the id of their task."""
    task = await submit_plan(runtime, ledger_plan(*labels, tool=tool))
    await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
    return task.task_id


async def leave_approved(house: House, *labels: str, tool: str = "count", retries: int = 0) -> str:
    """Leave a task that is approved, and that no replica has seen yet. Return its id."""
    async with open_runtime(house.settings, Secrets(), parts=house.parts, recover=frozenset()) as runtime:
        steps = ledger_plan(*labels, tool=tool).model_dump(mode="json")["steps"]
        plan = Plan.model_validate({"goal": "count", "steps": [{**step, "retries": retries} for step in steps]})
        task = await submit_plan(runtime, plan)
        await runtime.store.append(task, [PlanApproved(revision=1, digest=task.plan_digest or "", names_digest=True)])
        return task.task_id


@pytest.mark.slow
async def test_a_cancel_through_one_replica_stops_the_call_at_another(
    house: House, replicas: tuple[Runtime, Runtime]
) -> None:
    house.write_registry(delay_s=60)
    task_ids = [await approve(replicas[0], label) for label in ("a", "b")]
    await eventually(lambda: sorted(house.counted) == ["a", "b"])
    for task_id in task_ids:  # wherever each runs, one of the replicas is not the one that runs it
        for replica in replicas:
            await replica.tasks.decide(task_id, Cancel(), ANYBODY)
    ended = [await until_settled(replicas[1], task_id) for task_id in task_ids]
    assert {task.status for task in ended} == {TaskStatus.CANCELLED}


async def test_tasks_are_run_once_each_whichever_replica_took_them(
    house: House, replicas: tuple[Runtime, Runtime], postgres_server: PostgresServer, postgres_url: str
) -> None:
    task_ids = [await approve(replicas[number % 2], f"{number}") for number in range(6)]
    ended = [await until_settled(replicas[0], task_id) for task_id in task_ids]
    assert {task.status for task in ended} == {TaskStatus.COMPLETED}
    assert sorted(house.counted) == [f"{number}" for number in range(6)]
    await eventually(lambda: postgres_server.execute("SELECT id FROM procrastinate_jobs", postgres_url) == [])


async def test_a_replica_of_the_role_api_leaves_every_run_to_the_others(house: House) -> None:
    async with house.open() as worker:
        house.settings = house.settings.model_copy(update={"role": "api"})
        async with house.open() as door:
            task = await door.tasks.submit(Submission(prompt="Add 15 and 27"), ANYBODY)
            task = await until_status(door, task.task_id, TaskStatus.AWAITING_APPROVAL)
            await door.tasks.decide(task.task_id, Approve(), ANYBODY)
            ended = await until_settled(door, task.task_id)
            assert ended.status is TaskStatus.COMPLETED
            claims = [
                one.event for one in await worker.store.records(task.task_id) if isinstance(one.event, TaskClaimed)
            ]
            assert len({claim.runner for claim in claims}) == 1
            assert set(door.runner.queue.values()) == {0}


async def measure(runtime: Runtime, name: str) -> float:
    """Return a metric of this replica, as Prometheus reads it."""
    text = (await exposition(runtime, streams=0)).decode()
    (sample,) = [line for line in text.splitlines() if line.startswith(f"agent_runtime_{name} ")]
    return float(sample.split()[-1])


async def test_the_metrics_of_any_replica_tell_of_the_fleet_and_of_its_own_part(
    replicas: tuple[Runtime, Runtime],
) -> None:
    for replica in replicas:
        assert await measure(replica, "fleet_workers") == 2
        assert await measure(replica, "fleet_replicas") == 2
        assert await measure(replica, "fleet_queue_age_seconds") == 0
        assert await measure(replica, "jobs_taken_over_total") == 0
        assert 0 <= await measure(replica, "listener_age_seconds") < 60
    assert sorted([await measure(replica, "chain_writer") for replica in replicas]) == [0, 1]


async def test_one_replica_of_all_deletes_what_need_not_be_kept_any_longer(house: House) -> None:
    house.settings = house.settings.model_copy(update={"retention": RetentionSettings(cancelled_s=0.001)})
    with capture_logs() as logged:
        async with house.open() as one, house.open() as another:
            tasks = [await submit_plan(one, ledger_plan("a")) for _ in range(3)]
            for task in tasks:
                await another.tasks.decide(task.task_id, Cancel(), ANYBODY)

            async def is_empty() -> bool:
                return not (await another.store.page()).tasks

            await eventually(is_empty)
    deleted = [line["task_id"] for line in logged if line["event"] == "task_deleted"]
    assert sorted(deleted) == sorted(task.task_id for task in tasks)


@pytest.mark.slow
async def test_a_replica_that_stops_in_order_gives_its_tasks_back_at_once(house: House) -> None:
    house.wait(silence_s=600.0)
    house.limit(concurrent_tasks=1, shutdown_s=0.2)
    house.write_registry(delay_s=60)
    async with AsyncExitStack() as opened:
        first = await opened.enter_async_context(house.open())
        open_id = await approve(first, "open", tool="look")
        await eventually(lambda: house.counted == ["open"])
        waiting_id = await approve(first, "waiting")
        async with house.open() as second:  # it has nobody to bury
            await opened.aclose()
            (house.folder / "delay.txt").write_text("0", encoding="utf-8")
            for task_id in (open_id, waiting_id):
                assert (await until_settled(second, task_id)).status is TaskStatus.COMPLETED
    assert sorted(house.counted) == ["open", "open", "waiting"]


@pytest.mark.slow
async def test_a_killed_replica_is_followed_by_another_which_repeats_only_what_is_idempotent(
    house: House, postgres_url: str
) -> None:
    house.write_registry(delay_s=60)
    repeatable = await leave_approved(house, "again", tool="look")
    single = await leave_approved(house, "once")
    with Replica(house.folder, postgres_url) as lost:
        await eventually(lambda: sorted(house.counted) == ["again", "once"])
        lost.send(signal.SIGKILL)
        (house.folder / "delay.txt").write_text("0", encoding="utf-8")
        async with house.open() as runtime:
            assert (await until_settled(runtime, repeatable)).status is TaskStatus.COMPLETED
            asking = await until_settled(runtime, single)
            assert asking.status is TaskStatus.NEEDS_ATTENTION
            assert sorted(house.counted) == ["again", "again", "once"]
            assert await measure(runtime, "jobs_taken_over_total") == 2


@pytest.mark.slow
async def test_the_attempts_at_a_call_that_fails_are_counted_over_the_death_of_a_replica(
    house: House, postgres_url: str
) -> None:
    house.write_registry(tools={"fail": {"idempotent": True, "effect": "read"}})
    task_id = await leave_approved(house, "one", tool="fail", retries=2)
    with Replica(house.folder, postgres_url, stops_before="one", attempt=2) as lost:
        await eventually(lambda: lost.is_stopped)
        assert house.counted == ["one"]
        lost.send(signal.SIGKILL)
        async with house.open() as runtime:
            assert (await until_settled(runtime, task_id)).status is TaskStatus.FAILED
            events = [record.event for record in await runtime.store.records(task_id)]
    assert [event.attempt for event in events if isinstance(event, ToolCalled)] == [1, 2, 3]
    assert len({event.runner.rpartition(":")[0] for event in events if isinstance(event, TaskClaimed)}) == 2
    assert house.counted == ["one", "one"]  # the second attempt was never sent


@pytest.mark.slow
async def test_a_replica_that_was_stopped_too_long_changes_nothing_and_calls_nothing(
    house: House, postgres_url: str, postgres_server: PostgresServer
) -> None:
    task_id = await leave_approved(house, "one", "two")
    with Replica(house.folder, postgres_url, stops_before="two") as stopped:
        await eventually(lambda: stopped.is_stopped)
        assert house.counted == ["one"]
        async with house.open() as runtime:
            await until_status(runtime, task_id, TaskStatus.NEEDS_ATTENTION)
            await runtime.tasks.decide(task_id, Resolve(step_id="s2", resolution="retry"), ANYBODY)
            ended = await until_settled(runtime, task_id)
            assert (ended.status, house.counted) == (TaskStatus.COMPLETED, ["one", "two"])

            stopped.send(signal.SIGCONT)  # it goes on in front of the call
            await eventually(lambda: postgres_server.execute(WORKERS, postgres_url) == [(2,)])
        following = await leave_approved(house, "three")  # it works on, as a new worker
        async with open_runtime(house.settings, Secrets(), parts=house.parts, recover=frozenset()) as runtime:
            assert (await until_settled(runtime, following)).status is TaskStatus.COMPLETED
            assert await runtime.store.load(task_id) == ended
    assert house.counted == ["one", "two", "three"]


@pytest.mark.slow
async def test_a_stop_shorter_than_the_limit_costs_nothing(house: House, postgres_url: str) -> None:
    task_id = await leave_approved(house, "one", "two")
    with Replica(house.folder, postgres_url, stops_before="two") as stopped:
        await eventually(lambda: stopped.is_stopped)
        stopped.send(signal.SIGCONT)
        async with open_runtime(house.settings, Secrets(), parts=house.parts, recover=frozenset()) as runtime:
            assert (await until_settled(runtime, task_id)).status is TaskStatus.COMPLETED
    assert house.counted == ["one", "two"]


@pytest.mark.slow
async def test_work_goes_on_after_restarts_of_the_database(
    house: House, replicas: tuple[Runtime, Runtime], postgres_server: PostgresServer
) -> None:
    house.write_registry(delay_s=0.5)
    task_ids = [await approve(replicas[number % 2], *(f"{number}.{step}" for step in range(4))) for number in range(4)]
    for how in (signal.SIGINT, signal.SIGQUIT):
        await eventually(lambda: len(house.counted) >= 4)
        await asyncio.to_thread(postgres_server.restart, how)
    ended = [await until_settled(replicas[0], task_id) for task_id in task_ids]
    assert {task.status for task in ended} == {TaskStatus.COMPLETED}
    assert sorted(house.counted) == sorted(f"{number}.{step}" for number in range(4) for step in range(4))


@pytest.mark.slow
async def test_an_outage_longer_than_the_limit_makes_nobody_dead(
    house: House, replicas: tuple[Runtime, Runtime], postgres_server: PostgresServer
) -> None:
    house.write_registry(delay_s=SILENCE_S + 4)
    task_ids = [await approve(replica, label) for replica, label in zip(replicas, ("a", "b"), strict=True)]
    await eventually(lambda: sorted(house.counted) == ["a", "b"])
    await asyncio.to_thread(postgres_server.stop)
    try:
        await asyncio.sleep(SILENCE_S + 1)
    finally:
        await asyncio.to_thread(postgres_server.start)
    ended = [await until_settled(replicas[0], task_id) for task_id in task_ids]
    assert {task.status for task in ended} == {TaskStatus.COMPLETED}
    assert sorted(house.counted) == ["a", "b"]
