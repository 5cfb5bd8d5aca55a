"""A worker of the queue: takes jobs, has their tasks run here, and shows that it lives.

The others declare a worker dead whose heart was silent for too long, and take up its tasks. So it must know when its
own claims are no longer sure: it counts the time since its last heartbeat with a clock that runs on while the process
or the machine is stopped.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.jobs import Job
from agent_runtime.domain.pauses import Pauses
from agent_runtime.live.interruption import run_until
from agent_runtime.runners.jobs import JobQueue
from agent_runtime.runners.local import JobOwner, LocalRunner
from agent_runtime.runners.recovery import MOST_STARTS, compute_start_pause_s
from agent_runtime.services.ports import TaskStore

log = structlog.get_logger()

MakeRunner = Callable[[JobOwner], LocalRunner]
Sweep = Callable[[], Coroutine[Any, Any, None]]
"""Work for one process of all, which goes on until it is cancelled."""

_RETRY_S = (0.1, 0.5, 1.0, 2.0)
_LAST_WORDS_S = 2.0
_FETCHED_AT_ONCE = 2
"""With one, it would take a second statement to see that no other job waits."""
_MARGIN = 0.25
"""The part of the silence that must be left for a call to be sent without asking the database."""


def read_clock() -> float:
    """Return the seconds since the machine was started, with those in which it or this process was stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _compute_pause_s(failures: int) -> float:
    """Return the pause after so many failures in a row."""
    return _RETRY_S[min(failures, len(_RETRY_S)) - 1]


