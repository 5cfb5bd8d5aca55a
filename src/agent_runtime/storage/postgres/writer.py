"""The thread that writes: it commits all waiting appends in one transaction (group commit)."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from math import inf
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVarTuple

import psycopg
import structlog

from agent_runtime.domain.commits import TaskChange
from agent_runtime.domain.errors import AgentRuntimeError, ConfigurationError, ConflictError, StoreUnavailableError
from agent_runtime.storage.base import TakeCheckpoint
from agent_runtime.storage.postgres.appends import Append, write_appends
from agent_runtime.storage.postgres.commits import CommitLog, has_pending, take_pending
from agent_runtime.storage.postgres.connecting import (
    Connection,
    Database,
    is_connection_lost,
    make_unavailable_error,
)
from agent_runtime.storage.postgres.locks import CHAIN, try_lock
from agent_runtime.storage.postgres.session import Session, SessionOpener

log = structlog.get_logger(__name__)

A = TypeVarTuple("A")

MOST_JOBS = 500
"""The most jobs in one transaction, so that the first of them is not delayed for long."""

RETRY_S = 10.0
"""How long to try to reach a server that was there a moment ago. A restart of it usually takes less."""

_PAUSE_S = 0.25

Work = Append | TakeCheckpoint | Callable[[Connection], TaskChange | None]
"""What to write. A function returns the change of a journal if it made one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A write. `on_durable` is called on the event loop once it is durable, whether or not anyone waits."""

    work: Work
    on_durable: Callable[[], None]
    done: asyncio.Future[None]


_Outcome = tuple[_Job, Exception | None]


class Writer:
    """Owns the only connection that writes. All public methods belong to the event loop that called `start`.

    `advance` is called on the event loop with the newest commit, at the start and after each transaction, once those
    who waited for it are told. `forget` is called there before anything of a new session is told, if others may have
    written since the last one.

    A transaction whose connection was lost is tried again in a new session, for a limited time. Each append knows the
    hash that its last record would have, so it is never written twice.
    """

    def __init__(
        self,
        database: Database,
        *,
        exclusive: bool,
        advance: Callable[[int], None] = lambda _: None,
        forget: Callable[[], None] = lambda: None,
        retry_s: float = RETRY_S,
    ) -> None:
        self._sessions = SessionOpener(database, exclusive=exclusive)
        self._log = CommitLog(exclusive=exclusive)
        self._advance = advance
        self._forget = forget
        self._retry_s = retry_s
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._open = False
        self._stopping = Event()
        self._session: Session | None = None
        self._failing_since: float | None = None
        self.channel = ""
        """The channel on which the processes that share this database notify each other."""
        self.pid = 0
        """The server's process of the session that writes; its notices are this process's own."""
        self.last_success = -inf
        """When something last became durable, by `time.monotonic`; minus infinity after a failure."""

    @property
    def leads(self) -> bool:
        """Return whether this process writes the chain of commits."""
        return self._log.leads

    async def start(self) -> None:
        """Open the database and start the thread. Raises: as `SessionOpener.open_first`."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        # A daemon: an exit without `stop` loses nothing that was acknowledged, and must not hang.
        self._thread = Thread(target=self._run, args=(opened,), name="agent-runtime-writer", daemon=True)
        self._thread.start()
        try:
            await opened
        except BaseException:
            self._stopping.set()
            self._queue.put(None)
            raise
        self._open = True

    async def stop(self) -> None:
        """Flush queued writes, refuse new ones, and close the connection."""
        self._open = False
        if self._thread is not None:
            self._stopping.set()
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
            self.last_success = -inf  # nothing can be written any more

    async def write(self, work: Work, on_durable: Callable[[], None] = lambda: None) -> None:
        """Write `work`, and return once it is durable. Cancelling the caller does not undo it.

        Raises: what `work` raises, and StoreUnavailableError.
        """
        if not self._open:
            raise StoreUnavailableError("The store is closed.")
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Job(work, on_durable, done))
        await done

    async def tend_chain(self) -> bool:
        """Put what is pending into the chain, if this process writes it or nobody does. Return whether some is left.

        Raises: StoreUnavailableError.
        """
        left, tend = self._make_tending()
        await self.write(tend)
        return left[0]

    def tend_chain_soon(self, then: Callable[[bool], None]) -> None:
        """Do the same without waiting for it. Calls `then` with the answer; with True after a failure."""

        def tell(done: asyncio.Future[None]) -> None:
            then(left[0] if not done.cancelled() and done.exception() is None else True)

        if self._open:
            left, tend = self._make_tending()
            future: asyncio.Future[None] = self._loop.create_future()
            future.add_done_callback(tell)
            self._queue.put(_Job(tend, lambda: None, future))

    def _make_tending(self) -> tuple[list[bool], Callable[[Connection], None]]:
        left = [False]

        def tend(connection: Connection) -> None:
            left[0] = self._lead_if_needed(connection)

        return left, tend

    # What follows runs in the thread, but for `_settle` and `_finish_start`.

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            self._adopt(self._sessions.open_first(self._stopping))
        except Exception as error:  # noqa: BLE001 - handed over whole to whoever started the thread
            self._call_on_loop(_resolve, opened, error)
            return
        going_on = self._call_on_loop(self._finish_start, opened, self._log.head.position)
        while going_on:
            jobs, going_on = self._take_jobs()
            for group in _group(jobs):
                going_on = self._call_on_loop(self._settle, *self._commit(group)) and going_on
        self._discard()

    def _call_on_loop(self, callback: Callable[[*A], None], *arguments: *A) -> bool:
        """Call this on the event loop. Return False if the loop is closed, and with it everybody who waited."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return False
        return True

    def _take_jobs(self) -> tuple[list[_Job], bool]:
        """Wait for a job, and return it with all others that wait; and False once the writer is to stop."""
        jobs: list[_Job] = []
        job = self._queue.get()
        with suppress(Empty):
            while job is not None:
                jobs.append(job)
                if len(jobs) == MOST_JOBS:
                    return jobs, True
                job = self._queue.get_nowait()
            return jobs, False
        return jobs, True

    def _commit(self, jobs: list[_Job]) -> tuple[list[_Outcome], int]:
        """Return the outcomes of the jobs, and the newest position; 0 if it is unknown."""
        while True:
            try:
                outcomes = self._write(self._connect(), jobs)
            except ConfigurationError as error:  # such as: another process took over during an outage
                self._discard()
                return self._fail(jobs, StoreUnavailableError(f"The store cannot be used now. {error}"))
            except psycopg.Error as error:
                if self._session is None or is_connection_lost(self._session.connection, error):
                    self._discard()
                    if self._goes_on_trying(error):
                        continue
                    return self._fail(jobs, error)
                return self._try_alone(jobs, error)
            except Exception as error:  # noqa: BLE001 - a job may fail in any way; none may end the thread
                return self._try_alone(jobs, error)
            if any(refusal is None for _, refusal in outcomes):
                self._note_success()
            return outcomes, self._log.confirm()

    def _try_alone(self, jobs: list[_Job], error: Exception) -> tuple[list[_Outcome], int]:
        """Roll back, and try each job again by itself; fail if there is only one."""
        self._roll_back()
        if len(jobs) == 1:
            return self._fail(jobs, error)
        alone = [self._commit([job]) for job in jobs]
        return [outcome for tried, _ in alone for outcome in tried], max(position for _, position in alone)

    def _write(self, connection: Connection, jobs: list[_Job]) -> list[_Outcome]:
        """Write the jobs in one transaction. Raises: psycopg.Error, and what a job raises that is not a refusal."""
        self._log.reset()
        appends = [job.work for job in jobs if isinstance(job.work, Append)]
        if appends:
            return list(zip(jobs, write_appends(connection, appends, self._log), strict=True))
        (job,) = jobs
        return [(job, self._write_other(connection, job.work))]

    def _write_other(self, connection: Connection, work: Work) -> AgentRuntimeError | None:
        if isinstance(work, TakeCheckpoint):  # it sees one state: what it names and what the chain has are the same
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            self._log.take_checkpoint(connection, work)
        elif not isinstance(work, Append):
            connection.execute("BEGIN")
            try:
                change = work(connection)
            except AgentRuntimeError as refusal:
                connection.execute("ROLLBACK")
                return refusal
            pending = take_pending(connection) if self._log.takes_pending else ()
            self._log.add(connection, [change] if change else [], pending)
        connection.execute("COMMIT")
        return None

    def _lead_if_needed(self, connection: Connection) -> bool:
        """Write the chain from now on if something is pending and nobody writes it. Return whether others must."""
        if self._log.leads or not has_pending(connection):
            return False
        if not try_lock(connection, CHAIN):
            return True
        log.info("chain_taken_over")
        self._log.begin(connection, self.channel, leads=True)
        self._log.reset()
        return False

    def _connect(self) -> Connection:
        if self._session is None:
            self._adopt(self._sessions.open())
        return self._session.connection  # type: ignore[union-attr]

    def _adopt(self, session: Session) -> None:
        self._session = session
        self.channel, self.pid = session.channel, session.connection.info.backend_pid
        if self._log.begin(session.connection, session.channel, leads=session.leads):
            self._call_on_loop(self._forget)
        if session.leads and has_pending(session.connection):  # left behind by processes that are gone
            session.connection.execute("BEGIN")
            self._log.add(session.connection, [], take_pending(session.connection))
            session.connection.execute("COMMIT")
            self._log.confirm()

    def _roll_back(self) -> None:
        if self._session is not None:
            try:
                self._session.connection.execute("ROLLBACK")
            except psycopg.Error:
                self._discard()

    def _discard(self) -> None:
        """Close the connection, so that the next transaction opens a new one."""
        session, self._session = self._session, None
        self._log.leads = False  # the lock is gone with the session
        if session is not None:
            with suppress(psycopg.Error):
                session.connection.close()

    def _goes_on_trying(self, error: psycopg.Error) -> bool:
        """Return, after a pause, whether another try may help and the time for that is not over."""
        self._note_failure(error)
        lasts = time.monotonic() - (self._failing_since or 0)
        pause = _PAUSE_S if lasts > _PAUSE_S else _PAUSE_S / 10
        return lasts < self._retry_s and not self._stopping.wait(pause)

    def _note_success(self) -> None:
        self.last_success = time.monotonic()
        if self._failing_since is not None:
            self._failing_since = None
            log.info("store_recovered")

    def _note_failure(self, error: Exception) -> None:
        self.last_success = -inf
        if self._failing_since is None:  # once for each outage, not for each caller
            self._failing_since = time.monotonic()
            log.error("store_failed", error=" ".join(str(error).split()))

    def _fail(self, jobs: list[_Job], error: Exception) -> tuple[list[_Outcome], int]:
        if isinstance(error, psycopg.IntegrityError):  # the store works; its content is not the expected one
            reason = error.diag.message_primary
            failure: Exception = ConflictError(f"The stored task is not as expected: {reason}. Read it again.")
        elif isinstance(error, psycopg.Error | StoreUnavailableError):
            self._note_failure(error)
            failure = error if isinstance(error, StoreUnavailableError) else make_unavailable_error(error)
            failure.__cause__ = error if failure is not error else None
        else:
            failure = error
        return [(job, failure) for job in jobs], 0

    def _finish_start(self, opened: asyncio.Future[None], newest: int) -> None:
        self._advance(newest)
        _resolve(opened, None)

    def _settle(self, outcomes: list[_Outcome], newest: int) -> None:
        for job, error in outcomes:
            try:
                if error is None:
                    job.on_durable()
            except Exception:  # a failing observer must not keep others from being told
                log.exception("observer_failed")
            _resolve(job.done, error)
        self._advance(newest)


def _group(jobs: list[_Job]) -> Iterator[list[_Job]]:
    """Yield the jobs of each transaction: appends that follow each other share one."""
    for are_appends, group in groupby(jobs, key=lambda job: isinstance(job.work, Append)):
        if are_appends:
            yield list(group)
        else:
            yield from ([job] for job in group)


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():  # whoever waited was cancelled
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
