"""What may follow what: the transition table, and the one function that folds an event into a task."""

from collections.abc import Iterable
from dataclasses import replace

from agent_runtime.domain import events as ev
from agent_runtime.domain.errors import StaleEpochError
from agent_runtime.domain.folds import FOLDS, illegal
from agent_runtime.domain.task import TERMINAL, Task, TaskStatus

_S = TaskStatus

ALLOWED: dict[type[ev.Event], frozenset[TaskStatus]] = {
    ev.TaskSubmitted: frozenset(),
    ev.TaskClaimed: frozenset(_S) - TERMINAL,
    ev.PlanProposed: frozenset({_S.PENDING}),
    ev.PlanApproved: frozenset({_S.AWAITING_APPROVAL}),
    ev.PlanRejected: frozenset({_S.AWAITING_APPROVAL}),
    ev.PlanRevisionRequested: frozenset({_S.AWAITING_APPROVAL}),
    ev.PlanEdited: frozenset({_S.AWAITING_APPROVAL}),
    ev.PlanRepinned: frozenset({_S.AWAITING_APPROVAL, _S.EXECUTING}),
    ev.StepStarted: frozenset({_S.EXECUTING}),
    ev.ModelAnswered: frozenset(_S) - TERMINAL,
    ev.ToolCalled: frozenset({_S.EXECUTING}),
    ev.ToolReturned: frozenset(_S) - TERMINAL,
    ev.ToolDenied: frozenset({_S.EXECUTING}),
    ev.CallApprovalRequested: frozenset({_S.EXECUTING, _S.NEEDS_ATTENTION}),
    ev.CallApproved: frozenset({_S.NEEDS_ATTENTION}),
    ev.CallDenied: frozenset({_S.NEEDS_ATTENTION}),
    ev.StepCompleted: frozenset({_S.EXECUTING}),
    ev.StepFailed: frozenset({_S.EXECUTING}),
    ev.StepSkipped: frozenset({_S.EXECUTING}),
    ev.StepOutcomeUnknown: frozenset({_S.EXECUTING, _S.NEEDS_ATTENTION, _S.APPROVED}),
    ev.StepResolved: frozenset({_S.NEEDS_ATTENTION}),
    ev.BudgetExceeded: frozenset({_S.EXECUTING}),
    ev.TaskCancelRequested: frozenset(_S) - TERMINAL,
    ev.TaskCompleted: frozenset({_S.EXECUTING}),
    ev.TaskFailed: frozenset({_S.PENDING, _S.AWAITING_APPROVAL, _S.EXECUTING}),
    ev.TaskCancelled: frozenset(_S) - TERMINAL,
    ev.TaskExpired: frozenset({_S.AWAITING_APPROVAL}),
}
"""The transition table: in which statuses an event may follow. `task.submitted` may only be the first."""

OF_A_RUN = frozenset(
    {
        ev.StepStarted,
        ev.ModelAnswered,
        ev.ToolCalled,
        ev.ToolReturned,
        ev.ToolDenied,
        ev.CallApprovalRequested,
        ev.StepCompleted,
        ev.StepFailed,
        ev.StepSkipped,
        ev.StepOutcomeUnknown,
        ev.BudgetExceeded,
        ev.TaskCompleted,
        ev.TaskFailed,
    }
)
"""Events that only the run which holds the newest claim may write."""


def replay(task_id: str, journal: Iterable[ev.EventRecord]) -> Task:
    """The state that a whole journal gives. Raises: IllegalTransitionError, StaleEpochError."""
    task = Task(task_id)
    for record in journal:
        task = evolve(task, record)
    return task


def evolve(task: Task, record: ev.EventRecord) -> Task:
    """The state after one more event; pure.

    Raises: IllegalTransitionError where the event may not follow this state, and StaleEpochError where a run
    that has been superseded writes anything but a late `tool.returned`, which is kept and changes nothing.
    """
    event = record.event
    if record.seq != task.version + 1:
        raise illegal(task, event, f"it has number {record.seq}, after {task.version}")
    _check_status(task, event)
    size = task.journal_bytes + len(record.data)
    if is_late_evidence(task, record):
        return replace(task, version=record.seq, updated_at=record.at, journal_bytes=size)
    _check_epoch(task, record)
    changes = FOLDS[type(event)](task, event, record)
    return replace(task, version=record.seq, updated_at=record.at, journal_bytes=size, **changes)


def is_late_evidence(task: Task, record: ev.EventRecord) -> bool:
    """Whether this is the answer to a call of a run that has since been superseded."""
    return isinstance(record.event, ev.ToolReturned) and record.epoch is not None and record.epoch < task.epoch


def _check_status(task: Task, event: ev.Event) -> None:
    first = task.version == 0
    if isinstance(event, ev.TaskSubmitted) != first:
        raise illegal(task, event, "a journal begins with task.submitted, once")
    if first or task.status in ALLOWED[type(event)]:
        return
    raise illegal(task, event, f"the task is {task.status}")


def _check_epoch(task: Task, record: ev.EventRecord) -> None:
    event = record.event
    if isinstance(event, ev.TaskClaimed):
        if event.epoch != task.epoch + 1 or record.epoch != event.epoch:
            raise StaleEpochError(f"Epoch {event.epoch} cannot follow epoch {task.epoch} of task {task.task_id}.")
    elif record.epoch is not None and record.epoch != task.epoch:
        raise StaleEpochError(f"Epoch {record.epoch} of task {task.task_id} was superseded by epoch {task.epoch}.")
    elif not record.epoch and type(event) in OF_A_RUN and not _ends_awaited_plan(task, event):
        raise illegal(task, event, "only a run that holds the claim may write it")


def _ends_awaited_plan(task: Task, event: ev.Event) -> bool:
    """Whether this ends a task that no run owns, because it awaits approval; its fold says when that is allowed."""
    return isinstance(event, ev.TaskFailed) and task.status is TaskStatus.AWAITING_APPROVAL
