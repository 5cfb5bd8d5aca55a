"""Fold events into a task, and check that each event may follow.

Each event class says in which statuses it may follow and who may write it; see `events.Event`.
"""

from collections.abc import Iterable

from agent_runtime.domain import events as ev
from agent_runtime.domain.errors import StaleEpochError
from agent_runtime.domain.folds import FOLDS, illegal
from agent_runtime.domain.replacing import replace
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task, Waiting


def replay(task_id: str, journal: Iterable[ev.EventRecord]) -> Task:
    """Return the state after a whole journal. Raises: IllegalTransitionError, StaleEpochError."""
    task = Task(task_id)
    for record in journal:
        task = evolve(task, record)
    return task


def evolve(task: Task, record: ev.EventRecord) -> Task:
    """Return the state after one more event. Pure.

    Raises: IllegalTransitionError if the event may not follow this state; StaleEpochError if a superseded run writes
    anything but a late `tool.returned`, which is recorded and changes nothing.
    """
    event = record.event
    if record.seq != task.version + 1:
        raise illegal(task, event, f"it has number {record.seq}, after {task.version}")
    _check_status(task, event)
    size = task.journal_bytes + len(record.data)
    if is_late_evidence(task.epoch, record):
        return replace(task, version=record.seq, updated_at=record.at, journal_bytes=size)
    _check_epoch(task, record)
    changes = FOLDS[type(event)](task, event, record)
    if task.waiting and not isinstance(event, ev.TaskClaimed | ev.TaskWaiting):
        changes["waiting"] = _follow_wait(task.waiting, event)
    return replace(task, version=record.seq, updated_at=record.at, journal_bytes=size, **changes)


def _follow_wait(waiting: Waiting, event: ev.Event) -> Waiting | None:
    """Return the wait after an event: it goes on while a call is repeated, and if that meets an outage again."""
    match event:
        case ev.ToolCalled() if event.attempt > 1 and waiting.kind == "server":
            return replace(waiting, tried=True)
        case ev.ToolReturned() if event.result.retry_after_s is not None:
            return waiting
    return None


def is_late_evidence(epoch: int, record: ev.EventRecord) -> bool:
    """Return whether this is the answer to a call of a run that has been superseded. `epoch`: that of the task."""
    return isinstance(record.event, ev.ToolReturned) and record.epoch is not None and record.epoch < epoch


def _check_status(task: Task, event: ev.Event) -> None:
    first = task.version == 0
    if isinstance(event, ev.TaskSubmitted) != first:
        raise illegal(task, event, "a journal begins with task.submitted, once")
    if first or task.status in event.follows:
        return
    raise illegal(task, event, f"the task is {task.status}")


def _check_epoch(task: Task, record: ev.EventRecord) -> None:
    event = record.event
    if isinstance(event, ev.TaskClaimed):
        if event.epoch != task.epoch + 1 or record.epoch != event.epoch:
            raise StaleEpochError(f"Epoch {event.epoch} cannot follow epoch {task.epoch} of task {task.task_id}.")
    elif record.epoch is not None and record.epoch != task.epoch:
        raise StaleEpochError(f"Epoch {record.epoch} of task {task.task_id} was superseded by epoch {task.epoch}.")
    elif not record.epoch and event.writer == "run" and not _ends_awaited_plan(task, event):
        raise illegal(task, event, "only a run that holds the claim may write it")


def _ends_awaited_plan(task: Task, event: ev.Event) -> bool:
    """Return whether this ends a task that awaits approval and so has no run. Its fold checks when that is allowed."""
    return isinstance(event, ev.TaskFailed) and task.status is TaskStatus.AWAITING_APPROVAL
