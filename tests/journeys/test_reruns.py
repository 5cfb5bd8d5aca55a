"""A finished task that is run again: what is reused, what is repeated, and what the approver sees (G2, G4)."""

from typing import Any

import pytest

from agent_runtime.api.views import task_view
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Cancel, Edit, Resolve
from agent_runtime.domain.caller import ANYBODY, Caller
from agent_runtime.domain.errors import DecisionRefusedError, RerunTooLargeError, ScopeMissingError
from agent_runtime.domain.journal_verification import find_journal_faults
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.rerun import RerunFrom
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.services.task_manager import RerunSubmission, Submission
from harness import ANN, House, ledger_plan, submit_plan, until_settled, until_status

BEN = Caller("ben", "default", frozenset({"submit", "approve", "read"}), "key")
READ = {"id": "file", "kind": "tool", "server": "filesystem", "tool": "read_file", "arguments": {"path": "a.txt"}}
COUNT = {"id": "count", "kind": "tool", "server": "ledger", "tool": "count", "arguments": {"label": "${file.text}"}}
BROKEN = {
    "id": "broken",
    "kind": "tool",
    "server": "filesystem",
    "tool": "read_file",
    "arguments": {"path": "missing.txt"},
    "depends_on": ["count"],
}


def plan(*steps: dict[str, Any]) -> Plan:
    return Plan.model_validate({"goal": "count", "steps": steps})


async def carry_out(runtime: Runtime, work: Plan, **submission: Any) -> Task:
    task = await runtime.tasks.submit(Submission(prompt="count", plan=work, **submission), ANN)
    return await approve(runtime, task)


async def approve(runtime: Runtime, task: Task) -> Task:
    await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), BEN)
    return await until_settled(runtime, task.task_id)


async def rerun(runtime: Runtime, task: Task, start: RerunFrom = "start", **request: Any) -> Task:
    return await runtime.tasks.rerun(RerunSubmission(task.task_id, start, **request), BEN)


async def fail(runtime: Runtime, house: House) -> Task:
    """Return a task that has read a file and counted once, and then failed because a file is missing."""
    (house.files / "a.txt").write_text("one")
    task = await carry_out(runtime, plan(READ, COUNT, BROKEN))
    assert (task.status, house.counted) == ("failed", ["one"])
    return task


async def test_from_the_failed_step_what_was_done_is_not_done_again(house: House) -> None:
    async with house.open() as runtime:
        failed = await fail(runtime, house)
        (house.files / "missing.txt").write_text("found")
        (house.files / "a.txt").write_text("other")
        again = await rerun(runtime, failed, "failed_step")
        assert again.status == "awaiting_approval"
        view = task_view(again)["rerun_of"]
        assert view is not None
        assert (view["task_id"], view["from"], view["reused"]) == (failed.task_id, "failed_step", ["file", "count"])
        assert [made["tool"] for made in view["repeats"]] == ["read_file", "read_file"]
        done = await approve(runtime, again)
    assert (done.status, house.counted) == ("completed", ["one"])
    assert done.results["file"].text == "one"
    assert done.steps["broken"].result is not None
    assert done.tool_calls == 1


async def test_from_the_start_everything_is_done_again_and_shown_before(house: House) -> None:
    async with house.open() as runtime:
        done = await carry_out(runtime, ledger_plan("one", "two"))
        again = await rerun(runtime, done)
        view = task_view(again)
        assert view["rerun_of"] is not None
        assert view["rerun_of"]["reused"] == []
        assert [(made["step_id"], made["count"], made["idempotent"]) for made in view["rerun_of"]["repeats"]] == [
            ("s1", 1, False),
            ("s2", 1, False),
        ]
        assert f"Calls that task {done.task_id} has made may be made again: ledger.count (once)" in str(view["plan"])
        await approve(runtime, again)
    assert house.counted == ["one", "two", "one", "two"]


