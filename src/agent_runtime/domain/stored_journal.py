"""A stored journal: untrusted until its hashes and its fold have been checked."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from agent_runtime.domain.chain import GENESIS, record_hash
from agent_runtime.domain.errors import AgentRuntimeError
from agent_runtime.domain.events import EVENTS, EventRecord, restore_record
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import JournalChange, Task
from agent_runtime.domain.transitions import evolve

_MOST_EPOCHS = 10_000
_TIME_CHARACTERS = "0123456789-:.TZ"

FOLD_ERRORS = (AgentRuntimeError, LookupError, ValueError, RecursionError)
"""The errors that `evolve` raises for an event that may not follow, or for one nested too deeply."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A stored record. Untrusted: it may not even hold an event."""

    seq: int
    epoch: int | None
    at: str
    type: str
    data: str
    hash: str


@dataclass(frozen=True, slots=True)
class StoredIndex:
    """The row of a task beside its journal, used for lists. `head` is the hash of the last record.

    `submitter` is None in exports of versions that did not store it. `thread` is None for a task without one.
    """

    version: int
    epoch: int
    status: str
    prompt: str
    plan_revision: int
    cancel_requested: int
    metadata: str
    created_at: str
    updated_at: str
    request_key: str | None
    head: str
    submitter: str | None = None
    thread: str | None = None


@dataclass(frozen=True, slots=True)
class StoredJournal:
    """A task as stored. `index` is None if there is a journal without a row."""

    task_id: str
    entries: tuple[StoredRecord, ...]
    index: StoredIndex | None


@dataclass(frozen=True, slots=True)
class AuditFault:
    """A part of a stored task that was changed, or that was not approved.

    `seq`: the record, or None. `field`: its column (`data.arguments` inside its JSON), or a column beside the journal
    (`tasks.head`). `message`: how the fault shows.
    """

    task_id: str
    seq: int | None
    field: str
    message: str

    def __str__(self) -> str:
        place = [self.task_id, *([] if self.seq is None else [f"record {self.seq}"]), self.field]
        return f"{', '.join(filter(None, place))}: {self.message}"


def restore_task(stored: StoredJournal) -> tuple[Task, list[EventRecord]]:
    """Fold a stored journal; return the task and the records that were folded.

    If the events do not follow from each other, or the hashes do not match, `journal_change` of the task says where the
    journal was changed. For a task that has ended the hashes are not checked, only the number of records.
    """
    task, records, faults = Task(stored.task_id), list[EventRecord](), list[AuditFault]()
    for entry in stored.entries:
        found = read_record(stored.task_id, entry)
        if isinstance(found, EventRecord):
            try:
                task = evolve(task, found)
            except FOLD_ERRORS as error:
                found = AuditFault(stored.task_id, entry.seq, "data", f"it may not follow: {error}")
        if isinstance(found, AuditFault):
            faults.append(found)
            break
        records.append(found)
    has_ended = task.terminal and stored.index is not None and stored.index.version == task.version
    if faults or not has_ended:
        faults = [*chain_faults(stored), *faults]
    if not faults:
        return task, records
    last = max([entry.seq for entry in stored.entries], default=1)
    first = min(faults, key=lambda fault: last if fault.seq is None else fault.seq)
    change = JournalChange(last if first.seq is None else first.seq, f"{first.field}: {first.message}")
    return replace(task, status=TaskStatus.NEEDS_ATTENTION, journal_change=change), records


def continue_task(
    task: Task, head: str, entries: Sequence[StoredRecord], newest: str
) -> tuple[Task, list[EventRecord]] | None:
    """Fold the stored records that follow `task`; return the state after them, and the records.

    `head` is the hash of the last record that `task` has, `newest` that of the last entry. Return None where the hashes
    do not match or an event may not follow: then the whole journal must be judged.
    """
    records: list[EventRecord] = []
    for entry in entries:
        head = record_hash(head, task.task_id, entry.seq, entry.epoch, entry.at, entry.type, entry.data)
        found = read_record(task.task_id, entry)
        if head != entry.hash or isinstance(found, AuditFault):
            return None
        try:
            task = evolve(task, found)
        except FOLD_ERRORS:
            return None
        records.append(found)
    return (task, records) if head == newest else None


def read_record(task_id: str, entry: StoredRecord) -> EventRecord | AuditFault:
    """Return the event record of a stored record, or the fault that makes it unreadable."""
    try:
        at = datetime.fromisoformat(entry.at)
    except ValueError:
        return AuditFault(task_id, entry.seq, "at", "it is not a time.")
    if at.tzinfo is None:
        return AuditFault(task_id, entry.seq, "at", "it is not a time in UTC.")
    try:
        return restore_record(task_id, entry.seq, entry.epoch, at, entry.type, entry.data)
    except KeyError:
        return AuditFault(
            task_id,
            entry.seq,
            "type",
            "there is no event of this name: it was changed, or a newer version wrote it.",
        )
    except ValueError:  # from pydantic, or for text that is not Unicode
        return AuditFault(task_id, entry.seq, "data", f"it cannot be read as {entry.type}.")


