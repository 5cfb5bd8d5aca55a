"""The questions of a task as AG-UI interrupts, and the decisions that `resume` makes about them.

The id of an interrupt names what exactly is decided: the digest of the plan, or of the arguments of a call. It needs
the library of the protocol, so doors import it with their first request.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ag_ui.core import Interrupt, ResumeEntry
from pydantic import Field

from agent_runtime.api.agui_events import tell_plan
from agent_runtime.api.attention import attention_views
from agent_runtime.api.bodies import Body, Comment, PlanBody
from agent_runtime.api.result_text import RESOLUTIONS, describe_failed_revision
from agent_runtime.api.views import time_of
from agent_runtime.domain import events as ev
from agent_runtime.domain.approval import (
    Answer,
    Approve,
    ApproveCall,
    Cancel,
    Decision,
    DenyCall,
    Edit,
    Reject,
    Resolve,
    Revise,
)
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.preview import preview_steps
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.values import JsonObject, Value, digest

OUTCOME_UNKNOWN = "agent-runtime:outcome_unknown"
"""The reason of an interrupt that asks for the outcome of a call that nobody knows."""

_COMMENT: JsonObject = {"type": "string", "maxLength": 4096}
_PLAN_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean", "description": "false with a comment asks for another plan"},
        "editedPlan": {"type": "object", "description": "the plan to run instead: goal and steps"},
        "comment": _COMMENT,
    },
    "required": ["approved"],
    "additionalProperties": False,
}
_CALL_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "editedArgs": {"type": "object", "description": "the arguments to send instead; they fit inputSchema"},
        "comment": _COMMENT,
    },
    "required": ["approved"],
    "additionalProperties": False,
}
_OUTCOME_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"resolution": {"enum": list(RESOLUTIONS)}, "output": {}, "comment": _COMMENT},
    "required": ["resolution"],
    "additionalProperties": False,
}


class _Approval(Body):
    approved: bool
    comment: Comment | None = None


class _CallAnswer(_Approval):
    edited_args: dict[str, Any] | None = Field(default=None, alias="editedArgs")


class _PlanAnswer(_Approval):
    edited_plan: dict[str, Any] | None = Field(default=None, alias="editedPlan")


class _OutcomeAnswer(Body):
    resolution: ev.Resolution
    output: Any = None
    comment: Comment | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """A question that an interrupt is about. `digest` names the plan or the arguments that the person was shown."""

    kind: str
    name: str
    digest: str = ""

    def identify(self, task_id: str) -> str:
        """Return the id of its interrupt."""
        return ":".join(filter(None, (task_id, self.kind, self.name, self.digest)))


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its interrupt."""

    subject: Subject
    interrupt: Interrupt


def parse_subject(interrupt_id: str, task_id: str) -> Subject | None:
    """Return what an interrupt of the task was about; None if the id is not one."""
    owner, _, rest = interrupt_id.partition(":")
    kind, _, named = rest.partition(":")
    name, _, digest = named.partition(":")
    return Subject(kind, name, digest) if owner == task_id and name else None


def list_asked(task: Task, expires_after_s: float | None = None) -> list[Asked]:
    """Return the open questions of a task; none after a request to cancel. A plan expires after so many seconds."""
    if task.cancel_requested or task.journal_change is not None:
        return []
    if task.status is TaskStatus.AWAITING_APPROVAL and task.contract is not None:
        return [_ask_for_plan(task, expires_after_s)]
    asked: list[Asked] = []
    for view in attention_views(task, preview_steps(task)):
        if view["kind"] == "journal_changed":
            continue
        more: dict[str, Any] = {}
        metadata: JsonObject = {"kind": view["kind"], "stepId": view["step_id"], "callId": view["call_id"]}
        metadata |= {"server": view["server"], "tool": view["tool"], "neededBy": list(view["needed_by"])}
        if view["kind"] == "input":
            subject, message = Subject("input", view["question_id"]), view["message"]
            reason, schema = "input_required", view["schema"]
        else:
            digest, message = view["arguments_digest"], view["reason"]
            metadata |= {"arguments": view["arguments"], "argumentsDigest": digest}
            if view["kind"] == "call_approval":
                subject = Subject("call", view["call_id"], digest)
                reason, schema = "tool_call", _CALL_SCHEMA
                metadata["inputSchema"] = view["input_schema"]
                more["tool_call_id"] = view["call_id"]
            else:
                subject = Subject("outcome", view["step_id"], view["call_id"])
                reason, schema = OUTCOME_UNKNOWN, _OUTCOME_SCHEMA
        asked.append(_make(task, subject, reason=reason, message=message, schema=schema, metadata=metadata, **more))
    return asked


