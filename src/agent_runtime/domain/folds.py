"""What each event changes of a task, and what must be so before it may: one function for each, pure."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from agent_runtime.domain import events as ev
from agent_runtime.domain.budget import exceeded_budget
from agent_runtime.domain.conditions import holds
from agent_runtime.domain.errors import ConditionFailedError, IllegalTransitionError
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.references import as_text
from agent_runtime.domain.task import (
    WAITING,
    Approval,
    AskedCall,
    Call,
    StepState,
    StepStatus,
    Task,
    TaskError,
    TaskStatus,
    may_repeat,
)
from agent_runtime.domain.tools import StoredResult, tool_key

_S = TaskStatus


def illegal(task: Task, event: ev.Event, why: str) -> IllegalTransitionError:
    """The refusal of an event after the newest event of this task."""
    return IllegalTransitionError(f"{event.type} may not follow event {task.version} of task {task.task_id}: {why}.")


Changes = dict[str, Any]


def _submitted(_: Task, event: ev.TaskSubmitted, record: ev.EventRecord) -> Changes:
    return {
        "prompt": event.prompt,
        "approval": event.approval,
        "tools": event.tools,
        "limits": event.limits,
        "metadata": event.metadata,
        "request_key": event.request_key,
        "request_digest": event.request_digest,
        "created_at": record.at,
    }


def _claimed(task: Task, event: ev.TaskClaimed, _: ev.EventRecord) -> Changes:
    if task.status in WAITING and not task.cancel_requested:
        raise illegal(task, event, "it waits for a person")
    status = _S.EXECUTING if task.status is _S.APPROVED else task.status
    return {"epoch": event.epoch, "runner": event.runner, "status": status}


def _proposed(task: Task, event: ev.PlanProposed | ev.PlanEdited, record: ev.EventRecord) -> Changes:
    _no_cancel(task, event)
    if event.revision != task.plan_revision + 1 or event.digest != event.contract.digest:
        raise illegal(task, event, "its revision or its digest is not that of the plan it carries")
    return {
        "status": _S.AWAITING_APPROVAL,
        "contract": event.contract,
        "definitions": event.definitions,
        "plan_revision": event.revision,
        "plan_digest": event.digest,
        "planned_at": record.at,
        "steps": {step.id: StepState() for step in event.contract.steps},
    }


def _edited(task: Task, event: ev.PlanEdited, record: ev.EventRecord) -> Changes:
    entry = Approval(event.actor, record.at, "edit", digest=event.digest)
    return {**_proposed(task, event, record), "approvals": (*task.approvals, entry)}


def _of_current_plan(task: Task, event: Any) -> None:
    _no_cancel(task, event)
    if event.digest != task.plan_digest or event.revision != task.plan_revision:
        raise illegal(task, event, "it is about another plan than the current one")


def _decided(
    task: Task, event: ev.PlanApproved | ev.PlanRejected | ev.PlanRevisionRequested, record: ev.EventRecord
) -> Changes:
    _of_current_plan(task, event)
    changes: Changes = {}
    match event:
        case ev.PlanApproved():
            status, decision, note = _S.APPROVED, "approve", event.comment
        case ev.PlanRejected():
            status, decision, note = _S.REJECTED, "reject", event.reason
        case ev.PlanRevisionRequested():
            # The plan stays where it is, for the planner to start from; only what is awaited can be approved.
            status, decision, note = _S.PENDING, "revise", event.feedback
            changes["feedback"] = (*task.feedback, event.feedback)
    entry = Approval(event.actor, record.at, decision, digest=event.digest, comment=note)
    return {**changes, "status": status, "approvals": (*task.approvals, entry)}


def _expired(task: Task, event: ev.TaskExpired, _: ev.EventRecord) -> Changes:
    _of_current_plan(task, event)
    return {"status": _S.EXPIRED}


def _step(task: Task, event: Any, *expected: StepStatus) -> StepState:
    state = task.steps.get(event.step_id)
    if state is None:
        raise illegal(task, event, f"the plan has no step {event.step_id!r}")
    if state.status not in expected:
        raise illegal(task, event, f"step {event.step_id!r} is {state.status}")
    return state


def _with_step(task: Task, step_id: str, state: StepState, **more: Any) -> Changes:
    return {"steps": {**task.steps, step_id: state}, **more}


def _no_cancel(task: Task, event: ev.Event) -> None:
    if task.cancel_requested:
        raise illegal(task, event, "the task is being cancelled")


def _started(task: Task, event: ev.StepStarted, record: ev.EventRecord) -> Changes:
    state = _step(task, event, StepStatus.PENDING)
    _no_cancel(task, event)
    _check_turn(task, event)
    started_at = state.started_at or record.at
    return _with_step(task, event.step_id, replace(state, status=StepStatus.RUNNING, call=None, started_at=started_at))


def _check_turn(task: Task, event: ev.StepStarted | ev.CallApprovalRequested) -> None:
    """Whether the step may begin now: all that it needs is there, and its condition holds."""
    needs = task.plan_step(event.step_id).needs
    missing = [name for name in needs if task.steps[name].status is not StepStatus.COMPLETED]
    if missing:
        raise illegal(task, event, f"it needs {', '.join(sorted(missing))}")
    if _is_barred(task, event.step_id):
        raise illegal(task, event, "its condition does not hold")


def _is_barred(task: Task, step_id: str) -> bool:
    when = task.plan_step(step_id).when
    try:
        return when is not None and not holds(when, task.results)
    except ConditionFailedError:
        return True


def _called(task: Task, event: ev.ToolCalled, record: ev.EventRecord) -> Changes:
    state = _step(task, event, StepStatus.RUNNING)
    _no_cancel(task, event)
    step = task.plan_step(event.step_id)
    if not isinstance(step, ToolStep) or (step.server, step.tool) != (event.server, event.tool):
        raise illegal(task, event, f"{tool_key(event.server, event.tool)!r} is not what the step may call")
    attempt = state.call.attempt + 1 if state.call else 1
    if event.attempt != attempt or (state.call is not None and not may_repeat(task, event.step_id)):
        raise illegal(task, event, f"step {event.step_id!r} may not be called again")
    if task.contract and event.step_id in task.contract.asks:
        _granted(task, event, state)
    over = exceeded_budget(task)
    if over:
        raise illegal(task, event, f"its budget of {over.budget} is used up")
    call = Call(
        event.call_id,
        record.epoch or 0,
        event.server,
        event.tool,
        event.arguments,
        event.arguments_digest,
        event.attempt,
        event.timeout_s,
    )
    return _with_step(task, event.step_id, replace(state, call=call), tool_calls=task.tool_calls + 1)


def _granted(task: Task, event: ev.ToolCalled, state: StepState) -> None:
    asked = state.asked
    if asked is None or not asked.granted or asked.arguments_digest != event.arguments_digest:
        raise illegal(task, event, f"nobody has approved this concrete call of step {event.step_id!r}")


def _call_asked(task: Task, event: ev.CallApprovalRequested, record: ev.EventRecord) -> Changes:
    state = _step(task, event, StepStatus.PENDING)
    _no_cancel(task, event)
    _check_turn(task, event)
    asked = AskedCall(event.call_id, event.arguments, event.arguments_digest, event.reason)
    asking = replace(state, status=StepStatus.ASKING, asked=asked, started_at=state.started_at or record.at)
    return _with_step(task, event.step_id, asking, status=_S.NEEDS_ATTENTION)


def _call_decided(task: Task, event: ev.CallApproved | ev.CallDenied, record: ev.EventRecord) -> Changes:
    state = _step(task, event, StepStatus.ASKING)
    _no_cancel(task, event)
    asked = state.asked
    if asked is None or (asked.call_id, asked.arguments_digest) != (event.call_id, event.arguments_digest):
        raise illegal(task, event, "it is about another call than the one that is asked for")
    if isinstance(event, ev.CallApproved):
        decision, decided = "approve", replace(state, status=StepStatus.PENDING, asked=replace(asked, granted=True))
    else:
        message = f"{event.actor} denied the call" + (f": {event.comment}" if event.comment else "")
        decision = "deny"
        decided = replace(state, status=StepStatus.FAILED, code="call_denied", message=message, ended_at=record.at)
    entry = Approval(
        event.actor, record.at, decision, digest=event.arguments_digest, step_id=event.step_id, comment=event.comment
    )
    return _answered(task, event.step_id, decided, entry)


def _answered(task: Task, step_id: str, state: StepState, entry: Approval) -> Changes:
    """What a person's answer changes: the task goes on once nothing is asked any more."""
    answered = replace(task, steps={**task.steps, step_id: state})
    status = _S.NEEDS_ATTENTION if answered.asks_person else _S.APPROVED
    return {"steps": answered.steps, "status": status, "approvals": (*task.approvals, entry)}


