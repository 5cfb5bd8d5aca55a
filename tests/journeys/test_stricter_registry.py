"""G2 and G6: a registry that became stricter applies at once, also to approved plans. The server's ledger proves it."""

from pathlib import Path
from typing import Any

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain import events as ev
from agent_runtime.domain.approval import Approve, ApproveCall
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.contract import Contract, PinnedPolicy
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from harness import House, approve_and_stop, ledger_plan, names, submit_plan, until, until_settled
from shifty import ShiftyHouse, plan_of
from waiting import eventually

CALM = {"effect": "read", "open_world": False, "idempotent": True}


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.write_registry(tools={"*": CALM})
    return house


async def approve_the_call(runtime: Runtime, task: Task) -> Task:
    (asked,) = [state.asked for state in task.steps.values() if state.asked and not state.asked.granted]
    decision = ApproveCall(call_id=asked.call_id, arguments_digest=asked.arguments_digest)
    await runtime.tasks.decide(task.task_id, decision, ANYBODY)
    return await until_settled(runtime, task.task_id)


RAISED: dict[str, tuple[dict[str, Any], str]] = {
    "effect": ({**CALM, "effect": "destructive"}, "says that the effect of ledger/count is destructive"),
    "unknown effect": ({**CALM, "effect": "unknown"}, "says that the effect of ledger/count is unknown"),
    "open world": ({**CALM, "open_world": True}, "ledger/count reaches the outside world"),
    "approval": ({**CALM, "approval": "call"}, "requires approval of every call of ledger/count"),
}


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("preapproved", [False, True])
async def test_what_the_operator_has_raised_asks_for_the_call_of_an_approved_plan(
    house: House, raised: str, *, preapproved: bool
) -> None:
    tools, said = RAISED[raised]
    plan = ledger_plan("one").model_dump(mode="json")
    plan["steps"][0]["preapproved"] = preapproved
    task = await approve_and_stop(house, Plan.model_validate(plan))
    house.write_registry(tools={"*": tools})
    async with house.open() as runtime:
        task = await until_settled(runtime, task.task_id)
        assert task.status is TaskStatus.NEEDS_ATTENTION
        asked = task.steps["s1"].asked
        assert asked
        assert said in asked.reason
        assert house.counted == []
        assert (await approve_the_call(runtime, task)).status is TaskStatus.COMPLETED
    assert house.counted == ["one"]