def _ask_for_plan(task: Task, expires_after_s: float | None) -> Asked:
    plan = task.contract.as_digested() if task.contract else None
    expires_at = None
    if expires_after_s is not None and task.planned_at:
        expires_at = time_of(task.planned_at + timedelta(seconds=expires_after_s))
    metadata = {"kind": "plan", "plan": plan, "digest": task.plan_digest, "revision": task.plan_revision}
    subject = Subject("plan", _name_plan(task.plan_revision, task.times_sent_back), task.plan_digest or "")
    failed = f"{describe_failed_revision(task.revision_failure)}\n" if task.revision_failure else ""
    return _make(
        task,
        subject,
        reason="confirmation",
        message=f"{failed}Approve this plan?\n{tell_plan(task)}",
        schema=_PLAN_SCHEMA,
        metadata={**metadata, "expiresAt": expires_at},
        expires_at=expires_at,
    )


def _name_plan(revision: int, times_sent_back: int) -> str:
    """Return the name of a question about a plan. It is another one if the plan stays, as no other could be made."""
    return f"{revision}.{times_sent_back}" if times_sent_back else str(revision)


def _make(
    task: Task, subject: Subject, *, reason: str, message: str, schema: JsonObject, metadata: JsonObject, **more: Any
) -> Asked:
    interrupt = Interrupt(
        id=subject.identify(task.task_id),
        reason=reason,
        message=message,
        response_schema=schema,
        metadata={**metadata, "taskId": task.task_id},
        **more,
    )
    return Asked(subject, interrupt)


def is_settled(task: Task) -> bool:
    """Return whether nothing more happens to the task until a person decides, or at all.

    While other steps run, a question may wait, unless it is that of a server, whose call has a time limit.
    """
    if task.terminal or task.journal_change is not None:
        return True
    if task.cancel_requested:
        return False
    if task.status is TaskStatus.NEEDS_ATTENTION:
        return bool(task.questions) or all(state.status is not StepStatus.RUNNING for state in task.steps.values())
    return task.status is TaskStatus.AWAITING_APPROVAL


def read_decisions(subject: Subject, entry: ResumeEntry) -> tuple[Decision, ...]:
    """Return the decisions of an answer to an interrupt. Of an edited plan that is approved, the approval follows once
    its digest is known.

    Raises: InvalidInputError or InvalidPlanError with every fault.
    """
    if entry.status == "cancelled":
        if subject.kind != "input":
            return (Cancel(),)
        declined = entry.payload == {"action": "decline"}
        return (Answer(question_id=subject.name, action="decline" if declined else "cancel"),)
    payload = {} if entry.payload is None else entry.payload
    match subject.kind:
        case "plan":
            return _decide_plan(subject.digest, _PlanAnswer.read(payload))
        case "call":
            return (_decide_call(subject, _CallAnswer.read(payload)),)
        case "outcome":
            said = _OutcomeAnswer.read(payload)
            return (Resolve(step_id=subject.name, call_id=subject.digest, **dict(said)),)
        case _:
            return (Answer(question_id=subject.name, action="accept", content=payload),)


def _decide_call(subject: Subject, answer: _CallAnswer) -> ApproveCall | DenyCall:
    named = {"call_id": subject.name, "arguments_digest": subject.digest, "comment": answer.comment}
    if answer.approved:
        return ApproveCall(**named, edited_arguments=answer.edited_args)
    if answer.edited_args is not None:
        raise InvalidInputError([Fault("editedArgs", "They go with approved: true only.")])
    return DenyCall(**named)


