"""The sessions of one run with the MCP servers of its plan, checked against the pins."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from agent_runtime.domain.tools import ToolServer
from agent_runtime.live.interruption import run_until
from agent_runtime.services.broker import Broker
from agent_runtime.services.ports import Lease, ToolServers
from agent_runtime.services.run import Run
from agent_runtime.services.tool_registry import ToolRegistry


class Sessions:
    """The lease of one run: taken when the first call needs it, given back when the run ends.

    `unusable` is set once a server gave no answer. The next call then waits until no other is under way, and gets new
    sessions. What servers kept in memory for the old sessions is lost, as when a server dies.
    """

    def __init__(self, run: Run, broker: Broker, registry: ToolRegistry, servers: ToolServers) -> None:
        self._run = run
        self._broker = broker
        self._registry = registry
        self._servers = servers
        self._stack = AsyncExitStack()
        self._lease: Lease | None = None
        self._entries: list[ToolServer] | None = None
        self.unusable = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def are_held(self) -> bool:
        """True once the sessions were taken. The run then keeps their registry entries to its end, despite reloads."""
        return self._entries is not None

    def are_ready_for(self, server_id: str) -> bool:
        """Return whether `lease_for` this server returns without waiting."""
        return self._lease is not None and not self.unusable and not self._lease.has_changed(server_id)

    async def lease_for(self, server_id: str) -> Lease | None:
        """Return sessions with exactly the servers of the plan, their definitions checked against the pins (G6).

        If this server has announced a change of its tools, they are checked again. Return None once the task is
        cancelled or the service stops: nobody waits for a server that hangs (G10).
        Raises: ServerUnavailableError, DefinitionChangedError.
        """
        if self._lease and self.are_ready_for(server_id):
            return self._lease
        self._lease = await run_until(self._open_lease(server_id), self._run.cancel, self._run.stop)
        return self._lease

    async def _open_lease(self, server_id: str) -> Lease:
        task = self._run.task
        lease, names = self._lease, [server_id]
        if lease is None or self.unusable:
            await self._stack.aclose()
            names = sorted(task.servers)
            if self._entries is None:
                self._broker.check_identities(task)
                self._entries = [self._registry.server(name) for name in names]
            lease = await self._stack.enter_async_context(self._servers.lease(self._entries))
            self.unusable = False
        await self._broker.check_pins(task, lease, names)
        return lease
