"""Steps that do not depend on one another run side by side; a failure stops only the steps that depend on it."""

from collections.abc import Sequence

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Cancel, Resolve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.contract import Budget, Limits
from agent_runtime.domain.errors import InvalidPlanError
from agent_runtime.domain.events import EventRecord, ToolCalled, ToolReturned
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.transitions import replay
from agent_runtime.services.task_manager import Submission
from harness import House, ledger_graph, names, submit_plan, until, until_settled


async def run(runtime: Runtime, plan: Plan, limits: Limits | None = None) -> tuple[Task, list[EventRecord]]:
    task = await runtime.tasks.submit(Submission("count", plan=plan, limits=limits or Limits()), ANYBODY)
    await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
    end = await until_settled(runtime, task.task_id)
    journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert replay(task.task_id, journal) == end
    return end, journal


def most_open(journal: Sequence[EventRecord]) -> int:
    """Return the largest number of calls that were open at once."""
    most = now = 0
    for record in journal:
        now += isinstance(record.event, ToolCalled) - isinstance(record.event, ToolReturned)
        most = max(most, now)
    return most


async def test_steps_that_need_nothing_of_each_other_overlap(house: House) -> None:
    house.write_registry(delay_s=0.1)
    async with house.open() as runtime:
        end, journal = await run(runtime, ledger_graph({"a": [], "b": []}))
    assert end.status is TaskStatus.COMPLETED
    kinds = names(journal)
    assert [index for index, kind in enumerate(kinds) if kind == "step.started"][1] < kinds.index("step.completed")
    assert most_open(journal) == 2


async def test_a_step_begins_as_soon_as_its_own_inputs_are_there(house: House) -> None:
    house.write_registry(delay_s=0.1)
    async with house.open() as runtime:
        end, journal = await run(
            runtime, ledger_graph({"slow1": [], "quick": [], "after": ["quick"], "last": ["slow1"]})
        )
    assert end.status is TaskStatus.COMPLETED
    order = [(record.type, getattr(record.event, "step_id", "")) for record in journal]
    assert order.index(("step.started", "after")) < order.index(("step.started", "last")) or most_open(journal) > 1
    for step_id, need in (("after", "quick"), ("last", "slow1")):
        assert order.index(("step.completed", need)) < order.index(("step.started", step_id))


@pytest.mark.parametrize("most", [1, 2, 8])
async def test_no_more_calls_of_a_task_are_open_at_once_than_is_set(house: House, most: int) -> None:
    house.limit(calls_of_a_task=most)
    async with house.open() as runtime:
        end, journal = await run(runtime, ledger_graph({f"s{number}": [] for number in range(6)}))
    assert end.status is TaskStatus.COMPLETED
    assert most_open(journal) == min(most, 6)
    assert sorted(house.counted) == [f"s{number}" for number in range(6)]


async def test_no_more_calls_of_all_tasks_are_open_at_once_than_is_set(house: House) -> None:
    house.limit(concurrent_calls=1)
    async with house.open() as runtime:
        end, journal = await run(runtime, ledger_graph({f"s{number}": [] for number in range(4)}))
    assert end.status is TaskStatus.COMPLETED
    assert most_open(journal) == 1


async def test_a_failed_step_stops_what_needs_it_and_nothing_else(house: House) -> None:
    shape: dict[str, list[str]] = {
        "bad": [],
        "needs_bad": ["bad"],
        "further": ["needs_bad"],
        "own": [],
        "own2": ["own"],
    }
    async with house.open() as runtime:
        end, _ = await run(runtime, ledger_graph(shape, {"bad": "fail"}))
    assert end.status is TaskStatus.FAILED
    assert end.error
    assert (end.error.code, end.error.step_id) == ("tool_error", "bad")
    assert "counted bad" in end.error.message
    statuses = {step_id: step.status for step_id, step in end.steps.items()}
    assert statuses == {
        "bad": StepStatus.FAILED,
        "needs_bad": StepStatus.SKIPPED,
        "further": StepStatus.SKIPPED,
        "own": StepStatus.COMPLETED,
        "own2": StepStatus.COMPLETED,
    }
    assert end.steps["needs_bad"].message == "it needs bad, which failed"
    assert sorted(house.counted) == ["bad", "own", "own2"]


