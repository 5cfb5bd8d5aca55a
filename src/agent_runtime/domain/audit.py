"""The audit of one journal: what shows that it was changed, or that a call was made which nobody approved.

Tamper-evident: a change that is not carried through every later hash, the head and the plan's own digests is found and
placed. Whoever can write the whole database can write another history that fits; a head kept elsewhere shows that.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from agent_runtime.domain.chain import GENESIS, record_hash
from agent_runtime.domain.errors import AgentRuntimeError
from agent_runtime.domain.events import EVENTS, EventRecord, PlanEdited, PlanProposed, PlanRepinned, ToolCalled, restore
from agent_runtime.domain.plan import ToolStep, tool_keys
from agent_runtime.domain.references import as_text, resolve
from agent_runtime.domain.rules import CallRefusedError, given_arguments
from agent_runtime.domain.task import JournalChange, Task, TaskStatus
from agent_runtime.domain.tools import tool_key
from agent_runtime.domain.transitions import evolve
from agent_runtime.domain.values import JsonObject, digest

_MOST_EPOCHS = 10_000
_OF_A_TIME = "0123456789-:.TZ"

_NO_FOLD = (AgentRuntimeError, LookupError, ValueError)
"""What `evolve` raises where an event may not follow."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it is stored. Nothing in it is trusted: it may hold no event at all."""

    seq: int
    epoch: int | None
    at: str
    type: str
    data: str
    hash: str


@dataclass(frozen=True, slots=True)
class Index:
    """What the store keeps beside the journal, for its lists; `head` is the hash of the last record.

    `submitter` is None in an export of a version that did not keep it.
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


@dataclass(frozen=True, slots=True)
class Kept:
    """All that is kept of a task, as it is stored; `index` is null where there is a journal and nothing else."""

    task_id: str
    entries: tuple[Entry, ...]
    index: Index | None


@dataclass(frozen=True, slots=True)
class AuditFault:
    """Something that is not as it was written, or that was not approved: where, and how it shows.

    `seq` is the record, null where none is meant; `field` a column of it (`data.arguments` inside its JSON), or what
    is kept beside the journal (`tasks.head`).
    """

    task_id: str
    seq: int | None
    field: str
    message: str

    def __str__(self) -> str:
        place = [self.task_id, *([] if self.seq is None else [f"record {self.seq}"]), self.field]
        return f"{', '.join(filter(None, place))}: {self.message}"


def find_faults(kept: Kept) -> list[AuditFault]:
    """Everything that is wrong with what is kept of a task; empty where all of it is as it was written.

    The chain is computed anew from the first record to the head; the journal is folded once more, every event held
    against the transition table, every plan against its digest, and every call against the approved plan.
    """
    ordered = replace(kept, entries=tuple(sorted(kept.entries, key=lambda entry: entry.seq)))
    return [*_Chain(ordered).faults(), *replayed(ordered).faults]


class _Chain:
    """The hashes of a journal, against its records, the head and each other."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._known = {entry.seq: entry for entry in kept.entries}
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
        for entry in self._kept.entries:
            if entry.seq in seen or entry.seq < 1:
                why = "there is another record of this number" if entry.seq in seen else "records count from 1"
                yield self._fault(entry.seq, "seq", f"{why}.{self._moved(entry)}")
            seen.add(entry.seq)
        for first, last in self._gaps:
            yield self._fault(first, "seq", _missing(first, last))
        for seq, entry in self._known.items():
            if seq < 1:
                continue
            if self._stored_before(seq) is None:
                if moved := self._moved(entry):
                    yield self._fault(seq, "seq", moved.strip())
            elif not self._follows(entry):
                yield self._fault(seq, *self._explained(entry))
        yield from self._head_faults()

    def _head_faults(self) -> Iterator[AuditFault]:
        index, last = self._kept.index, max(self._known, default=0)
        if index is None:
            yield self._fault(None, "tasks", "the task's row is missing beside its journal.")
        elif index.head in {self._known[last].hash, self._computed[last]} if last else not index.version:
            if index.version != last:
                said = f"it says {index.version}, and the journal ends with record {last}"
                yield self._fault(None, "tasks.version", f"{said}, as the head confirms.")
        elif index.version > last:
            yield self._fault(last + 1, "seq", f"{_missing(last + 1, index.version)} The journal was cut short.")
        else:
            why = "it is not the hash of the last record: it was changed, or records were replaced or added"
            yield self._fault(None, "tasks.head", f"{why}.")

    def _hash(self, previous: str, entry: Entry) -> str:
        task_id = self._kept.task_id
        return record_hash(previous, task_id, entry.seq, entry.epoch, entry.at, entry.type, entry.data)

    def _stored_before(self, seq: int) -> str | None:
        """The hash that the record before this one carries; None where there is no such record."""
        before = self._known.get(seq - 1)
        return GENESIS if seq == 1 else before.hash if before else None

    def _befores(self, seq: int) -> set[str]:
        """What the hash before may have been: what is stored, or what it should be."""
        return {hash_ for hash_ in (self._stored_before(seq), self._computed.get(seq - 1)) if hash_ is not None}

    def _follows(self, entry: Entry) -> bool:
        return any(self._hash(previous, entry) == entry.hash for previous in self._befores(entry.seq))

    def _explained(self, entry: Entry) -> tuple[str, str]:
        """The column that was changed, as far as it can be told, and how that shows."""
        after, computed = self._known.get(entry.seq + 1), self._computed[entry.seq]
        head = self._kept.index.head if self._kept.index else None
        if self._hash(computed, after) == after.hash if after else computed == head:
            return "hash", "it is not the hash of this record, and what comes after it confirms the record."
        for previous in self._befores(entry.seq):
            for column, other in self._variants(entry):
                if self._hash(previous, other) == entry.hash:
                    said = json.dumps(getattr(other, column))
                    return column, f"it was changed: with {said} the record would have its hash."
        return "data", (
            "the record is not what its hash was made over: it was changed, or what comes before it was replaced."
        )

    def _variants(self, entry: Entry) -> Iterator[tuple[str, Entry]]:
        """The record as it may have been before one of its short columns was changed."""
        epochs = [one.epoch for one in self._kept.entries if one.epoch is not None and 0 <= one.epoch < _MOST_EPOCHS]
        for epoch in (None, *range(max(epochs, default=0) + 2)):
            yield "epoch", replace(entry, epoch=epoch)
        for kind in EVENTS:
            yield "type", replace(entry, type=kind)
        for place in range(min(len(entry.at), 40)):
            for letter in _OF_A_TIME:
                yield "at", replace(entry, at=f"{entry.at[:place]}{letter}{entry.at[place + 1 :]}")

    def _moved(self, entry: Entry) -> str:
        for first, _ in self._gaps:
            previous = self._stored_before(first)
            if previous is not None and self._hash(previous, replace(entry, seq=first)) == entry.hash:
                return f" Its hash says that it is record {first}."
        return ""

    def _fault(self, seq: int | None, column: str, message: str) -> AuditFault:
        return AuditFault(self._kept.task_id, seq, column, message)


