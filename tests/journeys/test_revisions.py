"""G4: plans that are revised, edited or outdated: only the newest can be approved, and only that one runs."""

import asyncio
import json
from collections.abc import Awaitable

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Decision, Edit, Reject, Revise
from agent_runtime.domain.caller import ANYBODY, Caller
from agent_runtime.domain.errors import (
    DecisionRefusedError,
    DigestMismatchError,
    DigestRequiredError,
    EditOutdatedError,
    InvalidInputError,
)
from agent_runtime.domain.events import PlanRevisionRequested
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.services.task_manager import Submission
from harness import ANN, House, ledger_plan, names, submit_plan, until, until_settled, until_status
from model_server import ModelServer
from model_server.replies import Text

SUM = {"id": "s1", "kind": "tool", "server": "calculator", "tool": "add", "arguments": {"a": 15, "b": 27}}


async def submit_prompt(runtime: Runtime, prompt: str = "Add 15 and 27") -> Task:
    """Return a task with a plan by the planner."""
    task = await runtime.tasks.submit(Submission(prompt=prompt), ANYBODY)
    return await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)


async def revision(runtime: Runtime, task_id: str, number: int) -> Task:
    return await until(
        runtime, task_id, lambda task: task.plan_revision >= number and task.status is TaskStatus.AWAITING_APPROVAL
    )


async def is_accepted(work: Awaitable[object]) -> bool:
    try:
        await work
    except DecisionRefusedError:
        return False
    return True


async def test_a_revision_is_planned_from_the_prompt_and_all_feedback_and_runs_once_it_is_approved(
    house: House,
) -> None:
    async with house.open() as runtime:
        first = await submit_prompt(runtime)
        await runtime.tasks.decide(first.task_id, Revise(feedback="then multiply the result by 2"), ANN)
        await revision(runtime, first.task_id, 2)
        await runtime.tasks.decide(first.task_id, Revise(feedback="then add 1 to the result"), ANYBODY)
        third = await revision(runtime, first.task_id, 3)
        assert third.contract
        assert len(third.contract.steps) == 3
        assert third.feedback == ("then multiply the result by 2", "then add 1 to the result")
        assert third.approvals[0].actor == "ann"
        with pytest.raises(DigestRequiredError):
            await runtime.tasks.decide(first.task_id, Approve(), ANYBODY)
        with pytest.raises(DigestMismatchError):
            await runtime.tasks.decide(first.task_id, Approve(digest=first.plan_digest), ANYBODY)
        await runtime.tasks.decide(first.task_id, Approve(digest=third.plan_digest), ANYBODY)
        ended = await until_settled(runtime, first.task_id)
        journal = names(await runtime.tasks.records(first.task_id, ANYBODY))
    assert ended.status is TaskStatus.COMPLETED
    assert "85" in (ended.result or "")
    assert journal.count("plan.proposed") == 3
    assert journal.count("plan.revision_requested") == 2


async def fail_to_revise(runtime: Runtime, task: Task, feedback: str = "with more gusto") -> Task:
    """Ask for a plan that the planner cannot make, and return the task once it awaits approval again."""
    await runtime.tasks.decide(task.task_id, Revise(feedback=feedback), ANYBODY)
    kept = await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
    assert kept.revision_failure
    assert kept.revision_failure.feedback == feedback
    return kept


