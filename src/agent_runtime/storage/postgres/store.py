"""The task store in a PostgreSQL database, for one process that owns it or for several that share it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

import structlog

from agent_runtime.domain.commits import CommitHead, Deletion
from agent_runtime.domain.cursors import LAST_POSITION, position_of
from agent_runtime.domain.errors import ConflictError, StaleEpochError, TaskNotFoundError
from agent_runtime.domain.events import Event, EventRecord
from agent_runtime.domain.feed import FeedEntry, FeedPage, FeedPosition, parse_cursor
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.stored_journal import StoredJournal
from agent_runtime.domain.summaries import Page
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import JudgedDefinition
from agent_runtime.services.ports import AppendObserver
from agent_runtime.storage.base import Clock, Draft, TakeCheckpoint, draft_append, utc_now
from agent_runtime.storage.cache import Cache
from agent_runtime.storage.conversions import encode_definitions
from agent_runtime.storage.feed import follow_feed
from agent_runtime.storage.followers import Followers, Watch
from agent_runtime.storage.postgres import commits, journals, planning, rows
from agent_runtime.storage.postgres.appends import Append
from agent_runtime.storage.postgres.connecting import Connection, Database
from agent_runtime.storage.postgres.listener import Listener
from agent_runtime.storage.postgres.notices import News
from agent_runtime.storage.postgres.readers import Readers
from agent_runtime.storage.postgres.writer import RETRY_S, Writer

log = structlog.get_logger()

CACHE_BYTES = 32 * 1024 * 1024

HEARTBEAT_S = 1.0
"""How recent the last successful write must be to prove that the store can be written (G16)."""

_TEND_AFTER_S = 1.0
"""How long the process that writes the chain may take for the changes of others, before another tries to."""

_TEND_AGAIN_S = 5.0
_SETTLE_S = 3.0
"""How long a reader of the chain waits for what was committed before."""


class PostgresStore:
    """A `TaskStore` in a PostgreSQL database, used as `async with PostgresStore(database) as store`.

    With `exclusive` this process owns the database: no other can open it, tasks in use are cached as on SQLite, and
    each transaction writes its own commit. Otherwise every process that opens it so may write. Nothing is cached then,
    and one of them, elected by a lock, adds the changes of all to the chain. All methods belong to the event loop that
    entered it. Entering raises: ConfigurationError, AlreadyOwnedError, StoreUnavailableError.
    """

    def __init__(
        self,
        database: Database,
        *,
        exclusive: bool = True,
        clock: Clock = utc_now,
        cache_bytes: int = CACHE_BYTES,
        observe: AppendObserver | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self._database = database
        self._exclusive = exclusive
        self._clock = clock
        self._observe = observe
        self._commits = Watch()
        """Subscribers wait here for the next commit."""
        self._cache = Cache(cache_bytes if exclusive else 0)
        self._writer = Writer(
            database, exclusive=exclusive, advance=self._commits.advance, forget=self._forget_all, retry_s=retry_s
        )
        self._readers = Readers(database)
        self._followers = Followers()
        self._listener: Listener | None = None
        self._tending: asyncio.TimerHandle | None = None
        self._changed: frozenset[str] = frozenset()
        """The tasks whose journal was found to be changed. Their rows are still the old ones."""

    @property
    def leads(self) -> bool:
        """Return whether this process writes the chain of commits."""
        return self._writer.leads

    @property
    def session_pid(self) -> int:
        """The server's process of the session that writes."""
        return self._writer.pid

    async def __aenter__(self) -> Self:
        await self._writer.start()
        self._readers.start()
        if not self._exclusive:
            loop = asyncio.get_running_loop()

            def tell(news: News) -> None:
                loop.call_soon_threadsafe(self._note_news, news)

            channel, writer = self._writer.channel, self._writer
            self._listener = Listener(
                self._database, channel, tell, lambda: self._followers.task_ids, lambda: writer.pid
            )
            await asyncio.to_thread(self._listener.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Wake all followers, flush queued writes and close the connections. Idempotent."""
        self._followers.close()
        self._commits.end()
        if self._tending is not None:
            self._tending.cancel()
        try:
            if self._listener is not None:
                await asyncio.to_thread(self._listener.stop)
            await self._readers.stop()
        finally:
            await self._writer.stop()
            self._cache.clear()

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        """See `TaskStore.append`. The domain judges the events before they reach the writer."""
        began = time.perf_counter()
        draft = draft_append(task, events, epoch, self._clock)
        if not draft.records:
            return task
        append = Append(draft.task, draft.records, epoch, draft.verifies)
        try:
            await self._writer.write(append, partial(self._note_append, draft, began))
        except (ConflictError, StaleEpochError):
            self._cache.forget_outdated(task)
            raise
        return draft.task

    def _note_append(self, draft: Draft, began: float) -> None:
        self._cache.note_commit(draft.task, draft.records)
        self._followers.advance(draft.task.task_id, draft.task.version)
        self._have_chain_tended()
        if self._observe is not None:
            self._observe(draft.task, draft.records, time.perf_counter() - began)

    def _forget_all(self) -> None:
        """Read everything anew, and have all followers do so, because another process may have written."""
        self._cache.clear()
        self._changed = frozenset()
        self._followers.close()

    def _note_news(self, news: News) -> None:
        """Wake those who wait for what another process has committed."""
        for task_id, version in news.grown.items():
            self._followers.advance(task_id, version)
        for task_id in news.deleted:
            self._note_deletion(task_id)
        if news.position:
            self._commits.advance(news.position)
        if news.pending and self._writer.leads:
            self._writer.tend_chain_soon(lambda _: None)
        elif news.pending:
            self._have_chain_tended()

    def _have_chain_tended(self, after_s: float = _TEND_AFTER_S) -> None:
        """Look soon whether the process that writes the chain has taken what is pending; take over if it is dead."""
        if self._exclusive or self._writer.leads or self._tending is not None or self._commits.gone:
            return
        loop = asyncio.get_running_loop()

        def go_on(left: bool) -> None:  # noqa: FBT001 - the shape that `tend_chain_soon` calls
            if left:
                self._have_chain_tended(_TEND_AGAIN_S)

        def tend() -> None:
            self._tending = None
            self._writer.tend_chain_soon(go_on)

        self._tending = loop.call_later(after_s, tend)

    async def _settle_chain(self) -> None:
        """Wait, not for long, until the chain has what was committed before."""
        if self._exclusive:
            return
        give_up_at = time.monotonic() + _SETTLE_S
        while await self._writer.tend_chain() and time.monotonic() < give_up_at:
            seen = self._commits.latest or 0
            try:
                async with asyncio.timeout(_SETTLE_S / 10):
                    await self._commits.wait_beyond(seen)
            except TimeoutError:
                pass

    async def load(self, task_id: str) -> Task:
        """See `TaskStore.load`."""
        known = self._cache.task(task_id)
        if known is not None:
            return known
        with self._cache.begin_read(task_id) as reading:
            task, journal = await self._readers.read(partial(rows.select_journal, task_id=task_id))
            reading.keep(task, journal)
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
        work = partial(rows.select_request, submitter=submitter, request_key=request_key)
        task_id = await self._readers.read(work)
        if task_id is None:
            return None
        try:
            return await self.load(task_id)
        except TaskNotFoundError:  # deleted since
            return None

    async def records(self, task_id: str, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        """See `TaskStore.records`."""
        known = self._cache.records(task_id, after, limit)
        if known is not None:
            return known
        if task_id in self._changed:  # only the folded records surely belong to this task
            _, journal = await self._readers.read(partial(rows.select_journal, task_id=task_id))
            return journal[after : after + limit]
        return await self._readers.read(partial(rows.select_records, task_id=task_id, after=after, limit=limit))

    async def load_stored_journal(self, task_id: str) -> StoredJournal:
        """See `TaskStore.load_stored_journal`."""
        return await self._readers.read(partial(journals.select_stored_journal, task_id=task_id))

    async def wait_for_change(self, task_id: str, after: int) -> None:
        """See `TaskStore.wait_for_change`. Returns at once for an unknown task, and when the store is closed."""
        with self._followers.watch(task_id) as watch:
            if watch.latest is None:
                known = self._cache.task(task_id)
                work = partial(rows.select_version, task_id=task_id)
                version = known.version if known else await self._readers.read(work)
                if version is not None and task_id in self._changed:
                    version = after  # nothing will be added, whatever the row holds
                if version is None:
                    return
                watch.advance(version)
            await watch.wait_beyond(after)

    async def subscribe(
        self, after: str | None = None, *, idle_s: float | None = None
    ) -> AsyncGenerator[tuple[FeedEntry, ...], None]:
        """See `TaskStore.subscribe`."""
        seen = None if after is None else parse_cursor(after)
        await self._settle_chain()
        if seen is not None:
            await self._readers.read(partial(commits.check_position, seen=seen))
        return follow_feed(self._read_feed, self._commits, seen, idle_s)

    async def _read_feed(self, seen: FeedPosition | None) -> FeedPage:
        return await self._readers.read(partial(commits.select_feed, seen=seen))

    async def commit_head(self) -> CommitHead:
        """See `TaskStore.commit_head`."""
        await self._settle_chain()
        return await self._readers.read(commits.select_head)

    async def checkpoint(self, *, drop: bool = False) -> None:
        """See `TaskStore.checkpoint`."""
        await self._writer.write(TakeCheckpoint(drop))
        await self._settle_chain()

    async def page(self, status: TaskStatus | None = None, limit: int = 50, cursor: str | None = None) -> Page:
        """See `TaskStore.page`."""
        before = LAST_POSITION if cursor is None else position_of(cursor, "tasks")
        work = partial(rows.select_page, status=status, changed=self._changed, before=before, limit=limit)
        return await self._readers.read(work)

    async def list_unfinished(self) -> list[str]:
        """See `TaskStore.list_unfinished`. A waiting task that is being cancelled is in it."""
        return await self._readers.read(rows.select_unfinished)

    async def starts(self) -> dict[str, int]:
        """See `TaskStore.starts`."""
        return await self._readers.read(rows.select_starts)

    async def note_starts(self, task_ids: Collection[str]) -> None:
        """See `TaskStore.note_starts`."""
        await self._writer.write(partial(rows.note_starts, task_ids=task_ids))

    async def forget_starts(self) -> None:
        """See `TaskStore.forget_starts`."""
        await self._writer.write(rows.forget_starts)

    async def list_awaiting_approval(self, limit: int) -> list[tuple[str, datetime]]:
        """See `TaskStore.list_awaiting_approval`."""
        return await self._readers.read(partial(rows.select_awaiting, changed=self._changed, limit=limit))

    async def count(self) -> dict[TaskStatus, int]:
        """See `TaskStore.count`."""
        return await self._readers.read(partial(rows.select_counts, changed=self._changed))

    async def delete(self, task: Task) -> None:
        """See `TaskStore.delete`."""
        try:
            await self._writer.write(_make_deletion(task), partial(self._note_deletion, task.task_id))
        except (ConflictError, TaskNotFoundError):
            self._cache.forget_outdated(task)
            raise
        self._have_chain_tended()

    def _note_deletion(self, task_id: str) -> None:
        self._cache.forget(task_id)
        self._changed -= {task_id}
        self._followers.end(task_id)

    async def save_planning_attempt(self, task_id: str, attempt: PlanningAttempt) -> None:
        """See `TaskStore.save_planning_attempt`."""
        await self._writer.write(partial(planning.insert_attempt, task_id=task_id, data=attempt.model_dump_json()))

    async def load_planning_attempts(self, task_id: str) -> list[tuple[int, PlanningAttempt]]:
        """See `TaskStore.load_planning_attempts`."""
        return await self._readers.read(partial(planning.select_attempts, task_id=task_id))

    async def save_definitions(self, identity: str, definitions: Sequence[JudgedDefinition]) -> None:
        """See `TaskStore.save_definitions`."""
        encoded = encode_definitions(definitions)
        await self._writer.write(partial(rows.save_definitions, identity=identity, definitions=encoded))

    async def load_definitions(self, identity: str) -> list[JudgedDefinition] | None:
        """See `TaskStore.load_definitions`."""
        return await self._readers.read(partial(rows.select_definitions, identity=identity))

    async def check(self) -> None:
        """See `TaskStore.check`."""
        if time.monotonic() - self._writer.last_success > HEARTBEAT_S:
            await self._writer.write(partial(rows.beat, at=self._clock()))


def _make_deletion(task: Task) -> Callable[[Connection], Deletion | None]:
    """Return the work that deletes a task. If the answer to it was lost, it may be tried again."""
    tried = [False]

    def delete(connection: Connection) -> Deletion | None:
        again, tried[0] = tried[0], True
        try:
            return rows.delete_task(connection, task)
        except TaskNotFoundError:
            if again:  # deleted in the session that was lost, with its tombstone
                return None
            raise

    return delete
