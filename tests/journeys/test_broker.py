"""The broker's events for a call that is refused, unanswered, or answered with more than the journal takes."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.events import StepFailed, StepOutcomeUnknown, ToolCalled, ToolDenied, ToolReturned
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.values import digest
from shifty import ShiftyHouse, plan_of, run_plan


@pytest.fixture
def house(tmp_path: Path) -> ShiftyHouse:
    return ShiftyHouse(tmp_path)


async def test_a_call_and_its_answer_are_written_as_they_were(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        task = await run_plan(runtime, plan_of("count:one"))
        events = [record.event for record in await runtime.tasks.records(task.task_id, ANYBODY)]
    (called,) = [event for event in events if isinstance(event, ToolCalled)]
    (returned,) = [event for event in events if isinstance(event, ToolReturned)]
    assert (called.step_id, called.server, called.tool, called.attempt) == ("s1", "ledger", "count", 1)
    assert (called.arguments, called.arguments_digest) == ({"label": "one"}, digest({"label": "one"}))
    assert called.call_id.startswith("call_")
    assert (returned.step_id, returned.call_id) == ("s1", called.call_id)
    assert 0 < returned.duration_ms < 20_000
    assert returned.duration_ms == round(returned.duration_ms, 3)


@pytest.mark.parametrize(
    ("arguments", "rule", "said"),
    [
        (
            {"label": "${s1.output.result}"},
            "invalid_arguments",
            "arguments.label: 3 is not of type 'string'",
        ),
        (
            {"label": "${s1.output.sum}"},
            "reference_failed",
            "${s1.output.sum}: no 'sum' in output of step 's1'; it has 'result'.",
        ),
    ],
)
async def test_a_refusal_is_in_the_journal_and_in_the_log_with_its_rule_and_its_reason(
    house: ShiftyHouse, arguments: dict[str, Any], rule: str, said: str
) -> None:
    plan = plan_of("calculator.add", a=1, b=2).model_dump(mode="json")
    second = {"id": "s2", "kind": "tool", "server": "ledger", "tool": "count", "arguments": arguments}
    with capture_logs() as logs:
        async with house.open() as runtime:
            task = await run_plan(runtime, Plan.model_validate({**plan, "steps": [*plan["steps"], second]}))
            events = [record.event for record in await runtime.tasks.records(task.task_id, ANYBODY)]
    assert [event for event in events if isinstance(event, ToolDenied | StepFailed)] == [
        ToolDenied(step_id="s2", server="ledger", tool="count", rule=rule, message=said),
        StepFailed(step_id="s2", code=rule, message=f"ledger.count was not called: {said}"),
    ]
    assert {
        "event": "call_refused",
        "log_level": "warning",
        "task_id": task.task_id,
        "step_id": "s2",
        "rule": rule,
    } in logs
    assert house.counted == []


async def test_an_unknown_outcome_is_in_the_journal_and_in_the_log_with_its_reason(house: ShiftyHouse) -> None:
    house.write_entry(tools={"die": {"idempotent": False}})
    with capture_logs() as logs:
        async with house.open() as runtime:
            task = await run_plan(runtime, plan_of("die:one"))
            events = [record.event for record in await runtime.tasks.records(task.task_id, ANYBODY)]
    (called,) = [event for event in events if isinstance(event, ToolCalled)]
    (unknown,) = [event for event in events if isinstance(event, StepOutcomeUnknown)]
    assert (unknown.step_id, unknown.call_id) == ("s1", called.call_id)
    entry = {"event": "outcome_unknown", "log_level": "warning", "task_id": task.task_id, "step_id": "s1"}
    assert {**entry, "reason": unknown.reason} in logs