def _returned(task: Task, event: ev.ToolReturned, _: ev.EventRecord) -> Changes:
    state = _step(task, event, StepStatus.RUNNING)
    call = state.open_call
    if call is None or call.call_id != event.call_id or call.epoch != task.epoch:
        raise illegal(task, event, f"call {event.call_id!r} is not open")
    call = replace(call, result=event.result)
    seconds = task.call_seconds + event.duration_ms / 1000
    return _with_step(task, event.step_id, replace(state, call=call), call_seconds=seconds)


def _denied(_task: Task, _event: ev.ToolDenied, _record: ev.EventRecord) -> Changes:
    return {}


def _step_completed(task: Task, event: ev.StepCompleted, record: ev.EventRecord) -> Changes:
    state = _step(task, event, StepStatus.RUNNING)
    result = state.call.result if state.call else None
    if result is None or result.is_error:
        raise illegal(task, event, f"step {event.step_id!r} has no good result")
    done = replace(state, status=StepStatus.COMPLETED, result=result, ended_at=record.at)
    return _with_step(task, event.step_id, done)


def _step_failed(task: Task, event: ev.StepFailed, record: ev.EventRecord) -> Changes:
    state = _step(task, event, StepStatus.RUNNING, StepStatus.PENDING)
    if state.open_call:
        raise illegal(task, event, f"call {state.open_call.call_id!r} is open")
    failed = replace(state, status=StepStatus.FAILED, code=event.code, message=event.message, ended_at=record.at)
    return _with_step(task, event.step_id, failed)


