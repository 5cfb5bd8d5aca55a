"""G2, G4, G7: a decision from outside at every moment of a run, and two runs at once. Every wait is bounded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.config import Secrets
from agent_runtime.domain.approval import Approve, Cancel, Decision, Resolve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import ConflictError, DecisionRefusedError, TaskNotFoundError
from agent_runtime.domain.events import Event, ToolReturned
from agent_runtime.domain.outages import OutageLimits
from agent_runtime.domain.pauses import Pauses
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.transitions import replay
from agent_runtime.live.progress import Progress
from agent_runtime.mcp_servers.pool import ServerPool
from agent_runtime.planners.rules.planner import RulePlanner
from agent_runtime.registry.current import CurrentRegistry
from agent_runtime.runners.fleet import LocalFleet
from agent_runtime.services.agent_service import PlannerAgent
from agent_runtime.services.broker import Broker
from agent_runtime.services.executor_agent import ExecutorAgent
from agent_runtime.services.orchestrator import Orchestrator
from agent_runtime.services.planning_log import PlanningLog
from agent_runtime.storage.sqlite.store import SqliteStore
from harness import House, ledger_plan, names, submit_plan, until, until_settled, until_status
from shifty import ShiftyHouse, plan_of, submit_and_approve
from waiting import eventually

APPENDS_OF_A_RUN = 5  # the claim, three intents, the end


class MeddledStore(SqliteStore):
    """A store that calls a function just before or after the n-th append of the runs of one task."""

    task_id = ""
    at = 0
    after = False
    seen = 0
    meddle: Callable[[Task], Awaitable[None]] | None = None

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        if epoch is None or self.meddle is None or task.task_id != self.task_id:
            return await super().append(task, events, epoch=epoch)
        self.seen += 1
        now = self.seen == self.at
        if now and not self.after:
            await self.meddle(task)
        appended = await super().append(task, events, epoch=epoch)
        if now and self.after:
            await self.meddle(task)
        return appended


@pytest.fixture
def shifty(tmp_path: Path) -> ShiftyHouse:
    return ShiftyHouse(tmp_path)


@pytest.mark.slow
@pytest.mark.sqlite
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("then", ["cancel", "cancel and delete"])
async def test_a_cancel_at_every_write_of_a_run_starts_no_call_after_it(
    house: House, then: str, *, after: bool
) -> None:
    house.use_store(MeddledStore)
    async with house.open() as runtime:
        store = runtime.store
        assert isinstance(store, MeddledStore)
        for at in range(1, APPENDS_OF_A_RUN + 1):
            labels = [f"{at}{letter}" for letter in "abc"]
            task = await submit_plan(runtime, ledger_plan(*labels))
            cancelled = asyncio.Event()
            counted_at_cancel: list[str] = []

            async def meddle(
                task: Task, cancelled: asyncio.Event = cancelled, counted: list[str] = counted_at_cancel
            ) -> None:
                cancelled.set()
                try:
                    stopped = await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
                except DecisionRefusedError:
                    return  # it had just ended
                counted += house.counted
                if then != "cancel" and stopped.terminal:
                    await runtime.tasks.delete(task.task_id, ANYBODY)

            store.task_id, store.at, store.after, store.seen, store.meddle = task.task_id, at, after, 0, meddle
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
            async with asyncio.timeout(10):
                await cancelled.wait()
            store.meddle = None
            try:
                end = await until_settled(runtime, task.task_id)
            except TaskNotFoundError:
                assert [label for label in house.counted if label in labels] == [
                    label for label in counted_at_cancel if label in labels
                ]
                continue
            journal = await runtime.tasks.records(task.task_id, ANYBODY)
            assert replay(task.task_id, journal) == end
            called = names(journal)
            if end.status is TaskStatus.CANCELLED:
                assert "tool.called" not in called[called.index("task.cancel_requested") :]
                assert not {"tool.called", "step.started"} & set(called[called.index("task.cancelled") :])
            assert house.counted.count(labels[0]) <= 1
            unsent = sum("cancelled before" in record.data for record in journal)
            assert len([label for label in house.counted if label in labels]) == called.count("tool.called") - unsent
        assert await runtime.store.list_unfinished() == []


class StormyStore(SqliteStore):
    """A store that refuses every second append of a run with a conflict, although nobody else has written."""

    turns = 0

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        if epoch is not None:
            self.turns += 1
            if self.turns % 2:
                raise ConflictError("Somebody wrote meanwhile.")
        return await super().append(task, events, epoch=epoch)


@pytest.mark.sqlite
async def test_a_storm_of_conflicts_loses_no_result_and_repeats_no_call(house: House) -> None:
    house.use_store(StormyStore)
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, ledger_plan("one", "two", "three"))
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.COMPLETED
    assert end.epoch == 1
    assert house.counted == ["one", "two", "three"]


async def try_decision(runtime: Runtime, task_id: str, decision: Decision) -> bool:
    try:
        await runtime.tasks.decide(task_id, decision, ANYBODY)
    except DecisionRefusedError:
        return False
    return True


async def unknown(house: ShiftyHouse, runtime: Runtime, *steps: str) -> Task:
    """Return a task whose first call has an unknown outcome."""
    task = await until_settled(runtime, (await submit_and_approve(runtime, plan_of(*steps))).task_id)
    assert task.status is TaskStatus.NEEDS_ATTENTION, house.counted
    return task


def impatient(house: ShiftyHouse) -> None:
    house.limit(cancel_grace_s=0.1)
    house.write_entry(client_session_timeout_seconds=0.3)


async def test_many_resolutions_at_once_are_one_and_the_call_is_repeated_once(shifty: ShiftyHouse) -> None:
    impatient(shifty)
    async with shifty.open() as runtime:
        task = await unknown(shifty, runtime, "gate:one", "count:two")
        shifty.open_gate()
        retry = Resolve(step_id="s1", resolution="retry")
        won = await asyncio.gather(*(try_decision(runtime, task.task_id, retry) for _ in range(50)))
        assert won.count(True) == 1
        end = await until_settled(runtime, task.task_id)
        assert await try_decision(runtime, task.task_id, retry) is False
    assert end.status is TaskStatus.COMPLETED
    assert shifty.counted == ["one", "one", "two"]


@pytest.mark.slow
async def test_a_resolution_against_a_cancel_has_one_outcome(shifty: ShiftyHouse) -> None:
    impatient(shifty)
    async with shifty.open() as runtime:
        task = await unknown(shifty, runtime, "gate:one", "count:two")
        skip = Resolve(step_id="s1", resolution="skip")
        _, resolved = await asyncio.gather(
            runtime.tasks.decide(task.task_id, Cancel(), ANYBODY), try_decision(runtime, task.task_id, skip)
        )
        end = await until_settled(runtime, task.task_id)
    assert not resolved
    assert end.status is TaskStatus.CANCELLED
    assert end.unknown_steps == ("s1",)
    assert shifty.counted == ["one"]


@pytest.mark.slow
async def test_what_a_person_said_it_gave_is_what_the_next_step_gets(shifty: ShiftyHouse) -> None:
    impatient(shifty)
    async with shifty.open() as runtime:
        task = await unknown(shifty, runtime, "gate:one", "count:${s1.output.next}", "count:${s1.text}")
        done = Resolve(step_id="s1", resolution="done", output={"next": "two"})
        await runtime.tasks.decide(task.task_id, done, ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.COMPLETED
    assert shifty.ledger.read_text().splitlines() == ["one", "two", '{"next":"two"}']


@pytest.mark.slow
async def test_a_skipped_step_takes_with_it_all_that_needs_it_and_no_more(shifty: ShiftyHouse) -> None:
    impatient(shifty)
    plan = plan_of("gate:one", "count:two", "count:three", "calculator.add").model_dump(mode="json")
    plan["steps"][3] |= {"depends_on": [], "arguments": {"a": 1, "b": 2}}
    async with shifty.open() as runtime:
        task = await submit_plan(runtime, Plan.model_validate(plan))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await until_status(runtime, task.task_id, TaskStatus.NEEDS_ATTENTION)
        await runtime.tasks.decide(task.task_id, Resolve(step_id="s1", resolution="skip"), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.COMPLETED
    statuses = [step.status for step in end.steps.values()]
    assert statuses == [StepStatus.SKIPPED] * 3 + [StepStatus.COMPLETED]
    assert shifty.counted == ["one"]


@pytest.mark.slow
async def test_a_cancel_while_a_server_hangs_at_its_start_ends_the_wait_for_it(shifty: ShiftyHouse) -> None:
    async with shifty.open() as runtime:
        task = await submit_plan(runtime, plan_of("count:one"))
        waiting = await submit_plan(runtime, plan_of("count:two"))
    for hang in ("initialize", "tools/list"):
        shifty.write_entry(hang=hang)
        async with shifty.open() as runtime:
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
            await shifty.wait_for_hangs(2)  # the catalogue's and ours
            assert (await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)).status is TaskStatus.CANCELLED
            async with asyncio.timeout(5):  # the start limit is 20 s
                await no_run_is_left()
            shifty.hangs.unlink()
            task, waiting = waiting, task
    assert shifty.counted == []


async def no_run_is_left() -> None:
    await eventually(lambda: not any(task.get_name().startswith("task_") for task in asyncio.all_tasks()))


async def test_a_cancel_during_the_pause_before_a_repetition_stops_it(shifty: ShiftyHouse) -> None:
    shifty.write_entry(tools={"fail": {"idempotent": True}})
    plan = plan_of("fail:one").model_dump(mode="json")
    plan["steps"][0]["retries"] = 10
    async with shifty.open() as runtime:
        task = await submit_and_approve(runtime, Plan.model_validate(plan))
        await until(runtime, task.task_id, lambda now: bool((call := now.steps["s1"].call) and call.result))
        await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
        async with asyncio.timeout(5):
            await no_run_is_left()
    assert end.status is TaskStatus.CANCELLED
    assert len(shifty.counted) == end.tool_calls <= 2


@asynccontextmanager
async def another_orchestrator(house: House, runtime: Runtime) -> AsyncIterator[Orchestrator]:
    """Make a second orchestrator on the same journal, with its own servers: like a runner that lost its claim."""
    limits = house.settings.limits
    async with ServerPool(limits, Secrets(), _no_builtin, house.folder) as servers:
        progress = Progress()
        planner = PlannerAgent(
            RulePlanner(),
            runtime.registry,
            progress,
            PlanningLog(runtime.store, str),
            start_s=1,
            install_s=1,
            approval=house.settings.approval,
            fleet=LocalFleet(),
        )
        executor = ExecutorAgent(None, progress, limits)
        yield Orchestrator(
            runtime.store,
            runtime.registry,
            servers,
            planner,
            executor,
            Broker(limits, CurrentRegistry()),
            OutageLimits(0, 0, Pauses().in_outage),
            LocalFleet(),
            runner_id="another",
            parallel_calls=8,
        )


def _no_builtin(_: object) -> NoReturn:
    raise AssertionError("no plan of these tests uses one")


@pytest.mark.parametrize("resolution", ["done", "retry"])
async def test_the_late_answer_of_a_superseded_run_is_kept_and_changes_nothing(
    shifty: ShiftyHouse, resolution: str
) -> None:
    never = asyncio.Event()
    async with shifty.open() as runtime:
        task = await submit_and_approve(runtime, plan_of("gate:one", "count:two"))
        await until(runtime, task.task_id, lambda now: now.steps["s1"].open_call is not None)
        async with asyncio.timeout(20), another_orchestrator(shifty, runtime) as other:
            await eventually(lambda: shifty.counted)
            assert not await other.run(task.task_id, never, never)
            asking = await runtime.tasks.get(task.task_id, ANYBODY)
            assert asking.status is TaskStatus.NEEDS_ATTENTION
            assert asking.epoch == 2
            shifty.open_gate()
            await runtime.store.wait_for_change(task.task_id, asking.version)
            evidence = (await runtime.tasks.records(task.task_id, ANYBODY))[-1]
            assert isinstance(evidence.event, ToolReturned)
            assert evidence.epoch == 1
            after = await runtime.tasks.get(task.task_id, ANYBODY)
            assert after.status is TaskStatus.NEEDS_ATTENTION
            assert after.steps == asking.steps
            decision = Resolve.model_validate({"step_id": "s1", "resolution": resolution})
            await runtime.tasks.decide(task.task_id, decision, ANYBODY)
            end = await until_settled(runtime, task.task_id)
            journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert end.status is TaskStatus.COMPLETED
    assert replay(task.task_id, journal) == end
    assert shifty.counted == (["one", "two"] if resolution == "done" else ["one", "one", "two"])


def _has_come_to(version: int, task: Task) -> bool:
    return task.terminal or task.version >= version


@pytest.mark.slow
async def test_two_orchestrators_on_one_task_at_once_call_nothing_twice(house: House) -> None:
    never = asyncio.Event()
    async with house.open() as runtime, another_orchestrator(house, runtime) as other:
        for turn in range(10):
            labels = [f"{turn}{letter}" for letter in "abc"]
            task = await submit_plan(runtime, ledger_plan(*labels))
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
            async with asyncio.timeout(20):
                await until(runtime, task.task_id, partial(_has_come_to, 3 + turn))
                while await other.run(task.task_id, never, never):
                    pass
                while not (end := await until_settled(runtime, task.task_id)).terminal:
                    done = Resolve(step_id=end.unknown_steps[0], resolution="done")
                    await runtime.tasks.decide(task.task_id, done, ANYBODY)
            assert end.status is TaskStatus.COMPLETED
            assert all(house.counted.count(label) <= 1 for label in labels)
            assert replay(task.task_id, await runtime.tasks.records(task.task_id, ANYBODY)) == end
