"""The other workers of the service: which registry entries they have, and how a task gets to one that has its own."""

import structlog

from agent_runtime.domain.contract import Contract
from agent_runtime.domain.entries import list_pinned
from agent_runtime.registry.current import CurrentRegistry
from agent_runtime.runners.claims import Claims

log = structlog.get_logger()


class LocalFleet:
    """The fleet of a process that shares its tasks with no other, with the shape of `ports.Fleet`."""

    async def has_entries(self, _contract: Contract) -> bool:
        """See `ports.Fleet`."""
        return False

    async def hand_over(self, _task_id: str, _contract: Contract) -> bool:
        """See `ports.Fleet`."""
        return False


class QueuedFleet:
    """The fleet behind a queue, with the shape of `ports.Fleet`. `current` are the entries of this process."""

    def __init__(self, current: CurrentRegistry, claims: Claims) -> None:
        self._current = current
        self._claims = claims

    async def has_entries(self, contract: Contract) -> bool:
        """See `ports.Fleet`."""
        runner = self._claims.runner
        return runner is not None and await runner.find_worker(list_pinned(contract)) is not None

    async def hand_over(self, task_id: str, contract: Contract) -> bool:
        """See `ports.Fleet`."""
        needed, runner = list_pinned(contract), self._claims.runner
        if runner is None or self._current.usable.include(needed):
            return False
        worker = await runner.find_worker(needed)
        if worker is None:
            return False
        await runner.hand_over(task_id, worker)
        log.info("task_handed_over", task_id=task_id, worker=worker)
        return True
