"""The parts common to all stores: numbering, dating, folding and hashing the events of an append."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from agent_runtime.domain.chain import GENESIS, format_time, record_hash
from agent_runtime.domain.commit_verification import CommitFindings
from agent_runtime.domain.commits import CommitHead
from agent_runtime.domain.cursors import cursor_of
from agent_runtime.domain.errors import ConflictError, StaleEpochError, TaskNotFoundError
from agent_runtime.domain.events import Event, EventRecord, TaskClaimed, make_record
from agent_runtime.domain.stored_journal import AuditFault, StoredJournal
from agent_runtime.domain.summaries import PAGE_BYTES, Page, TaskSummary
from agent_runtime.domain.task import Task, expect_unchanged
from agent_runtime.domain.transitions import evolve

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the machine's time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Draft:
    """An append that the domain allows and that is not stored yet: its records, and the task after them.

    `verifies` is True if the stored journal must be verified first: for a claim, and for events from outside. A run has
    verified its journal when it claimed the task.
    """

    task: Task
    records: tuple[EventRecord, ...]
    verifies: bool


def draft_append(task: Task, events: Sequence[Event], epoch: int | None, clock: Clock) -> Draft:
    """Number and date the events that follow `task`, and fold them.

    Time never runs backwards within a journal, whatever the machine's clock does.
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
    """Return the error for an append after event number `expected` that was not written.

    `epoch` is the run's, None for events from outside. `found` is the stored version and epoch of the task, None if it
    is not stored.
    """
    if found is None:
        return ConflictError(f"Task {task_id} is gone.")
    version, newest = found
    if epoch is not None and newest > epoch:
        return StaleEpochError(f"Epoch {epoch} of task {task_id} was superseded by epoch {newest}.")
    return ConflictError(f"Task {task_id} has {version} events, not {expected}: read it again.")


def judge_deletion(task: Task, found: tuple[int, str] | None) -> tuple[int, str]:
    """Return the version and the head of the journal that is deleted. `found` are those in the task's row; None if it
    has none.

    Raises: TaskNotFoundError or ConflictError if the task is no longer as the caller read it. One with a changed
    journal is deleted whatever is left of it.
    """
    last, head = found or (0, GENESIS)
    if task.journal_change is None and last != task.version:
        if found is None:
            raise TaskNotFoundError(task.task_id)
        raise ConflictError(f"Task {task.task_id} is not at event {task.version}: read it again.")
    return last, head


def make_page(found: Iterable[tuple[int, TaskSummary]], limit: int) -> Page:
    """Return the page that begins with these tasks, each with its position; see `TaskStore.page`.

    Reads at most one task more than it returns.
    """
    shown: list[TaskSummary] = []
    size, last = 0, 0
    for position, task in found:
        if len(shown) >= limit or size >= PAGE_BYTES:
            return Page(tuple(shown), cursor_of(last) if shown else None)
        shown.append(task)
        last = position
        size += task.size
    return Page(tuple(shown), None)


Row = tuple[str, int, int | None, str, str, str, str]
"""A stored record: task id, seq, epoch, at, type, data, hash."""


def chain_records(head: str, records: Sequence[EventRecord]) -> tuple[list[Row], str]:
    """Return the rows of new records that follow one with the hash `head`, and the hash of the last row."""
    rows: list[Row] = []
    for one in records:
        content = (one.task_id, one.seq, one.epoch, format_time(one.at), one.type, one.data)
        head = record_hash(head, *content)
        rows.append((*content, head))
    return rows, head


@dataclass(frozen=True, slots=True)
class TakeCheckpoint:
    """A job's request for a checkpoint after the changes of its transaction; with `drop`, without the
    rows before it.
    """

    drop: bool


class StoredDatabase(Protocol):
    """The journals of a store, opened to verify them. Nothing here changes anything."""

    def damages(self) -> list[AuditFault]:
        """Return the faults of the database itself."""

    def ids(self) -> list[str]:
        """Return the ids of everything that has a row or a journal. Raises: StoreUnavailableError."""

    def read(self, task_id: str) -> StoredJournal:
        """Return everything stored of a task. Raises: TaskNotFoundError, StoreUnavailableError."""

    @property
    def has_commits(self) -> bool:
        """Return whether there are commits, or should be. Raises: StoreUnavailableError."""

    def commit_head(self) -> CommitHead:
        """Return the newest stored commit. Raises: StoreUnavailableError."""

    def verify_commits(self, kept_head: CommitHead | None = None) -> CommitFindings:
        """Return the faults of the commits and of the journals that they name, as of one instant.

        Raises: StoreUnavailableError.
        """
