"""Chooses the runner that the settings name. Another runner is added here, and nowhere else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from agent_runtime.config import LimitSettings, Settings
from agent_runtime.domain.entries import Entries
from agent_runtime.domain.pauses import Pauses
from agent_runtime.runners.jobs import JobQueue
from agent_runtime.runners.local import JobOwner, LocalRunner, RunTask, ServersOf
from agent_runtime.runners.queued import QueuedRunner
from agent_runtime.runners.worker import Sweep
from agent_runtime.services.ports import Runner, TaskStore


@asynccontextmanager
async def open_local_runner(
    limits: LimitSettings, run: RunTask, servers_of: ServersOf, pauses: Pauses, sweeps: tuple[Sweep, ...]
) -> AsyncIterator[Runner]:
    """Run tasks in this process, and its sweeps, while the context lasts."""
    async with asyncio.TaskGroup() as group:
        sweeping = [group.create_task(sweep()) for sweep in sweeps]
        async with make_local_runner(limits, run, servers_of, pauses) as runner:
            yield runner
        for task in sweeping:
            task.cancel()


@asynccontextmanager
async def open_queued_runner(
    open_queue: Callable[[], AbstractAsyncContextManager[JobQueue]],
    settings: Settings,
    store: TaskStore,
    run: RunTask,
    servers_of: ServersOf,
    pauses: Pauses,
    sweeps: tuple[Sweep, ...],
    read_entries: Callable[[], Entries],
    *,
    only_own: bool,
    note_taken_over: Callable[[int], None],
) -> AsyncIterator[QueuedRunner]:
    """Run tasks together with other processes, as the setting `role` says, while the context lasts."""

    def make(owner: JobOwner) -> LocalRunner:
        return make_local_runner(settings.limits, run, servers_of, pauses, owner)

    make_runner = None if settings.role == "api" else make
    async with (
        open_queue() as queue,
        QueuedRunner(
            queue,
            store,
            make_runner,
            only_own=only_own,
            role=settings.role,
            read_entries=read_entries,
            sweeps=sweeps,
            pauses=pauses,
            note_taken_over=note_taken_over,
        ) as runner,
    ):
        yield runner


def make_local_runner(
    limits: LimitSettings, run: RunTask, servers_of: ServersOf, pauses: Pauses, owner: JobOwner | None = None
) -> LocalRunner:
    """Return the runner of this process, with the bounds that the settings name."""
    return LocalRunner(
        run,
        servers_of,
        limit=limits.concurrent_tasks,
        share=limits.tasks_on_same_servers,
        grace_s=limits.shutdown_s,
        pauses=pauses,
        owner=owner,
    )
