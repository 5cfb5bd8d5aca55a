"""Folds of the events of a step: its calls, their results, and the decisions about them."""

from datetime import datetime

from agent_runtime.domain import events as ev
from agent_runtime.domain.asking import reason_to_ask
from agent_runtime.domain.budget import exceeded_budget
from agent_runtime.domain.call_rules import CallRefusedError, condition_outcome, parse_model_arguments
from agent_runtime.domain.caller import EDITOR_SCOPES, allow
from agent_runtime.domain.folds.base import (
    Changes,
    authors_with,
    check_approver,
    check_not_cancelled,
    expect_step,
    illegal,
    with_step,
    without_question,
)
from agent_runtime.domain.plan import AgentStep
from agent_runtime.domain.references import as_text
from agent_runtime.domain.replacing import replace
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import (
    Approval,
    AskedCall,
    Call,
    EditedArguments,
    StepState,
    StepStatus,
    Task,
    Turn,
    may_outlast,
    may_repeat,
)
from agent_runtime.domain.tools import StoredResult, tool_key
from agent_runtime.domain.values import digest

_S = TaskStatus


def fold_tool_called(task: Task, event: ev.ToolCalled, record: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.RUNNING)
    check_not_cancelled(task, event)
    step = task.plan_step(event.step_id)
    key = tool_key(event.server, event.tool)
    sent = state.sent
    if isinstance(step, AgentStep):
        _check_proposed(task, event, step, state)
        sent = sent if state.call else (*sent, key)
    elif (step.server, step.tool) != (event.server, event.tool):
        raise illegal(task, event, f"{key!r} is not what the step may call")
    attempt = state.call.attempt + 1 if state.call else 1
    if event.attempt != attempt or (state.call is not None and not may_repeat(task, event.step_id)):
        raise illegal(task, event, f"step {event.step_id!r} may not be called again")
    asks = task.contract and reason_to_ask(task.contract, step, key, by_person=task.is_for_person)
    if asks or state.asked:  # a stricter registry may have required it, which the contract does not record
        _check_granted(task, event, state)
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
        waited=state.call.waited if state.call else 0,
        sent_at=record.at,
    )
    return with_step(task, event.step_id, replace(state, call=call, sent=sent), tool_calls=task.tool_calls + 1)


def _check_proposed(
    task: Task, event: ev.ToolCalled | ev.CallApprovalRequested, step: AgentStep, state: StepState
) -> None:
    """Check that this is the next call that the model proposes, and that its tool may still be called."""
    pending = state.pending
    if pending is None or (event.turn, event.index) != (pending.turn, pending.index):
        raise illegal(task, event, f"the model of step {event.step_id!r} asks for no such call now")
    allowed = step.functions.get(pending.call.name)
    if allowed is None or (allowed.server, allowed.tool) != (event.server, event.tool):
        raise illegal(task, event, f"{tool_key(event.server, event.tool)!r} is not what the model asks for")
    if state.call is None and state.sent.count(allowed.key) >= allowed.max_calls:
        raise illegal(task, event, f"{allowed.key!r} may not be called more often")
    try:
        edited = state.edited
        given = edited.arguments_digest if edited else digest(parse_model_arguments(pending.call.arguments))
        wanted = digest(event.arguments)  # compared as digests: True equals 1 in Python, but not in JSON
    except (CallRefusedError, ValueError) as error:
        raise illegal(task, event, str(error)) from error
    if given != wanted:
        raise illegal(task, event, "its arguments are not those that the model gave, or a person put in their place")


def _check_granted(task: Task, event: ev.ToolCalled, state: StepState) -> None:
    asked = state.asked
    if asked is None or not asked.granted or asked.arguments_digest != digest(event.arguments):
        raise illegal(task, event, f"nobody has approved this concrete call of step {event.step_id!r}")


def fold_call_approval_requested(task: Task, event: ev.CallApprovalRequested, record: ev.EventRecord) -> Changes:
    step = task.plan_step(event.step_id) if event.step_id in task.steps else None
    state = expect_step(task, event, StepStatus.RUNNING if isinstance(step, AgentStep) else StepStatus.PENDING)
    check_not_cancelled(task, event)
    if isinstance(step, AgentStep):
        _check_proposed(task, event, step, state)
        if state.call is not None:
            raise illegal(task, event, f"call {state.call.call_id!r} is open")
    else:
        _check_ready(task, event)
        if state.edited and state.edited.arguments_digest != event.arguments_digest:
            raise illegal(task, event, "its arguments are not those that a person put in the place of the plan's")
    asked = AskedCall(event.call_id, event.server, event.tool, event.arguments, event.arguments_digest, event.reason)
    started_at = state.started_at or record.at
    asking = replace(state, status=StepStatus.ASKING, asked=asked, asked_at=record.at, started_at=started_at)
    return with_step(task, event.step_id, asking, status=_S.NEEDS_ATTENTION)


