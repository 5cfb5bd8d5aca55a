"""G4 and G7: nothing runs before approval, N approvals are one execution, reject and cancel hold at every moment."""

import asyncio
import sys
from functools import partial

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Cancel, Reject, Resolve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.contract import Budget, Limits
from agent_runtime.domain.errors import DecisionRefusedError, DigestMismatchError, InvalidInputError
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.services.task_manager import Submission
from harness import LEDGER_SERVER, House, ledger_plan, names, submit_plan, until, until_settled, until_status
from waiting import eventually


async def try_decision(runtime: Runtime, task: Task, decision: Approve | Reject) -> bool:
    try:
        await runtime.tasks.decide(task.task_id, decision, ANYBODY)
    except DecisionRefusedError:
        return False
    return True


def has_come_to(version: int, task: Task) -> bool:
    return task.terminal or task.version >= version


async def test_nothing_runs_before_approval(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        assert task.status is TaskStatus.AWAITING_APPROVAL
        await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
    assert house.counted == []


async def test_a_hundred_approvals_at_once_are_one_approval_and_one_execution(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one", "two"))
        won = await asyncio.gather(*(try_decision(runtime, task, Approve()) for _ in range(100)))
        assert won.count(True) == 1
        await until_status(runtime, task.task_id, TaskStatus.COMPLETED)
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert journal.count("plan.approved") == 1
    assert house.counted == ["one", "two"]


async def test_approve_against_reject_has_one_winner(house: House) -> None:
    async with house.open() as runtime:
        for turn in range(10):
            task = await submit_plan(runtime, ledger_plan(f"turn{turn}"))
            decisions: list[Approve | Reject] = [Approve(), Reject()] if turn % 2 else [Reject(), Approve()]
            won = await asyncio.gather(*(try_decision(runtime, task, decision) for decision in decisions))
            assert won.count(True) == 1
            ended = await until_settled(runtime, task.task_id)
            ran = f"turn{turn}" in house.counted
            assert ran == (ended.status is TaskStatus.COMPLETED)


async def test_approve_against_cancel_starts_no_call_after_the_cancel(house: House) -> None:
    async with house.open() as runtime:
        for turn in range(10):
            task = await submit_plan(runtime, ledger_plan(f"turn{turn}"))
            approvals = [try_decision(runtime, task, Approve()) for _ in range(5)]
            cancel = runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
            acknowledged = (await asyncio.gather(*approvals[:2], cancel, *approvals[2:]))[2]
            assert isinstance(acknowledged, Task)
            end = await until_settled(runtime, task.task_id)
            journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
            assert (end.status, journal.count("plan.approved") <= 1) == (TaskStatus.CANCELLED, True)
            assert "tool.called" not in journal[journal.index("task.cancel_requested") :]
            assert house.counted.count(f"turn{turn}") <= journal.count("tool.called")


async def test_an_approval_of_another_plan_is_refused_and_changes_nothing(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        with pytest.raises(DigestMismatchError):
            await runtime.tasks.decide(task.task_id, Approve(digest="sha256:" + "0" * 64), ANYBODY)
        assert await runtime.tasks.get(task.task_id, ANYBODY) == task


async def test_a_cancel_between_two_calls_stops_the_second(house: House) -> None:
    house.write_registry(delay_s=1)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one", "two"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await until(runtime, task.task_id, lambda now: now.steps["s1"].open_call is not None)
        acknowledged = await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
        assert acknowledged.cancel_requested
        ended = await until_settled(runtime, task.task_id)
        assert ended.status is TaskStatus.CANCELLED
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert "two" not in house.counted
    assert "tool.called" not in journal[journal.index("task.cancel_requested") :]


async def test_a_cancel_lists_the_steps_whose_outcome_is_not_known(house: House) -> None:
    house.write_registry(delay_s=30)
    house.settings = house.settings.model_copy(
        update={"limits": house.settings.limits.model_copy(update={"cancel_grace_s": 0.2})}
    )
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one", "two"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await eventually(lambda: house.counted)
        await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
        ended = await until_status(runtime, task.task_id, TaskStatus.CANCELLED)
        journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert ended.unknown_steps == ("s1",)
    assert names(journal)[-2:] == ["step.outcome_unknown", "task.cancelled"]


async def test_a_second_cancel_changes_nothing_and_a_finished_task_cannot_be_cancelled(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
        with pytest.raises(DecisionRefusedError, match="cancelled"):
            await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)


async def test_cancelling_at_any_moment_ends_the_task_and_starts_no_call_after_it(house: House) -> None:
    async with house.open() as runtime:
        for version in range(2, 14):
            task = await submit_plan(runtime, ledger_plan(f"a{version}", f"b{version}", f"c{version}"))
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
            await until(runtime, task.task_id, partial(has_come_to, version))
            try:
                await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
            except DecisionRefusedError:
                continue
            ended = await until_settled(runtime, task.task_id)
            assert ended.status is TaskStatus.CANCELLED
            journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
            assert "tool.called" not in journal[journal.index("task.cancel_requested") :]


async def test_an_error_of_the_tool_fails_the_step_and_the_task_and_says_why(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one", "two", tool="fail"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        ended = await until_settled(runtime, task.task_id)
    assert ended.status is TaskStatus.FAILED
    assert ended.error
    assert (ended.error.step_id, ended.error.code) == ("s1", "tool_error")
    assert "counted one" in ended.error.message
    assert house.counted == ["one"]


async def test_a_time_out_of_a_call_that_may_not_be_repeated_asks_a_person(house: House) -> None:
    house.write_registry(delay_s=30, client_session_timeout_seconds=0.3)
    house.settings = house.settings.model_copy(
        update={"limits": house.settings.limits.model_copy(update={"cancel_grace_s": 0.2})}
    )
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        asking = await until_settled(runtime, task.task_id)
        assert asking.status is TaskStatus.NEEDS_ATTENTION
        assert asking.steps["s1"].status is StepStatus.UNKNOWN
        with pytest.raises(InvalidInputError, match="s1"):
            await runtime.tasks.decide(task.task_id, Resolve(step_id="s9", resolution="done"), ANYBODY)
        await runtime.tasks.decide(task.task_id, Resolve(step_id="s1", resolution="done", output={"n": 1}), ANYBODY)
        ended = await until_settled(runtime, task.task_id)
    assert ended.status is TaskStatus.COMPLETED
    assert ended.results["s1"].output == {"n": 1}
    assert house.counted == ["one"]


async def test_a_budget_of_calls_holds(house: House) -> None:
    async with house.open() as runtime:
        submission = Submission(
            prompt="count", plan=ledger_plan("one", "two", "three"), limits=Limits(budget=Budget(tool_calls=2))
        )
        task = await runtime.tasks.submit(submission, ANYBODY)
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        ended = await until_settled(runtime, task.task_id)
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert ended.error
    assert ended.error.code == "budget_exceeded"
    assert "budget.exceeded" in journal
    assert house.counted == ["one", "two"]


async def test_an_argument_that_breaks_the_schema_once_resolved_is_refused_and_not_sent(house: House) -> None:
    plan = Plan.model_validate(
        {
            "goal": "a number where a text is asked for",
            "steps": [
                {"id": "s1", "kind": "tool", "server": "calculator", "tool": "add", "arguments": {"a": 1, "b": 2}},
                {
                    "id": "s2",
                    "kind": "tool",
                    "server": "ledger",
                    "tool": "count",
                    "arguments": {"label": "${s1.output.result}"},
                },
            ],
        }
    )
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan)
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        ended = await until_settled(runtime, task.task_id)
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert ended.error
    assert ended.error.code == "invalid_arguments"
    assert "tool.denied" in journal
    assert house.counted == []


async def test_a_server_that_is_gone_fails_the_task_before_any_call(house: House) -> None:
    command = house.folder / "command-that-goes-away"
    command.symlink_to(sys.executable)
    house.write_registry(
        config={"command": str(command), "args": [str(LEDGER_SERVER)], "env": {"LEDGER": str(house.ledger)}}
    )
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    command.unlink()
    async with house.open() as runtime:
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        ended = await until_settled(runtime, task.task_id)
    assert ended.error
    assert ended.error.code == "server_unavailable"
    assert "command-that-goes-away" in ended.error.message
