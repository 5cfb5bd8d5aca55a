"""Expires tasks whose plan nobody approved in time: in the background, or when a decision comes too late."""

from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from agent_runtime.domain.errors import ConflictError, StoreUnavailableError, TaskNotFoundError
from agent_runtime.domain.events import TaskExpired
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.live.sweeping import LONGEST_SLEEP_S, RETRY_S, keep_sweeping
from agent_runtime.services.ports import TaskStore

log = structlog.get_logger()

_AT_ONCE = 100


class Expiry:
    """Expires the tasks whose plan has awaited approval for `after_s` seconds; with None, none.

    The deadline follows from the journal and the setting. So it holds over restarts, and a new setting applies to plans
    that wait already.
    """

    def __init__(self, store: TaskStore, after_s: float | None) -> None:
        self._store = store
        self._after = None if after_s is None else timedelta(seconds=after_s)
        self._broken: set[str] = set()

    async def load(self, task_id: str) -> Task:
        """Return the task, and expire it first if it is overdue. Raises: TaskNotFoundError, StoreUnavailableError."""
        while True:
            task = await self._store.load(task_id)
            if not self.is_overdue(task):
                return task
            try:
                task = await self._store.append(
                    task, [TaskExpired(revision=task.plan_revision, digest=task.plan_digest or "")]
                )
            except ConflictError:
                continue
            log.info("task_expired", task_id=task_id, revision=task.plan_revision)
            return task

    def is_overdue(self, task: Task) -> bool:
        """Return whether the task awaits approval and its deadline has passed."""
        if self._after is None or task.planned_at is None:
            return False
        waits = task.status is TaskStatus.AWAITING_APPROVAL and not task.cancel_requested
        return waits and datetime.now(UTC) >= task.planned_at + self._after

    async def watch(self) -> None:
        """Expire tasks as their deadlines pass, until cancelled. Retries while the store is unavailable."""
        if self._after is not None:
            sweep = partial(self._sweep, self._after)
            await keep_sweeping(sweep, waits="expiry_waits_for_store", failed="expiry_failed")

    async def _sweep(self, after: timedelta) -> float:
        """Expire the overdue tasks, and return the seconds until the next one can be overdue.

        A later plan has a later deadline, so nobody has to wake the sleeper for it. A journal that cannot be folded is
        skipped until the next start.
        """
        while True:
            waiting = await self._store.list_awaiting_approval(_AT_ONCE + len(self._broken))
            waiting = [(task_id, since) for task_id, since in waiting if task_id not in self._broken]
            now = datetime.now(UTC)
            over = [task_id for task_id, since in waiting if since + after <= now]
            left_over = 0
            for task_id in over:
                try:
                    task = await self.load(task_id)
                except TaskNotFoundError:
                    continue
                except StoreUnavailableError as error:  # skip a journal that cannot be read
                    log.warning("not_expired", task_id=task_id, error=str(error))
                    left_over += 1
                except Exception:  # a broken journal concerns this task only
                    log.exception("not_expired", task_id=task_id)
                    self._broken.add(task_id)
                else:
                    # A task that is not overdue has a row with an earlier time than its journal.
                    left_over += task.status is TaskStatus.AWAITING_APPROVAL
            if left_over:
                return RETRY_S
            if len(over) < _AT_ONCE:
                left = [since + after - now for _, since in waiting[len(over) :]]
                return min([LONGEST_SLEEP_S, after.total_seconds(), *(one.total_seconds() for one in left)])
