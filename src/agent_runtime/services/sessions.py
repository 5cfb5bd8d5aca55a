"""The sessions of one run with the MCP servers of its plan, held against the pins."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from agent_runtime.services.broker import Broker
from agent_runtime.services.ports import Lease, ToolServers
from agent_runtime.services.run import Run, run_until
from agent_runtime.services.tool_registry import ToolRegistry


class Sessions:
    """The lease of one run: taken when the first call needs it, given back when the run ends.

    `unusable`: a server gave no answer, so the next call, to be begun once no other is under way, gets sessions of
    its own; what the old ones kept in memory is lost, as it is with a server that died.
    """

    def __init__(self, run: Run, broker: Broker, registry: ToolRegistry, servers: ToolServers) -> None:
        self._run = run
        self._broker = broker
        self._registry = registry
        self._servers = servers
        self._stack = AsyncExitStack()
        self._lease: Lease | None = None
        self.unusable = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def are_ready_for(self, server_id: str) -> bool:
        """Whether `lease_for` this server takes no time."""
        return self._lease is not None and not self.unusable and not self._lease.has_changed(server_id)

    async def lease_for(self, server_id: str) -> Lease | None:
        """Sessions with exactly the servers that the plan names, their definitions held against the pins (G6).

        They are held again where this server has said that its tools changed. None once the task is
        cancelled or the service stops: a server that hangs is not waited for (G10).
        Raises: ServerUnavailableError, DefinitionChangedError.
        """
        if self._lease and self.are_ready_for(server_id):
            return self._lease
        self._lease = await run_until(self._open_lease(server_id), self._run.cancel, self._run.stop)
        return self._lease

    async def _open_lease(self, server_id: str) -> Lease:
        task = self._run.task
        self._broker.check_identities(task)
        lease, names = self._lease, [server_id]
        if lease is None or self.unusable:
            await self._stack.aclose()
            self.unusable = False
            names = sorted(task.servers)
            servers = [self._registry.server(name) for name in names]
            lease = await self._stack.enter_async_context(self._servers.lease(servers))
        await self._broker.check_pins(task, lease, names)
        return lease
