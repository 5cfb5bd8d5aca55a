"""The thread of a store that writes: it takes all waiting jobs together, and tells their callers the outcomes."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Generic, TypeVar, TypeVarTuple

import structlog

from agent_runtime.domain.errors import StoreClosedError

log = structlog.get_logger(__name__)

A = TypeVarTuple("A")
W = TypeVar("W")

MOST_JOBS = 500
"""The most jobs that are taken together, so that the first of them is not delayed for long."""


def _do_nothing() -> None:
    """Called after a write that changes nothing in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Job(Generic[W]):
    """A write. `on_durable` is called on the event loop once it is durable, whether or not anyone waits."""

    work: W
    on_durable: Callable[[], None]
    done: asyncio.Future[None]


Outcome = tuple[Job[W], Exception | None]

Written = tuple[list[Outcome[W]], int]
"""The outcomes of the jobs of a transaction, and the position of the newest commit; 0 if it is unknown."""


class WritingThread(ABC, Generic[W]):
    """Owns the only connection that writes, in a thread. All public methods belong to the event loop that called
    `start`.

    `advance` is called on the event loop with the newest position, at the start and after each transaction, once those
    who waited for it are told. A store says how it opens, writes and closes its database.
    """

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._queue: SimpleQueue[Job[W] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._open = False
        self._stopping = Event()
        self._failing_since: float | None = None
        self.last_success = -inf
        """When something last became durable, by `time.monotonic`; minus infinity after a failure."""

    async def start(self) -> None:
        """Open the database and start the thread. Raises: as `_open_database`."""
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
        """Flush queued writes, refuse new ones, and close the database."""
        self._open = False
        if self._thread is not None:
            self._stopping.set()
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
            self.last_success = -inf  # nothing can be written any more

    async def write(self, work: W, on_durable: Callable[[], None] = _do_nothing) -> None:
        """Write `work`, and return once it is durable. Cancelling the caller does not undo it.

        Raises: what `work` raises, and StoreUnavailableError.
        """
        if not self._open:
            raise StoreClosedError
        await self._submit(work, on_durable)

    def _submit(self, work: W, on_durable: Callable[[], None] = _do_nothing) -> asyncio.Future[None]:
        """Queue a write, and return the future of its outcome."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(Job(work, on_durable, done))
        return done

    # What follows runs in the thread, but for `_settle` and `_finish_start`.

    @abstractmethod
    def _open_database(self) -> int:
        """Open the database, and return the position of its newest commit. Whatever this raises, `start` raises."""

    @abstractmethod
    def _write_jobs(self, jobs: list[Job[W]]) -> Iterator[Written[W]]:
        """Write the jobs, and yield after each transaction. A job that fails must not end the thread."""

    @abstractmethod
    def _close_database(self) -> None: ...

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            newest = self._open_database()
        except Exception as error:  # noqa: BLE001 - handed over whole to whoever started the thread
            self._call_on_loop(_resolve, opened, error)
            return
        going_on = self._call_on_loop(self._finish_start, opened, newest)
        while going_on:
            jobs, going_on = self._take_jobs()
            for written in self._write_jobs(jobs) if jobs else ():
                going_on = self._call_on_loop(self._settle, *written) and going_on
        self._close_database()

    def _call_on_loop(self, callback: Callable[[*A], None], *arguments: *A) -> bool:
        """Call this on the event loop. Return False if the loop is closed, and with it everybody who waited."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return False
        return True

    def _take_jobs(self) -> tuple[list[Job[W]], bool]:
        """Wait for a job, and return it with all others that wait; and False once the writer is to stop."""
        jobs: list[Job[W]] = []
        job = self._queue.get()
        with suppress(Empty):
            while job is not None:
                jobs.append(job)
                if len(jobs) == MOST_JOBS:
                    return jobs, True
                job = self._queue.get_nowait()
            return jobs, False
        return jobs, True

    def _note_success(self) -> None:
        self.last_success = time.monotonic()
        if self._failing_since is not None:
            self._failing_since = None
            log.info("store_recovered")

    def _note_failure(self, reason: str) -> None:
        self.last_success = -inf
        if self._failing_since is None:  # once for each outage, not for each caller
            self._failing_since = time.monotonic()
            log.error("store_failed", error=reason)

    def _finish_start(self, opened: asyncio.Future[None], newest: int) -> None:
        self._advance(newest)
        _resolve(opened, None)

    def _settle(self, outcomes: list[Outcome[W]], newest: int) -> None:
        for job, error in outcomes:
            try:
                if error is None:
                    job.on_durable()
            except Exception:  # a failing observer must not keep others from being told
                log.exception("observer_failed")
            _resolve(job.done, error)
        self._advance(newest)


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():  # whoever waited was cancelled
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
