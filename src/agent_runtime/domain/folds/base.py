"""Helpers of the folds."""

from typing import Any

from agent_runtime.domain import events as ev
from agent_runtime.domain.caller import allow
from agent_runtime.domain.errors import IllegalTransitionError
from agent_runtime.domain.replacing import replace
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepState, StepStatus, Task

Changes = dict[str, Any]
"""The changed fields of a task, by name."""


def illegal(task: Task, event: ev.Event, why: str) -> IllegalTransitionError:
    """Return the error for an event that may not follow the newest event of this task."""
    return IllegalTransitionError(f"{event.type} may not follow event {task.version} of task {task.task_id}: {why}.")


def expect_step(task: Task, event: Any, *expected: StepStatus) -> StepState:
    state = task.steps.get(event.step_id)
    if state is None:
        raise illegal(task, event, f"the plan has no step {event.step_id!r}")
    if state.status not in expected:
        raise illegal(task, event, f"step {event.step_id!r} is {state.status}")
    return state


def with_step(task: Task, step_id: str, state: StepState, **more: Any) -> Changes:
    return {"steps": {**task.steps, step_id: state}, **more}


def without_question(task: Task, step_id: str, state: StepState) -> Changes:
    """Return the changes after a step's question ends: the task continues if no other step waits for a person."""
    changes = with_step(task, step_id, replace(state, question=None))
    if task.steps[step_id].question and task.status is TaskStatus.NEEDS_ATTENTION:
        asks = replace(task, **changes).asks_person
        changes["status"] = TaskStatus.NEEDS_ATTENTION if asks else TaskStatus.EXECUTING
    return changes


def authors_with(task: Task, actor: str) -> tuple[str, ...]:
    """Return the authors of the task, with this one added if new."""
    return task.authors if actor in task.authors else (*task.authors, actor)


def check_approver(task: Task, event: ev.PlanApproved | ev.CallApproved) -> None:
    """Refuse an approval by an author of the task whose recorded scopes do not include `submit`."""
    if event.actor in task.authors and event.scopes and not allow(event.scopes, ("submit",)):
        raise illegal(
            task, event, f"{event.actor!r} is an author of the task and may approve it only with the scope submit"
        )


def check_not_cancelled(task: Task, event: ev.Event) -> None:
    if task.cancel_requested:
        raise illegal(task, event, "the task is being cancelled")