async def test_the_digest_covers_which_results_are_reused(house: House) -> None:
    async with house.open() as runtime:
        failed = await fail(runtime, house)
        whole = await rerun(runtime, failed)
        rest = await rerun(runtime, failed, "failed_step")
        again = await rerun(runtime, failed, "failed_step")
        (house.files / "a.txt").write_text("two")
        other = await rerun(runtime, await carry_out(runtime, plan(READ, COUNT, BROKEN)), "failed_step")
    digests = [failed.plan_digest, whole.plan_digest, rest.plan_digest, other.plan_digest]
    assert len(set(digests)) == 4
    assert rest.plan_digest == again.plan_digest
    assert rest.contract
    assert rest.contract.rerun
    stored = await runtime_head(house, failed.task_id)
    assert rest.contract.rerun.head == stored


async def runtime_head(house: House, task_id: str) -> str:
    async with house.open() as runtime:
        return (await runtime.store.load_stored_journal(task_id)).entries[-1].hash


async def test_a_rerun_outlives_the_task_that_it_runs_again(house: House) -> None:
    async with house.open() as runtime:
        failed = await fail(runtime, house)
        again = await rerun(runtime, failed, "failed_step")
        await runtime.tasks.delete(failed.task_id, ANN)
        (house.files / "missing.txt").write_text("found")
        done = await approve(runtime, again)
        assert done.status == "completed"
        assert find_journal_faults(await runtime.store.load_stored_journal(done.task_id)) == []


async def test_a_rerun_of_a_rerun_still_shows_the_calls_of_the_first(house: House) -> None:
    async with house.open() as runtime:
        second = await approve(runtime, await rerun(runtime, await fail(runtime, house), "failed_step"))
        assert second.status == "failed"
        third = await rerun(runtime, second)
        view = task_view(third)["rerun_of"]
        assert view is not None
        assert ("count", 1) in [(made["tool"], made["count"]) for made in view["repeats"]]
        assert ("broken", 2) in [(made["step_id"], made["count"]) for made in view["repeats"]]
        fourth = await rerun(runtime, second, "failed_step")
        assert [name for name, step in fourth.steps.items() if step.status is StepStatus.COMPLETED] == ["file", "count"]


async def test_policy_approves_no_rerun_that_may_repeat_a_call(house: House) -> None:
    house.set_approval(auto_effects=("read", "write", "unknown", "destructive"))
    async with house.open() as runtime:
        counted = await until_settled(runtime, (await submit_auto(runtime, ledger_plan("one"))).task_id)
        looked = await until_settled(runtime, (await submit_auto(runtime, ledger_plan("a", tool="look"))).task_id)
        assert (counted.status, looked.status) == ("completed", "completed")
        assert (await rerun(runtime, counted, approval="auto")).status == "awaiting_approval"
        assert (await rerun(runtime, looked, approval="auto")).status == "approved"


async def submit_auto(runtime: Runtime, work: Plan) -> Task:
    return await runtime.tasks.submit(Submission(prompt="count", plan=work, approval="auto"), ANN)


async def test_what_came_from_outside_is_still_from_outside_where_the_registry_now_says_otherwise(house: House) -> None:
    house.write_registry(tools={"look": {"effect": "read", "open_world": True}, "*": {"open_world": False}})
    look = {"id": "look", "kind": "tool", "server": "ledger", "tool": "look", "arguments": {"label": "a"}}
    count = {**COUNT, "arguments": {"label": "${look.text}"}, "depends_on": ["broken"]}
    broken = {**BROKEN, "depends_on": ["look"]}
    async with house.open() as runtime:
        failed = await carry_out(runtime, plan(look, broken, count))
        assert failed.status == "failed"
    house.write_registry(tools={"look": {"effect": "read", "open_world": False}, "*": {"open_world": False}})
    async with house.open() as runtime:
        again = await rerun(runtime, failed, "failed_step")
        fresh = await rerun(runtime, failed)
    assert again.contract
    assert again.contract.asks == {"count": "its arguments contain data from outside, from look (the world outside)"}
    assert fresh.contract
    assert fresh.contract.asks == {}


