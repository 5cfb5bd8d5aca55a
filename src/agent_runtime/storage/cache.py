"""The tasks that were used lately, in memory. True because this process alone writes the database."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.task import Task

RECORD_OVERHEAD = 1024
"""What a record takes beside its data, in bytes; roughly, and rather too much."""


@dataclass(slots=True)
class _Entry:
    """A task and the end of its journal, without gaps: all of it, where it was read or written from the start."""

    task: Task
    records: list[EventRecord] = field(default_factory=list)
    size: int = 0

    def extend(self, task: Task, records: Sequence[EventRecord]) -> int:
        self.task = task
        self.records.extend(records)
        more = sum(len(record.data) + RECORD_OVERHEAD for record in records)
        self.size += more
        return more


class DiskRead:
    """A look at the disk that is under way. Once it is `overtaken`, what it finds is not kept."""

    def __init__(self, cache: "Cache") -> None:
        self._cache = cache
        self.overtaken = False

    def keep(self, task: Task, journal: Sequence[EventRecord]) -> None:
        """Remember a task with its whole journal, unless it was written meanwhile."""
        if not self.overtaken:
            self._cache.put(task, journal)


class Cache:
    """Keeps at most `capacity` bytes. Tasks that have ended make room first, then those longest unused."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._live: OrderedDict[str, _Entry] = OrderedDict()
        self._ended: OrderedDict[str, _Entry] = OrderedDict()
        self._readings: dict[str, list[DiskRead]] = {}

    def task(self, task_id: str) -> Task | None:
        """The newest state, or None where it is not here."""
        entry = self._find(task_id)
        return entry.task if entry else None

    def records(self, task_id: str, after: int, limit: int) -> list[EventRecord] | None:
        """The journal after a number, or None where the disk must be asked."""
        entry = self._find(task_id)
        if entry is None:
            return None
        if not entry.records:  # of a changed journal not one can be read
            return []
        if entry.records[0].seq > after + 1:
            return None
        start = after + 1 - entry.records[0].seq
        return entry.records[start : start + limit]

    def note_commit(self, task: Task, records: Sequence[EventRecord]) -> None:
        """Take up what was just made durable: the events and the state after them."""
        self._overtake(task.task_id)
        entry = self._find(task.task_id)
        if entry is None:
            self.put(task, records)
        elif entry.task.version < task.version:  # a look at the disk may have seen the commit before we heard of it
            if entry.task.version == records[0].seq - 1:
                self._size += entry.extend(task, records)
                self._file(entry)
            else:
                self.put(task, records)

    def put(self, task: Task, records: Sequence[EventRecord]) -> None:
        """Remember a task with the end of its journal, in place of what was known of it."""
        self._drop(task.task_id)
        entry = _Entry(task)
        self._size += entry.extend(task, records)
        self._file(entry)

    def forget(self, task_id: str) -> None:
        """The task is gone."""
        self._overtake(task_id)
        self._drop(task_id)

    def forget_outdated(self, task: Task) -> None:
        """Forget what is known of a task unless it is newer than this, at which the disk is not."""
        known = self.task(task.task_id)
        if known is not None and known.version <= task.version:
            self.forget(task.task_id)

    def clear(self) -> None:
        for task_id in [*self._live, *self._ended, *self._readings]:
            self.forget(task_id)

    @contextmanager
    def begin_read(self, task_id: str) -> Iterator[DiskRead]:
        """Look at the disk on behalf of a task that is not here."""
        begin_read = DiskRead(self)
        self._readings.setdefault(task_id, []).append(begin_read)
        try:
            yield begin_read
        finally:
            if not begin_read.overtaken:
                self._readings[task_id].remove(begin_read)
                if not self._readings[task_id]:
                    del self._readings[task_id]

    def _overtake(self, task_id: str) -> None:
        for begin_read in self._readings.pop(task_id, ()):
            begin_read.overtaken = True

    def _find(self, task_id: str) -> _Entry | None:
        for entries in (self._live, self._ended):
            if entry := entries.get(task_id):
                entries.move_to_end(task_id)
                return entry
        return None

    def _file(self, entry: _Entry) -> None:
        """Put the entry where it belongs, and make room."""
        task_id = entry.task.task_id
        if entry.task.terminal:
            self._live.pop(task_id, None)
            self._ended[task_id] = entry
        else:
            self._live[task_id] = entry
        while self._size > self._capacity and (self._ended or self._live):
            _, oldest = (self._ended or self._live).popitem(last=False)
            self._size -= oldest.size

    def _drop(self, task_id: str) -> None:
        entry = self._live.pop(task_id, None) or self._ended.pop(task_id, None)
        if entry is not None:
            self._size -= entry.size
