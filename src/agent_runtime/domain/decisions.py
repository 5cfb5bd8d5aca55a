"""Turns a person's decision into the events for the journal, or refuses it."""

from typing import Protocol

from agent_runtime.domain.approval import (
    Answer,
    Approve,
    ApproveCall,
    Cancel,
    DenyCall,
    Edit,
    Reject,
    Resolve,
    Revise,
)
from agent_runtime.domain.call_rules import describe_full_journal
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.edited_calls import read_edit
from agent_runtime.domain.elicitation import find_answer_faults
from agent_runtime.domain.errors import (
    CallNotFoundError,
    DecisionRefusedError,
    DigestMismatchError,
    DigestRequiredError,
    EditOutdatedError,
    Fault,
    InvalidInputError,
    QuestionNotFoundError,
    ScopeMissingError,
)
from agent_runtime.domain.events import (
    CallApproved,
    CallDenied,
    Event,
    InputAnswered,
    PlanApproved,
    PlanRejected,
    PlanRevisionRequested,
    StepResolved,
    TaskCancelled,
    TaskCancelRequested,
)
from agent_runtime.domain.kept_results import MOST_RESULT_DEPTH
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.values import canonical, is_deeper_than
from agent_runtime.text.escaping import is_blank

Judged = Approve | Reject | Revise | Cancel | Resolve | ApproveCall | DenyCall | Answer
"""The decisions that follow from the task, the caller and the settings alone."""


class DecisionLimits(Protocol):
    """The limits that decisions are judged by, in bytes (G11)."""

    @property
    def prompt_bytes(self) -> int: ...
    @property
    def stored_result_bytes(self) -> int: ...
    @property
    def journal_bytes(self) -> int: ...


def events_of(
    task: Task, decision: Judged, caller: Caller, limits: DecisionLimits, *, require_digest: bool
) -> list[Event]:
    """Return the events of a caller's decision on the task; an empty list where it changes nothing.

    `require_digest`: each approval must name the digest of the plan, also that of the first one.
    To a caller without the scope `read`, a refusal shows the task's status and nothing else of the task.
    Raises: DecisionRefusedError (or a subclass) where the decision is not allowed now, ScopeMissingError where it is
    not allowed to this caller, InvalidInputError.
    """
    match decision:
        case Approve():
            return [_approve(task, decision, caller, require_digest=require_digest)]
        case Reject():
            return [_reject(task, decision, caller)]
        case Revise():
            return [_revise(task, decision, caller, limits)]
        case Cancel():
            return _cancel(task, decision, caller)
        case Resolve():
            return [_resolve(task, decision, caller, limits)]
        case ApproveCall() | DenyCall():
            return [_decide_call(task, decision, caller)]
        case Answer():
            return [_answer(task, decision, caller)]


def expect(task: Task, caller: Caller, status: TaskStatus, participle: str) -> None:
    """Check that the task has this status and is not being cancelled. Raises: DecisionRefusedError."""
    if task.cancel_requested and not task.terminal:
        raise DecisionRefusedError(f"Task {task.task_id} is being cancelled.", task.status)
    if task.status is TaskStatus.EXPIRED:
        raise DecisionRefusedError(
            f"Task {task.task_id} is expired: its plan was not approved in time (approval.expires_after_s). Submit a "
            f"new task; this one can no longer be {participle}.",
            task.status,
        )
    if task.status is not status:
        waits = [
            state.asked.call_id for state in task.steps.values() if state.status is StepStatus.ASKING and state.asked
        ]
        hint = f" It asks for its call {waits[0]}: answer for that one." if waits and caller.may("read") else ""
        raise DecisionRefusedError(
            f"Task {task.task_id} is {task.status}; only a task that is {status} can be {participle}.{hint}",
            task.status,
        )


def expect_editable(task: Task, decision: Edit, caller: Caller, limits: DecisionLimits) -> None:
    """Check that this caller may edit the plan now, and edits the one that awaits approval.

    Raises: ScopeMissingError, DecisionRefusedError (or a subclass).
    """
    if caller.name != task.submitter and not caller.may("read"):
        raise ScopeMissingError("You need the scope 'read' to edit the plan of another caller's task.", "read")
    expect(task, caller, TaskStatus.AWAITING_APPROVAL, "edited")
    if decision.digests is None:
        example = f'"{task.plan_digest}" if it was revision {task.plan_revision}, whose digest this is'
        raise DigestRequiredError(
            f"Name the plan that you edited: send If-Match: {_show(caller, example)}.", task.status
        )
    if task.plan_digest not in decision.digests:
        raise EditOutdatedError(
            f"The plan that awaits approval{_show(caller, _name_plan(task), '')} is not the one that If-Match names. "
            "Read it again before you edit it.",
            task.status,
        )
    _check_room(task, limits)