def _missing(first: int, last: int) -> str:
    return f"record {first} is missing." if first == last else f"records {first} to {last} are missing."


@dataclass(slots=True)
class Replay:
    """What a journal adds up to, as far as it can be read and folded. `records` are all that can be read."""

    task: Task
    records: list[EventRecord] = field(default_factory=list)
    faults: list[AuditFault] = field(default_factory=list)


def replayed(kept: Kept) -> Replay:
    """Fold what is kept of a task, up to the first record that may not follow; then hold the index against it."""
    replay = Replay(Task(kept.task_id))
    whole = True
    for entry in kept.entries:
        found = _read(kept.task_id, entry)
        if isinstance(found, AuditFault):
            replay.faults.append(found)
            whole = False
            continue
        replay.records.append(found)
        if whole:
            whole = _fold(replay, found)
    if whole and kept.index is not None:
        replay.faults.extend(_index_faults(kept.task_id, kept.index, replay.task))
    return replay


def restore_task(kept: Kept) -> tuple[Task, list[EventRecord]]:
    """Fold a stored journal into its task, and return the records that the task is made of.

    A journal that does not follow from its first record gives a task whose `journal_change` says where it was changed;
    so does one whose hashes do not fit. Of a task that has ended, of which nothing comes any more, only the number of
    the records is checked.
    """
    task, records, faults = Task(kept.task_id), list[EventRecord](), list[AuditFault]()
    for entry in kept.entries:
        found = _read(kept.task_id, entry)
        if isinstance(found, EventRecord):
            try:
                task = evolve(task, found)
            except _NO_FOLD as error:
                found = AuditFault(kept.task_id, entry.seq, "data", f"it may not follow: {error}")
        if isinstance(found, AuditFault):
            faults.append(found)
            break
        records.append(found)
    has_ended = task.terminal and kept.index is not None and kept.index.version == task.version
    if faults or not has_ended:
        faults = [*_Chain(kept).faults(), *faults]
    if not faults:
        return task, records
    last = max([entry.seq for entry in kept.entries], default=1)
    first = min(faults, key=lambda fault: last if fault.seq is None else fault.seq)
    change = JournalChange(last if first.seq is None else first.seq, f"{first.field}: {first.message}")
    return replace(task, status=TaskStatus.NEEDS_ATTENTION, journal_change=change), records


def _read(task_id: str, entry: Entry) -> EventRecord | AuditFault:
    try:
        at = datetime.fromisoformat(entry.at)
    except ValueError:
        return AuditFault(task_id, entry.seq, "at", "it is no time.")
    if at.tzinfo is None:
        return AuditFault(task_id, entry.seq, "at", "it is no time in UTC.")
    try:
        return restore(task_id, entry.seq, entry.epoch, at, entry.type, entry.data)
    except KeyError:
        return AuditFault(
            task_id,
            entry.seq,
            "type",
            "there is no event of this name; unless it was changed, a newer version wrote it.",
        )
    except ValueError:  # pydantic's, and that of text which is no Unicode
        return AuditFault(task_id, entry.seq, "data", f"it cannot be read as {entry.type}.")


