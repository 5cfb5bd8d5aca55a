"""Folds of the start and the end of a task and of its steps."""

from agent_runtime.domain import events as ev
from agent_runtime.domain.errors import DefinitionChangedError
from agent_runtime.domain.folds.base import Changes, check_not_cancelled, expect_step, illegal, with_step
from agent_runtime.domain.replacing import replace
from agent_runtime.domain.status import WAITING, TaskStatus
from agent_runtime.domain.task import StepState, StepStatus, Task, TaskError, Waiting, may_outlast

_S = TaskStatus
_WELL_ENDED = frozenset({StepStatus.COMPLETED, StepStatus.SKIPPED})


def fold_task_submitted(_: Task, event: ev.TaskSubmitted, record: ev.EventRecord) -> Changes:
    return {
        "prompt": event.prompt,
        "authors": tuple(dict.fromkeys((event.actor, *(event.rerun.authors if event.rerun else ())))),
        "approval": event.approval,
        "tools": event.tools,
        "limits": event.limits,
        "metadata": event.metadata,
        "request_key": event.request_key,
        "request_digest": event.request_digest,
        "rerun": event.rerun,
        "thread": event.thread,
        "created_at": record.at,
    }


def fold_task_claimed(task: Task, event: ev.TaskClaimed, _: ev.EventRecord) -> Changes:
    if task.status in WAITING and not (task.cancel_requested or task.questions):
        raise illegal(task, event, "it waits for a person")
    status = _S.EXECUTING if task.status is _S.APPROVED else task.status
    return {"epoch": event.epoch, "runner": event.runner, "status": status}


def fold_task_waiting(task: Task, event: ev.TaskWaiting, record: ev.EventRecord) -> Changes:
    check_not_cancelled(task, event)
    before = task.waiting
    if before and before.tried and event.attempt == 1:
        before = None  # in older journals a repetition ended the wait
    if event.attempt != (before.attempt if before else 0) + 1:
        raise illegal(task, event, f"attempt {event.attempt} is not the next one")
    for step_id, call in task.open_calls.items():
        if not may_outlast(task, call):
            raise illegal(task, event, f"a call of {step_id} is open, and may not be sent again")
    alike = before.same_exits if before and before.exit_mark == event.exit_mark else 0
    waits = Waiting(
        event.kind,
        event.name,
        event.reason,
        event.attempt,
        before.since if before else record.at,
        event.next_try_at,
        event.gives_up_at,
        event.exit_mark,
        alike + 1 if event.exit_mark else 0,
    )
    steps = {name: _note_wait(task, state) for name, state in task.steps.items()}
    return {"waiting": waits, "usage": task.usage + event.usage, "steps": steps}


def _note_wait(task: Task, state: StepState) -> StepState:
    """Return the step with its call marked, if that may be repeated once the task has waited."""
    if state.status is not StepStatus.RUNNING or state.call is None or not may_outlast(task, state.call):
        return state
    return replace(state, call=replace(state.call, waited=state.call.attempt))


def fold_step_completed(task: Task, event: ev.StepCompleted, record: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.RUNNING)
    result = state.call.result if state.call else state.turns[-1].answer if state.turns else None
    if result is None or result.is_error:
        raise illegal(task, event, f"step {event.step_id!r} has no successful result")
    done = replace(state, status=StepStatus.COMPLETED, result=result, note=event.note, ended_at=record.at)
    return with_step(task, event.step_id, done)


def fold_step_failed(task: Task, event: ev.StepFailed, record: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.RUNNING, StepStatus.PENDING)
    if state.open_call:
        raise illegal(task, event, f"call {state.open_call.call_id!r} is open")
    failed = replace(state, status=StepStatus.FAILED, code=event.code, message=event.message, ended_at=record.at)
    seconds = task.call_seconds + event.duration_ms / 1000
    return with_step(task, event.step_id, failed, usage=task.usage + event.usage, call_seconds=seconds)


def fold_step_skipped(task: Task, event: ev.StepSkipped, record: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.PENDING)
    skipped = replace(state, status=StepStatus.SKIPPED, message=event.reason, ended_at=record.at)
    return with_step(task, event.step_id, skipped)


def fold_budget_exceeded(_task: Task, _event: ev.BudgetExceeded, _record: ev.EventRecord) -> Changes:
    return {}


def fold_task_cancel_requested(task: Task, event: ev.TaskCancelRequested, _: ev.EventRecord) -> Changes:
    check_not_cancelled(task, event)
    return {"cancel_requested": True}


def fold_task_completed(task: Task, event: ev.TaskCompleted, _: ev.EventRecord) -> Changes:
    check_not_cancelled(task, event)
    if not all(step.status in _WELL_ENDED for step in task.steps.values()):
        raise illegal(task, event, "a step has neither completed nor been skipped")
    return {"status": _S.COMPLETED, "result": event.result}


def _check_no_open_call(task: Task, event: ev.Event) -> None:
    if task.open_calls:
        raise illegal(task, event, f"a call of {', '.join(task.open_calls)} is open")


def fold_task_failed(task: Task, event: ev.TaskFailed, record: ev.EventRecord) -> Changes:
    check_not_cancelled(task, event)
    if task.status is _S.AWAITING_APPROVAL and (record.epoch is not None or event.code != DefinitionChangedError.code):
        raise illegal(task, event, "it awaits approval, and may fail only if its servers or tools changed")
    _check_no_open_call(task, event)
    error = TaskError(event.code, event.message, event.step_id)
    return {"status": _S.FAILED, "error": error, "usage": task.usage + event.usage}


def fold_task_cancelled(task: Task, event: ev.TaskCancelled, _: ev.EventRecord) -> Changes:
    _check_no_open_call(task, event)
    if not task.cancel_requested:
        raise illegal(task, event, "no cancellation was requested")
    if event.unknown_steps != task.unknown_steps:
        raise illegal(task, event, "it must list the steps of unknown outcome")
    return {"status": _S.CANCELLED}
