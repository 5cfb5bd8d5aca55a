"""The part of a task store that does not depend on its database: its verbs, and what it remembers."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

import structlog

from agent_runtime.domain.commits import CommitHead, Deletion
from agent_runtime.domain.cursors import LAST_POSITION, position_of
from agent_runtime.domain.errors import ConflictError, StaleEpochError, TaskNotFoundError
from agent_runtime.domain.events import Event, EventRecord
from agent_runtime.domain.feed import NEWEST, FeedEntry, FeedPage, FeedPosition, parse_cursor
from agent_runtime.domain.images import Image, is_image_digest, restore_image
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.sharing import FleetFigures, SharingFigures
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.stored_journal import StoredJournal
from agent_runtime.domain.summaries import Page
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import JudgedDefinition
from agent_runtime.services.ports import AppendObserver
from agent_runtime.storage.base import Clock, Draft, draft_append
from agent_runtime.storage.cache import Cache
from agent_runtime.storage.conversions import encode_definitions
from agent_runtime.storage.feed import follow_feed
from agent_runtime.storage.followers import Followers, Watch
from agent_runtime.storage.reading import C, ReadingThreads
from agent_runtime.storage.statements import Statements
from agent_runtime.storage.states import States
from agent_runtime.storage.writing import WritingThread

log = structlog.get_logger()

T = TypeVar("T")

CACHE_BYTES = 32 * 1024 * 1024

HEARTBEAT_S = 1.0
"""How recent the last successful write must be to prove that the store can be written (G16)."""


_COUNTED_EACH_TIME = 100_000
_COUNTING_SHARE = 20
"""With more tasks than this, a count holds for 20 times as long as it took, so that counting costs little."""


class _Counts(NamedTuple):
    """The tasks in each status, and until when that may be told, by `time.monotonic`."""

    by_status: Mapping[TaskStatus, int]
    good_until: float


class CachedStore(ABC, Generic[C]):
    """A `TaskStore` on a database that one thread writes and a few read, and that remembers the tasks in use.

    A store on a database sets `_writer` and `_readers`, and says how an append and a checkpoint are written. All
    methods belong to the event loop that entered it.
    """

    _writer: WritingThread[Any]
    _readers: ReadingThreads[C]

    def __init__(
        self, statements: Statements[C], *, clock: Clock, cache_bytes: int, observe: AppendObserver | None
    ) -> None:
        self._sql = statements
        self._clock = clock
        self._observe = observe
        self._commits = Watch()
        """Subscribers wait here for the next commit."""
        self._cache = Cache(cache_bytes)
        self._followers = Followers()
        self._cancellations = Followers()
        """Those who wait for the cancellation of a task: at 1 it is in the journal."""
        self._counts: _Counts | None = None
        self.states = States(statements.states, self._read, self._write, clock)
        """See `TaskStore.states`."""
        self._changed: frozenset[str] = frozenset()
        """The tasks whose journal was found to be changed. Their rows are still the old ones."""

    async def __aenter__(self) -> Self:
        await self._writer.start()
        self._readers.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Wake all followers, flush queued writes and close the database. Idempotent."""
        self._followers.close()
        self._cancellations.close()
        self._commits.end()
        try:
            await self._readers.stop()
        finally:
            await self._writer.stop()
            self._cache.clear()

    @property
    def sharing(self) -> SharingFigures | None:
        """See `TaskStore.sharing`. Return None, unless a store says otherwise."""
        return None

    async def measure_fleet(self) -> FleetFigures | None:
        """See `TaskStore.measure_fleet`. Return None, unless a store says otherwise."""
        return None

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        """See `TaskStore.append`. The domain judges the events before they reach the writer."""
        began = time.perf_counter()
        draft = draft_append(task, events, epoch, self._clock)
        if not draft.records:
            return task
        try:
            work = self._make_append(draft, epoch)
            await self._writer.write(work, partial(self._note_append, draft, work, began))
        except (ConflictError, StaleEpochError):
            self._cache.forget_outdated(task)
            raise
        return draft.task

    async def _read(self, work: Callable[[C], T]) -> T:
        return await self._readers.read(work)

    async def _write(self, work: Callable[[C], None]) -> None:
        await self._writer.write(work)

    @abstractmethod
    def _make_append(self, draft: Draft, epoch: int | None) -> Any:
        """Return the work that writes an append, as the writer takes it."""

    def _note_append(self, draft: Draft, work: Any, began: float) -> None:
        self._cache.note_commit(draft.task, draft.records, self._head_of(work))
        self._followers.advance(draft.task.task_id, draft.task.version)
        if draft.task.cancel_requested:
            self._cancellations.advance(draft.task.task_id, 1)
        if self._observe is not None:
            self._observe(draft.task, draft.records, time.perf_counter() - began)

    def _head_of(self, work: Any) -> str:  # noqa: ARG002 - for stores that compare it
        """Return the hash of the last record of an append that is written; empty where nobody compares it."""
        return ""

    async def _refresh(self, task_id: str) -> None:
        """Make sure that the cache has the newest state of the task or none, if others write the database too."""

    async def load(self, task_id: str) -> Task:
        """See `TaskStore.load`."""
        await self._refresh(task_id)
        known = self._cache.task(task_id)
        if known is not None:
            return known
        with self._cache.begin_read(task_id) as reading:
            task, journal, head = await self._readers.read(partial(self._sql.rows.select_journal, task_id=task_id))
            reading.keep(task, journal, head)
        self._note_change(task)
        return task

    def _note_change(self, task: Task) -> None:
        change = task.journal_change
        if change is None:
            self._changed -= {task.task_id}
        elif task.task_id not in self._changed:
            self._changed |= {task.task_id}
            log.error("journal_changed", task_id=task.task_id, record=change.record, reason=change.reason)

    async def find_request(self, submitter: str, request_key: str) -> Task | None:
        """See `TaskStore.find_request`."""
        work = partial(self._sql.rows.select_request, submitter=submitter, request_key=request_key)
        task_id = await self._readers.read(work)
        if task_id is None:
            return None
        try:
            return await self.load(task_id)
        except TaskNotFoundError:  # deleted since
            return None

    async def records(
        self, task_id: str, after: int = 0, limit: int = 1000, *, newest: bool = True
    ) -> list[EventRecord]:
        """See `TaskStore.records`."""
        if not newest and (known := self._cache.records(task_id, after, limit)):
            return known
        await self._refresh(task_id)
        known = self._cache.records(task_id, after, limit)
        if known is not None:
            return known
        if task_id in self._changed:  # only the folded records surely belong to this task
            _, journal, _ = await self._readers.read(partial(self._sql.rows.select_journal, task_id=task_id))
            return journal[after : after + limit]
        return await self._readers.read(
            partial(self._sql.rows.select_records, task_id=task_id, after=after, limit=limit)
        )

    async def load_stored_journal(self, task_id: str) -> StoredJournal:
        """See `TaskStore.load_stored_journal`."""
        return await self._readers.read(partial(self._sql.journals.select_stored_journal, task_id=task_id))

    def watch(self, task_id: str) -> AbstractContextManager[object]:
        """See `TaskStore.watch`."""
        return self._followers.watch(task_id)

    async def wait_for_change(self, task_id: str, after: int) -> None:
        """See `TaskStore.wait_for_change`. Returns at once for an unknown task, and when the store is closed."""
        with self._followers.watch(task_id) as watch:
            if watch.latest is None:
                version = await self._find_version(task_id)
                if version is None:
                    return
                watch.advance(version)
            if task_id in self._changed:  # nothing will be added, whatever the row holds
                after = max(after, watch.latest or 0)
            await watch.wait_beyond(after)

    async def _find_version(self, task_id: str) -> int | None:
        """Return the number of the last event; None if there is no such task."""
        known = self._cache.task(task_id)
        return known.version if known else await self._read_version(task_id)

    async def wait_for_cancellation(self, task_id: str) -> None:
        """See `TaskStore.wait_for_cancellation`. Returns at once for an unknown task, and when the store is closed."""
        with self._cancellations.watch(task_id) as watch:
            if await self._may_be_cancelled(task_id):
                await watch.wait_beyond(0)

    async def _may_be_cancelled(self, task_id: str) -> bool:
        """Return whether there is such a task, and no cancellation in its journal."""
        return bool(await self._readers.read(partial(self._sql.rows.select_not_cancelled, task_ids=[task_id])))

    async def _read_version(self, task_id: str) -> int | None:
        return await self._readers.read(partial(self._sql.rows.select_version, task_id=task_id))

    async def subscribe(
        self, after: str | None = None, *, idle_s: float | None = None
    ) -> AsyncGenerator[tuple[FeedEntry, ...], None]:
        """See `TaskStore.subscribe`."""
        from_newest = after == NEWEST
        seen = None if after is None or from_newest else parse_cursor(after)
        await self._settle_chain()
        if from_newest:
            seen = await self._readers.read(self._sql.commits.select_end)
        elif seen is not None:
            await self._readers.read(partial(self._sql.commits.check_position, seen=seen))
        return follow_feed(self._read_feed, self._commits, seen, idle_s, announced=from_newest)

    async def _settle_chain(self) -> None:
        """Wait until the chain has what was committed before, if others than the writer add it there."""

    async def _read_feed(self, seen: FeedPosition | None) -> FeedPage:
        return await self._readers.read(partial(self._sql.commits.select_feed, seen=seen))

    async def commit_head(self) -> CommitHead:
        """See `TaskStore.commit_head`."""
        await self._settle_chain()
        return await self._readers.read(self._sql.commits.select_head)

    @abstractmethod
    async def checkpoint(self, *, drop: bool = False) -> None:
        """See `TaskStore.checkpoint`."""

    async def page(
        self, status: TaskStatus | None = None, limit: int = 50, cursor: str | None = None, thread: str | None = None
    ) -> Page:
        """See `TaskStore.page`."""
        before = LAST_POSITION if cursor is None else position_of(cursor, "tasks")
        rows = self._sql.rows
        select = rows.select_page if thread is None else partial(rows.select_thread_page, thread=thread)
        return await self._readers.read(
            partial(select, status=status, changed=self._changed, before=before, limit=limit)
        )

    async def list_unfinished(self) -> list[str]:
        """See `TaskStore.list_unfinished`. A waiting task that is being cancelled is in it."""
        return await self._readers.read(self._sql.rows.select_unfinished)

    async def starts(self) -> dict[str, int]:
        """See `TaskStore.starts`."""
        return await self._readers.read(self._sql.starts.select_starts)

    async def note_starts(self, task_ids: Collection[str]) -> None:
        """See `TaskStore.note_starts`."""
        await self._writer.write(partial(self._sql.starts.note_starts, task_ids=task_ids))

    async def forget_starts(self) -> None:
        """See `TaskStore.forget_starts`."""
        await self._writer.write(self._sql.starts.forget_starts)

    async def list_awaiting_approval(self, limit: int) -> list[tuple[str, datetime]]:
        """See `TaskStore.list_awaiting_approval`."""
        return await self._readers.read(partial(self._sql.rows.select_awaiting, changed=self._changed, limit=limit))

    async def list_ended(self, status: TaskStatus, before: datetime, limit: int) -> list[str]:
        """See `TaskStore.list_ended`."""
        return await self._readers.read(partial(self._sql.rows.select_ended, status=status, before=before, limit=limit))

    async def count(self) -> dict[TaskStatus, int]:
        """See `TaskStore.count`."""
        if self._counts is None or time.monotonic() > self._counts.good_until:
            await self._readers.read(self._count)
        return dict(self._counts.by_status if self._counts else {})

    def _count(self, connection: C) -> None:
        """Count, in a thread that ends also when nobody waits for it any more."""
        began = time.monotonic()
        by_status = self._sql.rows.select_counts(connection, changed=self._changed)
        took_s = time.monotonic() - began
        many = sum(by_status.values()) > _COUNTED_EACH_TIME
        self._counts = _Counts(by_status, began + (_COUNTING_SHARE * took_s if many else 0))

    async def delete(self, task: Task) -> None:
        """See `TaskStore.delete`."""
        try:
            await self._writer.write(self._make_deletion(task), partial(self._note_deletion, task.task_id))
        except (ConflictError, TaskNotFoundError):
            self._cache.forget_outdated(task)
            raise

    def _make_deletion(self, task: Task) -> Callable[[C], Deletion | None]:
        """Return the work that deletes a task."""
        return partial(self._sql.rows.delete_task, task=task)

    def _note_deletion(self, task_id: str) -> None:
        self._cache.forget(task_id)
        self._changed -= {task_id}
        self._followers.end(task_id)
        self._cancellations.end(task_id)

    async def save_planning_attempt(self, task_id: str, attempt: PlanningAttempt) -> None:
        """See `TaskStore.save_planning_attempt`."""
        work = partial(self._sql.planning.insert_attempt, task_id=task_id, data=attempt.model_dump_json())
        await self._writer.write(work)

    async def load_planning_attempts(self, task_id: str) -> list[tuple[int, PlanningAttempt]]:
        """See `TaskStore.load_planning_attempts`."""
        return await self._readers.read(partial(self._sql.planning.select_attempts, task_id=task_id))

    async def save_images(self, task_id: str, images: Sequence[Image], most_bytes: int) -> frozenset[str]:
        """See `TaskStore.save_images`."""
        there: list[frozenset[str]] = []

        def write(connection: C) -> None:
            there.append(self._sql.images.insert_images(connection, task_id, images, most_bytes))

        await self._writer.write(write)
        return there[-1]

    async def load_image(self, task_id: str, digest: str) -> Image | None:
        """See `TaskStore.load_image`."""
        if not is_image_digest(digest):
            return None
        select = partial(self._sql.images.select_image, task_id=task_id, digest=digest)
        return await self._readers.read(lambda connection: restore_image(select(connection), digest))

    async def save_definitions(self, identity: str, definitions: Sequence[JudgedDefinition]) -> None:
        """See `TaskStore.save_definitions`."""
        encoded = encode_definitions(definitions)
        work = partial(self._sql.rows.save_definitions, identity=identity, definitions=encoded)
        await self._writer.write(work)

    async def load_definitions(self, identity: str) -> list[JudgedDefinition] | None:
        """See `TaskStore.load_definitions`."""
        return await self._readers.read(partial(self._sql.rows.select_definitions, identity=identity))

    async def check(self) -> None:
        """See `TaskStore.check`."""
        if not self._is_proven:
            await self._writer.write(partial(self._sql.rows.beat, at=self._clock()))

    @property
    def _is_proven(self) -> bool:
        """True while the last write proves that the store can be written."""
        return time.monotonic() - self._writer.last_success <= HEARTBEAT_S
