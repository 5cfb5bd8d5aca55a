"""What the folds share."""

from typing import Any

from agent_runtime.domain import events as ev
from agent_runtime.domain.errors import IllegalTransitionError
from agent_runtime.domain.task import StepState, StepStatus, Task

Changes = dict[str, Any]
"""The fields of a task that an event changes."""


def illegal(task: Task, event: ev.Event, why: str) -> IllegalTransitionError:
    """The refusal of an event after the newest event of this task."""
    return IllegalTransitionError(f"{event.type} may not follow event {task.version} of task {task.task_id}: {why}.")


def step_of(task: Task, event: Any, *expected: StepStatus) -> StepState:
    state = task.steps.get(event.step_id)
    if state is None:
        raise illegal(task, event, f"the plan has no step {event.step_id!r}")
    if state.status not in expected:
        raise illegal(task, event, f"step {event.step_id!r} is {state.status}")
    return state


def with_step(task: Task, step_id: str, state: StepState, **more: Any) -> Changes:
    return {"steps": {**task.steps, step_id: state}, **more}


def no_cancel(task: Task, event: ev.Event) -> None:
    if task.cancel_requested:
        raise illegal(task, event, "the task is being cancelled")
