"""One line of text for each event."""

from collections.abc import Callable, Mapping
from typing import Any

from agent_runtime.domain import events as ev
from agent_runtime.domain.contract import Contract
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.outages import describe_wait
from agent_runtime.text.escaping import one_line

_OBJECTIONS: Mapping[ev.Objection, str] = {
    "call_as_text": "it wrote a call as text, and nothing was called.",
    "only_thoughts": "its answer holds nothing but thoughts.",
}

_ANSWERED: Mapping[ev.AnswerAction, str] = {"accept": "answered", "decline": "declined", "cancel": "dismissed"}


def log_line(record: EventRecord) -> str | None:
    """Return the event as one line of text, or None if it is not worth a line."""
    say = _LINES.get(type(record.event))
    return one_line(say(record.event)) if say else None


def _describe_proposal(event: ev.PlanProposed) -> str:
    revision = f" as revision {event.revision}" if event.revision > 1 else ""
    return f"Plan proposed{revision}, {_describe_steps(event.contract)}"


def _describe_edit(event: ev.PlanEdited) -> str:
    return f"Plan edited{_by(event.actor)}, now revision {event.revision}, {_describe_steps(event.contract)}"


def _describe_repin(event: ev.PlanRepinned) -> str:
    return f"The plan awaits approval again, as revision {event.revision}: {' '.join(event.differences)}"


def _describe_steps(contract: Contract) -> str:
    count = "1 step" if len(contract.steps) == 1 else f"{len(contract.steps)} steps"
    return f"{count}: {'; '.join(step.title for step in contract.steps)}"


def _by(actor: str) -> str:
    if actor == ev.ANONYMOUS:
        return ""
    return " by the operator's policy" if actor == ev.POLICY else f" by {actor}"


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else "."


def _describe_answer(event: ev.ModelAnswered) -> str:
    if event.objection:
        return f"The model is asked again for step {event.step_id}: {_OBJECTIONS[event.objection]}"
    if not event.calls:
        return f"The model answered for step {event.step_id}."
    return f"The model asks for {', '.join(call.name for call in event.calls)} in step {event.step_id}."


def _describe_call(event: ev.ToolCalled) -> str:
    again = f", attempt {event.attempt}" if event.attempt > 1 else ""
    return f"Step {event.step_id} calls {event.server}.{event.tool}{again}."


def _describe_return(event: ev.ToolReturned) -> str:
    verb = "got an error" if event.result.is_error else "got its answer"
    return f"Step {event.step_id} {verb} after {event.duration_ms:.0f} ms{_because(event.result.text)}"


def _describe_unknown_outcome(event: ev.StepOutcomeUnknown) -> str:
    return f"Step {event.step_id} needs your decision: the outcome of its call is not known{_because(event.reason)}"


def _describe_cancellation(event: ev.TaskCancelled) -> str:
    steps = f" Unknown outcome: {', '.join(event.unknown_steps)}." if event.unknown_steps else ""
    return f"Cancelled.{steps}"


_LINES: dict[type[ev.Event], Callable[[Any], str]] = {
    ev.TaskSubmitted: lambda event: f"Submitted: {event.prompt}",
    ev.PlanProposed: _describe_proposal,
    ev.PlanApproved: lambda event: f"Plan approved{_by(event.actor)}.",
    ev.PlanRejected: lambda event: f"Plan rejected{_by(event.actor)}{_because(event.reason)}",
    ev.PlanRevisionRequested: lambda event: f"A new plan was requested{_by(event.actor)}: {event.feedback}",
    ev.PlanRevisionFailed: lambda event: (
        f"No other plan could be made, so revision {event.revision} awaits approval again: {event.message}"
    ),
    ev.PlanEdited: _describe_edit,
    ev.PlanRepinned: _describe_repin,
    ev.TaskWaiting: describe_wait,
    ev.StepStarted: lambda event: f"Step {event.step_id} started: {event.title}",
    ev.ModelAnswered: _describe_answer,
    ev.ToolCalled: _describe_call,
    ev.ToolReturned: _describe_return,
    ev.ToolDenied: lambda event: f"Call of step {event.step_id} refused: {event.message}",
    ev.CallApprovalRequested: lambda event: (
        f"Step {event.step_id} needs approval for its call of {event.server}.{event.tool}: {event.reason}"
    ),
    ev.CallApproved: lambda event: (
        f"Call of step {event.step_id} approved{_by(event.actor)}"
        f"{'' if event.edited_arguments is None else ', with edited arguments'}."
    ),
    ev.CallDenied: lambda event: f"Call of step {event.step_id} denied{_by(event.actor)}{_because(event.comment)}",
    ev.InputRequested: lambda event: f"{event.server} asks in step {event.step_id}: {event.message}",
    ev.InputAnswered: lambda event: f"Question of step {event.step_id} {_ANSWERED[event.action]}{_by(event.actor)}.",
    ev.InputWithdrawn: lambda event: f"Question of step {event.step_id} closed: {event.reason}",
    ev.StepCompleted: lambda event: f"Step {event.step_id} completed{_because(event.note)}",
    ev.StepFailed: lambda event: f"Step {event.step_id} failed: {event.message}",
    ev.StepSkipped: lambda event: f"Step {event.step_id} skipped: {event.reason}",
    ev.StepOutcomeUnknown: _describe_unknown_outcome,
    ev.StepResolved: lambda event: f"Step {event.step_id} resolved{_by(event.actor)} as {event.resolution}.",
    ev.TaskCancelRequested: lambda event: f"Cancel requested{_by(event.actor)}{_because(event.reason)}",
    ev.TaskCompleted: lambda event: f"Completed{_because(event.result)}",
    ev.TaskFailed: lambda event: f"Failed: {event.message}",
    ev.TaskCancelled: _describe_cancellation,
    ev.TaskExpired: lambda event: f"Expired: revision {event.revision} of the plan was not approved in time.",
}