def _step_skipped(task: Task, event: ev.StepSkipped, record: ev.EventRecord) -> Changes:
    state = _step(task, event, StepStatus.PENDING)
    skipped = replace(state, status=StepStatus.SKIPPED, message=event.reason, ended_at=record.at)
    return _with_step(task, event.step_id, skipped)


def _outcome_unknown(task: Task, event: ev.StepOutcomeUnknown, _: ev.EventRecord) -> Changes:
    state = _step(task, event, StepStatus.RUNNING)
    if state.open_call is None or state.open_call.call_id != event.call_id:
        raise illegal(task, event, f"call {event.call_id!r} is not open")
    unknown = replace(state, status=StepStatus.UNKNOWN, message=event.reason)
    return _with_step(task, event.step_id, unknown, status=_S.NEEDS_ATTENTION)


def _resolved(task: Task, event: ev.StepResolved, record: ev.EventRecord) -> Changes:
    state = _step(task, event, StepStatus.UNKNOWN)
    _no_cancel(task, event)
    if state.call is None or state.call.call_id != event.call_id:
        raise illegal(task, event, f"call {event.call_id!r} is not the one in question")
    entry = Approval(event.actor, record.at, event.resolution, step_id=event.step_id, comment=event.comment)
    return _answered(task, event.step_id, _resolve(state, event, record.at), entry)


def _resolve(state: StepState, event: ev.StepResolved, at: datetime) -> StepState:
    match event.resolution:
        case "retry":
            return StepState(started_at=state.started_at)
        case "done":
            text = "" if event.output is None else as_text(event.output)
            result = StoredResult(text=text, output=event.output, size=len(text.encode()))
            return replace(state, status=StepStatus.COMPLETED, result=result, message=None, ended_at=at)
        case "skip":
            return replace(state, status=StepStatus.SKIPPED, message="skipped by a person", ended_at=at)
        case _:  # fail
            return replace(state, status=StepStatus.FAILED, code="outcome_unknown", ended_at=at)


def _budget_exceeded(_task: Task, _event: ev.BudgetExceeded, _record: ev.EventRecord) -> Changes:
    return {}


def _cancel_requested(task: Task, event: ev.TaskCancelRequested, _: ev.EventRecord) -> Changes:
    _no_cancel(task, event)
    return {"cancel_requested": True}


_WELL_ENDED = frozenset({StepStatus.COMPLETED, StepStatus.SKIPPED})


def _completed(task: Task, event: ev.TaskCompleted, _: ev.EventRecord) -> Changes:
    _no_cancel(task, event)
    if not all(step.status in _WELL_ENDED for step in task.steps.values()):
        raise illegal(task, event, "not every step has ended well")
    return {"status": _S.COMPLETED, "result": event.result}


def _no_open_call(task: Task, event: ev.Event) -> None:
    if task.open_calls:
        raise illegal(task, event, f"a call of {', '.join(task.open_calls)} is open")


def _failed(task: Task, event: ev.TaskFailed, _: ev.EventRecord) -> Changes:
    _no_open_call(task, event)
    return {"status": _S.FAILED, "error": TaskError(event.code, event.message, event.step_id)}


def _cancelled(task: Task, event: ev.TaskCancelled, _: ev.EventRecord) -> Changes:
    _no_open_call(task, event)
    if not task.cancel_requested:
        raise illegal(task, event, "nobody asked for it")
    if event.unknown_steps != task.unknown_steps:
        raise illegal(task, event, "it must list the steps of unknown outcome")
    return {"status": _S.CANCELLED}


FOLDS: dict[type[ev.Event], Callable[[Task, Any, ev.EventRecord], Changes]] = {
    ev.TaskSubmitted: _submitted,
    ev.TaskClaimed: _claimed,
    ev.PlanProposed: _proposed,
    ev.PlanApproved: _decided,
    ev.PlanRejected: _decided,
    ev.PlanRevisionRequested: _decided,
    ev.PlanEdited: _edited,
    ev.StepStarted: _started,
    ev.ToolCalled: _called,
    ev.ToolReturned: _returned,
    ev.ToolDenied: _denied,
    ev.CallApprovalRequested: _call_asked,
    ev.CallApproved: _call_decided,
    ev.CallDenied: _call_decided,
    ev.StepCompleted: _step_completed,
    ev.StepFailed: _step_failed,
    ev.StepSkipped: _step_skipped,
    ev.StepOutcomeUnknown: _outcome_unknown,
    ev.StepResolved: _resolved,
    ev.BudgetExceeded: _budget_exceeded,
    ev.TaskCancelRequested: _cancel_requested,
    ev.TaskCompleted: _completed,
    ev.TaskFailed: _failed,
    ev.TaskCancelled: _cancelled,
    ev.TaskExpired: _expired,
}
