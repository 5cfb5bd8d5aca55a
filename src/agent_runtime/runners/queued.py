"""The runner of a process that shares its tasks with others: a queue says who runs which.

A woken task becomes a job. A worker takes jobs while it has room, and has the local runner run them with its lanes and
bounds. It holds a job until the run has ended, so no two workers run one task.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import structlog

from agent_runtime.domain.entries import Entries
from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.pauses import Pauses
from agent_runtime.runners.jobs import JobQueue
from agent_runtime.runners.worker import MakeRunner, Sweep, Worker, read_clock
from agent_runtime.services.ports import TaskStore

log = structlog.get_logger()

_RETRY_S = 1.0
_START_S = 30.0
"""How long a start waits for the database after it was found missing, as the store does. A process may be suspended in
between, so the start of the process does not count."""

_NOTHING = {"running": 0, "waiting": 0, "resting": 0, "in_outage": 0}


class QueuedRunner:
    """A `Runner` on a queue. With `make_runner` None it only adds jobs, which others take.

    `only_own`: it runs the tasks that were woken here, and no others. `sweeps` go on while this process is the elected
    one. `read_entries` returns the registry entries that tasks can use here. Entering the context takes up every
    unfinished task that has no job; raises: StoreUnavailableError.
    """

    def __init__(
        self,
        queue: JobQueue,
        store: TaskStore,
        make_runner: MakeRunner | None,
        *,
        only_own: bool,
        role: str = "all",
        read_entries: Callable[[], Entries] = Entries,
        sweeps: tuple[Sweep, ...],
        pauses: Pauses = Pauses(),  # noqa: B008 - a frozen value
        note_taken_over: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._queue = queue
        self._store = store
        self._make_runner = make_runner
        self._only_own = only_own
        self._role = role
        self._read_entries = read_entries
        self._entries_changed = asyncio.Event()
        self._sweeps = sweeps
        self._pauses = pauses
        self._note_taken_over = note_taken_over
        self._stop = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._worker: Worker | None = None
        self._woken: set[str] = set()
        self._waking = asyncio.Lock()
        self._announcing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        if self._make_runner is not None:
            worker = await self._begin(self._make_runner)
            self._announcing = self._group.create_task(self._announce_changes(), name="entries")
            self._group.create_task(self._serve(worker, self._make_runner), name="workers")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._announcing is not None:
            self._announcing.cancel()
        await self._group.__aexit__(kind, error, trace)

    @property
    def queue(self) -> Mapping[str, int]:
        """See `Runner.queue`: what this process has taken."""
        return self._worker.queue if self._worker else _NOTHING

    async def wake(self, task_id: str) -> None:
        """See `Runner.wake`. Tasks that are woken at the same time become jobs together. While the queue cannot be
        reached, the next sweep does it.
        """
        self._woken.add(task_id)
        async with self._waking:
            if task_id not in self._woken:  # whoever waited before has added its job too
                return
            task_ids, self._woken = self._woken, set()
            worker = self._worker if self._only_own else None
            try:
                await self._queue.defer(task_ids, worker.number if worker else None)
            except StoreUnavailableError as error:
                log.warning("wake_left_to_sweep", task_ids=sorted(task_ids), error=str(error))
            except asyncio.CancelledError:  # the next caller adds them
                self._woken |= task_ids
                raise
            if worker is not None:
                worker.look()

    async def cancel(self, task_id: str) -> None:
        """See `Runner.cancel`. A run elsewhere hears of it from the store."""
        if self._worker is None or not await self._worker.cancel(task_id):
            await self.wake(task_id)

    async def confirm_claims(self) -> bool:
        """Return whether the claims of this process are surely valid now."""
        return self._worker is not None and await self._worker.confirm()

    async def _begin(self, make_runner: MakeRunner) -> Worker:
        """Become a worker, and take up what has no job. Outlast a restart of the database.

        Raises: StoreUnavailableError.
        """
        give_up_at = float("inf")
        while True:
            try:
                worker = self._worker or await self._register(make_runner)
                if not self._only_own:
                    await worker.sweep()
            except StoreUnavailableError as error:
                give_up_at = min(give_up_at, time.monotonic() + _START_S)
                if time.monotonic() > give_up_at:
                    raise
                log.warning("queue_awaited", error=str(error), seconds=_START_S)
                await asyncio.sleep(_RETRY_S)
            else:
                return worker

    async def find_worker(self, needed: Entries) -> int | None:
        """Return the number of another living worker that has these registry entries; None if there is none.

        Raises: StoreUnavailableError.
        """
        own = self._worker.number if self._worker else None
        return await self._queue.find_worker(needed, own, self._pauses.silence_s)

    async def hand_over(self, task_id: str, worker: int) -> None:
        """Have that worker run the task, as soon as this one lets go of it. Raises: StoreUnavailableError."""
        await self._queue.defer([task_id], worker)

    def note_entries(self) -> None:
        """Note that the registry entries here have changed."""
        self._entries_changed.set()

    async def _announce_changes(self) -> None:
        while True:
            await self._entries_changed.wait()
            self._entries_changed.clear()
            try:
                if self._worker is not None:
                    await self._announce(self._worker.number)
            except StoreUnavailableError as error:
                log.warning("entries_not_announced", error=str(error))
                await asyncio.sleep(_RETRY_S)
                self._entries_changed.set()

    async def _announce(self, number: int) -> None:
        if not self._only_own:  # a command takes no tasks of others
            await self._queue.announce(number, self._role, self._read_entries())

    async def _register(self, make_runner: MakeRunner) -> Worker:
        """Become a new worker. Raises: StoreUnavailableError."""
        born_at = read_clock()
        number = await self._queue.register()
        await self._announce(number)
        self._worker = Worker(
            number,
            self._queue,
            self._store,
            make_runner,
            self._pauses,
            self._sweeps,
            only_own=self._only_own,
            born_at=born_at,
            note_taken_over=self._note_taken_over,
        )
        log.info("worker_registered", worker=number)
        return self._worker

    async def _serve(self, worker: Worker, make_runner: MakeRunner) -> None:
        """Serve as a worker until the stop. After its death a new one begins while the runs of the old one end."""
        async with asyncio.TaskGroup() as lives:
            while True:
                serving = lives.create_task(worker.serve(self._stop), name=f"worker {worker.number}")
                died = lives.create_task(worker.dead.wait())
                await asyncio.wait([serving, died], return_when=asyncio.FIRST_COMPLETED)
                died.cancel()
                while worker.dead.is_set() and not self._stop.is_set():
                    try:
                        worker = await self._register(make_runner)
                    except StoreUnavailableError:
                        await asyncio.sleep(_RETRY_S)
                if worker.dead.is_set() or self._stop.is_set():
                    return
