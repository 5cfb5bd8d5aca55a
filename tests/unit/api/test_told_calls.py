"""The calls of a task as the doors of AG-UI and CopilotKit tell them: each once, with one result."""

from collections.abc import Iterable
from random import Random

import pytest
from ag_ui.core import ToolCallResultEvent, ToolCallStartEvent

from agent_runtime.api.agui_events import Conversation
from agent_runtime.api.copilotkit_graphql.messages import Narrator
from agent_runtime.api.told_calls import ToldCalls
from agent_runtime.domain import events as ev
from agent_runtime.domain.task import Task
from agent_runtime.domain.transitions import evolve
from agent_steps import AT
from journals import ARGUMENTS, plan_approved, plan_proposed, some_step, task_submitted, tool_called, tool_returned

BEGUN: tuple[tuple[ev.Event, int | None], ...] = (
    (task_submitted(), None),
    (ev.TaskClaimed(runner="local", epoch=1), 1),
    (plan_proposed(), 1),
    (plan_approved(), None),
    (ev.TaskClaimed(runner="local", epoch=2), 2),
)
STARTED = ev.StepStarted(step_id="s1", title="one")
SENT = tool_called("s1")
UNKNOWN = ev.StepOutcomeUnknown(step_id="s1", call_id=SENT.call_id, reason="the service stopped")
ASKED = ev.CallApprovalRequested(
    step_id="s1",
    call_id=SENT.call_id,
    server="text",
    tool="echo",
    arguments=ARGUMENTS,
    arguments_digest=SENT.arguments_digest,
    reason="it writes",
)
YES = ev.CallApproved(step_id="s1", call_id=SENT.call_id, arguments_digest=SENT.arguments_digest)
APPROVED = (YES, None), (ev.TaskClaimed(runner="local", epoch=3), 3)
CANCELLED = (ev.TaskCancelRequested(), None), (ev.TaskCancelled(unknown_steps=("s1",)), None)
CANCELLED_UNSENT = CANCELLED[0], (ev.TaskCancelled(), None)
DENIED = ev.ToolDenied(step_id="s1", server="text", tool="echo", rule="denied", message="The operator forbids it.")
FAILED = ev.StepFailed(step_id="s1", code="call_refused", message="The operator forbids it.")


def make_journal(events: Iterable[tuple[ev.Event, int | None]]) -> list[ev.EventRecord]:
    return [ev.make_record("t", seq, epoch, AT, event) for seq, (event, epoch) in enumerate(events, 1)]


def tell_agui(records: list[ev.EventRecord]) -> tuple[list[str], dict[str, str]]:
    """Return the calls that are announced, and the result of each."""
    conversation = Conversation("t")
    told = [event for record in records for event in conversation.add(record)]
    results = [event for event in told if isinstance(event, ToolCallResultEvent)]
    assert len({event.tool_call_id for event in results}) == len(results)
    return (
        [event.tool_call_id for event in told if isinstance(event, ToolCallStartEvent)],
        {event.tool_call_id: str(event.content) for event in results},
    )


def tell_graphql(records: list[ev.EventRecord]) -> tuple[list[str], dict[str, str]]:
    """Return the calls that are announced, and the result of each."""
    narrator = Narrator()
    told = [message for record in records for message in narrator.tell(record)]
    assert len({message["id"] for message in told}) == len(told)
    results = [message for message in told if message["__typename"] == "ResultMessageOutput"]
    assert len({message["actionExecutionId"] for message in results}) == len(results)
    return (
        [message["id"] for message in told if message["__typename"] == "ActionExecutionMessageOutput"],
        {message["actionExecutionId"]: message["result"] for message in results},
    )


@pytest.mark.parametrize(
    "events",
    [
        [(STARTED, 2), (SENT, 2), (UNKNOWN, 2), *CANCELLED],
        [(ASKED, 2), *APPROVED, (STARTED, 3), (SENT, 3), (UNKNOWN, 3), *CANCELLED],
    ],
)
def test_a_call_whose_outcome_is_unknown_has_a_result_once_the_task_is_cancelled(
    events: list[tuple[ev.Event, int | None]],
) -> None:
    records = make_journal([*BEGUN, *events])
    for called, results in (tell_agui(records), tell_graphql(records)):
        assert called == [SENT.call_id]
        expected = "It is not known whether this call took effect. The task was cancelled."
        assert results == {SENT.call_id: expected}


@pytest.mark.parametrize(
    ("events", "result"),
    [
        ([*CANCELLED_UNSENT], "This call was not sent. The task was cancelled."),
        ([*APPROVED, (DENIED, 3)], "This call was not sent. The operator forbids it."),
        ([*APPROVED, (STARTED, 3), (FAILED, 3)], "This call was not sent. Step s1 failed."),
        ([*APPROVED, (ev.StepSkipped(step_id="s1", reason="no"), 3)], "This call was not sent. Step s1 was skipped."),
    ],
)
def test_a_call_that_was_announced_and_is_not_sent_has_a_result(
    events: Iterable[tuple[ev.Event, int | None]], result: str
) -> None:
    called, results = tell_agui(make_journal([*BEGUN, (ASKED, 2), *events]))
    assert called == [SENT.call_id]
    assert results == {SENT.call_id: result}


def test_the_end_of_a_step_leaves_the_calls_of_others_open() -> None:
    other = ev.StepSkipped(step_id="s2", reason="no")
    records = make_journal([*BEGUN, (STARTED, 2), (SENT, 2), (other, 2), (tool_returned(SENT.call_id, "s1"), 2)])
    for told in (tell_agui(records), tell_graphql(records)):
        assert told == ([SENT.call_id], {SENT.call_id: "hello"})


def test_a_repetition_without_a_result_is_explained_as_the_call_that_was_announced() -> None:
    calls = ToldCalls()
    assert calls.announce(SENT)
    assert not calls.announce(tool_called("s1", 2))
    assert dict(calls.explain_unanswered(DENIED)) == {}, "one that was sent may still return"
    assert [*dict(calls.explain_unanswered(FAILED))] == [SENT.call_id]
    assert calls.settle("call-s1-2") == SENT.call_id
    assert dict(calls.explain_unanswered(FAILED)) == {}


@pytest.mark.parametrize("seed", range(60))
def test_at_the_end_of_any_life_each_call_that_was_told_has_one_result(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - no secret
    task, records = Task("t"), list[ev.EventRecord]()
    while len(records) < 200 and (step := some_step(task, random)):
        for event in step[0]:
            records.append(ev.make_record("t", task.version + 1, step[1], AT, event))
            task = evolve(task, records[-1])
    for called, results in (tell_agui(records), tell_graphql(records)):
        assert results.keys() <= set(called)
        assert not task.terminal or results.keys() == set(called)