def _fold(replay: Replay, record: EventRecord) -> bool:
    """One more record; False where it may not follow, so that nothing after it can be judged."""
    wrong = [AuditFault(record.task_id, record.seq, *why) for why in _unapproved(replay.task, record)]
    replay.faults += wrong
    try:
        replay.task = evolve(replay.task, record)
    except _NO_FOLD as error:
        if not wrong:
            why = f"it may not follow: {error} Nothing after it was held against the plan."
            replay.faults.append(AuditFault(record.task_id, record.seq, "data", why))
        return False
    return True


def _unapproved(task: Task, record: EventRecord) -> Iterator[tuple[str, str]]:
    """What an event claims that the plan and the journal before it do not bear out."""
    event = record.event
    if isinstance(event, PlanProposed | PlanEdited | PlanRepinned):
        yield from _plan_faults(event)
    elif isinstance(event, ToolCalled):
        yield from _call_faults(task, event)


def _plan_faults(event: PlanProposed | PlanEdited | PlanRepinned) -> Iterator[tuple[str, str]]:
    """What is shown of a plan must be what its digest covers. In form 1 the pins cover more than the journal holds."""
    contract = event.contract
    if _digest(contract.as_digested()) != event.digest:
        yield "data.digest", "it is not the digest of the plan."
    if contract.form == 1:
        return
    for key, definition in event.definitions.items():
        if contract.pins.get(key) != _digest(definition.as_pinned()):
            yield "data.definitions", f"{key!r} is not the definition that the plan has pinned."
    for server, facts in event.identities.items():
        if contract.servers.get(server) != _digest(facts):
            yield "data.identities", f"{server!r} is not the server that the plan was made for."


def _call_faults(task: Task, called: ToolCalled) -> Iterator[tuple[str, str]]:
    """A call must be one that the approved revision of the plan makes, with the arguments that it makes it with.

    Of an agent step it must be of a tool that the step lists, and what the recorded answer of its model proposes next.
    """
    if _digest(called.arguments) != called.arguments_digest:
        yield "data.arguments_digest", "it is not the digest of the arguments."
    approved = [made.digest for made in task.approvals if made.decision == "approve"]
    if task.plan_digest is None or task.plan_digest not in approved:
        yield "data", "the call was made without an approved plan."
        return
    try:
        step = task.plan_step(called.step_id)
    except KeyError:
        yield "data.step_id", f"the approved plan has no step {called.step_id!r}."
        return
    key = tool_key(called.server, called.tool)
    if key not in tool_keys(step):
        yield "data.tool", f"{key!r} is not what the approved step calls."
        return
    try:
        expected = _resolved(step, task, called) if isinstance(step, ToolStep) else _proposed(task, called)
    except (AgentRuntimeError, CallRefusedError, ValueError) as error:
        yield "data.arguments", f"the approved step cannot be called at this point: {error}"
        return
    if (wanted := _digest(expected)) is None or wanted != _digest(called.arguments):
        yield "data.arguments", "they are not those of the approved step, with its references resolved."


def _resolved(step: ToolStep, task: Task, called: ToolCalled) -> JsonObject:
    """Return the step's arguments; of some that grow beyond those of the call it is enough to know that they differ.

    Raises: ReferenceFailedError.
    """
    size = len(as_text(called.arguments).encode(errors="surrogatepass"))
    resolved: JsonObject = resolve(step.arguments, task.results, 0, argument_bytes=size)
    return resolved


def _proposed(task: Task, called: ToolCalled) -> JsonObject:
    """The arguments that the model gave for this call. Raises: CallRefusedError, ValueError."""
    pending = task.steps[called.step_id].pending
    if pending is None or (pending.turn, pending.index) != (called.turn, called.index):
        raise ValueError("the model has asked for no such call.")
    return given_arguments(pending.call.arguments)


def _digest(value: object) -> str | None:
    try:
        return digest(value)
    except ValueError:
        return None


def _index_faults(task_id: str, index: Index, task: Task) -> Iterator[AuditFault]:
    """What is kept for the lists must be what the journal says. `version` and `head` belong to the chain."""
    said = {
        "epoch": task.epoch,
        "status": task.status.value,
        "prompt": task.prompt,
        "plan_revision": task.plan_revision,
        "cancel_requested": int(task.cancel_requested),
        "created_at": _stamp(task.created_at),
        "updated_at": _stamp(task.updated_at),
        "request_key": task.request_key,
        "submitter": task.submitter if index.submitter is not None else None,
    }
    for name, value in said.items():
        if getattr(index, name) != value:
            yield AuditFault(task_id, None, f"tasks.{name}", "it is not what the journal says.")
    try:
        metadata = json.loads(index.metadata)
    except ValueError:
        metadata = None
    if metadata != dict(task.metadata):
        yield AuditFault(task_id, None, "tasks.metadata", "it is not what the journal says.")


def _stamp(at: datetime | None) -> str | None:
    """As the store writes a time: RFC 3339, UTC, microseconds."""
    if at is None:
        return None
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
