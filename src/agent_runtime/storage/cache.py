"""The tasks used last, in memory.

Where only this process writes the database, the cache is correct by itself. Where others write it too, the store
compares a task with its row before it takes it from here.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.task import Task

RECORD_OVERHEAD = 1024
"""The estimated size of a record in memory beside its data, in bytes."""


class JournalEnd(NamedTuple):
    """The number of the last record of a journal, and its hash. They change together with the journal."""

    version: int
    head: str


@dataclass(slots=True)
class _Entry:
    """A task and the end of its journal without gaps; the whole journal if it was read or written from the start.

    `head` is the hash of the last record, empty where nobody compares it.
    """

    task: Task
    head: str = ""
    records: list[EventRecord] = field(default_factory=list)
    size: int = 0

    def extend(self, task: Task, records: Sequence[EventRecord], head: str) -> int:
        self.task = task
        self.head = head
        self.records.extend(records)
        more = sum(len(record.data) + RECORD_OVERHEAD for record in records)
        self.size += more
        return more


class DiskRead:
    """A read of the disk under way. Once it is `overtaken` by a write, its result is not cached."""

    def __init__(self, cache: "Cache") -> None:
        self._cache = cache
        self.overtaken = False

    def keep(self, task: Task, journal: Sequence[EventRecord], head: str = "") -> None:
        """Cache a task with its whole journal, unless it was written meanwhile."""
        if not self.overtaken:
            self._cache.put(task, journal, head)


class Cache:
    """Holds at most `capacity` bytes. Evicts ended tasks first, then those unused for longest."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._live: OrderedDict[str, _Entry] = OrderedDict()
        self._ended: OrderedDict[str, _Entry] = OrderedDict()
        self._readings: dict[str, list[DiskRead]] = {}

    def task(self, task_id: str) -> Task | None:
        """Return the newest state; None if the task is not cached."""
        entry = self._find(task_id)
        return entry.task if entry else None

    def end(self, task_id: str) -> JournalEnd | None:
        """Return where the cached journal of a task ends; None if the task is not cached."""
        entry = self._find(task_id)
        return JournalEnd(entry.task.version, entry.head) if entry else None

    def records(self, task_id: str, after: int, limit: int) -> list[EventRecord] | None:
        """Return the records after a number; None if they are not cached."""
        entry = self._find(task_id)
        if entry is None:
            return None
        if not entry.records:  # none can be read of a changed journal
            return []
        if entry.records[0].seq > after + 1:
            return None
        start = after + 1 - entry.records[0].seq
        return entry.records[start : start + limit]

    def note_commit(self, task: Task, records: Sequence[EventRecord], head: str = "") -> None:
        """Add events that have just become durable, and the state after them."""
        self._overtake(task.task_id)
        entry = self._find(task.task_id)
        if entry is None:
            self.put(task, records, head)
        elif entry.task.version < task.version:  # a read of the disk may have seen the commit first
            if entry.task.version == records[0].seq - 1:
                self._size += entry.extend(task, records, head)
                self._file(entry)
            else:
                self.put(task, records, head)

    def put(self, task: Task, records: Sequence[EventRecord], head: str = "") -> None:
        """Cache a task with the end of its journal, in place of an earlier entry."""
        self._drop(task.task_id)
        entry = _Entry(task)
        self._size += entry.extend(task, records, head)
        self._file(entry)

    def forget(self, task_id: str) -> None:
        """Drop a task that is deleted."""
        self._overtake(task_id)
        self._drop(task_id)

    def forget_if_at(self, task_id: str, end: JournalEnd) -> None:
        """Drop a task whose cached journal still ends here, which does not match the disk."""
        if self.end(task_id) == end:
            self.forget(task_id)

    def forget_outdated(self, task: Task) -> None:
        """Drop a task, unless the cached state is newer than this one, which does not match the disk."""
        known = self.task(task.task_id)
        if known is not None and known.version <= task.version:
            self.forget(task.task_id)

    def clear(self) -> None:
        for task_id in [*self._live, *self._ended, *self._readings]:
            self.forget(task_id)

    @contextmanager
    def begin_read(self, task_id: str) -> Iterator[DiskRead]:
        """Open a read of the disk for a task that is not cached."""
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
        """Put the entry among the live or the ended tasks, and evict others if need be."""
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