def fold_call_decision(task: Task, event: ev.CallApproved | ev.CallDenied, record: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.ASKING)
    check_not_cancelled(task, event)
    asked = state.asked
    if asked is None or (asked.call_id, asked.arguments_digest) != (event.call_id, event.arguments_digest):
        raise illegal(task, event, "it is about another call than the requested one")
    state = replace(state, decided=(*state.decided, event.call_id))
    by_agent = isinstance(task.plan_step(event.step_id), AgentStep)
    waiting = StepStatus.RUNNING if by_agent else StepStatus.PENDING
    denied = f"{event.actor} denied the call" + (f": {event.comment}" if event.comment else "")
    authors, edited_digest = task.authors, None
    if isinstance(event, ev.CallApproved):
        check_approver(task, event)
        decision, decided = "approve", replace(state, status=waiting, asked=replace(asked, granted=True))
        if edited := _read_edit(task, event):
            edited_digest = edited.arguments_digest
            asked = replace(asked, granted=True, arguments=edited.arguments, arguments_digest=edited_digest)
            decided = replace(state, status=waiting, asked=asked, edited=edited)
            authors = authors_with(task, event.actor)  # later steps use what follows from the arguments
    elif by_agent:
        decision, decided = "deny", _add_reply(replace(state, status=waiting), _refusal(denied))
        if event.comment:  # the model continues with the comment
            authors = authors_with(task, event.actor)
    else:
        decision = "deny"
        decided = replace(state, status=StepStatus.FAILED, code="call_denied", message=denied, ended_at=record.at)
    entry = Approval(
        event.actor,
        record.at,
        decision,
        digest=event.arguments_digest,
        step_id=event.step_id,
        comment=event.comment,
        edited_digest=edited_digest,
    )
    return _settle_question(task, event.step_id, decided, entry, authors)


def _read_edit(task: Task, event: ev.CallApproved) -> EditedArguments | None:
    """Return the arguments that the approver edited, or None. Raises: IllegalTransitionError."""
    if event.edited_arguments is None and event.edited_digest is None:
        return None
    if event.edited_arguments is None or digest(event.edited_arguments) != event.edited_digest:
        raise illegal(task, event, "the digest is not that of the edited arguments")
    if not all(allow(event.scopes, (scope,)) for scope in EDITOR_SCOPES):
        raise illegal(task, event, f"{event.actor!r} may edit arguments only with the scopes submit and approve")
    return EditedArguments(event.edited_arguments, event.edited_digest, event.actor)


def _settle_question(task: Task, step_id: str, state: StepState, entry: Approval, authors: tuple[str, ...]) -> Changes:
    """Return the changes after a decision. The task continues once no step waits for a person."""
    answered = replace(task, steps={**task.steps, step_id: state})
    status = _S.NEEDS_ATTENTION if answered.asks_person else _S.APPROVED
    return {"steps": answered.steps, "status": status, "approvals": (*task.approvals, entry), "authors": authors}


def _add_reply(state: StepState, result: StoredResult) -> StepState:
    """Return the state after the model's current call is settled with this result."""
    turn = state.turns[-1]
    if state.edited and state.call:  # it was sent, so the model must know with what
        turn = replace(turn, edited={**turn.edited, len(turn.replies): state.edited.arguments})
    turns = (*state.turns[:-1], replace(turn, replies=(*turn.replies, result)))
    return replace(state, turns=turns, call=None, asked=None, edited=None)


def _refusal(message: str) -> StoredResult:
    return StoredResult(text=message, is_error=True, size=len(message.encode()))


def fold_model_answered(task: Task, event: ev.ModelAnswered, _: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.RUNNING)
    step = task.plan_step(event.step_id)
    if not isinstance(step, AgentStep) or state.pending or state.call:
        raise illegal(task, event, f"step {event.step_id!r} does not wait for a model")
    if event.turn != len(state.turns) + 1 or event.turn > step.max_turns:
        raise illegal(task, event, f"turn {event.turn} may not follow turn {len(state.turns)} of {step.max_turns}")
    held = [bool(event.calls), event.answer is not None, event.objection is not None]
    if sum(held) != 1 or (state.turns and state.turns[-1].answer is not None):
        raise illegal(task, event, "a turn holds calls, or the answer that ends the step, or an objection")
    turn = Turn(event.items, event.calls, event.answer, objection=event.objection)
    seconds = task.call_seconds + event.duration_ms / 1000
    usage = task.usage + event.usage
    answered = replace(state, turns=(*state.turns, turn))
    return with_step(task, event.step_id, answered, usage=usage, call_seconds=seconds)


