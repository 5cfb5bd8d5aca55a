"""Verify the commits of a store: find rows, records and tasks that were cut, changed, removed or added.

The chain of rows is recomputed from the first to the newest, and each journal is compared with every head that a row
names for it. Whoever can write the whole database can recompute everything, or cut its end; a head that was saved
elsewhere (`CommitHead`) reveals that for everything before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from agent_runtime.domain.chain import GENESIS
from agent_runtime.domain.commits import (
    CHECKPOINT,
    Change,
    Checkpoint,
    Commit,
    CommitHead,
    Deletion,
    TaskChange,
    count_entries,
    read_changes,
    read_checkpoint,
)
from agent_runtime.domain.stored_journal import AuditFault


class StoredJournals(Protocol):
    """The journals beside the rows, as of the same instant."""

    def hash_of(self, task_id: str, seq: int) -> str | None:
        """Return the stored hash of a record, or None if it does not exist."""

    def lengths(self) -> Iterable[tuple[str, int]]:
        """Return each task that has a row or a journal, with the number of its last record (0: no records)."""


@dataclass(slots=True)
class CommitFindings:
    """The number of rows, and the faults in them and in the journals that they name.

    `head_compared`: the row of the saved head, or its hash, still exists and was compared.
    """

    commits: int = 0
    head_compared: bool = False
    faults: list[AuditFault] = field(default_factory=list)


def verify_commits(
    rows: Iterable[Commit], journals: StoredJournals, kept_head: CommitHead | None = None
) -> CommitFindings:
    """Verify the rows, given in order, and compare the journals with them. `kept_head`: one that was saved elsewhere.

    The hashes of records are not recomputed here; `find_journal_faults` does that.
    """
    verification = _Verification(journals, kept_head)
    for row in rows:
        verification.add(row)
    verification.finish()
    return verification.findings


class _Named(NamedTuple):
    """The end of a journal according to the row at `position`."""

    last: int
    head: str
    position: int


class _Verification:
    """The state after the rows so far."""

    def __init__(self, journals: StoredJournals, kept_head: CommitHead | None) -> None:
        self.findings = CommitFindings()
        self._journals = journals
        self._kept_head = kept_head
        self._first: Commit | None = None
        self._before: Commit | None = None
        self._hashes_before: set[str] = set()
        """The possible hashes of the previous row: the stored one and the recomputed one."""
        self._hashes_before_first = {GENESIS}
        self._named: dict[str, _Named] = {}
        self._deleted: dict[str, int] = {}
        self._differing: dict[str, AuditFault] = {}
        """By task, the fault of the first record that differs from the one that a row names."""
        self._all_known = True
        """No row is missing that could have named a task."""

    def add(self, row: Commit) -> None:
        """Compare one more row with those before it, and the journals with it."""
        self.findings.commits += 1
        self._first = self._first or row
        content = self._read(row)
        self._check_chain(row, content)
        self._compare_head(row)
        if content is None:
            self._all_known = False
        elif isinstance(content, Checkpoint):
            self._compare_checkpoint(row, content)
        else:
            for change in content:
                self._apply(row, change)
        self._before = row

    def _read(self, row: Commit) -> Checkpoint | list[TaskChange] | None:
        try:
            return read_checkpoint(row) if row.type == CHECKPOINT else read_changes(row)
        except (ValueError, RecursionError) as error:
            self._fault(row, "data", f"it cannot be read: {str(error) or 'it is nested too deeply'}.")
            return None

    def _check_chain(self, row: Commit, content: Checkpoint | list[TaskChange] | None) -> None:
        """Compare a row with the one before it."""
        checkpoint = content if isinstance(content, Checkpoint) else None
        hashes = self._follow(row, checkpoint)
        if checkpoint is not None and checkpoint.previous not in hashes:
            self._fault(row, "data.previous", "it is not the hash of the row before it.")
        if self._before is None:
            self._hashes_before_first = hashes
        computed = {row.hash_after(previous) for previous in hashes}
        if hashes and row.hash not in computed:
            why = "it is not the hash of this row after the one before it: the row was changed, or rows were replaced"
            self._fault(row, "hash", f"{why}.")
        self._hashes_before = {row.hash, *computed}

    def _compare_head(self, row: Commit) -> None:
        if self._kept_head is not None and row.position == self._kept_head.position:
            self.findings.head_compared = True
            if row.hash != self._kept_head.hash:
                self._fault(row, "hash", "it differs from the saved head: this row, or one before it, was rewritten.")

    def _follow(self, row: Commit, checkpoint: Checkpoint | None) -> set[str]:
        """Return the possible hashes of the previous row; none if they are not known."""
        expected = self._before.position + 1 if self._before else 1
        if row.position == expected:
            return self._hashes_before if self._before else {GENESIS}
        if self._before is None and checkpoint is not None and checkpoint.dropped:
            return {checkpoint.previous}
        self._all_known = False
        self._fault(
            row, "", f"{_name_missing(expected, row.position - 1)} before it, and no checkpoint has dropped them."
        )
        return {checkpoint.previous} if checkpoint else set()

    def _compare_checkpoint(self, row: Commit, checkpoint: Checkpoint) -> None:
        """Compare the heads in a checkpoint with those that the rows before it named."""
        if self._before is not None and checkpoint.previous_entries != count_entries(self._before):
            self._fault(row, "data.previous", "it does not say how many entries the row before it has.")
        begins = self._before is None
        before, self._named = self._named, {}
        for head in checkpoint.heads:
            known = before.pop(head.task_id, None)
            self._name(row, head)
            if begins or not self._all_known:
                continue
            if known is None:
                self._fault(row, "data.heads", "it names a task that no row before it has named.", head)
            elif (known.last, known.head) != (head.last, head.head):
                said = f"it names another end of the journal than commit {known.position}, which named {known.last}"
                self._fault(row, "data.heads", f"{said}.", head)
        if self._all_known:
            for task_id, known in before.items():
                self._fault(row, "data.heads", f"it does not name the task, as commit {known.position} did.", task_id)
        self._all_known = True

    def _apply(self, row: Commit, change: TaskChange) -> None:
        if isinstance(change, Deletion):
            self._delete(row, change)
        else:
            self._grow(row, change)

    def _grow(self, row: Commit, change: Change) -> None:
        known = self._named.get(change.task_id)
        expected = known.last + 1 if known else 1
        if self._all_known and change.first != expected:
            said = f"its records begin with {change.first}, where the rows before it end with {expected - 1}"
            self._fault(row, "data", f"{said}: the journal was cut, or records were added, beside the service.", change)
        self._name(row, change)

    def _name(self, row: Commit, change: Change) -> None:
        """Remember the head that a row names, and compare the stored record with it."""
        self._named[change.task_id] = _Named(change.last, change.head, row.position)
        stored = self._journals.hash_of(change.task_id, change.last)
        if stored == change.head:
            return
        why = "there is no such record" if stored is None else "it carries another hash"
        message = f"commit {row.position} names this record, and {why}: the journal was cut, or written anew."
        self._differing.setdefault(change.task_id, AuditFault(change.task_id, change.last, "hash", message))

    def _delete(self, row: Commit, deletion: Deletion) -> None:
        known = self._named.pop(deletion.task_id, None)
        if self._all_known and known is None:
            self._fault(row, "data", "it is the tombstone of a task that no row has named.", deletion)
        elif self._all_known and known is not None and not deletion.fits(known.last, known.head):
            said = f"it is the tombstone of another journal than the one that commit {known.position} named"
            self._fault(row, "data", f"{said}.", deletion)
        self._differing.pop(deletion.task_id, None)  # nothing is left to compare
        self._deleted[deletion.task_id] = row.position

    def finish(self) -> None:
        """Compare the stored tasks with the result of all rows."""
        self._check_kept_head()
        for task_id, last in self._journals.lengths():
            self._check_journal(task_id, last)
        for task_id, known in self._named.items():
            message = f"commit {known.position} names it, no row says that it was deleted, and it is gone: removed."
            self.findings.faults.append(AuditFault(task_id, None, "tasks", message))

    def _check_journal(self, task_id: str, last: int) -> None:
        known = self._named.pop(task_id, None)
        if known is not None and task_id in self._differing:
            self.findings.faults.append(self._differing[task_id])
        elif known is not None and last > known.last:
            message = f"no commit names it; commit {known.position} ends with record {known.last}: it was added."
            self.findings.faults.append(AuditFault(task_id, known.last + 1, "seq", message))
        elif known is None and task_id in self._deleted:
            message = f"commit {self._deleted[task_id]} says that it was deleted, and it is there: a forged tombstone."
            self.findings.faults.append(AuditFault(task_id, None, "tasks", message))
        elif known is None and self._all_known:
            message = "no commit names it: it was added beside the service."
            self.findings.faults.append(AuditFault(task_id, None, "tasks", message))

    def _check_kept_head(self) -> None:
        """Report a saved head that cannot be compared. One of the row before a checkpoint is compared with that."""
        kept = self._kept_head
        if kept is None or self.findings.head_compared:
            return
        first = self._first.position if self._first else 1
        newest = self._before.position if self._before else 0
        if kept.position > newest:
            why = "rows were cut off, or the head is of another store"
            self._head_fault(kept, f"there is no such row, and the newest is {newest}: {why}.")
        elif kept.position == first - 1:
            self.findings.head_compared = True
            if kept.hash not in self._hashes_before_first:
                self._head_fault(kept, "the first row follows a row with another hash.")
        else:
            message = (
                f"its row is gone, as after a checkpoint: the rows begin with {first}, and it proves nothing of them"
            )
            self._head_fault(kept, f"{message}. Verify with a head from {max(first - 1, 0)} on.")

    def _head_fault(self, kept: CommitHead, message: str) -> None:
        self.findings.faults.append(AuditFault("", None, f"head {kept.position}", message))

    def _fault(self, row: Commit, column: str, message: str, of: Change | Deletion | str | None = None) -> None:
        task_id, seq = ("" if of is None else of, None) if of is None or isinstance(of, str) else (of.task_id, of.last)
        place = ".".join(filter(None, (f"commits[{row.position}]", column)))
        self.findings.faults.append(AuditFault(task_id, seq, place, message))


def _name_missing(first: int, last: int) -> str:
    return f"row {first} is missing" if first >= last else f"rows {first} to {last} are missing"