async def test_what_the_operator_has_raised_asks_where_the_plan_is_approved_afterwards_too(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    house.write_registry(tools={"*": {**CALM, "effect": "write"}})
    async with house.open() as runtime:
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.NEEDS_ATTENTION
    assert house.counted == []


async def test_a_source_that_now_lets_the_outside_in_has_the_write_after_it_asked_for(house: House) -> None:
    writes = {"count": {**CALM, "effect": "write"}, "look": CALM}
    house.write_registry(tools=writes)
    plan = ledger_plan("one", "two", tool="count").model_dump(mode="json")
    plan["steps"][0]["tool"] = "look"
    plan["steps"][1]["arguments"]["label"] = "${s1.text}"
    task = await approve_and_stop(house, Plan.model_validate(plan))
    house.write_registry(tools={**writes, "look": {**CALM, "open_world": True}})
    async with house.open() as runtime:
        task = await approve_the_call(runtime, await until_settled(runtime, task.task_id))
        assert task.status is TaskStatus.NEEDS_ATTENTION
        asked = task.steps["s2"].asked
        assert asked
        assert "its arguments contain data from outside, from s1" in asked.reason
    assert house.counted == ["one"]


async def test_a_tool_that_was_disabled_is_refused(house: House) -> None:
    task = await approve_and_stop(house, ledger_plan("one"))
    house.write_registry(tools={"count": {"enabled": False}, "*": CALM})
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert end.error
    assert end.error.code == "denied"
    assert "ledger/count has been disabled in the tool registry" in end.error.message
    assert "tool.denied" in journal
    assert house.counted == []


async def test_a_server_that_was_disabled_is_not_started_for_an_approved_plan(house: House) -> None:
    task = await approve_and_stop(house, ledger_plan("one"))
    house.write_registry(tools={"*": CALM}, enabled=False)
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert end.error
    assert end.error.code == "server_unavailable"
    assert "disabled in the tool registry" in end.error.message
    assert house.counted == []


async def test_a_registry_that_became_laxer_changes_nothing(house: House) -> None:
    strict = {"count": {"effect": "write", "open_world": True, "approval": "call"}}
    house.write_registry(tools=strict)
    task = await approve_and_stop(house, ledger_plan("one"))
    house.write_registry(tools={"*": CALM})
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.NEEDS_ATTENTION
    assert house.counted == []


async def with_an_open_call(house: ShiftyHouse) -> Task:
    """Return a task whose idempotent call was open when the service stopped. A repetition is answered at once."""
    house.limit(shutdown_s=0.1)
    house.write_entry(tools={"gate": CALM})
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("gate:one"))
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        await eventually(lambda: house.counted)
    house.open_gate()
    return task


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ({**CALM, "idempotent": False}, "may not be made again"),
        ({**CALM, "approval": "call"}, "is not repeated without approval"),
    ],
)
async def test_a_call_that_was_open_is_not_repeated_where_the_operator_no_longer_allows_it(
    tmp_path: Path, tools: dict[str, Any], said: str
) -> None:
    house = ShiftyHouse(tmp_path)
    task = await with_an_open_call(house)
    house.write_entry(tools={"gate": tools})
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.NEEDS_ATTENTION
    assert end.steps["s1"].status is StepStatus.UNKNOWN
    assert said in str(end.steps["s1"].message)
    assert house.counted == ["one"]


async def test_an_error_is_not_followed_by_a_retry_once_the_tool_is_no_longer_idempotent(tmp_path: Path) -> None:
    house = ShiftyHouse(tmp_path)
    house.write_entry(tools={"fail": {**CALM}})
    plan = plan_of("fail:one").model_dump(mode="json")
    plan["steps"][0]["retries"] = 10
    async with house.open() as runtime:
        task = await submit_plan(runtime, Plan.model_validate(plan))
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        await until(runtime, task.task_id, lambda now: bool((call := now.steps["s1"].call) and call.result))
    calls = len(house.counted)
    house.write_entry(tools={"fail": {**CALM, "idempotent": False}})
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert end.error
    assert end.error.code == "tool_error"
    assert len(house.counted) == calls


@pytest.mark.parametrize(
    ("tools", "status"), [(CALM, TaskStatus.COMPLETED), (RAISED["effect"][0], TaskStatus.NEEDS_ATTENTION)]
)
async def test_a_plan_of_an_earlier_version_is_held_to_the_stricter_registry_too(
    house: House, tools: dict[str, Any], status: TaskStatus
) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        assert task.contract
        old = of_form_1(task, task.contract)
        edited = ev.PlanEdited(revision=2, digest=old.digest, contract=old, definitions=task.definitions)
        await runtime.store.append(task, [edited, ev.PlanApproved(revision=2, digest=old.digest)])
    house.write_registry(tools={"*": tools})
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert end.status is status
    assert house.counted == (["one"] if status is TaskStatus.COMPLETED else [])


def of_form_1(task: Task, contract: Contract) -> Contract:
    """Return the contract in the form of an earlier version."""
    facts = task.identities["ledger"]
    entry = {"type": facts["type"], "argv": [facts["command"], *facts["args"]]}
    return Contract(
        goal=contract.goal,
        steps=contract.steps,
        limits=contract.limits,
        policy={
            key: PinnedPolicy(effect=said.effect, idempotent=said.idempotent, approval=said.approval)
            for key, said in contract.policy.items()
        },
        pins={key: task.definitions[key].pin_of_form_1(entry) for key in contract.pins},
    )