def fold_tool_returned(task: Task, event: ev.ToolReturned, _: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.RUNNING)
    call = state.open_call
    if call is None or call.call_id != event.call_id or call.epoch != task.epoch:
        raise illegal(task, event, f"call {event.call_id!r} is not open")
    answered = replace(call, result=event.result)
    # The call of an agent step that met an outage is not settled: the model gets the reply after that.
    if isinstance(task.plan_step(event.step_id), AgentStep) and not may_outlast(task, answered):
        state = _add_reply(state, event.result)
    else:
        state = replace(state, call=answered)
    seconds = task.call_seconds + event.duration_ms / 1000
    sent = task.tool_calls - event.result.unsent
    return {**without_question(task, event.step_id, state), "call_seconds": seconds, "tool_calls": sent}


def fold_tool_denied(task: Task, event: ev.ToolDenied, _record: ev.EventRecord) -> Changes:
    if event.turn is None:
        return {}
    state = expect_step(task, event, StepStatus.RUNNING)
    pending = state.pending
    if pending is None or state.open_call or (event.turn, event.index) != (pending.turn, pending.index):
        raise illegal(task, event, f"the model of step {event.step_id!r} asks for no such call now")
    refusal = _refusal(f"This call was refused ({event.rule}) and not made: {event.message}")
    return with_step(task, event.step_id, _add_reply(state, refusal))


def fold_step_outcome_unknown(task: Task, event: ev.StepOutcomeUnknown, record: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.RUNNING)
    if state.open_call is None or state.open_call.call_id != event.call_id:
        raise illegal(task, event, f"call {event.call_id!r} is not open")
    unknown = replace(state, status=StepStatus.UNKNOWN, message=event.reason, question=None, asked_at=record.at)
    return with_step(task, event.step_id, unknown, status=_S.NEEDS_ATTENTION)


def fold_step_resolved(task: Task, event: ev.StepResolved, record: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.UNKNOWN)
    check_not_cancelled(task, event)
    if state.call is None or state.call.call_id != event.call_id:
        raise illegal(task, event, f"call {event.call_id!r} is not the one in question")
    entry = Approval(event.actor, record.at, event.resolution, step_id=event.step_id, comment=event.comment)
    by_agent = isinstance(task.plan_step(event.step_id), AgentStep)
    resolved = _resolve(state, event, record.at, by_agent=by_agent)
    # Later steps use the output, so its writer is an author of the task.
    authors = task.authors if event.output is None else authors_with(task, event.actor)
    return _settle_question(task, event.step_id, resolved, entry, authors)


def _resolve(state: StepState, event: ev.StepResolved, at: datetime, *, by_agent: bool) -> StepState:
    match event.resolution:
        case "retry":
            status = StepStatus.RUNNING if by_agent else StepStatus.PENDING
            sent = state.sent[:-1]  # the retry counts as the same use of the tool
            return replace(state, status=status, call=None, asked=None, asked_at=None, sent=sent, message=None)
        case "done":
            text = "" if event.output is None else as_text(event.output)
            result = StoredResult(text=text, output=event.output, size=len(text.encode()))
            if by_agent:
                return _add_reply(replace(state, status=StepStatus.RUNNING, message=None), result)
            return replace(state, status=StepStatus.COMPLETED, result=result, message=None, ended_at=at)
        case "skip":
            return replace(state, status=StepStatus.SKIPPED, message="skipped by a person", ended_at=at)
        case _:  # fail
            return replace(state, status=StepStatus.FAILED, code="outcome_unknown", ended_at=at)


def fold_step_started(task: Task, event: ev.StepStarted, record: ev.EventRecord) -> Changes:
    state = expect_step(task, event, StepStatus.PENDING)
    check_not_cancelled(task, event)
    _check_ready(task, event)
    started_at = state.started_at or record.at
    running = replace(state, status=StepStatus.RUNNING, call=None, started_at=started_at)
    return with_step(task, event.step_id, running, has_begun=True)


def _check_ready(task: Task, event: ev.StepStarted | ev.CallApprovalRequested) -> None:
    """Check that the step may begin: the steps that it needs have completed, and its condition holds."""
    step = task.plan_step(event.step_id)
    missing = task.unmet_needs(step)
    if missing:
        raise illegal(task, event, f"it needs {', '.join(missing)}")
    if condition_outcome(task, step):
        raise illegal(task, event, "its condition does not hold")
