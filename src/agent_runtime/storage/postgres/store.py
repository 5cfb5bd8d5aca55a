"""The task store in a PostgreSQL database, for one process that owns it or for several that share it."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Self, TypeVar

from agent_runtime.domain.commits import Deletion
from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.sharing import FleetFigures, SharingFigures
from agent_runtime.domain.task import Task
from agent_runtime.services.ports import AppendObserver
from agent_runtime.storage.base import Clock, Draft, TakeCheckpoint, utc_now
from agent_runtime.storage.cache import JournalEnd
from agent_runtime.storage.cached_store import CACHE_BYTES, CachedStore
from agent_runtime.storage.postgres import commits, images, journals, planning, rows, starts, states
from agent_runtime.storage.postgres.appends import Append
from agent_runtime.storage.postgres.connecting import Connection, Database
from agent_runtime.storage.postgres.figures import select_figures
from agent_runtime.storage.postgres.joint_reading import JointReader
from agent_runtime.storage.postgres.journal_ends import select_ends, select_growth
from agent_runtime.storage.postgres.listener import Listener
from agent_runtime.storage.postgres.notices import News
from agent_runtime.storage.postgres.readers import Readers
from agent_runtime.storage.postgres.writer import RETRY_S, Writer
from agent_runtime.storage.statements import Statements

T = TypeVar("T")

_TEND_AFTER_S = 1.0
"""How long the process that writes the chain may take for the changes of others, before another tries to."""

_TEND_AGAIN_S = 5.0
_SETTLE_S = 3.0
"""How long a reader of the chain waits for what was committed before."""

_STATEMENTS: Statements[Connection] = Statements(rows, journals, commits, starts, planning, states, images)


class PostgresStore(CachedStore[Connection]):
    """A `TaskStore` in a PostgreSQL database, used as `async with PostgresStore(database) as store`.

    With `exclusive` this process owns the database: no other can open it, and each transaction writes its own commit.
    Otherwise every process that opens it so may write, and one of them, elected by a lock, adds the changes of all to
    the chain. Tasks in use are cached as on SQLite; where others may write, each load compares a cached task with its
    row, and reads only the records that are new. All methods belong to the event loop that entered it. Entering raises:
    ConfigurationError, AlreadyOwnedError, StoreUnavailableError.
    """

    _writer: Writer

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
        super().__init__(_STATEMENTS, clock=clock, cache_bytes=cache_bytes, observe=observe)
        self._database = database
        self._exclusive = exclusive
        self._writer = Writer(
            database, exclusive=exclusive, advance=self._commits.advance, forget=self._forget_all, retry_s=retry_s
        )
        self._readers = readers = Readers(database)
        self._ends = JointReader(readers, select_ends)
        self._listener: Listener | None = None
        self._tending: asyncio.TimerHandle | None = None
        self._hear_news: list[Callable[[News], None]] = []

    @property
    def is_shared(self) -> bool:
        """Return whether other processes may write the same database."""
        return not self._exclusive

    @property
    def leads(self) -> bool:
        """Return whether this process writes the chain of commits."""
        return self._writer.leads

    @property
    def sharing(self) -> SharingFigures | None:
        """See `TaskStore.sharing`."""
        listener = self._listener
        return None if listener is None else SharingFigures(self.leads, listener.age_s, hears=listener.hears)

    async def measure_fleet(self) -> FleetFigures | None:
        """See `TaskStore.measure_fleet`."""
        return None if self._exclusive else await self._readers.read(select_figures)

    @property
    def session_pid(self) -> int:
        """The server's process of the session that writes."""
        return self._writer.pid

    @property
    def channel(self) -> str:
        """The channel on which the processes that share this database notify each other."""
        return self._writer.channel

    def on_news(self, hear: Callable[[News], None]) -> None:
        """Register `hear`, which is called on the event loop with what other processes have committed."""
        self._hear_news.append(hear)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run statements that read, in a thread, and return their result. Raises: StoreUnavailableError."""
        return await self._readers.read(work)

    async def write(self, work: Callable[[Connection], None]) -> None:
        """Run statements in a transaction of the session that writes. If its end was lost, they are run again.

        Raises: StoreUnavailableError.
        """
        await self._writer.write(work)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if not self._exclusive:
            loop = asyncio.get_running_loop()

            def tell(news: News) -> None:
                loop.call_soon_threadsafe(self._note_news, news)

            channel, writer = self._writer.channel, self._writer
            self._listener = Listener(
                self._database,
                channel,
                tell,
                lambda: self._followers.task_ids,
                lambda: self._cancellations.task_ids,
                lambda: writer.pid,
            )
            await asyncio.to_thread(self._listener.start)
        return self

    async def close(self) -> None:
        """Wake all followers, flush queued writes and close the connections. Idempotent."""
        self._followers.close()
        self._cancellations.close()
        self._commits.end()
        if self._tending is not None:
            self._tending.cancel()
        try:
            if self._listener is not None:
                await asyncio.to_thread(self._listener.stop)
        finally:
            await super().close()

    def _make_append(self, draft: Draft, epoch: int | None) -> Append:
        return Append(draft.task, draft.records, epoch, draft.verifies)

    def _note_append(self, draft: Draft, work: Append, began: float) -> None:
        self._have_chain_tended()
        super()._note_append(draft, work, began)

    def _head_of(self, work: Append) -> str:
        return work.head or ""

    async def _refresh(self, task_id: str) -> None:
        """Compare what is cached of a task with its row. Read what is new; forget a task that does not match."""
        task, known = self._cache.task(task_id), self._cache.end(task_id)
        if self._exclusive or task is None or known is None:
            return
        newest = await self._find_end(task_id)
        if newest == known and not task.journal_change:
            return
        if newest is None or newest.version <= known.version or task.journal_change:  # deleted, or changed by somebody
            self._cache.forget_if_at(task_id, known)
            return
        growth = await self._readers.read(partial(select_growth, task=task, known=known, newest=newest))
        if growth is None:
            self._cache.forget_if_at(task_id, known)
        elif self._cache.end(task_id) == known:
            self._cache.note_commit(*growth, newest.head)

    async def _find_version(self, task_id: str) -> int | None:
        if self._exclusive:
            return await super()._find_version(task_id)
        newest = await self._find_end(task_id)
        return newest.version if newest else None

    async def _find_end(self, task_id: str) -> JournalEnd | None:
        stored = await self._ends.read(task_id)
        return stored.end if stored else None

    async def _may_be_cancelled(self, task_id: str) -> bool:
        stored = await self._ends.read(task_id)
        return stored is not None and not stored.cancel_requested

    def _forget_all(self) -> None:
        """Read everything anew, and have all followers do so, because another process may have written."""
        self._cache.clear()
        self._changed = frozenset()
        self._followers.close()

    def _note_news(self, news: News) -> None:
        """Wake those who wait for what another process has committed."""
        for task_id, version in news.grown.items():
            self._followers.advance(task_id, version)
        for task_id in news.cancelled:
            self._cancellations.advance(task_id, 1)
        for task_id in news.deleted:
            self._note_deletion(task_id)
        if news.position:
            self._commits.advance(news.position)
        if news.pending and self._writer.leads:
            self._writer.tend_chain_soon(lambda _: None)
        elif news.pending:
            self._have_chain_tended()
        for hear in self._hear_news:
            hear(news)

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

    async def checkpoint(self, *, drop: bool = False) -> None:
        """See `TaskStore.checkpoint`."""
        await self._writer.write(TakeCheckpoint(drop))
        await self._settle_chain()

    async def delete(self, task: Task) -> None:
        """See `TaskStore.delete`."""
        await super().delete(task)
        self._have_chain_tended()

    def _make_deletion(self, task: Task) -> Callable[[Connection], Deletion | None]:
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
