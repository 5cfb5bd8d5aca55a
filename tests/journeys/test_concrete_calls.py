"""G4, G5: a person sees the concrete call if a value comes from outside, or if the operator wants it."""

import asyncio
from typing import Any, Literal

import pytest
from structlog.testing import capture_logs

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, ApproveCall, Cancel, DenyCall, Resolve
from agent_runtime.domain.caller import ANYBODY, Caller
from agent_runtime.domain.errors import CallNotFoundError, DecisionRefusedError, DigestMismatchError
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.preview import preview_steps
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import AskedCall, StepStatus, Task
from agent_runtime.domain.tools import Effect
from agent_runtime.domain.transitions import replay
from agent_runtime.services.task_manager import Submission
from harness import ANN, House, names, submit_plan, until, until_settled

BOB = Caller("bob", "default", frozenset({"approve"}), "key")
OUTSIDE: dict[str, Any] = {"look": {"effect": "read", "idempotent": True}}
"""The operator does not vouch for the ledger's results."""


def plan(**write: Any) -> Plan:
    """Return a plan that looks at the world outside, makes a text of the result, and writes it to a file."""
    steps = [
        {"id": "look", "kind": "tool", "server": "ledger", "tool": "look", "arguments": {"label": "one"}},
        {"id": "short", "kind": "tool", "server": "text", "tool": "head", "arguments": {"text": "${look.text}"}},
        {
            "id": "save",
            "kind": "tool",
            "server": "filesystem",
            "tool": "write_file",
            "arguments": {"path": "said.txt", "content": "It said: ${short.text}"},
            **write,
        },
    ]
    return Plan.model_validate({"goal": "keep what it says", "steps": steps})


async def run_until_asking(runtime: Runtime, plan: Plan) -> tuple[Task, AskedCall]:
    task = await submit_plan(runtime, plan)
    await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
    task = await until_settled(runtime, task.task_id)
    assert task.status is TaskStatus.NEEDS_ATTENTION
    (asked,) = [step.asked for step in task.steps.values() if step.status is StepStatus.ASKING]
    assert asked
    return task, asked


def answer(asked: AskedCall) -> dict[str, str]:
    return {"call_id": asked.call_id, "arguments_digest": asked.arguments_digest}


@pytest.fixture
def outside(house: House) -> House:
    house.write_registry(tools=OUTSIDE)
    return house


async def test_what_came_from_outside_is_shown_before_it_is_written(outside: House) -> None:
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, plan())
        assert asked.arguments == {"path": "said.txt", "content": "It said: counted one"}
        assert asked.reason == "its arguments contain data from outside, from short (ledger/look)"
        assert not (outside.files / "said.txt").exists()
        await runtime.tasks.decide(task.task_id, ApproveCall(**answer(asked)), ANN)
        end = await until_settled(runtime, task.task_id)
        journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert end.status is TaskStatus.COMPLETED
    assert (outside.files / "said.txt").read_text() == "It said: counted one"
    assert replay(task.task_id, journal) == end
    (called,) = [r.event for r in journal if r.type == "tool.called" and getattr(r.event, "step_id", "") == "save"]
    assert getattr(called, "call_id", "") == asked.call_id
    assert [(a.actor, a.decision, a.step_id) for a in end.approvals][1:] == [("ann", "approve", "save")]


async def test_a_denied_call_is_not_sent_and_its_step_fails(outside: House) -> None:
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, plan())
        await runtime.tasks.decide(task.task_id, DenyCall(**answer(asked), comment="not that"), ANN)
        end = await until_settled(runtime, task.task_id)
    assert end.error
    assert (end.status, end.error.code, end.error.step_id) == (TaskStatus.FAILED, "call_denied", "save")
    assert end.error.message == "ann denied the call: not that"
    assert not list(outside.files.iterdir())


async def test_the_question_waits_over_a_restart(outside: House) -> None:
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, plan())
    async with outside.open() as runtime:
        assert (await runtime.tasks.get(task.task_id, ANYBODY)).steps["save"].asked == asked
        await runtime.tasks.decide(task.task_id, ApproveCall(**answer(asked)), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED
    assert outside.counted == ["one"]


@pytest.mark.parametrize(
    ("tools", "write"),
    [
        (OUTSIDE, {"preapproved": True}),
        ({"look": {**OUTSIDE["look"], "open_world": False}}, {}),
        (OUTSIDE, {"arguments": {"path": "said.txt", "content": "nothing of it"}, "depends_on": ["short"]}),
    ],
    ids=["the approver allowed it in the plan", "the operator vouches for the source", "nothing of it is passed on"],
)
async def test_nobody_is_asked_where_there_is_no_need(
    house: House, tools: dict[str, Any], write: dict[str, Any]
) -> None:
    house.write_registry(tools=tools)
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan(**write))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED
        journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert "call.approval_requested" not in names(journal)


