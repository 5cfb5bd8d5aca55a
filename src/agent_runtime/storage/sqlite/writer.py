"""The thread that writes: it commits all waiting jobs in one transaction (group commit)."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVarTuple

import structlog

from agent_runtime.domain.commits import TaskChange
from agent_runtime.domain.errors import AgentRuntimeError, ConflictError, StoreUnavailableError
from agent_runtime.storage.base import TakeCheckpoint
from agent_runtime.storage.sqlite.commits import CommitLog, select_head
from agent_runtime.storage.sqlite.database import connect, make_unavailable_error, open_database, primary_code
from agent_runtime.storage.sqlite.database_file import DatabaseFile

log = structlog.get_logger(__name__)

A = TypeVarTuple("A")

MOST_JOBS = 500
"""The most jobs in one transaction, so that the first of them is not delayed for long."""

Work = Callable[[sqlite3.Connection], TaskChange | TakeCheckpoint | None]
"""Writes something, and returns the change of a journal if it made one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A write. `on_durable` is called on the event loop once it is durable, whether or not anyone waits."""

    work: Work
    on_durable: Callable[[], None]
    done: asyncio.Future[None]


_Outcome = tuple[_Job, Exception | None]


class Writer:
    """Owns the only connection that writes. All public methods belong to the event loop that called `start`.

    Each transaction that changes journals adds a row to `commits`. `advance` is called on the event loop with the
    newest position, at the start and after each transaction, once those who waited for it are told. `work` runs in the
    thread, in a transaction that it shares with other jobs. It may raise an AgentRuntimeError only while it has changed
    nothing; then the others commit without it. After any other error everything is rolled back, and each job is tried
    again alone.
    """

    def __init__(self, file: DatabaseFile, *, advance: Callable[[int], None] = lambda _: None) -> None:
        self._file = file
        self._commits = CommitLog()
        self._advance = advance
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._open = False
        self._connection: sqlite3.Connection | None = None
        self._failing = False
        self.last_success = -inf
        """When something last became durable, by `time.monotonic`; minus infinity after a failure."""

    async def start(self) -> None:
        """Open the database and start the thread. Raises: as `open_database`."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        # A daemon: an exit without `stop` loses nothing that was acknowledged, and must not hang.
        self._thread = Thread(target=self._run, args=(opened,), name="agent-runtime-writer", daemon=True)
        self._thread.start()
        try:
            await opened
        except BaseException:
            self._queue.put(None)
            raise
        self._open = True

    async def stop(self) -> None:
        """Flush queued writes, refuse new ones, and close the database."""
        self._open = False
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
            self.last_success = -inf  # nothing can be written any more

    async def write(self, work: Work, on_durable: Callable[[], None]) -> None:
        """Write `work`, and return once it is durable. Cancelling the caller does not undo it.

        Raises: what `work` raises, and StoreUnavailableError.
        """
        if not self._open:
            raise StoreUnavailableError("The store is closed.")
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Job(work, on_durable, done))
        await done

    # What follows runs in the thread, but for `_settle` and `_finish_start`.

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            self._connection = open_database(self._file.path)
            self._file.remember()
            newest = select_head(self._connection).position
        except Exception as error:  # noqa: BLE001 - handed over whole to whoever started the thread
            self._call_on_loop(_resolve, opened, error)
            return
        going_on = self._call_on_loop(self._finish_start, opened, newest)
        while going_on:
            jobs, going_on = self._take_jobs()
            if jobs:
                going_on = self._call_on_loop(self._settle, *self._commit(jobs)) and going_on
        self._close()

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
        try:
            connection = self._begin()
        except (sqlite3.Error, StoreUnavailableError) as error:  # no job is to blame
            return [(job, self._note_failure(error)) for job in jobs], 0
        changes: list[TaskChange | TakeCheckpoint] = []
        try:
            outcomes: list[_Outcome] = [(job, _run_job(job, connection, changes)) for job in jobs]
            self._commits.add(connection, changes)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - a job may fail in any way; none may end the thread
            self._roll_back(connection, error)
            if len(jobs) == 1:
                return [(jobs[0], self._note_failure(error))], 0
            alone = [self._commit([job]) for job in jobs]
            return [outcome for tried, _ in alone for outcome in tried], max(position for _, position in alone)
        try:
            self._file.check()
        except StoreUnavailableError as error:  # it may be in a file that was deleted
            self._commits.forget()
            return [(job, self._note_failure(error)) for job in jobs], 0
        if any(refusal is None for _, refusal in outcomes):
            self._note_success()
        return outcomes, self._commits.confirm()

    def _begin(self) -> sqlite3.Connection:
        self._file.check()
        if self._connection is None:
            self._connection = connect(self._file.path)
            self._file.remember()
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def _roll_back(self, connection: sqlite3.Connection, error: Exception) -> None:
        self._commits.forget()
        try:
            if connection.in_transaction:  # SQLite itself rolls back after the worst errors
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._discard()
            return
        if isinstance(error, sqlite3.Error) and primary_code(error) in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}:
            self._discard()  # a connection opened read-only stays read-only

    def _discard(self) -> None:
        """Close the connection, so that the next transaction opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._file.forget_log()
            with suppress(sqlite3.Error):
                connection.close()

    def _note_success(self) -> None:
        self.last_success = time.monotonic()
        if self._failing:
            self._failing = False
            log.info("store_recovered")

    def _note_failure(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.IntegrityError):  # the store works; its content is not the expected one
            return ConflictError(f"The stored task is not as expected: {error}. Read it again.")
        if not isinstance(error, sqlite3.Error | StoreUnavailableError):
            return error
        self.last_success = -inf
        if not self._failing:  # once for each outage, not for each caller
            self._failing = True
            log.error("store_failed", error=str(error))
        if isinstance(error, StoreUnavailableError):
            return error
        failure = make_unavailable_error(error)
        failure.__cause__ = error
        return failure

    def _close(self) -> None:
        if self._connection is not None:
            # Whatever is not checkpointed now stays in the WAL file, which is read when the database is next opened.
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._discard()

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


def _run_job(
    job: _Job, connection: sqlite3.Connection, changes: list[TaskChange | TakeCheckpoint]
) -> AgentRuntimeError | None:
    try:
        change = job.work(connection)
    except AgentRuntimeError as refusal:
        return refusal
    if change is not None:
        changes.append(change)
    return None


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():  # whoever waited was cancelled
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
