"""A service that ends before or after one of its appends, as by SIGKILL, and is built anew on the same file."""

from collections.abc import Sequence

from agent_runtime.domain.events import Event
from agent_runtime.domain.task import Task
from agent_runtime.storage.sqlite import SqliteStore


class Crash(BaseException):
    """The end of the process, as far as the runtime can tell."""


class Fuse:
    """Blows at one append, before or after it; from then on nothing is written any more."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at = at
        self.after = after
        self.appends = 0
        self.blown = False


class CrashingStore(SqliteStore):
    fuse: Fuse

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        fuse = self.fuse
        fuse.appends += 1
        if fuse.blown or (fuse.appends == fuse.at and not fuse.after):
            fuse.blown = True
            raise Crash
        appended = await super().append(task, events, epoch=epoch)
        if fuse.appends == fuse.at:
            fuse.blown = True
            raise Crash
        return appended


def is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(is_crash(inner) for inner in error.exceptions)
    return isinstance(error, Crash)
