"""Resumes the unfinished tasks of an earlier process after a start, so that none of them keeps the service down.

A task that exhausts memory or processor may kill the service each time it is resumed. So starts are counted before
anything of a task is read. A task that was resumed in several starts in a row without progress has to wait: the service
becomes ready first, and then resumes such tasks one after the other, each after a longer pause.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress

import structlog

from agent_runtime.domain.errors import StoreUnavailableError, TaskNotFoundError
from agent_runtime.domain.pauses import Pauses
from agent_runtime.services.ports import Runner, TaskStore

log = structlog.get_logger()

MOST_STARTS = 3
"""After this many starts in a row without progress a task has to wait."""

_ALONE_S = 10.0
"""How long the next task waits for progress of the one before it."""


def compute_start_pause_s(starts: int, pauses: Pauses) -> float:
    """Return how long a task waits that was resumed so often in a row without progress, `MOST_STARTS` times or more."""
    growing_s = pauses.first_start_s * 4.0 ** min(starts - MOST_STARTS, 10)
    return min(growing_s, pauses.longest_start_s)


class Recovery:
    """Wakes the runner for unfinished tasks. `tasks` owns the work that goes on after the start."""

    def __init__(self, store: TaskStore, runner: Runner, tasks: asyncio.TaskGroup, pauses: Pauses) -> None:
        self._store = store
        self._runner = runner
        self._tasks = tasks
        self._pauses = pauses
        self._later: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Resume all unfinished tasks, now or after a pause. Raises: StoreUnavailableError."""
        starts = await self._store.starts()
        unfinished = await self._store.list_unfinished()
        waiting = {task_id: starts[task_id] for task_id in unfinished if starts.get(task_id, 0) >= MOST_STARTS}
        await self._wake([task_id for task_id in unfinished if task_id not in waiting])
        self._later = self._tasks.create_task(self._take_up(waiting), name="recovery")

    async def end(self) -> None:
        """Resume no more tasks, and reset the counts of starts: an orderly stop is no task's fault."""
        if self._later is not None:
            self._later.cancel()
            with suppress(StoreUnavailableError):
                await self._store.forget_starts()

    async def _take_up(self, waiting: Mapping[str, int]) -> None:
        """Resume the tasks that have to wait, those with the fewest starts first."""
        waited_s = 0.0
        for task_id, starts in sorted(waiting.items(), key=lambda item: item[1]):
            pause_s = compute_start_pause_s(starts, self._pauses)
            log.warning("task_waits_after_crashes", task_id=task_id, starts=starts, pause_s=pause_s)
            await asyncio.sleep(pause_s - waited_s)
            waited_s = pause_s
            try:
                await self._wake([task_id])
                await self._wait_for_progress(task_id)
            except Exception:  # the edge that owns the loop: one broken task must not hold up the others
                log.exception("task_not_taken_up", task_id=task_id)

    async def _wake(self, task_ids: Collection[str]) -> None:
        if task_ids:
            await self._store.note_starts(task_ids)
        for task_id in task_ids:
            await self._runner.wake(task_id)

    async def _wait_for_progress(self, task_id: str) -> None:
        """Wait until the run has written more than its claim, at most `_ALONE_S` seconds."""
        with suppress(TimeoutError, TaskNotFoundError):
            async with asyncio.timeout(_ALONE_S):
                task = await self._store.load(task_id)
                await self._store.wait_for_change(task_id, task.version + 1)
