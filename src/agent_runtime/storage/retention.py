"""Deletes tasks that ended longer ago than the operator keeps them, in the background."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import structlog

from agent_runtime.domain.errors import ConflictError, TaskNotFoundError
from agent_runtime.domain.status import TaskStatus
from agent_runtime.live.sweeping import LONGEST_SLEEP_S, keep_sweeping
from agent_runtime.services.ports import TaskStore

log = structlog.get_logger()

_AT_ONCE = 10
_REST = 4
"""After each batch the sweep rests this many times as long as the batch took, so that other work goes on."""


class Retention:
    """Deletes the tasks that have been in a final status for longer than its period. Statuses without one are kept.

    Each deletion leaves a tombstone, as a caller's does. Several processes may do the same at once: one deletes a task,
    and the others find it gone. A task whose journal was changed is left to people.
    """

    def __init__(self, store: TaskStore, periods: Mapping[TaskStatus, timedelta]) -> None:
        self._store = store
        self._periods = dict(periods)
        self._left_alone: set[str] = set()

    async def watch(self) -> None:
        """Delete tasks as their periods end, until cancelled. Retries while the store is unavailable."""
        if self._periods:
            await keep_sweeping(self._sweep, waits="retention_waits_for_store", failed="retention_failed")

    async def _sweep(self) -> float:
        await self.sweep()
        return min(LONGEST_SLEEP_S, *(period.total_seconds() for period in self._periods.values()))

    async def sweep(self) -> None:
        """Delete all tasks whose period is over, a few at a time. Raises: StoreUnavailableError."""
        for status, period in self._periods.items():
            began = asyncio.get_running_loop().time()
            while await self._delete_some(status, datetime.now(UTC) - period):
                now = asyncio.get_running_loop().time()
                await asyncio.sleep(_REST * (now - began))
                began = asyncio.get_running_loop().time()

    async def _delete_some(self, status: TaskStatus, before: datetime) -> bool:
        """Delete some tasks that ended before then. Return whether there may be more."""
        found = await self._store.list_ended(status, before, _AT_ONCE + len(self._left_alone))
        due = [task_id for task_id in found if task_id not in self._left_alone][:_AT_ONCE]
        outcomes = await asyncio.gather(*(self._delete(one, status, before) for one in due), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(due) == _AT_ONCE

    async def _delete(self, task_id: str, status: TaskStatus, before: datetime) -> None:
        try:
            task = await self._store.load(task_id)
            if task.status is not status or task.updated_at is None or task.updated_at >= before:
                self._left_alone.add(task_id)  # its row says something else than its journal
                log.warning("not_deleted", task_id=task_id, reason="its row and its journal differ")
                return
            await self._store.delete(task)
        except (TaskNotFoundError, ConflictError):  # deleted by another process, or with a late answer to a call
            return
        log.info("task_deleted", task_id=task_id, actor="retention")