def _check_room(task: Task, limits: DecisionLimits) -> None:
    """Check that the journal of the task has room for another plan. Raises: DecisionRefusedError."""
    if task.journal_bytes > limits.journal_bytes:
        full = describe_full_journal(task, limits.journal_bytes)
        raise DecisionRefusedError(f"Its plan cannot be changed again: {full}", task.status)


_UNSHOWN = "the digest of the plan, which is shown to callers with the scope 'read'"


def _show(caller: Caller, text: str, instead: str = _UNSHOWN) -> str:
    """Return the text if the caller may read the task, else `instead`."""
    return text if caller.may("read") else instead


def _name_plan(task: Task) -> str:
    return f", revision {task.plan_revision} with the digest {task.plan_digest},"


def _check_author(task: Task, caller: Caller) -> None:
    """Refuse callers who shaped the plan and may not submit. Raises: ScopeMissingError."""
    if caller.name in task.authors and not caller.may("submit"):
        raise ScopeMissingError(
            f"{caller.name!r} has shaped this task: by submitting or editing it, by feedback to the planner or to a "
            "model, or by saying what a call gave. Nobody approves what they wrote: leave this approval to somebody "
            "else, or use a key that has the scope 'submit' as well.",
            "submit",
        )


def find_text_faults(field: str, text: str, limit: int) -> list[Fault]:
    """Return the faults of a prompt or a feedback. `limit` is in bytes."""
    faults: list[Fault] = []
    if is_blank(text):
        faults.append(Fault(field, f"The {field} is empty: say what is to be done."))
    try:
        canonical(text)
    except ValueError as error:
        faults.append(Fault(field, f"It holds a character that cannot be stored: {error}."))
    size = len(text.encode(errors="surrogatepass"))
    if size > limit:
        faults.append(Fault(field, f"{size} bytes are over the limit of {limit} bytes."))
    return faults


def _approve(task: Task, decision: Approve, caller: Caller, *, require_digest: bool) -> PlanApproved:
    expect(task, caller, TaskStatus.AWAITING_APPROVAL, "approved")
    _check_author(task, caller)
    was_sent_back = task.plan_revision > 1 or task.revision_failure is not None
    if decision.digest is None and (require_digest or was_sent_back):
        digest = f"plan_digest {task.plan_digest!r} is revision {task.plan_revision}"
        raise DigestRequiredError(f"Name the plan you approve: {_show(caller, digest)}.", task.status)
    if decision.digest is not None and decision.digest != task.plan_digest:
        raise DigestMismatchError(
            f"The plan that awaits approval{_show(caller, _name_plan(task), '')} is not {decision.digest[:80]}. "
            "Read it again before you approve it.",
            task.status,
        )
    return PlanApproved(
        revision=task.plan_revision,
        digest=task.plan_digest or "",
        comment=decision.comment,
        scopes=_sort_scopes(caller),
        names_digest=decision.digest is not None,
        **caller.signature,
    )


def _sort_scopes(caller: Caller) -> tuple[str, ...]:
    return tuple(sorted(caller.scopes))


def _reject(task: Task, decision: Reject, caller: Caller) -> PlanRejected:
    expect(task, caller, TaskStatus.AWAITING_APPROVAL, "rejected")
    digest = task.plan_digest or ""
    return PlanRejected(revision=task.plan_revision, digest=digest, reason=decision.reason, **caller.signature)


def _cancel(task: Task, decision: Cancel, caller: Caller) -> list[Event]:
    """Return the events that end the task; an empty list where it is being cancelled already."""
    if task.terminal:
        raise DecisionRefusedError(f"Task {task.task_id} is {task.status} and can no longer be cancelled.", task.status)
    if task.cancel_requested:
        return []
    requested = TaskCancelRequested(reason=decision.reason, **caller.signature)
    return [requested] if task.open_calls else [requested, TaskCancelled(unknown_steps=task.unknown_steps)]


def _revise(task: Task, decision: Revise, caller: Caller, limits: DecisionLimits) -> PlanRevisionRequested:
    if caller.name != task.submitter and not caller.may("read", "approve"):
        message = "You need the scope 'read' or 'approve' to give feedback on another caller's task."
        raise ScopeMissingError(message, "read")
    faults = find_text_faults("feedback", decision.feedback, limits.prompt_bytes)
    if faults:
        raise InvalidInputError(faults)
    expect(task, caller, TaskStatus.AWAITING_APPROVAL, "revised")
    _check_room(task, limits)
    return PlanRevisionRequested(
        feedback=decision.feedback,
        revision=task.plan_revision,
        digest=task.plan_digest or "",
        **caller.signature,
    )