class Worker:
    """One registered worker. It is the `JobOwner` of the runner that `make_runner` makes.

    `only_own`: it takes only the jobs that are meant for it, and looks after no others. `dead` is set once others have
    declared it dead: nothing that it held is its own then, and it starts no call any more.
    """

    def __init__(
        self,
        number: int,
        queue: JobQueue,
        store: TaskStore,
        make_runner: MakeRunner,
        pauses: Pauses,
        sweeps: tuple[Sweep, ...],
        *,
        only_own: bool,
        born_at: float,
        note_taken_over: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.number = number
        self.dead = asyncio.Event()
        self._queue = queue
        self._store = store
        self._runner = make_runner(self)
        self._pauses = pauses
        self._sweeps = sweeps
        self._only_own = only_own
        self._note_taken_over = note_taken_over
        self._beaten_at = born_at
        self._steady_since = born_at
        self._beating = asyncio.Lock()
        self._inheriting = asyncio.Lock()
        self._held: dict[str, Job] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._ended: deque[tuple[Job, float | None]] = deque()
        self._has_ended = asyncio.Event()
        self._jobs_wait = asyncio.Event()
        self._was_full = False
        self._sweep_due = asyncio.Event()
        self._due_at: float | None = None
        self._group = asyncio.TaskGroup()

    @property
    def queue(self) -> dict[str, int]:
        """See `Runner.queue`."""
        return self._runner.queue

    async def confirm(self) -> bool:
        """Return whether the claims of this worker are surely valid now. Asks the database only after a silence."""
        while not self.dead.is_set():
            if read_clock() - self._beaten_at < self._pauses.silence_s * (1 - _MARGIN):
                return True
            try:
                await self._beat()
            except StoreUnavailableError as error:
                log.warning("claims_not_confirmed", worker=self.number, error=str(error))
                return False
        return False

    async def cancel(self, task_id: str) -> bool:
        """Tell the run of this task, if it is here, that a cancellation is in the journal. Return whether it is."""
        if task_id not in self._held:
            return False
        await self._runner.cancel(task_id)
        return True

    def look(self) -> None:
        """Look for jobs soon."""
        self._jobs_wait.set()

    def end(self, task_id: str, pause_s: float | None) -> None:
        """See `JobOwner.end`."""
        job = self._held.pop(task_id, None)
        if job is not None:
            self._watches.pop(task_id).cancel()
            self._ended.append((job, pause_s))
            self._has_ended.set()

    def note_room(self) -> None:
        """See `JobOwner.note_room`. Jobs may wait only if there was no room for them."""
        if self._was_full:
            self._jobs_wait.set()

    async def serve(self, stop: asyncio.Event) -> None:
        """Take jobs and run them until `stop` is set or the worker is dead, and end the runs within their grace.

        What is not done is given back at once, so that others take it up.
        """
        async with self._group as group:
            looks = [self._take_jobs(), self._listen()]
            if not self._only_own:
                looks += [self._sweep_when_due()]
            looking = [group.create_task(work) for work in looks]
            others = [group.create_task(self._beat_on()), group.create_task(self._report_ends())]
            async with self._runner:
                await run_until(self.dead.wait(), stop)
                for task in looking:
                    task.cancel()
            for task in [*others, *self._watches.values()]:
                task.cancel()
        if not self.dead.is_set():
            await self._take_leave()

    async def _take_leave(self) -> None:
        """Give back everything, also what the runner could not end within its grace, and be no worker any more."""
        with suppress(StoreUnavailableError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._report(list(self._ended))
                await self._queue.give_back(self.number, await self._queue.list_held(self.number))
                await self._queue.unregister(self.number)
                return
        log.warning("worker_left_without_notice", worker=self.number)

    # The heart

    async def _beat_on(self) -> None:
        failures = 0
        while not self.dead.is_set():
            try:
                if await self._beat() and self._may_judge:
                    await self._take_over()
                failures = 0
                pause_s = self._pauses.heartbeat_s
            except StoreUnavailableError as error:
                if not failures:
                    log.warning("heartbeat_failed", worker=self.number, error=str(error))
                self._steady_since = float("inf")
                failures += 1
                pause_s = min(_compute_pause_s(failures), self._pauses.heartbeat_s)
            await asyncio.sleep(pause_s)

    async def _beat(self) -> bool:
        """Tell the database that this worker lives. Return False if others have declared it dead."""
        asked_at = read_clock()
        async with self._beating:
            if self._beaten_at > asked_at or self.dead.is_set():  # another one has asked meanwhile
                return not self.dead.is_set()
            began = read_clock()
            if not await self._queue.beat(self.number):
                log.warning("worker_declared_dead", worker=self.number, silent_s=round(began - self._beaten_at, 1))
                self.dead.set()
                self._runner.stop()
                return False
            ended = read_clock()
            if ended - self._beaten_at > self._pauses.silence_s / 2:  # it was stopped, or without a database
                self._steady_since = ended
                self._sweep_due.set()
                self._jobs_wait.set()
            self._steady_since = min(self._steady_since, ended)
            self._beaten_at = began
            return True

    @property
    def _may_judge(self) -> bool:
        """True once the others had the time to show that they live, after a start or an outage of the database."""
        return read_clock() - self._steady_since > self._pauses.silence_s

    async def _take_over(self) -> None:
        """Let all take up what dead workers have left. A task that keeps killing its workers waits, ever longer."""
        async with self._inheriting:
            left = await self._queue.bury(self.number, self._pauses.silence_s)
            if left:
                await self._pass_on(left)

    async def _pass_on(self, left: list[Job]) -> None:
        """Give back the jobs that this worker has from dead ones, now or after a pause."""
        self._note_taken_over(len(left))
        starts = await self._store.starts()
        await self._store.note_starts([job.task_id for job in left])
        later = [job for job in left if starts.get(job.task_id, 0) >= MOST_STARTS]
        log.warning("jobs_taken_over", worker=self.number, jobs=len(left), waiting=len(later))
        for job in later:
            count = starts[job.task_id]
            pause_s = compute_start_pause_s(count, self._pauses)
            log.warning("task_waits_after_crashes", task_id=job.task_id, starts=count, pause_s=pause_s)
            await self._defer_later(job, pause_s)
        await self._queue.finish(self.number, later)
        await self._queue.give_back(self.number, [job for job in left if job not in later])
        self._sweep_due.set()
        self._jobs_wait.set()

    # Taking jobs

    async def _take_jobs(self) -> None:
        failures = 0
        reconciled_at = -self._pauses.look_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._compute_wait_s()):
                    await self._jobs_wait.wait()
            self._jobs_wait.clear()
            try:
                if time.monotonic() - reconciled_at >= self._pauses.look_s:
                    async with self._inheriting:  # what is being taken over is held by this worker too, for a moment
                        await self._give_back_unknown()
                    reconciled_at = time.monotonic()
                await self._move_due()
                await self._take_all()
                failures = 0
            except StoreUnavailableError as error:
                log.warning("no_jobs_taken", worker=self.number, error=str(error))
                failures += 1
                await asyncio.sleep(_compute_pause_s(failures))
                reconciled_at = -self._pauses.look_s  # the answer to a fetch may be lost
                self._jobs_wait.set()

    async def _take_all(self) -> None:
        """Take jobs until none waits or there is no room."""
        while not self.dead.is_set():
            room = min(self._runner.room, _FETCHED_AT_ONCE)
            self._was_full = not room
            taken = await self._queue.fetch(self.number, room, only_own=self._only_own) if room else []
            for job in taken:
                await self._hold(job)
            if self._was_full or len(taken) < room:
                return

    def _compute_wait_s(self) -> float:
        if self._due_at is None:
            return self._pauses.look_s
        return min(self._pauses.look_s, max(0.0, self._due_at - time.monotonic()))

    async def _move_due(self) -> None:
        """Have the tasks run whose pause is over, and note when the next one's is."""
        if self._due_at is None or self._due_at <= time.monotonic():
            seconds = await self._queue.move_due()
            self._due_at = time.monotonic() + (self._pauses.look_s if seconds is None else seconds)

    async def _hold(self, job: Job) -> None:
        self._held[job.task_id] = job
        self._watches[job.task_id] = self._group.create_task(self._watch_cancellation(job.task_id))
        await self._runner.wake(job.task_id)

    async def _watch_cancellation(self, task_id: str) -> None:
        while True:
            try:
                await self._store.wait_for_cancellation(task_id)
                break
            except StoreUnavailableError:
                await asyncio.sleep(self._pauses.store_s)
        await self._runner.cancel(task_id)

    async def _give_back_unknown(self) -> None:
        """Give back jobs that the database says are held here, and that are not: the answer to a fetch was lost."""
        known = {job.id for job in self._held.values()}
        held = await self._queue.list_held(self.number)
        known |= {job.id for job, _ in self._ended}
        unknown = [job for job in held if job.id not in known]
        if unknown:
            log.warning("jobs_given_back", worker=self.number, jobs=len(unknown))
            await self._queue.give_back(self.number, unknown)

    # Telling what has ended

    async def _report_ends(self) -> None:
        failures = 0
        while True:
            await self._has_ended.wait()
            self._has_ended.clear()
            ended = list(self._ended)
            try:
                await self._report(ended)
                failures = 0
            except StoreUnavailableError as error:
                log.warning("ends_not_reported", worker=self.number, error=str(error))
                failures += 1
                await asyncio.sleep(_compute_pause_s(failures))
                self._has_ended.set()
                continue
            for _ in ended:
                self._ended.popleft()
            self._jobs_wait.set()  # a job that came just now may wait for the end of another, which no notice tells

    async def _report(self, ended: list[tuple[Job, float | None]]) -> None:
        """Tell the database how these jobs have ended. Doing so twice is safe."""
        stopped = [job for job, pause_s in ended if pause_s == 0]
        if stopped:
            await self._queue.give_back(self.number, stopped)
        for job, pause_s in ended:
            if pause_s:
                await self._defer_later(job, pause_s)
        done = [job for job, pause_s in ended if pause_s != 0]
        if done:
            await self._queue.finish(self.number, done)

    async def _defer_later(self, job: Job, pause_s: float) -> None:
        await self._queue.defer_later(job.task_id, pause_s, self.number if self._only_own else None)
        due_at = time.monotonic() + pause_s
        self._due_at = due_at if self._due_at is None else min(self._due_at, due_at)
        self._jobs_wait.set()

    # Looking after all tasks

    async def _listen(self) -> None:
        """Hear of new jobs, and do what one of all has to do while this worker is elected."""
        failures = 0
        while True:
            duties: list[asyncio.Task[None]] = []
            try:
                async with self._queue.open_session(self.number) as session:
                    if failures:
                        log.info("worker_listens_again", worker=self.number)
                        self._sweep_due.set()
                    failures = 0
                    while True:
                        if not self._only_own and await session.elect():
                            if not duties:
                                log.info("worker_elected", worker=self.number)
                                duties = [self._group.create_task(sweep()) for sweep in self._sweeps]
                            self._sweep_due.set()
                        self._jobs_wait.set()
                        await session.listen(self._jobs_wait.set, self._pauses.look_s)
            except StoreUnavailableError as error:
                if not failures:
                    log.warning("worker_hears_nothing", worker=self.number, error=str(error))
                failures += 1
            finally:
                for duty in duties:
                    duty.cancel()
            await asyncio.sleep(_compute_pause_s(failures))

    async def _sweep_when_due(self) -> None:
        """Give a job to each unfinished task that has none."""
        while True:
            await self._sweep_due.wait()
            self._sweep_due.clear()
            try:
                await self.sweep()
            except StoreUnavailableError as error:
                log.warning("sweep_failed", worker=self.number, error=str(error))
                await asyncio.sleep(_RETRY_S[-1])
                self._sweep_due.set()

    async def sweep(self) -> None:
        """Give a job to each unfinished task that has none. Raises: StoreUnavailableError."""
        found = await self._queue.defer_missing(await self._store.list_unfinished())
        if found:
            log.info("jobs_added", worker=self.number, jobs=len(found))
