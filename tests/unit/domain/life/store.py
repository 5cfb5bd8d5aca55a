"""A store in memory with one journal. It checks versions and epochs with `evolve`, as every store does."""

from datetime import UTC, datetime
from typing import Literal

from agent_runtime.domain import events as ev
from agent_runtime.domain.errors import ConflictError
from agent_runtime.domain.task import Task
from agent_runtime.domain.transitions import evolve
from unit.domain.life.world import World

AT = datetime(2026, 11, 21, tzinfo=UTC)


class CrashError(Exception):
    """The process crashed."""


class Store:
    """Appends all events or none, if the version matches. `records`: the acknowledged ones.

    `crash_point`: crash before or after the next append. `cancel_written`: a cancellation was written; the runner tells
    every run. `late_answers`: the number of answers to calls of superseded runs.
    """

    def __init__(self, world: World) -> None:
        self.task = Task("t")
        self.records: list[ev.EventRecord] = []
        self.world = world
        self.crash_point: Literal["before", "after"] | None = None
        self.cancel_written = False
        self.late_answers = 0

    def append(self, seen: Task, *events: ev.Event, epoch: int | None = None) -> Task:
        crash_point, self.crash_point = self.crash_point, None
        if crash_point == "before":
            raise CrashError
        if seen.version != self.task.version:
            raise ConflictError("the journal has grown")
        task, new = self.task, []
        for event in events:
            new.append(ev.make_record("t", task.version + 1, epoch, AT, event))
            task = evolve(task, new[-1])
        self.task = task
        self.records += new
        for record in new:
            self.world.read(record)
        if crash_point == "after":
            raise CrashError
        return task
