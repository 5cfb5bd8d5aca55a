"""Folds of plans and of the decisions about them."""

from typing import Any

from agent_runtime.domain import events as ev
from agent_runtime.domain.contract import Contract
from agent_runtime.domain.folds.base import Changes, authors_with, check_approver, check_not_cancelled, illegal
from agent_runtime.domain.rerun import pin_rerun
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Approval, RevisionFailure, StepState, StepStatus, Task
from agent_runtime.domain.values import digest

_S = TaskStatus


def fold_plan(task: Task, event: ev.PlanProposed | ev.PlanEdited | ev.PlanRepinned, record: ev.EventRecord) -> Changes:
    check_not_cancelled(task, event)
    if event.revision != task.plan_revision + 1 or event.digest != event.contract.digest:
        raise illegal(task, event, "its revision or its digest is not that of the plan it carries")
    return {
        "status": _S.AWAITING_APPROVAL,
        "contract": event.contract,
        "definitions": event.definitions,
        "identities": event.identities,
        "plan_revision": event.revision,
        "plan_digest": event.digest,
        "planned_at": record.at,
        "revision_failure": None,
        "authors": authors_with(task, task.feedback_by) if task.feedback_by else task.authors,
        "feedback_by": None,
        "approved_by": None,
        "steps": _first_states(task, event),
        "usage": task.usage + event.usage if isinstance(event, ev.PlanProposed) else task.usage,
    }


def _first_states(task: Task, event: ev.PlanProposed | ev.PlanEdited | ev.PlanRepinned) -> dict[str, StepState]:
    """Return the first state of each step of a plan. Steps that reuse an earlier result are completed already."""
    states = {step.id: StepState() for step in event.contract.steps}
    pinned = event.contract.rerun
    if pinned != pin_rerun(task.rerun, event.contract.plan):
        raise illegal(task, event, "its reused results are not those of the finished task")
    if pinned is not None and task.rerun is not None:
        results = task.rerun.results
        states |= {name: StepState(StepStatus.COMPLETED, result=results[name].result) for name in pinned.results}
    return states


def fold_plan_edited(task: Task, event: ev.PlanEdited, record: ev.EventRecord) -> Changes:
    entry = Approval(event.actor, record.at, "edit", digest=event.digest)
    authors = authors_with(task, event.actor)
    return {**fold_plan(task, event, record), "approvals": (*task.approvals, entry), "authors": authors}


def fold_plan_repinned(task: Task, event: ev.PlanRepinned, record: ev.EventRecord) -> Changes:
    _check_same_plan(task, event)
    _check_not_begun(task, event)
    if (record.epoch is None) != (task.status is _S.AWAITING_APPROVAL):
        raise illegal(task, event, "only the service may write it before an approval, and only the run after one")
    return fold_plan(task, event, record)


def _check_same_plan(task: Task, event: ev.PlanRepinned) -> None:
    if task.contract is None or _digest_of_work(event.contract) != _digest_of_work(task.contract):
        raise illegal(task, event, "it differs from the plan that it replaces")


def _check_not_begun(task: Task, event: ev.PlanRepinned) -> None:
    if task.has_begun:
        raise illegal(task, event, "a step has started")


def _digest_of_work(contract: Contract) -> str:
    """Return the digest of the parts of a contract that do not depend on servers and tools."""
    return digest(contract.model_dump(mode="json", include={"goal", "steps", "limits", "rerun"}))


def _check_current_plan(task: Task, event: Any) -> None:
    check_not_cancelled(task, event)
    if event.digest != task.plan_digest or event.revision != task.plan_revision:
        raise illegal(task, event, "it is about another plan than the current one")


def fold_plan_decision(
    task: Task, event: ev.PlanApproved | ev.PlanRejected | ev.PlanRevisionRequested, record: ev.EventRecord
) -> Changes:
    _check_current_plan(task, event)
    changes: Changes = {"revision_failure": None}
    match event:
        case ev.PlanApproved():
            check_approver(task, event)
            changes |= {"approved_by": event.actor, "approval_names_digest": event.names_digest}
            status, decision, note = _S.APPROVED, "approve", event.comment
        case ev.PlanRejected():
            status, decision, note = _S.REJECTED, "reject", event.reason
        case ev.PlanRevisionRequested():
            # The plan stays: the planner starts from it. It cannot be approved, as the task no longer awaits approval.
            status, decision, note = _S.PENDING, "revise", event.feedback
            changes["feedback"] = (*task.feedback, event.feedback)
            changes["feedback_by"] = event.actor
    entry = Approval(event.actor, record.at, decision, digest=event.digest, comment=note)
    return {**changes, "status": status, "approvals": (*task.approvals, entry)}


def fold_plan_revision_failed(task: Task, event: ev.PlanRevisionFailed, record: ev.EventRecord) -> Changes:
    """Return to the plan before the feedback. Whoever gave it has shaped nothing, and no planner is told it again."""
    _check_current_plan(task, event)
    return {
        "status": _S.AWAITING_APPROVAL,
        "planned_at": record.at,
        "feedback": task.feedback[:-1],
        "feedback_by": None,
        "revision_failure": RevisionFailure(task.feedback[-1], event.code, event.message),
        "usage": task.usage + event.usage,
    }


def fold_task_expired(task: Task, event: ev.TaskExpired, _: ev.EventRecord) -> Changes:
    _check_current_plan(task, event)
    return {"status": _S.EXPIRED}
