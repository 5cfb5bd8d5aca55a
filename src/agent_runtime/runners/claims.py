"""The proof that the claims of this process are valid, for whoever is about to send a call."""

from agent_runtime.runners.queued import QueuedRunner


class Claims:
    """The claims of a process that shares its tasks with others. `runner` is set once there is one."""

    def __init__(self) -> None:
        self.runner: QueuedRunner | None = None

    async def confirm(self) -> bool:
        """Return whether they are surely valid now."""
        return self.runner is not None and await self.runner.confirm_claims()
