"""G1-G4, G7: the service is dropped before and after every append of a task, and built anew on the same file."""

import contextlib

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Resolve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import DecisionRefusedError
from agent_runtime.domain.events import EventRecord, Resolution
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.transitions import replay
from crashing import CrashingStore, Fuse, is_crash
from harness import House, ledger_graph, ledger_plan, submit_plan, until_settled, until_status

CHAIN: dict[str, list[str]] = {"one": [], "two": ["one"], "three": ["two"]}
DIAMOND: dict[str, list[str]] = {
    "one": [],
    "two": ["one"],
    "three": ["one"],
    "four": ["one"],
    "five": ["two", "three", "four"],
}
MORE_THAN_ENOUGH_APPENDS = 30


class Customer:
    """A client that wants things counted, and comes back after each crash."""

    def __init__(self, shape: dict[str, list[str]], tool: str, resolution: Resolution) -> None:
        self.plan = ledger_graph(shape, dict.fromkeys(shape, tool))
        self.labels = list(shape)
        self.tool = tool
        self.resolution = resolution
        self.task_id: str | None = None
        self.acknowledged: TaskStatus | None = None
        self.asked: list[tuple[str, str]] = []

    async def visit(self, runtime: Runtime) -> Task:
        """Continue from the state of the task to its end. Raises: Crash."""
        task = await submit_plan(runtime, self.plan, key="customer")
        assert self.task_id in {None, task.task_id}, "an acknowledged task was lost"
        self.task_id = task.task_id
        if self.acknowledged is TaskStatus.APPROVED:
            assert (await runtime.tasks.get(task.task_id, ANYBODY)).status is not TaskStatus.AWAITING_APPROVAL
        with contextlib.suppress(DecisionRefusedError):
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        self.acknowledged = TaskStatus.APPROVED
        while not (task := await until_settled(runtime, task.task_id)).terminal:
            await self._answer(runtime, task)
        return task

    async def _answer(self, runtime: Runtime, task: Task) -> None:
        for step_id, step in task.steps.items():
            if step.status is StepStatus.UNKNOWN:
                assert step.call
                assert step.call.result is None, "asked although the call had a result"
                self.asked.append((step_id, str(step.call.arguments["label"])))
                await runtime.tasks.decide(task.task_id, Resolve(step_id=step_id, resolution=self.resolution), ANYBODY)


@pytest.mark.sqlite
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("shape", "tool", "resolution"),
    [
        (CHAIN, "count", "done"),
        pytest.param(CHAIN, "count", "retry", marks=pytest.mark.slow),
        pytest.param(CHAIN, "count", "skip", marks=pytest.mark.slow),
        pytest.param(CHAIN, "count", "fail", marks=pytest.mark.slow),
        pytest.param(CHAIN, "look", "done", marks=pytest.mark.slow),
        pytest.param(DIAMOND, "count", "done", marks=pytest.mark.slow),
        pytest.param(DIAMOND, "count", "retry", marks=pytest.mark.slow),
        pytest.param(DIAMOND, "look", "done", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(180)
async def test_a_crash_at_any_append_loses_nothing_and_repeats_nothing_in_silence(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    shape: dict[str, list[str]],
    tool: str,
    resolution: Resolution,
    *,
    after: bool,
) -> None:
    crashed = 0
    for at in range(1, MORE_THAN_ENOUGH_APPENDS):
        place = house.folder / f"at{at}"
        place.mkdir()
        fuse = await _one_life(House(place), monkeypatch, Fuse(at, after=after), Customer(shape, tool, resolution))
        if not fuse.blown:
            break
        crashed += 1
    assert crashed >= 7, "fewer appends than such a task makes"


async def _one_life(house: House, monkeypatch: pytest.MonkeyPatch, fuse: Fuse, customer: Customer) -> Fuse:
    house.use_store(CrashingStore)
    monkeypatch.setattr(CrashingStore, "fuse", fuse, raising=False)
    try:
        async with house.open() as runtime:
            task = await customer.visit(runtime)
    except BaseException as error:
        if not is_crash(error):
            raise
        monkeypatch.setattr(CrashingStore, "fuse", Fuse(0, after=False))
        async with house.open() as runtime:
            task = await customer.visit(runtime)
            _check(house, customer, task, await runtime.tasks.records(task.task_id, ANYBODY))
            assert await runtime.store.list_unfinished() == []
    else:
        assert not customer.asked
        assert sorted(house.counted) == sorted(customer.labels)
    return fuse


def _check(house: House, customer: Customer, task: Task, journal: list[EventRecord]) -> None:
    assert replay(task.task_id, journal) == task
    counted = house.counted
    asked = [label for _, label in customer.asked]
    assert len(asked) <= len(customer.labels) - 2
    retried = asked if customer.resolution == "retry" else []
    for label in customer.labels:
        calls = counted.count(label)
        if customer.tool == "look":
            assert calls <= 2
        else:
            assert calls <= 1 + retried.count(label), "a call was repeated in silence"
    if customer.resolution == "fail" and asked:
        assert task.status is TaskStatus.FAILED
    elif customer.resolution == "skip" and asked:
        assert task.status is TaskStatus.COMPLETED
    else:
        assert task.status is TaskStatus.COMPLETED
        assert set(counted) | set(asked) == set(customer.labels)


async def test_a_task_that_waits_for_approval_waits_over_a_restart(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    async with house.open() as runtime:
        assert (await runtime.tasks.get(task.task_id, ANYBODY)).status is TaskStatus.AWAITING_APPROVAL
        assert house.counted == []
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        await until_status(runtime, task.task_id, TaskStatus.COMPLETED)
    assert house.counted == ["one"]
