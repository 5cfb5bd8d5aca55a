"""Plans that nobody approved in time: their tasks end, by themselves and at the latest when somebody comes too late."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from agent_runtime.domain.errors import ConflictError, StoreUnavailableError, TaskNotFoundError
from agent_runtime.domain.events import TaskExpired
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.services.ports import TaskStore

log = structlog.get_logger()

_AT_ONCE = 100
_LONGEST_SLEEP_S = 60.0
"""So that a clock that was set, or a machine that slept, is noticed."""

_RETRY_S = 1.0


class Expiry:
    """Ends the tasks whose plan has awaited approval for `after_s` seconds; null: none.

    The deadline follows from the journal and the setting, so it holds over restarts, and a setting that was changed
    holds for the plans that wait already.
    """

    def __init__(self, store: TaskStore, after_s: float | None) -> None:
        self._store = store
        self._after = None if after_s is None else timedelta(seconds=after_s)
        self._broken: set[str] = set()

    async def load(self, task_id: str) -> Task:
        """The task, which has expired where its time has come. Raises: TaskNotFoundError, StoreUnavailableError."""
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
        """Whether the task awaits an approval that would come too late."""
        if self._after is None or task.planned_at is None:
            return False
        waits = task.status is TaskStatus.AWAITING_APPROVAL and not task.cancel_requested
        return waits and datetime.now(UTC) >= task.planned_at + self._after

    async def watch(self) -> None:
        """End tasks as their time comes, until cancelled. A store that is unavailable is asked again."""
        while self._after is not None:
            try:
                pause_s = await self._sweep(self._after)
            except StoreUnavailableError as error:
                log.warning("expiry_waits_for_store", error=str(error))
                pause_s = _RETRY_S
            except Exception:  # the edge that owns the loop: no row of the database may end the service
                log.exception("expiry_failed")
                pause_s = _LONGEST_SLEEP_S
            await asyncio.sleep(pause_s)

    async def _sweep(self, after: timedelta) -> float:
        """End what is over, and say for how many seconds nothing else can be.

        A plan that is made later is over later, so nobody need wake the sleeper for it. A journal that is broken is
        left alone until the next start, and holds nobody else up.
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
                except StoreUnavailableError as error:  # one journal that cannot be read holds nobody else up
                    log.warning("not_expired", task_id=task_id, error=str(error))
                    left_over += 1
                except Exception:  # whatever the journal holds, it is the matter of this task alone
                    log.exception("not_expired", task_id=task_id)
                    self._broken.add(task_id)
                else:
                    left_over += task.status is TaskStatus.AWAITING_APPROVAL  # its row was changed to an earlier time
            if left_over:
                return _RETRY_S
            if len(over) < _AT_ONCE:
                left = [since + after - now for _, since in waiting[len(over) :]]
                return min([_LONGEST_SLEEP_S, after.total_seconds(), *(one.total_seconds() for one in left)])
