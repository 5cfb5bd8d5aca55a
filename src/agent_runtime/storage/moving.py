"""Copies all journals of one store into another, in transactions of some tasks, so that it can be stopped at any time.

What the target has already is found there, so a second run goes on where the first one ended, and a third one does
nothing. Each journal is verified before it is copied; one that was changed is named and left out.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from agent_runtime.config import StorageSettings
from agent_runtime.domain.commits import Change, CommitHead
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.journal_verification import find_journal_faults
from agent_runtime.domain.stored_journal import AuditFault, StoredIndex, StoredJournal, StoredRecord
from agent_runtime.storage.opening import read_schema

_LISTED = 500
_STATES = 50
_BATCH_TASKS = 200
_BATCH_BYTES = 8 * 1024 * 1024


class JournalEnd(NamedTuple):
    """The end of a journal: its place in the list of tasks, and the number and the hash of its last record."""

    position: int
    task_id: str
    version: int
    head: str


@dataclass(frozen=True, slots=True)
class Belongings:
    """The rows of a task beside its journal, as they are stored: attempts at plans by number, its row of `starts`,
    facts and count, and images by digest.
    """

    attempts: tuple[tuple[int, str], ...]
    start: tuple[int, int] | None
    images: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Addition:
    """The records of a task that the target lacks: all after number `known`, 0 for a task that it does not have."""

    task_id: str
    known: int
    index: StoredIndex
    records: tuple[StoredRecord, ...]
    belongings: Belongings

    @property
    def change(self) -> Change:
        return Change(self.task_id, self.known + 1, self.index.version, self.index.head)

    @property
    def size(self) -> int:
        beside = (data for _, data in (*self.belongings.attempts, *self.belongings.images))
        return sum(map(len, (*(record.data for record in self.records), *beside)))


StateRow = tuple[str, str, int, str, str]
"""A state of a front end as it is stored: agent, thread, number, JSON text and time."""


class MoveSource(Protocol):
    """A store that this process owns, opened to read everything in it. All raise StoreUnavailableError."""

    def find_faults(self) -> list[AuditFault]:
        """Return the faults of the database, of its commits and of the journals that they name, and each journal
        without a row.
        """

    def list_ends(self, after: int, limit: int) -> list[JournalEnd]:
        """Return the ends of the journals after a position, in order."""

    def read(self, task_id: str) -> StoredJournal: ...
    def read_belongings(self, task_id: str) -> Belongings: ...
    def list_definitions(self) -> list[tuple[str, str]]:
        """Return what each server listed last: identity and listing, as stored."""

    def list_states(self, after: tuple[str, str], limit: int) -> list[StateRow]:
        """Return the states of front ends after an agent and thread, in order."""

    def commit_head(self) -> CommitHead: ...


class MoveTarget(Protocol):
    """A store that this process owns, opened to add journals to it. All raise StoreUnavailableError."""

    def find_ends(self, task_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Return the version and the head of those of these tasks that are there."""

    def find_hash(self, task_id: str, seq: int) -> str | None: ...
    def has_request(self, submitter: str, request_key: str) -> bool: ...
    def add(self, additions: Sequence[Addition]) -> None:
        """Write these in one transaction, with a commit that names their heads."""

    def add_definitions(self, definitions: Iterable[tuple[str, str]]) -> None:
        """Write what servers listed, where nothing newer is there."""

    def add_states(self, states: Sequence[StateRow]) -> None:
        """Write these states in one transaction, where nothing newer is there."""

    def commit_head(self) -> CommitHead: ...


@dataclass(slots=True)
class MoveReport:
    """The result of a move. `refused`: nothing was copied, because faults concern the source as a whole."""

    copied: int = 0
    continued: int = 0
    present: int = 0
    left_out: int = 0
    refused: bool = False
    faults: list[AuditFault] = field(default_factory=list)
    source_head: CommitHead = field(default_factory=CommitHead)
    target_head: CommitHead = field(default_factory=CommitHead)


def move(source: MoveSource, target: MoveTarget, tell: Callable[[MoveReport], None] = lambda _: None) -> MoveReport:
    """Copy what the target lacks, and return what was done. `tell` is called after each transaction.

    Raises: StoreUnavailableError.
    """
    return _Move(source, target, tell).run()


