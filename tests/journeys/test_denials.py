"""Calls that the operator denies are neither planned nor made, whatever a person or a policy has approved (G5)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, ApproveCall, Edit, Resolve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import Fault, InvalidPlanError
from agent_runtime.domain.events import StepFailed, StepOutcomeUnknown, ToolDenied
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.tools import Effect, ServerDenial
from agent_runtime.domain.transitions import replay
from agent_runtime.services.task_manager import Submission
from harness import House, ledger_plan, names, submit_plan, until_settled, until_status
from shifty import ShiftyHouse, plan_of, submit_and_approve
from waiting import eventually

OUTSIDE = {"look": {"effect": "read", "idempotent": True}}
SECRET = {"tool": "count", "arguments": {"label": "*secret*"}, "reason": "the ledger is public"}
TOLD = "denied by the operator: the ledger is public (deny 'count' with label like '*secret*')"


def in_the_registry(house: House, denial: dict[str, Any]) -> None:
    house.write_registry(deny=[denial])


def in_the_settings(house: House, denial: dict[str, Any]) -> None:
    house.set_approval(deny=(ServerDenial.model_validate({"server": "led*", **denial}),))


either_place = pytest.mark.parametrize("deny", [in_the_registry, in_the_settings])
Deny = Callable[[House, dict[str, Any]], None]


def passed_on(text: str, **write: Any) -> Plan:
    """Return a plan that takes the label of its one call of the ledger from the result of another step."""
    first = {"id": "s1", "kind": "tool", "server": "text", "tool": "head", "arguments": {"text": text}}
    second = {"id": "s2", "kind": "tool", "server": "ledger", "tool": "count", "arguments": {"label": "${s1.text}"}}
    return Plan.model_validate({"goal": "count", "steps": [first, {**second, **write}]})


async def expect_denied(runtime: Runtime, task: Task, step_id: str, told: str) -> None:
    """Wait for the end of the task, and expect the denial of this step in its journal."""
    end = await until_settled(runtime, task.task_id)
    journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert end.error
    assert (end.status, end.error.code, end.error.step_id) == (TaskStatus.FAILED, "denied", step_id)
    assert end.error.message == f"ledger.count was not called: {told}"
    assert [record.event for record in journal if isinstance(record.event, ToolDenied | StepFailed)] == [
        ToolDenied(step_id=step_id, server="ledger", tool="count", rule="denied", message=told),
        StepFailed(step_id=step_id, code="denied", message=end.error.message),
    ]
    assert "call.approval_requested" not in names(journal)
    assert replay(task.task_id, journal) == end


@either_place
async def test_a_plan_with_a_denied_call_is_refused_and_nothing_is_created(house: House, deny: Deny) -> None:
    deny(house, SECRET)
    async with house.open() as runtime:
        with pytest.raises(InvalidPlanError) as caught:
            await submit_plan(runtime, ledger_plan("one", "a secret"))
        assert caught.value.faults == (Fault("plan.steps[1].arguments", f"D{TOLD[1:]}."),)
        assert not (await runtime.tasks.page(ANYBODY)).tasks
        task = await submit_plan(runtime, ledger_plan("one"))
        edit = Edit(plan=ledger_plan("a secret"), digests=frozenset({task.plan_digest or ""}))
        with pytest.raises(InvalidPlanError, match="public"):
            await runtime.tasks.decide(task.task_id, edit, ANYBODY)
    assert house.counted == []


@either_place
async def test_a_value_that_is_denied_once_it_is_known_is_not_sent(house: House, deny: Deny) -> None:
    deny(house, SECRET)
    async with house.open() as runtime:
        task = await submit_plan(runtime, passed_on("the secret plan"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await expect_denied(runtime, task, "s2", TOLD)
        other = await submit_plan(runtime, passed_on("the plan"))
        await runtime.tasks.decide(other.task_id, Approve(), ANYBODY)
        assert (await until_settled(runtime, other.task_id)).status is TaskStatus.COMPLETED
    assert house.counted == ["the", "plan"]


@pytest.mark.parametrize("write", [{}, {"preapproved": True}], ids=["would be asked for", "allowed in advance"])
async def test_nobody_is_asked_for_a_call_that_is_denied(house: House, write: dict[str, Any]) -> None:
    house.write_registry(tools={"count": {"approval": "call"}, **OUTSIDE}, deny=[SECRET])
    async with house.open() as runtime:
        task = await submit_plan(runtime, passed_on("the secret plan", **write))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await expect_denied(runtime, task, "s2", TOLD)
    assert house.counted == []


async def test_a_policy_that_approves_everything_approves_nothing_that_is_denied(house: House) -> None:
    house.set_approval(auto_effects=tuple(Effect))
    in_the_settings(house, SECRET)
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission("count", passed_on("the secret plan"), approval="auto"), ANYBODY)
        await expect_denied(runtime, task, "s2", TOLD)
    assert house.counted == []


@either_place
async def test_what_is_denied_after_the_approval_counts_from_the_next_start(house: House, deny: Deny) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    deny(house, {"tool": "count"})
    async with house.open() as runtime:
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await expect_denied(runtime, task, "s1", "denied by the operator (deny 'count')")
    assert house.counted == []


async def test_a_call_that_a_person_saw_and_approved_is_not_sent_once_it_is_denied(house: House) -> None:
    house.write_registry(tools={"count": {"approval": "call"}})
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        asked = (await until_settled(runtime, task.task_id)).steps["s1"].asked
        assert asked
    house.write_registry(tools={"count": {"approval": "call"}}, deny=[{"tool": "count"}])
    async with house.open() as runtime:
        answer = ApproveCall(call_id=asked.call_id, arguments_digest=asked.arguments_digest)
        await runtime.tasks.decide(task.task_id, answer, ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.error
    assert (end.status, end.error.code) == (TaskStatus.FAILED, "denied")
    assert house.counted == []


@pytest.mark.slow
async def test_an_open_call_whose_repetition_is_denied_is_asked_about(tmp_path: Path) -> None:
    house = ShiftyHouse(tmp_path)
    house.limit(shutdown_s=0.1)
    tools = {"gate": {"idempotent": True, "effect": "read"}}
    house.write_entry(tools=tools)
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, plan_of("gate:one"))
        await eventually(lambda: house.counted)
    house.write_entry(tools=tools, deny=[{"tool": "gate"}])
    async with house.open() as runtime:
        asking = await until_settled(runtime, task.task_id)
        assert asking.status is TaskStatus.NEEDS_ATTENTION
        assert asking.steps["s1"].status is StepStatus.UNKNOWN
        journal = [record.event for record in await runtime.tasks.records(task.task_id, ANYBODY)]
        (unknown,) = [event for event in journal if isinstance(event, StepOutcomeUnknown)]
        why = "denied by the operator (deny 'gate')"
        assert unknown.reason == f"the call was open, and it cannot be repeated: {why}"
        assert [event.rule for event in journal if isinstance(event, ToolDenied)] == ["denied"]
        await runtime.tasks.decide(task.task_id, Resolve(step_id="s1", resolution="retry"), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.error
    assert (end.status, end.error.code) == (TaskStatus.FAILED, "denied")
    assert house.counted == ["one"]


async def test_a_tool_that_is_denied_outright_is_not_offered_to_a_planner(house: House) -> None:
    house.set_approval(deny=(ServerDenial(server="filesystem", tool="write_*"),))
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission("Write hello to x.txt"), ANYBODY)
        end = await until_status(runtime, task.task_id, TaskStatus.FAILED)
        tool = runtime.registry.tools()["filesystem/write_file"]
        assert runtime.registry.tools()["filesystem/read_file"].denied is None
    assert end.error
    assert "needs the tool 'write_file'" in end.error.message
    assert "denied by the operator" in end.error.message
    assert tool.denied == "denied by the operator (deny 'write_*')"
    assert not list(house.files.iterdir())


async def test_a_planner_that_proposes_a_denied_argument_ends_the_task_saying_why(house: House) -> None:
    denial = ServerDenial(server="filesystem", arguments={"path": "*.sh"}, reason="no scripts")
    house.set_approval(deny=(denial,))
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission("Write hello to x.sh"), ANYBODY)
        end = await until_status(runtime, task.task_id, TaskStatus.FAILED)
    assert end.error
    assert end.error.code == "invalid_plan"
    assert "steps[0].arguments: Denied by the operator: no scripts" in end.error.message
