"""The queue of jobs as its runner needs it. All methods raise: StoreUnavailableError."""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from agent_runtime.domain.entries import Entries
from agent_runtime.domain.jobs import Job


class JobSession(Protocol):
    """A session with the database that hears of new jobs, and that can be the elected one."""

    async def listen(self, tell: Callable[[], None], seconds: float) -> None:
        """Call `tell` for each notice of a new job, for so long."""

    async def elect(self) -> bool:
        """Return whether this session is the one that does what one of all has to do. It is so until it ends."""


class JobQueue(Protocol):
    """Jobs, each of which runs a task. Of one task one job can wait, and one can be held by a worker.

    A worker is registered, and its heart beats. One that was declared dead holds nothing any more.
    """

    async def defer(self, task_ids: Collection[str], worker: int | None = None) -> None:
        """Add a job for each of these tasks that has none waiting: for every worker, or only for the named one, which
        then gets a waiting one too.
        """

    async def defer_missing(self, task_ids: Collection[str]) -> list[str]:
        """Add a job for each of these tasks that has none at all, and return those."""

    async def defer_later(self, task_id: str, pause_s: float, worker: int | None = None) -> None:
        """Have the task run after a pause, or as soon as something else wakes it; see `defer` for `worker`."""

    async def move_due(self) -> float | None:
        """Have the tasks run whose pause is over. Return the seconds until the next one; None if none waits."""

    async def register(self) -> int:
        """Return the id of a new worker, whose heart has just beaten."""

    async def announce(self, worker: int, role: str, entries: Entries) -> None:
        """Tell the others which registry entries this worker has. Until then it has none."""

    async def find_worker(self, needed: Entries, but: int | None, silent_s: float) -> int | None:
        """Return a worker that has all these entries, whose heart was not silent for so long, and that is not `but`;
        None if there is none.
        """

    async def unregister(self, worker: int) -> None:
        """Forget a worker. What it still holds counts as left by a dead one."""

    async def beat(self, worker: int) -> bool:
        """Note that the worker lives. Return False if others have declared it dead: then it holds nothing."""

    async def fetch(self, worker: int, most: int, *, only_own: bool) -> list[Job]:
        """Take the next jobs, for every worker or for this one; fewer than `most` if no other can be taken now.
        `only_own`: only for this one.
        """

    async def finish(self, worker: int, jobs: Collection[Job]) -> None:
        """Remove jobs that are done, as far as the worker still holds them."""

    async def give_back(self, worker: int, jobs: Collection[Job]) -> None:
        """Let others take jobs, as far as the worker still holds them."""

    async def list_held(self, worker: int) -> list[Job]:
        """Return the jobs that this worker holds, as the database says."""

    async def bury(self, worker: int, silent_s: float) -> list[Job]:
        """Declare dead the workers whose hearts were silent for so long. Return what dead ones have left, which this
        worker holds from now on.

        A worker is declared dead, or its heart beats: never both. So each one learns of its death.
        """

    def open_session(self, worker: int) -> AbstractAsyncContextManager[JobSession]:
        """Return a session that hears of the jobs that this worker may take."""
