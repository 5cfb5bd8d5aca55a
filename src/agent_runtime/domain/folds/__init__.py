"""The changes that each event makes to a task, with the checks before them: one pure function per event."""

from collections.abc import Callable
from typing import Any

from agent_runtime.domain import events as ev
from agent_runtime.domain.folds import calls, plans, questions, tasks
from agent_runtime.domain.folds.base import Changes, illegal
from agent_runtime.domain.task import Task

__all__ = ["FOLDS", "illegal"]

FOLDS: dict[type[ev.Event], Callable[[Task, Any, ev.EventRecord], Changes]] = {
    ev.TaskSubmitted: tasks.fold_task_submitted,
    ev.TaskClaimed: tasks.fold_task_claimed,
    ev.PlanProposed: plans.fold_plan,
    ev.PlanApproved: plans.fold_plan_decision,
    ev.PlanRejected: plans.fold_plan_decision,
    ev.PlanRevisionRequested: plans.fold_plan_decision,
    ev.PlanRevisionFailed: plans.fold_plan_revision_failed,
    ev.PlanEdited: plans.fold_plan_edited,
    ev.PlanRepinned: plans.fold_plan_repinned,
    ev.TaskWaiting: tasks.fold_task_waiting,
    ev.StepStarted: calls.fold_step_started,
    ev.ModelAnswered: calls.fold_model_answered,
    ev.ToolCalled: calls.fold_tool_called,
    ev.ToolReturned: calls.fold_tool_returned,
    ev.ToolDenied: calls.fold_tool_denied,
    ev.CallApprovalRequested: calls.fold_call_approval_requested,
    ev.CallApproved: calls.fold_call_decision,
    ev.CallDenied: calls.fold_call_decision,
    ev.InputRequested: questions.fold_input_requested,
    ev.InputAnswered: questions.fold_input_answered,
    ev.InputWithdrawn: questions.fold_input_withdrawn,
    ev.StepCompleted: tasks.fold_step_completed,
    ev.StepFailed: tasks.fold_step_failed,
    ev.StepSkipped: tasks.fold_step_skipped,
    ev.StepOutcomeUnknown: calls.fold_step_outcome_unknown,
    ev.StepResolved: calls.fold_step_resolved,
    ev.BudgetExceeded: tasks.fold_budget_exceeded,
    ev.TaskCancelRequested: tasks.fold_task_cancel_requested,
    ev.TaskCompleted: tasks.fold_task_completed,
    ev.TaskFailed: tasks.fold_task_failed,
    ev.TaskCancelled: tasks.fold_task_cancelled,
    ev.TaskExpired: plans.fold_task_expired,
}
