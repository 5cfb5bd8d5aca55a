"""Folds of the questions that a server asks the user during a call, and of their answers."""

from agent_runtime.domain import events as ev
from agent_runtime.domain.folds.base import (
    Changes,
    authors_with,
    check_not_cancelled,
    expect_step,
    illegal,
    with_step,
    without_question,
)
from agent_runtime.domain.replacing import replace
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Approval, AskedInput, StepState, StepStatus, Task


def fold_input_requested(task: Task, event: ev.InputRequested, record: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.RUNNING)
    check_not_cancelled(task, event)
    call = state.open_call
    if call is None or (call.call_id, call.server, call.tool) != (event.call_id, event.server, event.tool):
        raise illegal(task, event, f"call {event.call_id!r} is not open")
    if call.epoch != task.epoch or state.question is not None:
        raise illegal(task, event, "its call is lost, or has an open question already")
    question = AskedInput(
        event.question_id, event.call_id, event.server, event.tool, event.message, event.requested_schema
    )
    asking = replace(state, question=question, asked_at=record.at)
    return with_step(task, event.step_id, asking, status=TaskStatus.NEEDS_ATTENTION)


def fold_input_answered(task: Task, event: ev.InputAnswered, record: ev.EventRecord) -> Changes:
    state = _expect_question(task, event)
    check_not_cancelled(task, event)
    if (event.action == "accept") != (event.content is not None):
        raise illegal(task, event, "an answer has content if and only if it accepts")
    decided = replace(state, decided=(*state.decided, event.question_id))
    entry = Approval(event.actor, record.at, event.action, step_id=event.step_id)
    # The result of the call depends on the content, so its writer is an author of the task.
    authors = authors_with(task, event.actor) if event.action == "accept" else task.authors
    changes = without_question(task, event.step_id, decided)
    return {**changes, "approvals": (*task.approvals, entry), "authors": authors}


def fold_input_withdrawn(task: Task, event: ev.InputWithdrawn, _: ev.EventRecord) -> Changes:
    return without_question(task, event.step_id, _expect_question(task, event))


def _expect_question(task: Task, event: ev.InputAnswered | ev.InputWithdrawn) -> StepState:
    state = expect_step(task, event, StepStatus.RUNNING)
    if state.question is None or state.question.question_id != event.question_id:
        raise illegal(task, event, f"question {event.question_id!r} is not open")
    return state
