"""What each event changes of a task, and what must be so before it may: one function for each, pure."""

from collections.abc import Callable
from typing import Any

from agent_runtime.domain import events as ev
from agent_runtime.domain.folds import calls, plans, tasks
from agent_runtime.domain.folds.base import Changes, illegal
from agent_runtime.domain.task import Task

__all__ = ["FOLDS", "illegal"]

FOLDS: dict[type[ev.Event], Callable[[Task, Any, ev.EventRecord], Changes]] = {
    ev.TaskSubmitted: tasks.submitted,
    ev.TaskClaimed: tasks.claimed,
    ev.PlanProposed: plans.proposed,
    ev.PlanApproved: plans.decided,
    ev.PlanRejected: plans.decided,
    ev.PlanRevisionRequested: plans.decided,
    ev.PlanEdited: plans.edited,
    ev.PlanRepinned: plans.repinned,
    ev.StepStarted: calls.started,
    ev.ModelAnswered: calls.model_answered,
    ev.ToolCalled: calls.called,
    ev.ToolReturned: calls.returned,
    ev.ToolDenied: calls.denied,
    ev.CallApprovalRequested: calls.call_asked,
    ev.CallApproved: calls.call_decided,
    ev.CallDenied: calls.call_decided,
    ev.StepCompleted: tasks.step_completed,
    ev.StepFailed: tasks.step_failed,
    ev.StepSkipped: tasks.step_skipped,
    ev.StepOutcomeUnknown: calls.outcome_unknown,
    ev.StepResolved: calls.resolved,
    ev.BudgetExceeded: tasks.budget_exceeded,
    ev.TaskCancelRequested: tasks.cancel_requested,
    ev.TaskCompleted: tasks.completed,
    ev.TaskFailed: tasks.failed,
    ev.TaskCancelled: tasks.cancelled,
    ev.TaskExpired: plans.expired,
}