def chain_faults(stored: StoredJournal) -> Iterator[AuditFault]:
    """Yield the faults in the hash chain of a journal whose records are in order."""
    return _Chain(stored).faults()


class _Chain:
    """Compares the hashes of a journal with its records, with the head and with each other."""

    def __init__(self, stored: StoredJournal) -> None:
        self._stored = stored
        self._known = {entry.seq: entry for entry in stored.entries}
        self._computed: dict[int, str] = {}
        self._gaps: list[tuple[int, int]] = []
        expected = 1
        for seq, entry in self._known.items():
            if seq > expected:
                self._gaps.append((expected, seq - 1))
            expected = max(expected, seq + 1)
            previous = self._stored_before(seq)
            self._computed[seq] = entry.hash if previous is None else self._hash(previous, entry)

    def faults(self) -> Iterator[AuditFault]:
        seen: set[int] = set()
        for entry in self._stored.entries:
            if entry.seq in seen or entry.seq < 1:
                why = "there is another record of this number" if entry.seq in seen else "records count from 1"
                yield self._fault(entry.seq, "seq", f"{why}.{self._describe_move(entry)}")
            seen.add(entry.seq)
        for first, last in self._gaps:
            yield self._fault(first, "seq", _describe_missing(first, last))
        for seq, entry in self._known.items():
            if seq < 1:
                continue
            if self._stored_before(seq) is None:
                if moved := self._describe_move(entry):
                    yield self._fault(seq, "seq", moved.strip())
            elif not self._fits(entry):
                yield self._fault(seq, *self._explain(entry))
        yield from self._head_faults()

    def _head_faults(self) -> Iterator[AuditFault]:
        index, last = self._stored.index, max(self._known, default=0)
        if index is None:
            yield self._fault(None, "tasks", "the row of this task is missing.")
        elif index.head in {self._known[last].hash, self._computed[last]} if last else not index.version:
            if index.version != last:
                said = f"it says {index.version}, and the journal ends with record {last}"
                yield self._fault(None, "tasks.version", f"{said}, as the head confirms.")
        elif index.version > last:
            yield self._fault(
                last + 1, "seq", f"{_describe_missing(last + 1, index.version)} The journal was cut short."
            )
        else:
            why = "it is not the hash of the last record: it was changed, or records were replaced or added"
            yield self._fault(None, "tasks.head", f"{why}.")

    def _hash(self, previous: str, entry: StoredRecord) -> str:
        task_id = self._stored.task_id
        return record_hash(previous, task_id, entry.seq, entry.epoch, entry.at, entry.type, entry.data)

    def _stored_before(self, seq: int) -> str | None:
        """Return the stored hash of the previous record, or None if that is missing."""
        before = self._known.get(seq - 1)
        return GENESIS if seq == 1 else before.hash if before else None

    def _possible_predecessors(self, seq: int) -> set[str]:
        """Return the possible previous hashes: the stored one and the recomputed one."""
        return {hash_ for hash_ in (self._stored_before(seq), self._computed.get(seq - 1)) if hash_ is not None}

    def _fits(self, entry: StoredRecord) -> bool:
        return any(self._hash(previous, entry) == entry.hash for previous in self._possible_predecessors(entry.seq))

    def _explain(self, entry: StoredRecord) -> tuple[str, str]:
        """Return the column that was changed, as far as can be determined, and the evidence."""
        after, computed = self._known.get(entry.seq + 1), self._computed[entry.seq]
        head = self._stored.index.head if self._stored.index else None
        if self._hash(computed, after) == after.hash if after else computed == head:
            return "hash", "it is not the hash of this record; the next record or the head confirms the record itself."
        for previous in self._possible_predecessors(entry.seq):
            for column, other in self._variants(entry):
                if self._hash(previous, other) == entry.hash:
                    said = json.dumps(getattr(other, column))
                    return column, f"it was changed: with {said} the record would match its hash."
        return "data", ("the record does not match its hash: it was changed, or a record before it was replaced.")

    def _variants(self, entry: StoredRecord) -> Iterator[tuple[str, StoredRecord]]:
        """Yield the record with other values in one short column, to find the original value."""
        epochs = [one.epoch for one in self._stored.entries if one.epoch is not None and 0 <= one.epoch < _MOST_EPOCHS]
        for epoch in (None, *range(max(epochs, default=0) + 2)):
            yield "epoch", replace(entry, epoch=epoch)
        for kind in EVENTS:
            yield "type", replace(entry, type=kind)
        for place in range(min(len(entry.at), 40)):
            for letter in _TIME_CHARACTERS:
                yield "at", replace(entry, at=f"{entry.at[:place]}{letter}{entry.at[place + 1 :]}")

    def _describe_move(self, entry: StoredRecord) -> str:
        for first, _ in self._gaps:
            previous = self._stored_before(first)
            if previous is not None and self._hash(previous, replace(entry, seq=first)) == entry.hash:
                return f" Its hash says that it is record {first}."
        return ""

    def _fault(self, seq: int | None, column: str, message: str) -> AuditFault:
        return AuditFault(self._stored.task_id, seq, column, message)


def _describe_missing(first: int, last: int) -> str:
    return f"record {first} is missing." if first == last else f"records {first} to {last} are missing."