async def test_an_edited_step_and_all_that_need_it_do_not_reuse_their_results(house: House) -> None:
    async with house.open() as runtime:
        again = await rerun(runtime, await fail(runtime, house), "failed_step")
        edited = plan({**READ, "arguments": {"path": "b.txt"}}, COUNT, BROKEN)
        task = await runtime.tasks.decide(again.task_id, Edit(plan=edited, digests=frozenset({again.plan_digest})), ANN)
        assert {step.status for step in task.steps.values()} == {StepStatus.PENDING}
        title = plan({**READ, "title": "Read it"}, {**COUNT, "retries": 0}, {**BROKEN, "arguments": {"path": "a.txt"}})
        task = await runtime.tasks.decide(task.task_id, Edit(plan=title, digests=frozenset({task.plan_digest})), ANN)
        assert [name for name, step in task.steps.items() if step.status is StepStatus.COMPLETED] == ["file", "count"]


@pytest.mark.slow
async def test_a_step_of_unknown_outcome_is_never_reused_and_its_call_is_shown(house: House) -> None:
    house.limit(cancel_grace_s=0.2)
    house.write_registry(delay_s=30, client_session_timeout_seconds=1)
    async with house.open() as runtime:
        lost = await carry_out(runtime, ledger_plan("one"))
        assert lost.status == "needs_attention"
        await runtime.tasks.decide(lost.task_id, Resolve(step_id="s1", resolution="fail"), ANN)
        failed = await until_settled(runtime, lost.task_id)
        again = await rerun(runtime, failed, "failed_step")
        view = task_view(again)["rerun_of"]
    assert view is not None
    assert view["reused"] == []
    assert [(made["tool"], made["unknown"]) for made in view["repeats"]] == [("count", True)]


async def test_whoever_shaped_the_finished_task_has_shaped_the_rerun(house: House) -> None:
    async with house.open() as runtime:
        again = await rerun(runtime, await carry_out(runtime, ledger_plan("one")))
    assert again.authors == ("ben", "ann")


async def test_only_a_task_that_has_ended_is_run_again_and_only_a_failed_one_from_its_failed_step(house: House) -> None:
    async with house.open() as runtime:
        waiting = await submit_plan(runtime, ledger_plan("one"))
        with pytest.raises(DecisionRefusedError, match="only a task that has ended"):
            await rerun(runtime, waiting)
        await runtime.tasks.decide(waiting.task_id, Cancel(), ANYBODY)
        cancelled = await until_status(runtime, waiting.task_id, TaskStatus.CANCELLED)
        with pytest.raises(DecisionRefusedError, match="no failed step"):
            await rerun(runtime, cancelled, "failed_step")
        assert (await rerun(runtime, cancelled)).status == "awaiting_approval"
        reader = Caller("eve", "default", frozenset({"submit"}), "key")
        with pytest.raises(ScopeMissingError):
            await runtime.tasks.rerun(RerunSubmission(cancelled.task_id), reader)


async def test_a_plan_that_cannot_be_carried_out_any_more_is_refused_with_the_reason(house: House) -> None:
    async with house.open() as runtime:
        done = await carry_out(runtime, ledger_plan("one"))
    house.write_registry(tools={"count": {"enabled": False}})
    async with house.open() as runtime:
        with pytest.raises(DecisionRefusedError, match=r"as things are now: .*count"):
            await rerun(runtime, done)
        assert (await runtime.tasks.count(ANYBODY))[TaskStatus.COMPLETED] == 1


async def test_a_task_without_a_plan_is_planned_anew(house: House) -> None:
    async with house.open() as runtime:
        refused = await runtime.tasks.submit(Submission(prompt="Fly to the moon"), ANN)
        failed = await until_settled(runtime, refused.task_id)
        assert (failed.status, failed.contract) == ("failed", None)
        again = await rerun(runtime, failed)
        assert again.rerun
        assert again.rerun.task_id == failed.task_id
        await until_settled(runtime, again.task_id)


@pytest.mark.slow
async def test_results_of_more_than_8_mib_are_not_reused(house: House) -> None:
    house.limit(stored_result_bytes=10_000_000)
    (house.files / "a.txt").write_text("x" * 900_000)
    reads = [{**READ, "id": f"r{number}"} for number in range(10)]
    async with house.open() as runtime:
        failed = await carry_out(runtime, plan(*reads, {**BROKEN, "depends_on": [one["id"] for one in reads]}))
        assert failed.status == "failed"
        with pytest.raises(RerunTooLargeError, match="8388608 bytes"):
            await rerun(runtime, failed, "failed_step")
