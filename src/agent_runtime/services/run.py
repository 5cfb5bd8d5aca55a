"""One run: a claim on a task, and the only writer under that claim."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from agent_runtime.domain.budget import charge
from agent_runtime.domain.errors import (
    ConflictError,
    StaleEpochError,
    StoreUnavailableError,
)
from agent_runtime.domain.events import Event, EventRecord, ModelAnswered, TaskClaimed, ToolReturned
from agent_runtime.domain.images import Image
from agent_runtime.domain.kept_results import name_images
from agent_runtime.domain.task import Task, expect_unchanged
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.transitions import evolve
from agent_runtime.live.posts import Posts
from agent_runtime.services.ports import TaskStore
from agent_runtime.telemetry import log_debug

log = structlog.get_logger()

_LONGEST_WAIT_S = 5.0


class Run:
    """A run's view of its task: the journal, and the events of its next commit.

    Events are staged as they follow from one another and committed together, so that the end of one step and the start
    of the next cost one write. A call is committed before it is sent. `cancel` is set once a cancellation is in the
    journal. No call is started after `stop` is set. `extended_s` holds the seconds by step id that open calls got
    beyond their time-outs, because they report progress. `is_behind` is set once the journal holds something that the
    run must read. `wakeup` starts the execution's next turn.
    """

    def __init__(self, store: TaskStore, task: Task, cancel: asyncio.Event, stop: asyncio.Event) -> None:
        self._store = store
        self._committed = task
        self._staged: list[Event] = []
        self.task = task
        self.extended_s: dict[str, float] = {}
        self.wakeup = asyncio.Event()
        self.is_behind = False
        self.posts = Posts()
        self.cancel = cancel
        self.stop = stop

    @classmethod
    async def claim(
        cls, store: TaskStore, task: Task, runner: str, cancel: asyncio.Event, stop: asyncio.Event
    ) -> "Run":
        """Claim the task with a new epoch. The store verifies its journal.

        Raises: ConflictError where the journal has grown meanwhile, or was changed.
        """
        epoch = task.epoch + 1
        claimed = await store.append(task, [TaskClaimed(runner=runner, epoch=epoch)], epoch=epoch)
        log_debug("task_claimed", task_id=task.task_id, epoch=epoch, status=task.status)
        return cls(store, claimed, cancel, stop)

    @property
    def epoch(self) -> int:
        return self._committed.epoch

    @property
    def charged_task(self) -> Task:
        """The task with the seconds of `extended_s` charged to its budget."""
        return charge(self.task, sum(self.extended_s.values()))

    def post(self, event: Event) -> None:
        """Have the execution write an event in its next turn, if the journal allows it then."""
        self.posts.add(event)
        self.wakeup.set()

    def fall_behind(self) -> None:
        """Have the execution read the journal again in its next turn."""
        self.is_behind = True
        self.wakeup.set()

    async def read_on(self, after: int) -> list[EventRecord]:
        """Return the records after event number `after`, once there are some."""
        pauses = _Pauses(self.task.task_id)
        while True:
            try:
                if records := await self._store.records(self.task.task_id, after):
                    return records
                await self._store.wait_for_change(self.task.task_id, after)
            except StoreUnavailableError as error:
                await pauses.after(error)

    def stage(self, *events: Event) -> None:
        """Add events to the next commit; `task` is the state with them. Raises: IllegalTransitionError."""
        now = datetime.now(UTC)
        for event in events:
            record = EventRecord(self.task.task_id, self.task.version + 1, self.epoch, now, event, "")
            self.task = evolve(self.task, record)
            self._staged.append(event)

    async def commit(self) -> None:
        """Write the staged events. While the store is unavailable, wait for it, so that no result is lost.

        Raises: ConflictError after a write from outside. `task` is then reloaded, the staged facts (answers of calls
        and models) are staged again, and the caller must decide anew. StaleEpochError where a newer claim owns the
        task: the run must end.
        """
        if not self._staged:
            return
        try:
            self._committed = await self._append(self._committed, self._staged)
        except ConflictError:
            await self.catch_up()
            raise
        except StaleEpochError:
            await self.record_late_answers()
            raise
        self.posts.forget(self._staged)
        self._staged = []
        self.task = self._committed

    async def catch_up(self) -> None:
        """Reload the task after a write from outside. Of the staged events only the facts (answers of calls and models)
        stay.

        Raises: StaleEpochError where a newer claim owns the task, TaskNotFoundError where it is gone,
        JournalChangedError where the stored journal was tampered with.
        """
        fresh = await self._load()
        expect_unchanged(fresh)
        if fresh.epoch != self.epoch:
            await self.record_late_answers()
            raise StaleEpochError(f"Epoch {self.epoch} of task {fresh.task_id} was superseded by {fresh.epoch}.")
        facts = self._staged_facts()
        self._committed, self.task, self._staged, self.is_behind = fresh, fresh, [], False
        if not fresh.terminal:
            self.stage(*facts)

    async def save_images(self, result: StoredResult, most_bytes: int) -> StoredResult:
        """Save the images of a result, and return it with references to those that its task has. While the store is
        unavailable, wait for it.
        """
        images = [image for image in result.images if isinstance(image, Image)]
        pauses = _Pauses(self.task.task_id)
        while True:
            try:
                there = await self._store.save_images(self.task.task_id, images, most_bytes)
            except StoreUnavailableError as error:
                await pauses.after(error)
            else:
                return name_images(result, there, most_bytes)

    async def _append(self, task: Task, events: Sequence[Event]) -> Task:
        pauses = _Pauses(task.task_id)
        while True:
            try:
                return await self._store.append(task, events, epoch=self.epoch)
            except StoreUnavailableError as error:
                await pauses.after(error)

    async def _load(self) -> Task:
        pauses = _Pauses(self.task.task_id)
        while True:
            try:
                return await self._store.load(self.task.task_id)
            except StoreUnavailableError as error:
                await pauses.after(error)

    def _staged_facts(self) -> list[Event]:
        return [event for event in self._staged if isinstance(event, ToolReturned | ModelAnswered)]

    async def record_late_answers(self, *late: ToolReturned) -> None:
        """Write the answers that came after this run lost its claim, unless the task has ended. They do not change its
        state.
        """
        answers = [event for event in self._staged if isinstance(event, ToolReturned)]
        facts, self._staged = [*answers, *late], []
        while facts and not ((fresh := await self._load()).terminal or fresh.journal_change):
            with contextlib.suppress(ConflictError):  # the newer run wrote in between: try again
                await self._append(fresh, facts)
                return


class _Pauses:
    """Growing pauses while the store is unavailable."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._next_s = 0.1

    async def after(self, error: StoreUnavailableError) -> None:
        log.warning("store_unavailable", task_id=self._task_id, error=str(error), retry_in_s=self._next_s)
        await asyncio.sleep(self._next_s)
        self._next_s = min(self._next_s * 2, _LONGEST_WAIT_S)