class _Move:
    def __init__(self, source: MoveSource, target: MoveTarget, tell: Callable[[MoveReport], None]) -> None:
        self._source = source
        self._target = target
        self._tell = tell
        self._report = MoveReport()
        self._batch: list[Addition] = []
        self._size = 0

    def run(self) -> MoveReport:
        report = self._report
        report.source_head = self._source.commit_head()
        report.faults = self._source.find_faults()
        if any(not fault.task_id for fault in report.faults):
            report.refused = True
        else:
            faulty = {fault.task_id for fault in report.faults}
            report.left_out = len(faulty)
            self._target.add_definitions(self._source.list_definitions())
            self._copy_all(faulty)
            self._copy_states()
        report.target_head = self._target.commit_head()
        return report

    def _copy_all(self, faulty: set[str]) -> None:
        position = 0
        while ends := self._source.list_ends(position, _LISTED):
            position = ends[-1].position
            known = self._target.find_ends([end.task_id for end in ends])
            for end in ends:
                if end.task_id not in faulty:
                    self._take(end, known.get(end.task_id))
        self._write()

    def _copy_states(self) -> None:
        place = ("", "")
        while states := self._source.list_states(place, _STATES):
            self._target.add_states(states)
            place = states[-1][:2]

    def _take(self, end: JournalEnd, known: tuple[int, str] | None) -> None:
        """Take a task into the next transaction, unless the target has it or it must be left out."""
        task_id, (version, head) = end.task_id, known or (0, "")
        if known == (end.version, end.head) or (
            version > end.version and self._target.find_hash(task_id, end.version) == end.head  # it went on there
        ):
            self._report.present += 1
            return
        stored = self._source.read(task_id)
        faults = find_journal_faults(stored)
        if not faults and known is not None and (version > end.version or stored.entries[version - 1].hash != head):
            faults = [AuditFault(task_id, None, "journal", "the target has another journal of this task.")]
        index = stored.index
        if not faults and index is not None and known is None and self._is_request_taken(index):
            faults = [AuditFault(task_id, None, "request_key", "another task of the target has its request key.")]
        if faults or index is None:
            self._report.faults += faults
            self._report.left_out += 1
            return
        belongings = self._source.read_belongings(task_id)
        addition = Addition(task_id, version, index, stored.entries[version:], belongings)
        self._batch.append(addition)
        self._size += addition.size
        if len(self._batch) >= _BATCH_TASKS or self._size >= _BATCH_BYTES:
            self._write()

    def _is_request_taken(self, index: StoredIndex) -> bool:
        key = index.request_key
        return key is not None and self._target.has_request(index.submitter or "", key)

    def _write(self) -> None:
        if self._batch:
            self._target.add(self._batch)
            new = sum(addition.known == 0 for addition in self._batch)
            self._report.copied += new
            self._report.continued += len(self._batch) - new
            self._batch, self._size = [], 0
            self._tell(self._report)


def open_source(settings: StorageSettings) -> AbstractContextManager[MoveSource]:
    """Own that store, and open it for reading, while the context lasts.

    Raises: ConfigurationError where there are no tables, or not those of this version. Entering raises:
    AlreadyOwnedError, ConfigurationError, StoreUnavailableError.
    """
    schema = read_schema(settings)
    if schema.number == 0:
        raise ConfigurationError(f"{settings.shown}: there are no tasks in it.")
    if schema.missing:
        raise ConfigurationError(
            f"{settings.shown}: its tables are not up to date; bring them up to date first: "
            f"AGENT_RUNTIME_STORAGE__URL=... agent-runtime migrate."
        )
    if not settings.on_postgresql:
        from agent_runtime.storage.sqlite import moving as sqlite  # noqa: PLC0415 - only moves need it

        return sqlite.open_source(settings.database_path)
    from agent_runtime.storage.postgres import moving as postgres  # noqa: PLC0415 - as in `opening`
    from agent_runtime.storage.postgres.connecting import read_database  # noqa: PLC0415

    return postgres.open_source(read_database(settings))


def open_target(settings: StorageSettings) -> AbstractContextManager[MoveTarget]:
    """Own that store, bring its tables up to date, and open it for writing, while the context lasts.

    Entering raises: AlreadyOwnedError, ConfigurationError, StoreUnavailableError.
    """
    if not settings.on_postgresql:
        from agent_runtime.storage.sqlite import moving as sqlite  # noqa: PLC0415 - only moves need it

        return sqlite.open_target(settings.database_path)
    from agent_runtime.storage.postgres import moving as postgres  # noqa: PLC0415 - as in `opening`
    from agent_runtime.storage.postgres.connecting import read_database  # noqa: PLC0415

    return postgres.open_target(read_database(settings))
