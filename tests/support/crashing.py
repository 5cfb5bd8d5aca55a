"""Stores that fail: one ends the runtime at an append, as SIGKILL would; another has a bug."""

from collections.abc import Callable, Sequence
from typing import Any

from agent_runtime.domain.events import Event
from agent_runtime.domain.task import Task
from agent_runtime.storage.sqlite.store import SqliteStore


class Crash(BaseException):
    """Simulates the end of the process."""


class Fuse:
    """Blows before or after one append. After that, nothing is written."""

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


class BuggyStore(SqliteStore):
    """A store that raises an error in each append for which `has_bug(task, events)` is true."""

    def __init__(self, *args: Any, has_bug: Callable[[Task, Sequence[Event]], bool], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._has_bug = has_bug

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        if self._has_bug(task, events):
            raise ZeroDivisionError
        return await super().append(task, events, epoch=epoch)


def is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(is_crash(inner) for inner in error.exceptions)
    return isinstance(error, Crash)
