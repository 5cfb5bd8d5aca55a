"""What a person's decision becomes: the event that it adds to the journal, or why it is refused."""

from collections.abc import Collection

from agent_runtime.config import ApprovalSettings, LimitSettings
from agent_runtime.domain.approval import Approve, ApproveCall, Decision, DenyCall, Reject, Resolve, Revise
from agent_runtime.domain.errors import (
    CallNotFoundError,
    DecisionRefusedError,
    DigestMismatchError,
    DigestRequiredError,
    EditOutdatedError,
    Fault,
    InvalidInputError,
)
from agent_runtime.domain.events import (
    CallApproved,
    CallDenied,
    Event,
    PlanApproved,
    PlanRejected,
    PlanRevisionRequested,
    StepResolved,
)
from agent_runtime.domain.task import StepStatus, Task, TaskStatus
from agent_runtime.domain.values import canonical, deeper_than
from agent_runtime.services.broker import MOST_RESULT_DEPTH


def event_of(task: Task, decision: Decision, limits: LimitSettings, approval: ApprovalSettings) -> Event:
    """The event of a decision on the task as it stands.

    Raises: DecisionRefusedError (and its kinds) where it is not allowed now, InvalidInputError.
    """
    match decision:
        case Approve():
            return _approved(task, decision, approval)
        case Reject():
            expect(task, TaskStatus.AWAITING_APPROVAL, "rejected")
            return PlanRejected(
                revision=task.plan_revision,
                digest=task.plan_digest or "",
                actor=decision.actor,
                reason=decision.reason,
            )
        case Revise():
            return _revised(task, decision, limits)
        case Resolve():
            return _resolved(task, decision, limits)
        case ApproveCall() | DenyCall():
            return _call_decided(task, decision)


def expect(task: Task, status: TaskStatus, participle: str) -> None:
    """Raises: DecisionRefusedError unless the task has this status and is not being cancelled."""
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
        hint = f" It asks for its call {waits[0]}: answer for that one." if waits else ""
        raise DecisionRefusedError(
            f"Task {task.task_id} is {task.status}; only a task that is {status} can be {participle}.{hint}",
            task.status,
        )


def expect_editable(task: Task, digests: Collection[str] | None) -> None:
    """Raises: DecisionRefusedError (and its kinds) unless the plan may be edited, and is the one that was read.

    `digests` name what was read; None where it was not said.
    """
    expect(task, TaskStatus.AWAITING_APPROVAL, "edited")
    if digests is None:
        raise DigestRequiredError(
            f'Name the plan that you edited: send If-Match: "{task.plan_digest}" if it was revision '
            f"{task.plan_revision}, whose digest this is.",
            task.status,
        )
    if task.plan_digest not in digests:
        raise EditOutdatedError(
            f"The plan that awaits approval is revision {task.plan_revision} with the digest {task.plan_digest}, "
            "which is not the one that If-Match names. Read it again before you edit it.",
            task.status,
        )


def text_faults(field: str, text: str, limit: int) -> list[Fault]:
    """What is wrong with an instruction that is to be planned. `limit` in bytes."""
    faults: list[Fault] = []
    if not text.strip():
        faults.append(Fault(field, f"Say what is to be done; the {field} is empty."))
    try:
        canonical(text)
    except ValueError as error:
        faults.append(Fault(field, f"It holds a character that cannot be stored: {error}."))
    size = len(text.encode(errors="surrogatepass"))
    if size > limit:
        faults.append(Fault(field, f"{size} bytes are over the limit of {limit} bytes."))
    return faults