async def test_while_a_task_asks_nothing_new_begins_and_what_was_sent_is_kept(house: House) -> None:
    house.write_registry(delay_s=0.3)
    house.limit(cancel_grace_s=0.05)
    plan = ledger_graph({"lost": [], "kept": [], "next": ["kept"]}).model_dump(mode="json")
    plan["steps"][0]["timeout_s"] = 0.1
    async with house.open() as runtime:
        end, journal = await run(runtime, Plan.model_validate(plan))
        assert end.status is TaskStatus.NEEDS_ATTENTION
        assert end.unknown_steps == ("lost",)
        called = [record.event.step_id for record in journal if isinstance(record.event, ToolCalled)]
        assert called == ["lost", "kept"]
        await runtime.tasks.decide(end.task_id, Resolve(step_id="lost", resolution="done"), ANYBODY)
        while not (end := await until_settled(runtime, end.task_id)).terminal:
            await runtime.tasks.decide(end.task_id, Resolve(step_id=end.unknown_steps[0], resolution="done"), ANYBODY)
        assert replay(end.task_id, await runtime.tasks.records(end.task_id, ANYBODY)) == end
    assert end.status is TaskStatus.COMPLETED
    assert sorted(house.counted) == ["kept", "lost", "next"]


async def test_a_budget_of_calls_holds_for_calls_side_by_side(house: House) -> None:
    async with house.open() as runtime:
        end, _ = await run(
            runtime, ledger_graph({f"s{number}": [] for number in range(6)}), Limits(budget=Budget(tool_calls=4))
        )
    assert end.error
    assert (end.status, end.error.code) == (TaskStatus.FAILED, "budget_exceeded")
    assert sorted(house.counted) == ["s0", "s1", "s2", "s3"]


async def test_a_budget_of_seconds_is_reserved_by_the_calls_under_way(house: House) -> None:
    """Each call may take all that is left, so the next one waits until unused seconds are given back."""
    async with house.open() as runtime:
        end, journal = await run(runtime, ledger_graph({"a": [], "b": [], "c": []}), Limits(budget=Budget(seconds=30)))
    assert end.status is TaskStatus.COMPLETED
    assert most_open(journal) == 1
    reserved = [record.event.timeout_s for record in journal if isinstance(record.event, ToolCalled)]
    assert reserved[0] == 30
    assert 29 < reserved[2] < reserved[1] < 30


@pytest.mark.slow
async def test_a_cancel_ends_every_call_that_is_under_way(house: House) -> None:
    house.write_registry(delay_s=30)
    async with house.open() as runtime:
        task = await runtime.tasks.submit(
            Submission("count", plan=ledger_graph({"a": [], "b": [], "c": ["a", "b"]})), ANYBODY
        )
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await until(runtime, task.task_id, lambda now: now.tool_calls == 2)
        await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.CANCELLED
    assert set(end.unknown_steps) <= {"a", "b"}
    assert end.unknown_steps
    assert "c" not in house.counted


def make_choice(condition: str) -> Plan:
    """Return a plan that adds two numbers; one count runs if the condition on the sum holds, another if it does not."""
    plan = ledger_graph({"yes": [], "no": [], "after_yes": ["yes"]}).model_dump(mode="json")
    add = {"id": "sum", "kind": "tool", "server": "calculator", "tool": "add", "arguments": {"a": 2, "b": 3}}
    plan["steps"][0]["when"] = condition
    plan["steps"][1]["when"] = f"not ({condition})"
    return Plan.model_validate({"goal": "choose", "steps": [add, *plan["steps"]]})


@pytest.mark.parametrize(
    ("condition", "ran", "skipped"),
    [
        ("${sum.output.result} == 5", ["yes", "after_yes"], ["no"]),
        ("${sum.output.result} > 5", ["no"], ["yes", "after_yes"]),
        ("exists(${sum.output.other})", ["no"], ["yes", "after_yes"]),
        ("exists(${sum.output.result}) and ${sum.text} in '45'", ["yes", "after_yes"], ["no"]),
    ],
)
async def test_a_step_runs_only_where_its_condition_holds(
    house: House, condition: str, ran: list[str], skipped: list[str]
) -> None:
    async with house.open() as runtime:
        end, _ = await run(runtime, make_choice(condition))
    assert end.status is TaskStatus.COMPLETED
    assert sorted(house.counted) == sorted(ran)
    assert [name for name, step in end.steps.items() if step.status is StepStatus.SKIPPED] == skipped


async def test_a_condition_that_cannot_be_compared_fails_the_step_and_calls_nothing(house: House) -> None:
    async with house.open() as runtime:
        end, _ = await run(runtime, make_choice("${sum.output.result} > 'five'"))
    assert end.error
    assert (end.status, end.error.code, end.error.step_id) == (TaskStatus.FAILED, "condition_failed", "yes")
    assert "compares 5 and five" in end.error.message
    assert house.counted == []


async def test_a_condition_that_cannot_be_read_is_refused_with_the_plan(house: House) -> None:
    async with house.open() as runtime:
        with pytest.raises(InvalidPlanError) as refused:
            await submit_plan(runtime, make_choice("__import__('os')"))
        assert [fault.field for fault in refused.value.faults] == ["plan.steps[1].when", "plan.steps[2].when"]
        with pytest.raises(InvalidPlanError, match=r"no step 'gone'"):
            await submit_plan(runtime, make_choice("${gone.text} == 'a'"))