@pytest.mark.parametrize("approval", ["manual", "auto"])
async def test_only_a_person_approves_a_call_with_the_plan(outside: House, approval: Literal["manual", "auto"]) -> None:
    outside.set_approval(auto_effects=tuple(Effect))
    outside.write_registry(tools={"look": {"effect": "read"}})
    async with outside.open() as runtime:
        submission = Submission(prompt="keep it", plan=plan(preapproved=True), approval=approval)
        task = await runtime.tasks.submit(submission, ANYBODY)
        shown = [preview.asks for preview in preview_steps(task)]
        if approval == "manual":
            assert shown == [None, None, None]
            await runtime.tasks.decide(task.task_id, Approve(), BOB)
        else:
            assert shown == [None, None, "its arguments contain data from outside, from short (ledger/look)"]
        task = await until_settled(runtime, task.task_id)
        if approval == "auto":
            assert (task.status, list(outside.files.iterdir())) == (TaskStatus.NEEDS_ATTENTION, [])
            asked = task.steps["save"].asked
            assert asked
            await runtime.tasks.decide(task.task_id, ApproveCall(**answer(asked)), BOB)
            task = await until_settled(runtime, task.task_id)
    assert (task.status, task.approvals[-1].actor) == (TaskStatus.COMPLETED, "bob")


async def test_a_look_asks_nobody_and_a_call_that_the_operator_wants_to_see_asks_always(house: House) -> None:
    house.write_registry(tools={"count": {"approval": "call", "open_world": False}})
    one = {"id": "a", "kind": "tool", "server": "ledger", "tool": "count", "arguments": {"label": "x"}}
    async with house.open() as runtime:
        wanted = Plan.model_validate({"goal": "g", "steps": [{**one, "preapproved": True}]})
        task, asked = await run_until_asking(runtime, wanted)
        assert asked.reason == "the operator requires approval of every call of ledger/count"
        assert house.counted == []
        await runtime.tasks.decide(task.task_id, ApproveCall(**answer(asked)), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED
    assert house.counted == ["x"]


async def test_only_the_call_that_was_shown_can_be_approved_and_only_once(outside: House) -> None:
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, plan())
        before = await runtime.tasks.get(task.task_id, ANYBODY)
        with pytest.raises(CallNotFoundError):
            await runtime.tasks.decide(
                task.task_id, ApproveCall(call_id="c", arguments_digest=asked.arguments_digest), ANYBODY
            )
        with pytest.raises(DigestMismatchError, match=asked.arguments_digest):
            await runtime.tasks.decide(
                task.task_id, ApproveCall(call_id=asked.call_id, arguments_digest="sha256:0"), ANYBODY
            )
        assert await runtime.tasks.get(task.task_id, ANYBODY) == before
        decisions = [ApproveCall(**answer(asked)) if at % 2 else DenyCall(**answer(asked)) for at in range(40)]
        given = await asyncio.gather(
            *(runtime.tasks.decide(task.task_id, decision, ANYBODY) for decision in decisions), return_exceptions=True
        )
        refused = [result for result in given if isinstance(result, DecisionRefusedError)]
        assert len(refused) == len(decisions) - 1
        end = await until_settled(runtime, task.task_id)
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert journal.count("call.approved") + journal.count("call.denied") == 1
    assert (outside.files / "said.txt").exists() == (end.status is TaskStatus.COMPLETED) == ("call.approved" in journal)


async def test_a_cancel_while_a_call_is_asked_for_ends_the_task_and_sends_nothing(outside: House) -> None:
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, plan())
        assert (await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)).status is TaskStatus.CANCELLED
        with pytest.raises(DecisionRefusedError):
            await runtime.tasks.decide(task.task_id, ApproveCall(**answer(asked)), ANYBODY)
    assert not list(outside.files.iterdir())


@pytest.mark.slow
async def test_calls_that_are_lost_after_a_person_has_answered_are_asked_about_in_turn(house: House) -> None:
    house.limit(cancel_grace_s=0.1)
    house.write_registry(delay_s=5, tools={"look": {"approval": "call"}, "*": {"open_world": False}})
    look = {"id": "asks", "kind": "tool", "server": "ledger", "tool": "look", "arguments": {"label": "asked"}}
    calls = [
        {**look, "id": f"lost{index}", "tool": "count", "arguments": {"label": str(index)}, "timeout_s": timeout_s}
        for index, timeout_s in enumerate((0.3, 0.9))
    ]
    with capture_logs() as logs:
        async with house.open() as runtime:
            task = await submit_plan(runtime, Plan.model_validate({"goal": "g", "steps": [*calls, look]}))
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
            task = await until(runtime, task.task_id, lambda now: now.steps["asks"].status is StepStatus.ASKING)
            asked = task.steps["asks"].asked
            assert asked
            await runtime.tasks.decide(task.task_id, DenyCall(**answer(asked)), ANYBODY)
            for _ in calls:
                task = await until(runtime, task.task_id, lambda now: bool(now.unknown_steps))
                await runtime.tasks.decide(
                    task.task_id, Resolve(step_id=task.unknown_steps[0], resolution="skip"), ANYBODY
                )
            task = await until_settled(runtime, task.task_id)
    assert task.error
    assert task.error.code == "call_denied"
    assert not [entry for entry in logs if entry["log_level"] == "error"], logs
