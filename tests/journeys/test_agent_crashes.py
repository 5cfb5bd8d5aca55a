"""G1-G3: the service is dropped before and after every append of an agent step, and built anew on the same file."""

import contextlib

import pytest

from agent_runtime.bootstrap import Runtime, open_runtime
from agent_runtime.config import Secrets
from agent_runtime.domain.approval import Approve, Resolve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import DecisionRefusedError
from agent_runtime.domain.events import ModelAnswered, Resolution
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.transitions import replay
from agent_runtime.services.task_manager import Submission
from crashing import CrashingStore, Fuse, is_crash
from harness import House, until_settled
from model_server import ModelServer
from model_server.replies import Calls, Text, by_turn

TOOLS = {"*": {"open_world": False}, "look": {"effect": "read", "idempotent": True, "open_world": False}}
LABELS = ["one", "two", "three", "four"]
MORE_THAN_ENOUGH_APPENDS = 40


def agent(tool: str) -> Plan:
    listed = [{"server": "ledger", "tool": tool, "max_calls": 4}]
    step = {"id": "do", "kind": "agent", "instruction": "Count.", "tools": listed, "preapproved": True}
    return Plan.model_validate({"goal": "count", "steps": [step]})


class Customer:
    """A client that wants things counted by a model, and comes back after the crash."""

    def __init__(self, tool: str, resolution: Resolution) -> None:
        self.plan = agent(tool)
        self.resolution = resolution
        self.asked: list[str] = []

    async def visit(self, runtime: Runtime) -> Task:
        submission = Submission(prompt="count", plan=self.plan, request_key="customer", request_digest="customer")
        task = await runtime.tasks.submit(submission, ANYBODY)
        with contextlib.suppress(DecisionRefusedError):
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        while not (task := await until_settled(runtime, task.task_id)).terminal:
            state = task.steps["do"]
            assert state.status is StepStatus.UNKNOWN
            assert state.call
            self.asked.append(str(state.call.arguments["label"]))
            output = f"counted {self.asked[-1]}" if self.resolution == "done" else None
            await runtime.tasks.decide(
                task.task_id, Resolve(step_id="do", resolution=self.resolution, output=output), ANYBODY
            )
        return task


async def recorded_turns(runtime: Runtime) -> int:
    page = await runtime.tasks.page(ANYBODY)
    if not page.tasks:
        return 0
    records = await runtime.tasks.records(page.tasks[0].task_id, ANYBODY)
    return sum(isinstance(record.event, ModelAnswered) for record in records)


@pytest.mark.sqlite
@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "resolution", "after"),
    [("count", "done", False), ("count", "done", True), ("count", "retry", True), ("look", "done", False)],
)
@pytest.mark.timeout(120)
async def test_a_recorded_answer_is_not_asked_for_again_and_its_calls_are_not_repeated_in_silence(
    house: House, monkeypatch: pytest.MonkeyPatch, tool: str, resolution: Resolution, *, after: bool
) -> None:
    asks = [Calls([(f"ledger__{tool}", {"label": label}) for label in half]) for half in (LABELS[:2], LABELS[2:])]
    crashed = 0
    async with ModelServer() as models:
        models.on("Count.", by_turn(*asks, Text("All four.")))
        for at in range(1, MORE_THAN_ENOUGH_APPENDS):
            place = house.folder / f"at{at}"
            place.mkdir()
            home = House(place)
            home.use_store(CrashingStore)
            home.write_registry(tools=TOOLS)
            home.use_model(models.base_url)
            models.requests.clear()
            fuse = Fuse(at, after=after)
            monkeypatch.setattr(CrashingStore, "fuse", fuse, raising=False)
            customer = Customer(tool, resolution)
            try:
                async with home.open() as runtime:
                    await customer.visit(runtime)
            except BaseException as error:
                if not is_crash(error):
                    raise
                monkeypatch.setattr(CrashingStore, "fuse", Fuse(0, after=False))
                await second_life(home, models, customer)
            if not fuse.blown:
                assert not customer.asked
                assert home.counted == LABELS
                assert len(models.requests) == 3
                break
            crashed += 1
    assert crashed >= 10, "fewer appends than such a step makes"


async def second_life(home: House, models: ModelServer, customer: Customer) -> None:
    before = len(models.requests)
    reading = home.settings.model_copy(update={"openai": type(home.settings.openai)()})
    async with open_runtime(reading, Secrets(), recover=frozenset()) as runtime:
        recorded = await recorded_turns(runtime)
    async with home.open() as runtime:
        task = await customer.visit(runtime)
        records = await runtime.tasks.records(task.task_id, ANYBODY)
        assert await runtime.store.list_unfinished() == []
    assert replay(task.task_id, records) == task
    assert (task.status, task.result) == (TaskStatus.COMPLETED, "All four.")
    turns = [request.turn for request in models.requests[before:]]
    assert turns == list(range(recorded, 3)), "a recorded answer was asked for again"
    assert len(customer.asked) <= 1
    for label in LABELS:
        calls = home.counted.count(label)
        if customer.plan.steps[0].tools[0].tool == "look":  # type: ignore[union-attr]
            assert 1 <= calls <= 2
        elif label in customer.asked:
            assert calls <= (2 if customer.resolution == "retry" else 1)
        else:
            assert calls == 1