async def test_a_revision_that_is_not_understood_keeps_the_plan_before_it_and_says_why(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_prompt(runtime)
        kept = await fail_to_revise(runtime, task)
        assert kept.revision_failure
        assert kept.revision_failure.code == "planning_refused"
        assert "gusto" in kept.revision_failure.message
        assert (kept.plan_revision, kept.plan_digest, kept.contract) == (1, task.plan_digest, task.contract)
        with pytest.raises(DigestRequiredError):  # whoever names none may expect the plan that there is not
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        ended = await until_settled(runtime, task.task_id)
    assert (ended.status, ended.result, ended.revision_failure) == (TaskStatus.COMPLETED, "42", None)


async def test_feedback_that_led_to_no_plan_is_not_told_again(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_prompt(runtime)
        for _ in range(2):
            kept = await fail_to_revise(runtime, task)
            assert kept.feedback == ()
        await runtime.tasks.decide(task.task_id, Revise(feedback="then multiply the result by 2"), ANYBODY)
        second = await revision(runtime, task.task_id, 2)
        revisions = await runtime.tasks.read_revisions(task.task_id, ANYBODY)
    assert second.feedback == ("then multiply the result by 2",)
    assert second.revision_failure is None
    assert [one.feedback for one in revisions] == [None, "then multiply the result by 2"]


async def test_who_may_only_approve_still_may_after_feedback_that_led_to_no_plan(house: House) -> None:
    bob = Caller("bob", "default", frozenset({"read", "approve"}), "key")
    async with house.open() as runtime:
        task = await submit_prompt(runtime)
        await runtime.tasks.decide(task.task_id, Revise(feedback="with more gusto"), bob)
        await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), bob)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED


