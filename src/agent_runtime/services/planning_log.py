"""Keeps the attempts of language models at plans."""

from collections.abc import Callable

import structlog

from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.planning_attempts import PlanningAttempt, prepare_attempt
from agent_runtime.domain.task import Task
from agent_runtime.services.ports import TaskStore

log = structlog.get_logger()


class PlanningLog:
    """Keeps each attempt with its task, without the secrets that `redact` knows."""

    def __init__(self, store: TaskStore, redact: Callable[[str], str]) -> None:
        self._store = store
        self._redact = redact

    async def keep(self, task: Task, attempt: PlanningAttempt) -> None:
        """Keep an attempt at the next plan of the task. While the store is unavailable attempts are lost."""
        prepared = prepare_attempt(attempt, task.plan_revision + 1, self._redact)
        try:
            await self._store.save_planning_attempt(task.task_id, prepared)
        except StoreUnavailableError as error:
            log.warning("planning_attempt_lost", task_id=task.task_id, error=str(error))
