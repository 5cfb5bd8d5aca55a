"""A store in memory: one journal, held to versions and epochs by the same `evolve` as every other store."""

from datetime import UTC, datetime
from typing import Literal

from agent_runtime.domain import events as ev
from agent_runtime.domain.errors import ConflictError
from agent_runtime.domain.task import Task
from agent_runtime.domain.transitions import evolve
from unit.domain.life.world import World

AT = datetime(2026, 11, 21, tzinfo=UTC)


class CrashedError(Exception):
    """The process died at this instant."""


class Store:
    """All or nothing is appended, to the version that was named. What is in `records` is acknowledged.

    `fuse` has the next append die, before or after it took place. `cancelled` is what the runner tells every run
    once a cancellation was written; `evidence` counts the answers that came too late.
    """

    def __init__(self, world: World) -> None:
        self.task = Task("t")
        self.records: list[ev.EventRecord] = []
        self.world = world
        self.fuse: Literal["before", "after"] | None = None
        self.cancelled = False
        self.evidence = 0

    def append(self, seen: Task, *events: ev.Event, epoch: int | None = None) -> Task:
        fuse, self.fuse = self.fuse, None
        if fuse == "before":
            raise CrashedError
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
        if fuse == "after":
            raise CrashedError
        return task