def _approved(task: Task, decision: Approve, approval: ApprovalSettings) -> PlanApproved:
    expect(task, TaskStatus.AWAITING_APPROVAL, "approved")
    if decision.digest is None and (approval.require_digest or task.plan_revision > 1):
        raise DigestRequiredError(
            f"Name the plan you approve: plan_digest {task.plan_digest!r} is revision {task.plan_revision}.",
            task.status,
        )
    if decision.digest is not None and decision.digest != task.plan_digest:
        raise DigestMismatchError(
            f"The plan that awaits approval is revision {task.plan_revision} with the digest {task.plan_digest}, "
            f"not {decision.digest[:80]}. Read it again before you approve it.",
            task.status,
        )
    return PlanApproved(
        revision=task.plan_revision,
        digest=task.plan_digest or "",
        actor=decision.actor,
        comment=decision.comment,
    )


def _revised(task: Task, decision: Revise, limits: LimitSettings) -> PlanRevisionRequested:
    faults = text_faults("feedback", decision.feedback, limits.prompt_bytes)
    if faults:
        raise InvalidInputError(faults)
    expect(task, TaskStatus.AWAITING_APPROVAL, "revised")
    return PlanRevisionRequested(
        feedback=decision.feedback,
        revision=task.plan_revision,
        digest=task.plan_digest or "",
        actor=decision.actor,
    )


def _call_decided(task: Task, decision: ApproveCall | DenyCall) -> CallApproved | CallDenied:
    asked = {step.asked.call_id: (name, step.asked) for name, step in task.steps.items() if step.asked}
    if any(decision.call_id in step.decided for step in task.steps.values()):
        raise DecisionRefusedError(f"The call {decision.call_id} was already decided.", task.status)
    if decision.call_id not in asked:
        raise CallNotFoundError(f"Task {task.task_id} has asked for no call {decision.call_id[:80]!r}.")
    expect(task, TaskStatus.NEEDS_ATTENTION, "asked about a call")
    step_id, call = asked[decision.call_id]
    if decision.arguments_digest != call.arguments_digest:
        raise DigestMismatchError(
            f"The call {decision.call_id} has the arguments_digest {call.arguments_digest}, not "
            f"{decision.arguments_digest[:80]}. Read its arguments again before you decide.",
            task.status,
        )
    kind = CallApproved if isinstance(decision, ApproveCall) else CallDenied
    return kind(
        step_id=step_id,
        call_id=decision.call_id,
        arguments_digest=decision.arguments_digest,
        actor=decision.actor,
        comment=decision.comment,
    )


def _resolved(task: Task, decision: Resolve, limits: LimitSettings) -> StepResolved:
    expect(task, TaskStatus.NEEDS_ATTENTION, "resolved")
    asking = [name for name, step in task.steps.items() if step.status is StepStatus.UNKNOWN]
    call = task.steps[decision.step_id].call if decision.step_id in asking else None
    if call is None:
        others = f"; {', '.join(asking)} has" if asking else ": it asks for the approval of a concrete call"
        raise InvalidInputError([Fault("step_id", f"{decision.step_id!r} has no call of unknown outcome{others}.")])
    if decision.call_id not in {None, call.call_id}:
        raise InvalidInputError(
            [Fault("call_id", f"The call of unknown outcome is {call.call_id!r}, not {decision.call_id!r}.")]
        )
    if decision.output is not None and decision.resolution != "done":
        raise InvalidInputError([Fault("output", "An output goes with the resolution 'done' only.")])
    _check_output(decision, limits)
    return StepResolved(
        step_id=decision.step_id,
        call_id=call.call_id,
        resolution=decision.resolution,
        output=decision.output,
        actor=decision.actor,
        comment=decision.comment,
    )


def _check_output(decision: Resolve, limits: LimitSettings) -> None:
    try:
        size, limit = len(canonical(decision.output)), limits.stored_result_bytes
    except ValueError as error:
        raise InvalidInputError([Fault("output", f"It cannot be carried exactly: {error}.")]) from error
    if deeper_than(decision.output, MOST_RESULT_DEPTH):
        raise InvalidInputError([Fault("output", f"It is nested more than {MOST_RESULT_DEPTH} deep.")])
    if size > limit:
        message = f"{size} bytes are over the limit of {limit} bytes (limits.stored_result_bytes)."
        raise InvalidInputError([Fault("output", message)])
