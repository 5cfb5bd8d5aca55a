"""G4: those who tell a model what to do, or state the result of a call, do not approve what follows from it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_runtime.domain.approval import Approve, ApproveCall, DenyCall, Resolve
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import ScopeMissingError
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from harness import ANN, House, submit_plan, until_settled
from model_server import ModelServer
from model_server.replies import Calls, Text, by_turn

BOB = Caller("bob", "default", frozenset({"approve", "read"}), "key")
PROMPT = "Count what there is."


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


def answer(task: Task) -> dict[str, str]:
    (asked,) = [step.asked for step in task.steps.values() if step.status is StepStatus.ASKING and step.asked]
    return {"call_id": asked.call_id, "arguments_digest": asked.arguments_digest}


def plan(*steps: dict[str, Any]) -> Plan:
    return Plan.model_validate({"goal": "count", "steps": steps})


@pytest.mark.parametrize("comment", [None, "Count 'mine' instead."])
async def test_whoever_told_a_model_why_it_was_denied_does_not_approve_its_next_call(
    house: House, models: ModelServer, comment: str | None
) -> None:
    house.use_model(models.base_url)
    calls = [Calls([("ledger__count", {"label": label})]) for label in ("one", "mine")]
    models.on(PROMPT, by_turn(*calls, Text("done")))
    tools = [{"server": "ledger", "tool": "count", "max_calls": 9}]
    step = {"id": "do", "kind": "agent", "instruction": PROMPT, "tools": tools}
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan(step))
        await runtime.tasks.decide(task.task_id, Approve(), BOB)
        task = await until_settled(runtime, task.task_id)
        await runtime.tasks.decide(task.task_id, DenyCall(**answer(task), comment=comment), BOB)
        task = await until_settled(runtime, task.task_id)
        if comment:
            with pytest.raises(ScopeMissingError, match="Nobody approves what they wrote"):
                await runtime.tasks.decide(task.task_id, ApproveCall(**answer(task)), BOB)
            assert house.counted == []
        await runtime.tasks.decide(task.task_id, ApproveCall(**answer(task)), ANN if comment else BOB)
        task = await until_settled(runtime, task.task_id)
    assert (task.status, house.counted) == (TaskStatus.COMPLETED, ["mine"])


async def test_whoever_said_what_a_call_gave_does_not_approve_the_call_that_is_made_with_it(house: House) -> None:
    house.limit(cancel_grace_s=0.1)
    house.write_registry(delay_s=5, tools={"look": {"approval": "call"}, "*": {"open_world": False}})
    lost = {"id": "lost", "kind": "tool", "server": "ledger", "tool": "count", "arguments": {"label": "a"}}
    asks = {**lost, "id": "asks", "tool": "look", "arguments": {"label": "${lost.text}"}}
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan({**lost, "timeout_s": 0.3}, asks))
        await runtime.tasks.decide(task.task_id, Approve(), BOB)
        task = await until_settled(runtime, task.task_id)
        assert task.unknown_steps == ("lost",)
        await runtime.tasks.decide(task.task_id, Resolve(step_id="lost", resolution="done", output="mine"), BOB)
        task = await until_settled(runtime, task.task_id)
        assert task.steps["asks"].asked
        with pytest.raises(ScopeMissingError):
            await runtime.tasks.decide(task.task_id, ApproveCall(**answer(task)), BOB)
        await runtime.tasks.decide(task.task_id, DenyCall(**answer(task)), BOB)
        task = await until_settled(runtime, task.task_id)
    assert task.error
    assert (task.error.code, task.error.step_id) == ("call_denied", "asks")