def _decide_call(task: Task, decision: ApproveCall | DenyCall, caller: Caller) -> CallApproved | CallDenied:
    asked = {step.asked.call_id: (name, step.asked) for name, step in task.steps.items() if step.asked}
    if any(decision.call_id in step.decided for step in task.steps.values()):
        raise DecisionRefusedError(f"The call {decision.call_id} was already decided.", task.status)
    if decision.call_id not in asked:
        raise CallNotFoundError(f"Task {task.task_id} has asked for no call {decision.call_id[:80]!r}.")
    expect(task, caller, TaskStatus.NEEDS_ATTENTION, "asked about a call")
    if isinstance(decision, ApproveCall):
        _check_author(task, caller)
    step_id, call = asked[decision.call_id]
    if decision.arguments_digest != call.arguments_digest:
        digest = f"the arguments_digest {call.arguments_digest}"
        raise DigestMismatchError(
            f"The call {decision.call_id} has {_show(caller, digest, 'another arguments_digest')}, not "
            f"{decision.arguments_digest[:80]}. Read its arguments again before you decide.",
            task.status,
        )
    decided = {"step_id": step_id, **dict(decision), **caller.signature}
    if isinstance(decision, DenyCall):
        return CallDenied(**decided)
    return CallApproved(**decided | read_edit(decision, caller), scopes=_sort_scopes(caller))


def _answer(task: Task, decision: Answer, caller: Caller) -> InputAnswered:
    question_id = decision.question_id
    if any(question_id in step.decided for step in task.steps.values()):
        raise DecisionRefusedError(f"The question {question_id} was already answered.", task.status)
    asked = {question.question_id: (name, question) for name, question in task.questions.items()}
    if question_id not in asked:
        raise QuestionNotFoundError(
            f"No server asks the question {question_id[:80]!r} in task {task.task_id}, or not any more: a question is "
            "declined once its call may take no longer."
        )
    expect(task, caller, TaskStatus.NEEDS_ATTENTION, "asked for input")
    step_id, question = asked[question_id]
    content = (decision.content or {}) if decision.action == "accept" else None
    if content is None and decision.content is not None:
        raise InvalidInputError([Fault("content", "A content goes with the action 'accept' only.")])
    faults = [] if content is None else list(find_answer_faults(content, question.requested_schema))
    if faults:
        raise InvalidInputError(faults)
    return InputAnswered(
        step_id=step_id, question_id=question_id, action=decision.action, content=content, **caller.signature
    )


def _resolve(task: Task, decision: Resolve, caller: Caller, limits: DecisionLimits) -> StepResolved:
    expect(task, caller, TaskStatus.NEEDS_ATTENTION, "resolved")
    asking = [name for name, step in task.steps.items() if step.status is StepStatus.UNKNOWN]
    call = task.steps[decision.step_id].call if decision.step_id in asking else None
    if call is None:
        others = f"; {', '.join(asking)} has" if asking else ": it asks for the approval of a concrete call"
        others = _show(caller, others, "")
        raise InvalidInputError([Fault("step_id", f"{decision.step_id!r} has no call of unknown outcome{others}.")])
    if decision.call_id not in {None, call.call_id}:
        known = _show(caller, repr(call.call_id), "another one")
        raise InvalidInputError(
            [Fault("call_id", f"The call of unknown outcome is {known}, not {decision.call_id!r}.")]
        )
    if decision.output is not None and decision.resolution != "done":
        raise InvalidInputError([Fault("output", "Only the resolution 'done' takes an output.")])
    _check_output(decision, limits)
    return StepResolved(
        step_id=decision.step_id,
        call_id=call.call_id,
        resolution=decision.resolution,
        output=decision.output,
        comment=decision.comment,
        **caller.signature,
    )


def _check_output(decision: Resolve, limits: DecisionLimits) -> None:
    try:
        size, limit = len(canonical(decision.output)), limits.stored_result_bytes
    except ValueError as error:
        raise InvalidInputError([Fault("output", f"JSON cannot hold it exactly: {error}.")]) from error
    if is_deeper_than(decision.output, MOST_RESULT_DEPTH):
        raise InvalidInputError([Fault("output", f"It is nested more than {MOST_RESULT_DEPTH} deep.")])
    if size > limit:
        message = f"{size} bytes are over the limit of {limit} bytes (limits.stored_result_bytes)."
        raise InvalidInputError([Fault("output", message)])
