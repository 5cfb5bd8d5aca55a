"""Ended tasks are deleted once their period is over, with all that belongs to them, on every store."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from agent_runtime.config import StorageSettings, load_settings
from agent_runtime.config.retention import RetentionSettings
from agent_runtime.domain import events as ev
from agent_runtime.domain.approval import Cancel
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import ConfigurationError, TaskNotFoundError
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.status import TERMINAL, TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.services.ports import TaskStore
from agent_runtime.storage.opening import open_for_reading
from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.store import PostgresStore
from agent_runtime.storage.retention import Retention
from agent_runtime.storage.sqlite.store import SqliteStore
from harms import HARMS, harm
from harness import House, ledger_plan, submit_plan, until_status
from journals import task_submitted, write_cancelled_task, write_executing_task
from pictures import make_image
from waiting import eventually

DAY = timedelta(days=1)
CANCELLED_FOR_30_DAYS = {TaskStatus.CANCELLED: 30 * DAY}


class ShiftedClock:
    """A clock that tells another day."""

    def __init__(self) -> None:
        self.days = 0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.days * DAY


@dataclass(frozen=True)
class Place:
    """A database, and how to open a store on it."""

    settings: StorageSettings
    clock: ShiftedClock
    open: Callable[[], AbstractAsyncContextManager[TaskStore]]

    def find_faults(self) -> list[str]:
        with open_for_reading(self.settings) as database:
            return [str(fault) for fault in database.verify_commits().faults]


@pytest.fixture(params=["sqlite", "postgresql", "postgresql, shared"])
def place(request: pytest.FixtureRequest) -> Place:
    clock = ShiftedClock()
    if request.param == "sqlite":
        settings = StorageSettings(url=f"sqlite:///{request.getfixturevalue('tmp_path')}/tasks.db")
        return Place(settings, clock, lambda: SqliteStore(settings.database_path, clock=clock))
    url = request.getfixturevalue("postgres_url")
    exclusive = request.param == "postgresql"
    return Place(
        StorageSettings(url=url), clock, lambda: PostgresStore(Database(url), exclusive=exclusive, clock=clock)
    )


async def test_only_what_ended_long_enough_ago_is_deleted_with_a_tombstone(place: Place) -> None:
    async with place.open() as store:
        place.clock.days = -40
        for number in range(12):  # more than one batch
            await write_cancelled_task(store, f"old{number}")
        attempt = PlanningAttempt(
            revision=1, at=datetime.now(UTC), duration_ms=1, instructions="", messages=(), answer="", outcome="planned"
        )
        await store.save_planning_attempt("old0", attempt)
        picture = make_image()
        await store.save_images("old0", [picture], picture.size)
        assert await store.load_image("old0", picture.digest) == picture
        await write_executing_task(store, "open")
        waiting = await store.append(Task("late"), [task_submitted()])
        place.clock.days = -10
        await write_cancelled_task(store, "recent")
        await store.append(waiting, [ev.TaskCancelRequested(), ev.TaskCancelled()])
        place.clock.days = 0
        await Retention(store, CANCELLED_FOR_30_DAYS).sweep()
        assert [task.task_id for task in (await store.page()).tasks] == ["recent", "late", "open"]
        with pytest.raises(TaskNotFoundError):
            await store.load_planning_attempts("old0")
        await store.append(Task("old0"), [task_submitted()])
        assert await store.load_planning_attempts("old0") == []
        assert await store.load_image("old0", picture.digest) is None
    assert place.find_faults() == []


@pytest.mark.slow
async def test_several_sweeps_at_once_delete_each_task_once(place: Place) -> None:
    async with place.open() as store:
        place.clock.days = -40
        for number in range(15):
            await write_cancelled_task(store, f"old{number}")
        place.clock.days = 0
        with capture_logs() as logged:
            await asyncio.gather(*(Retention(one, CANCELLED_FOR_30_DAYS).sweep() for one in (store, store, store)))
        deleted = [line["task_id"] for line in logged if line["event"] == "task_deleted"]
        assert sorted(deleted) == sorted(f"old{number}" for number in range(15))
        assert dict(await store.count()) == {}
    assert place.find_faults() == []


def test_each_final_status_has_a_period_and_no_other_status_has_one() -> None:
    everything = RetentionSettings.model_validate(dict.fromkeys(RetentionSettings.model_fields, 60))
    assert everything.periods == dict.fromkeys(TERMINAL, timedelta(minutes=1))
    assert RetentionSettings().periods == {}
    with pytest.raises(ConfigurationError, match=r"retention\.pending_s: unknown key"):
        load_settings(overrides={"retention.pending_s": 1}, environ={})


async def test_a_service_deletes_by_itself_and_leaves_open_and_changed_tasks_alone(house: House) -> None:
    async with house.open() as runtime:
        ended, changed, waiting = [await submit_plan(runtime, ledger_plan("one")) for _ in range(3)]
        for task in (ended, changed):
            await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
            await until_status(runtime, task.task_id, TaskStatus.CANCELLED)
    harm(house.settings.storage.database_path, HARMS["the last record was deleted"], changed.task_id)
    house.settings = house.settings.model_copy(update={"retention": RetentionSettings(cancelled_s=0.001)})
    async with house.open() as runtime:

        async def is_deleted() -> bool:
            return ended.task_id not in {task.task_id for task in (await runtime.store.page()).tasks}

        await eventually(is_deleted)
        left = {task.task_id for task in (await runtime.store.page()).tasks}
        assert left == {changed.task_id, waiting.task_id}