def _decide_plan(digest: str, answer: _PlanAnswer) -> tuple[Decision, ...]:
    if answer.edited_plan is not None:
        plan = PlanBody.read(answer.edited_plan)
        edit = Edit(plan=Plan(goal=plan.goal, steps=plan.steps), digests=frozenset({digest}))
        return (edit, Approve(comment=answer.comment)) if answer.approved else (edit,)
    if answer.approved:
        return (Approve(digest=digest, comment=answer.comment),)
    return (Revise(feedback=answer.comment),) if answer.comment else (Reject(),)


_SCOPES: dict[type[Any], tuple[str, ...]] = {
    Edit: ("submit",),
    Revise: ("submit", "approve"),
    Cancel: ("submit", "approve"),
}


def scopes_of_decision(decision: Decision) -> tuple[str, ...]:
    """Return the scopes of which a caller needs one, as over REST."""
    return _SCOPES.get(type(decision), ("approve",))


def was_decided(subject: Subject, decisions: tuple[Decision, ...], journal: Iterable[ev.EventRecord]) -> bool:
    """Return whether the journal holds these decisions about this subject, so that a repetition changes nothing."""
    name, sent_back = "", 0
    for record in journal:
        event = record.event
        if subject.kind == "plan":
            if name == subject.name and _decides_plan(event, decisions[0]):
                return True
            if isinstance(event, ev.PlanRevisionRequested):
                sent_back += event.digest == subject.digest
            elif isinstance(event, ev.PlanProposed | ev.PlanEdited | ev.PlanRepinned | ev.PlanRevisionFailed):
                name = _name_plan(event.revision, sent_back) if event.digest == subject.digest else ""
        elif isinstance(event, ev.TaskCancelRequested):
            return isinstance(decisions[0], Cancel)
        elif _decides(event, decisions[0]):
            return True
    return False


def _decides_plan(event: ev.Event, decision: Decision) -> bool:
    match decision:
        case Approve():
            return isinstance(event, ev.PlanApproved) and event.comment == decision.comment
        case Reject():
            return isinstance(event, ev.PlanRejected)
        case Revise():
            return isinstance(event, ev.PlanRevisionRequested) and event.feedback == decision.feedback
        case Edit():
            return isinstance(event, ev.PlanEdited) and _holds(event.contract.plan, decision.plan)
        case _:
            return isinstance(decision, Cancel) and isinstance(event, ev.TaskCancelRequested)


def _holds(found: Any, given: Any) -> bool:
    """Return whether a stored value is what was given: a plan has the defaults of its tools filled in."""
    if isinstance(given, Value):
        same = type(found) is type(given)
        return same and all(_holds(getattr(found, name), getattr(given, name)) for name in given.model_fields_set)
    if isinstance(given, tuple):
        return len(found) == len(given) and all(map(_holds, found, given))
    return bool(found == given)


def _decides(event: ev.Event, decision: Decision) -> bool:
    match decision:
        case ApproveCall():
            return isinstance(event, ev.CallApproved) and _is_of(event, decision) and _sends(event, decision)
        case DenyCall():
            return isinstance(event, ev.CallDenied) and _is_of(event, decision)
        case Resolve():
            same = isinstance(event, ev.StepResolved) and event.call_id == decision.call_id
            return same and isinstance(event, ev.StepResolved) and event.resolution == decision.resolution
        case Answer():
            same = isinstance(event, ev.InputAnswered) and event.question_id == decision.question_id
            answered = isinstance(event, ev.InputAnswered) and (event.action, event.content)
            return same and answered == (decision.action, decision.content)
        case _:
            return False


def _is_of(event: ev.CallApproved | ev.CallDenied, decision: ApproveCall | DenyCall) -> bool:
    return (event.call_id, event.comment) == (decision.call_id, decision.comment)


def _sends(event: ev.CallApproved, decision: ApproveCall) -> bool:
    """Return whether the approval in the journal sends the arguments of this decision."""
    sent = event.edited_digest or event.arguments_digest
    if decision.edited_arguments is None:
        return sent == decision.arguments_digest
    try:
        return sent == digest(decision.edited_arguments)
    except ValueError:  # nothing that JSON cannot carry is in a journal
        return False
