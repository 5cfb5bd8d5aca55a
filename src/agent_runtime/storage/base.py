"""What all stores share: how an append is numbered, dated, folded and hashed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent_runtime.domain.chain import format_time, record_hash
from agent_runtime.domain.cursors import cursor_of
from agent_runtime.domain.errors import ConflictError, StaleEpochError
from agent_runtime.domain.events import Event, EventRecord, TaskClaimed, make_record
from agent_runtime.domain.task import Task, expect_unchanged
from agent_runtime.domain.transitions import evolve
from agent_runtime.services.ports import PAGE_BYTES, Page, TaskSummary

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time of the machine, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Draft:
    """An append that the domain allows and no disk has yet: its records, and the task after them.

    `verifies`: it may be written only on a journal that is still as it was written. So it is for a claim, and for
    whatever comes from outside; a run has verified its journal when it claimed it.
    """

    task: Task
    records: tuple[EventRecord, ...]
    verifies: bool


def draft_append(task: Task, events: Sequence[Event], epoch: int | None, clock: Clock) -> Draft:
    """Number and date the events that follow `task`, and fold them.

    Time never runs backwards within a journal, whatever the clock of the machine does.
    Raises: JournalChangedError, StaleEpochError, IllegalTransitionError.
    """
    expect_unchanged(task)
    now = clock()
    at = max(now, task.updated_at or now)
    records: list[EventRecord] = []
    after = task
    for event in events:
        records.append(make_record(task.task_id, after.version + 1, epoch, at, event))
        after = evolve(after, records[-1])
    verifies = epoch is None or any(isinstance(event, TaskClaimed) for event in events)
    return Draft(after, tuple(records), verifies)


def make_append_error(
    task_id: str, expected: int, epoch: int | None, found: tuple[int, int] | None
) -> ConflictError | StaleEpochError:
    """Return why an append after event number `expected` was not written.

    `epoch` is the run's, None for what comes from outside; `found` is the version and the epoch that the store has of
    the task, None where it has none.
    """
    if found is None:
        return ConflictError(f"Task {task_id} is gone.")
    version, newest = found
    if epoch is not None and newest > epoch:
        return StaleEpochError(f"Epoch {epoch} of task {task_id} was superseded by epoch {newest}.")
    return ConflictError(f"Task {task_id} has {version} events, not {expected}: read it again.")


def make_page(found: Iterable[tuple[int, TaskSummary]], limit: int) -> Page:
    """Return the page that begins with these tasks, each with its position: see `TaskStore.page`.

    No more of them are looked at than are shown, and one that is left.
    """
    shown: list[TaskSummary] = []
    size, last = 0, 0
    for position, task in found:
        if len(shown) >= limit or size >= PAGE_BYTES:
            return Page(tuple(shown), cursor_of(last) if shown else None)
        shown.append(task)
        last = position
        size += len(task.prompt) + sum(len(name) + len(value) for name, value in task.metadata.items())
    return Page(tuple(shown), None)


Row = tuple[str, int, int | None, str, str, str, str]
"""A record as it is stored: task id, seq, epoch, at, type, data, hash."""


def chain_records(head: str, records: Sequence[EventRecord]) -> tuple[list[Row], str]:
    """Return the rows of new records after one that has the hash `head`, and the hash of the last of them."""
    rows: list[Row] = []
    for one in records:
        content = (one.task_id, one.seq, one.epoch, format_time(one.at), one.type, one.data)
        head = record_hash(head, *content)
        rows.append((*content, head))
    return rows, head
