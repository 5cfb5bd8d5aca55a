"""Repetitions of calls after a wait for the end of an outage, and how long that is one and the same wait (G2)."""

from datetime import timedelta

import pytest

from agent_runtime.domain import events as ev
from agent_runtime.domain.commands import CallTool, Command, OutlastOutage, WriteEvents, next_command
from agent_runtime.domain.errors import IllegalTransitionError, ServerUnavailableError
from agent_runtime.domain.outages import end_call
from agent_runtime.domain.task import Task, Waiting, may_repeat
from agent_runtime.domain.tools import StoredResult
from agent_steps import (
    AGENT,
    AT,
    LOOK,
    after,
    contract_of,
    make_executing_task,
    make_task_after_look,
    model_answered,
    step_started,
    tool_called,
)

BUSY = StoredResult(text="HTTP 429", is_error=True, retry_after_s=0)
LATER = BUSY.model_copy(update={"retry_after_s": 60.0})
WRONG = StoredResult(text="no", is_error=True)
FINE = StoredResult(text="fine")
UNSENT = StoredResult(text="refused", is_error=True, unsent=True, retry_after_s=0)
WIPE = {"id": "wipe", "kind": "tool", "server": "f", "tool": "wipe"}
DOWN = ServerUnavailableError("f", "HTTP 429", may_pass=True)


def begin(retries: int = 0) -> Task:
    """Return a task whose idempotent call `look` was sent."""
    task = make_executing_task(contract_of({**LOOK, "retries": retries}))
    return after(task, step_started("look"), call_look(1))


def call_look(attempt: int) -> ev.ToolCalled:
    return tool_called("look", "read", {"x": 1}, f"c{attempt}", attempt=attempt)


def answer(task: Task, result: StoredResult, step_id: str = "look") -> Task:
    """Return the task after the latest call of this step was answered."""
    call = task.steps[step_id].call
    assert call is not None
    return after(task, ev.ToolReturned(step_id=step_id, call_id=call.call_id, result=result, duration_ms=1))


def wait(task: Task, attempt: int = 1) -> Task:
    """Return the task after it has waited for the end of an outage, and was claimed again."""
    at, end = AT + timedelta(minutes=attempt), AT + timedelta(days=1)
    waiting = ev.TaskWaiting(kind="server", name="f", reason="r", attempt=attempt, next_try_at=at, gives_up_at=end)
    return after(task, waiting, ev.TaskClaimed(runner="r", epoch=task.epoch + 1))


def command_of(task: Task) -> Command | None:
    return next_command(task)


def waiting_of(task: Task) -> Waiting:
    assert task.waiting is not None
    return task.waiting


def test_an_outage_is_waited_for_once_the_repetitions_of_the_plan_are_used_up() -> None:
    once = answer(begin(retries=1), BUSY)
    assert isinstance(command_of(once), CallTool)
    twice = answer(after(once, call_look(2)), BUSY)
    assert isinstance(command_of(twice), OutlastOutage)
    assert isinstance(command_of(wait(twice)), CallTool)


def test_a_server_that_asks_for_longer_than_a_pause_is_left_alone_at_once() -> None:
    assert isinstance(command_of(answer(begin(retries=3), LATER)), OutlastOutage)


@pytest.mark.parametrize("result", [WRONG, WRONG.model_copy(update={"unreadable": True})])
def test_an_error_that_is_no_outage_is_never_waited_for(result: StoredResult) -> None:
    assert isinstance(command_of(answer(begin(), result)), WriteEvents)


def test_a_call_that_may_not_be_repeated_is_never_waited_for() -> None:
    task = after(make_executing_task(contract_of(WIPE)), step_started("wipe"), tool_called("wipe", "wipe", {}))
    with pytest.raises(IllegalTransitionError, match="may not be sent again"):
        wait(task)
    failed = answer(task, BUSY, "wipe")
    assert isinstance(command_of(failed), WriteEvents)
    with pytest.raises(IllegalTransitionError, match="may not be called again"):
        after(wait(failed), tool_called("wipe", "wipe", {}, "c2", attempt=2))


def test_a_call_of_any_tool_that_never_left_is_waited_for_after_three_attempts() -> None:
    task = after(make_executing_task(contract_of(WIPE)), step_started("wipe"))
    for attempt in (1, 2, 3):
        task = answer(after(task, tool_called("wipe", "wipe", {}, f"c{attempt}", attempt=attempt)), UNSENT, "wipe")
    assert isinstance(command_of(task), OutlastOutage)
    assert isinstance(command_of(wait(task)), CallTool)


def test_each_wait_allows_as_many_attempts_again() -> None:
    task = begin()
    for attempt in (2, 3):
        task = after(task, call_look(attempt))
    assert not may_repeat(task, "look")
    task = wait(task)
    for attempt in (4, 5, 6):
        task = after(task, call_look(attempt))
    assert not may_repeat(task, "look")
    with pytest.raises(IllegalTransitionError, match="may not be called again"):
        after(task, call_look(7))


def test_a_wait_goes_on_while_its_call_is_repeated_and_meets_the_outage_again() -> None:
    task = wait(answer(begin(retries=2), BUSY))
    since = waiting_of(task).since
    again = answer(after(task, call_look(2)), BUSY)
    assert isinstance(command_of(again), OutlastOutage)
    assert (waiting_of(again).tried, waiting_of(wait(again, 2)).since, waiting_of(wait(again, 2)).tried) == (
        True,
        since,
        False,
    )
    with pytest.raises(IllegalTransitionError, match="attempt 3 is not the next one"):
        wait(again, 3)


@pytest.mark.parametrize("result", [FINE, WRONG])
def test_any_other_answer_ends_the_wait(result: StoredResult) -> None:
    task = wait(answer(begin(), BUSY))
    assert answer(after(task, call_look(2)), result).waiting is None


def test_a_journal_in_which_a_repetition_ended_the_wait_can_still_be_read() -> None:
    again = after(wait(begin()), call_look(2))
    old = wait(again, 1)
    assert (waiting_of(old).attempt, waiting_of(old).since > waiting_of(again).since) == (1, True)


def test_the_model_of_an_agent_step_is_told_the_answer_after_the_outage() -> None:
    agent = {**AGENT, "preapproved": True}
    asked = after(
        make_task_after_look(contract_of(LOOK, agent)), step_started("do"), model_answered(1, ("f__read", {"x": 1}))
    )
    called = after(asked, tool_called("do", "read", {"x": 1}, turn=1, index=0))
    busy = answer(called, BUSY, "do")
    assert (busy.steps["do"].pending, type(command_of(busy))) == (asked.steps["do"].pending, OutlastOutage)
    again = after(wait(busy), tool_called("do", "read", {"x": 1}, "c2", attempt=2, turn=1, index=0))
    told = answer(again, FINE, "do").steps["do"]
    assert ([reply.text for reply in told.turns[0].replies], told.sent) == (["fine"], ("f/read",))
    (given_up,) = after(busy, *end_call(busy, "do", DOWN, AT)).steps["do"].turns[0].replies
    assert "HTTP 429" in given_up.text
    (wrong,) = answer(called, WRONG, "do").steps["do"].turns[0].replies
    assert wrong == WRONG


def test_a_person_is_asked_about_an_open_call_that_has_waited_too_long() -> None:
    (unknown,) = end_call(wait(begin()), "look", DOWN, AT + timedelta(days=1))
    assert isinstance(unknown, ev.StepOutcomeUnknown)
    assert "It was tried 2 times" in unknown.reason
