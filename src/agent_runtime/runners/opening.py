"""Chooses the runner that the settings name. Another runner is added here, and nowhere else."""

from contextlib import AbstractAsyncContextManager

from agent_runtime.config import Settings
from agent_runtime.domain.pauses import Pauses
from agent_runtime.runners.local import LocalRunner, RunTask, ServersOf
from agent_runtime.services.ports import Runner


def open_runner(
    settings: Settings, run: RunTask, servers_of: ServersOf, pauses: Pauses
) -> AbstractAsyncContextManager[Runner]:
    """Return the runner that the setting `runner` names; it runs tasks while its context lasts."""
    limits = settings.limits
    return LocalRunner(
        run,
        servers_of,
        limit=limits.concurrent_tasks,
        share=limits.tasks_on_same_servers,
        grace_s=limits.shutdown_s,
        pauses=pauses,
    )