async def test_a_crash_while_a_revision_fails_keeps_the_plan_after_the_restart(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_prompt(runtime)
        asked = PlanRevisionRequested(feedback="with more gusto", revision=1, digest=task.plan_digest or "")
        await runtime.store.append(task, [asked])  # and the runner is not woken
    async with house.open() as runtime:
        kept = await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    async with house.open() as runtime:
        assert await runtime.tasks.get(task.task_id, ANYBODY) == kept
    assert kept.plan_digest == task.plan_digest
    assert journal.count("plan.revision_failed") == 1


async def test_the_time_for_the_approval_begins_anew_when_a_revision_fails(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_prompt(runtime)
        kept = await fail_to_revise(runtime, task)
        assert kept.planned_at
        assert task.planned_at
        assert kept.planned_at > task.planned_at
    house.set_approval(expires_after_s=0.001)
    async with house.open() as runtime:
        await until_status(runtime, task.task_id, TaskStatus.EXPIRED)


async def test_a_model_that_cannot_be_reached_any_more_keeps_the_plan(house: House) -> None:
    async with ModelServer() as models:
        house.use_model(models.base_url)
        models.on(lambda _: True, Text(json.dumps({"goal": "sum", "steps": [SUM]})))
        async with house.open() as runtime:
            task = await submit_prompt(runtime)
    house.limit(planning_outage_s=0)
    async with house.open() as runtime:
        kept = await fail_to_revise(runtime, task)
        assert kept.revision_failure
        assert kept.revision_failure.code.startswith("model_")
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED


async def test_a_revision_waits_for_approval_even_where_the_first_plan_need_not_have(house: House) -> None:
    house.set_approval(auto_effects=("read",))
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission(prompt="Write hello to a.txt", approval="auto"), ANYBODY)
        await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
    house.set_approval(auto_effects=("read", "write", "destructive"))
    async with house.open() as runtime:
        await runtime.tasks.decide(task.task_id, Revise(feedback="then add 1 and 2"), ANYBODY)
        second = await revision(runtime, task.task_id, 2)
        assert second.status is TaskStatus.AWAITING_APPROVAL
        assert "plan.approved" not in names(await runtime.tasks.records(task.task_id, ANYBODY))


async def test_a_crash_between_the_feedback_and_the_new_plan_loses_neither(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_prompt(runtime)
        asked = PlanRevisionRequested(feedback="then add 1", revision=1, digest=task.plan_digest or "")
        task = await runtime.store.append(task, [asked])  # and the runner is not woken
        assert task.status is TaskStatus.PENDING
        with pytest.raises(DecisionRefusedError, match="is pending"):
            await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
    async with house.open() as runtime:
        second = await revision(runtime, task.task_id, 2)
    assert second.contract
    assert len(second.contract.steps) == 2


async def test_of_approve_and_revise_at_once_one_wins_and_what_was_approved_runs_once(house: House) -> None:
    async with house.open() as runtime:
        for turn in range(8):
            task = await submit_plan(runtime, ledger_plan(f"turn{turn}"))
            decisions: list[Decision] = [
                Approve(digest=task.plan_digest),
                Revise(feedback="Add 1 and 2"),
                Approve(),
                Reject(),
            ]
            order = decisions[turn % 4 :] + decisions[: turn % 4]
            won = await asyncio.gather(
                *(is_accepted(runtime.tasks.decide(task.task_id, one, ANYBODY)) for one in order)
            )
            assert won.count(True) == 1
            ended = await until(
                runtime,
                task.task_id,
                lambda now: now.terminal or now.revision_failure is not None,
            )
            ran = house.counted.count(f"turn{turn}")
            assert ran == (ended.status is TaskStatus.COMPLETED)


async def test_feedback_that_says_nothing_or_too_much_is_refused_and_changes_nothing(house: House) -> None:
    house.limit(prompt_bytes=20)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        for feedback, why in ((" \n\t", "empty"), ("é" * 11, "22 bytes"), ("\ud800", "cannot be stored")):
            with pytest.raises(InvalidInputError, match=why):
                await runtime.tasks.decide(task.task_id, Revise(feedback=feedback), ANYBODY)
        assert await runtime.tasks.get(task.task_id, ANYBODY) == task


async def test_of_approve_and_edit_at_once_one_wins_and_what_was_approved_runs_once(house: House) -> None:
    async with house.open() as runtime:
        for turn in range(8):
            task = await submit_plan(runtime, ledger_plan(f"old{turn}"))
            digest = task.plan_digest or ""
            attempts = [
                runtime.tasks.decide(task.task_id, Approve(digest=digest), ANYBODY),
                runtime.tasks.decide(
                    task.task_id, Edit(plan=ledger_plan(f"new{turn}"), digests=frozenset({digest})), ANYBODY
                ),
                runtime.tasks.decide(
                    task.task_id, Edit(plan=ledger_plan(f"newer{turn}"), digests=frozenset({digest})), ANYBODY
                ),
                runtime.tasks.decide(task.task_id, Approve(), ANYBODY),
            ]
            won = await asyncio.gather(*map(is_accepted, attempts[turn % 4 :] + attempts[: turn % 4]))
            assert won.count(True) == 1
            now = await runtime.tasks.get(task.task_id, ANYBODY)
            if now.plan_revision == 2:
                await runtime.tasks.decide(task.task_id, Approve(digest=now.plan_digest), ANYBODY)
            ended = await until_settled(runtime, task.task_id)
            assert ended.status is TaskStatus.COMPLETED
            ran = [label for label in house.counted if label.endswith(str(turn))]
            assert ran == [ended.plan_step("s1").templates["label"]]


async def test_an_edit_survives_a_restart_and_the_plan_before_it_can_not_be_approved(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("old"))
        await runtime.tasks.decide(
            task.task_id, Edit(plan=ledger_plan("new"), digests=frozenset({task.plan_digest or ""})), ANN
        )
    async with house.open() as runtime:
        with pytest.raises(DigestMismatchError):
            await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        edited = await runtime.tasks.get(task.task_id, ANYBODY)
        await runtime.tasks.decide(task.task_id, Approve(digest=edited.plan_digest), ANYBODY)
        await until_settled(runtime, task.task_id)
    assert house.counted == ["new"]


async def test_only_a_plan_that_awaits_approval_can_be_edited(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        with pytest.raises(DigestRequiredError):
            await runtime.tasks.decide(task.task_id, Edit(plan=ledger_plan("two"), digests=None), ANYBODY)
        with pytest.raises(EditOutdatedError):
            await runtime.tasks.decide(
                task.task_id, Edit(plan=ledger_plan("two"), digests=frozenset({"sha256:other"})), ANYBODY
            )
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        with pytest.raises(DecisionRefusedError, match="can be edited"):
            await runtime.tasks.decide(
                task.task_id, Edit(plan=ledger_plan("two"), digests=frozenset({task.plan_digest or ""})), ANYBODY
            )
        await until_settled(runtime, task.task_id)
    assert house.counted == ["one"]
