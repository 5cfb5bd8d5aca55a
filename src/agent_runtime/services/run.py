"""One run: a claim on a task, and the only writer under that claim."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from agent_runtime.domain.errors import ConflictError, StaleEpochError, StoreUnavailableError
from agent_runtime.domain.events import Event, EventRecord, TaskClaimed, ToolReturned
from agent_runtime.domain.task import Task
from agent_runtime.domain.transitions import evolve
from agent_runtime.services.ports import TaskStore

log = structlog.get_logger()

_LONGEST_WAIT_S = 5.0


class Run:
    """What a run knows of its task: the journal, and the events that its next commit will add.

    Events are staged as they follow from one another and committed together, so that the end of one step and the
    start of the next cost one write; whatever leaves the process (a call) is committed before it leaves. `cancel`
    is set once a cancellation was written.
    """

    def __init__(self, store: TaskStore, task: Task, cancel: asyncio.Event) -> None:
        self._store = store
        self._committed = task
        self._staged: list[Event] = []
        self.task = task
        self.cancel = cancel

    @classmethod
    async def claim(cls, store: TaskStore, task: Task, runner: str, cancel: asyncio.Event) -> "Run":
        """Take the task with a new epoch. Raises: ConflictError where the journal has grown meanwhile."""
        epoch = task.epoch + 1
        claimed = await store.append(task, [TaskClaimed(runner=runner, epoch=epoch)], epoch=epoch)
        return cls(store, claimed, cancel)

    @property
    def epoch(self) -> int:
        return self._committed.epoch

    @property
    def has_staged(self) -> bool:
        return bool(self._staged)

    def stage(self, *events: Event) -> None:
        """Add events to the next commit; `task` is the state with them. Raises: IllegalTransitionError."""
        now = datetime.now(UTC)
        for event in events:
            record = EventRecord(self.task.task_id, self.task.version + 1, self.epoch, now, event, "")
            self.task = evolve(self.task, record)
            self._staged.append(event)

    async def commit(self) -> None:
        """Write what is staged; while the store is unavailable, wait for it: a result in hand is not given up.

        Raises: ConflictError after a write from outside: `task` is then what the journal says now, with the facts
        that were staged (answers of calls) staged again, and everything must be decided anew. StaleEpochError
        where a newer claim owns the task: the run must end.
        """
        if not self._staged:
            return
        try:
            self._committed = await self._append(self._committed, self._staged)
        except ConflictError:
            await self._rebase()
            raise
        except StaleEpochError:
            await self._leave_evidence(await self._store.load(self.task.task_id))
            raise
        self._staged = []
        self.task = self._committed

    async def _append(self, task: Task, events: Sequence[Event]) -> Task:
        wait_s = 0.1
        while True:
            try:
                return await self._store.append(task, events, epoch=self.epoch)
            except StoreUnavailableError as error:
                log.warning("store_unavailable", task_id=task.task_id, error=str(error), retry_in_s=wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    async def _rebase(self) -> None:
        fresh = await self._store.load(self.task.task_id)
        if fresh.epoch != self.epoch:
            await self._leave_evidence(fresh)
            raise StaleEpochError(f"Epoch {self.epoch} of task {fresh.task_id} was superseded by {fresh.epoch}.")
        facts = self._facts()
        self._committed, self.task, self._staged = fresh, fresh, []
        if not fresh.terminal:
            self.stage(*facts)

    def _facts(self) -> list[Event]:
        return [event for event in self._staged if isinstance(event, ToolReturned)]

    async def _leave_evidence(self, fresh: Task) -> None:
        """Keep the answers that this run got too late, while the task is open; they change nothing."""
        facts, self._staged = self._facts(), []
        if facts and not fresh.terminal:
            with contextlib.suppress(ConflictError, StaleEpochError):
                await self._store.append(fresh, facts, epoch=self._committed.epoch)
