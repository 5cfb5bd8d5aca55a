"""A connection to one server, as the pool and the spares use it. It needs no library of MCP."""

import asyncio
from typing import Protocol

from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.values import JsonObject
from agent_runtime.live.patience import Patience
from agent_runtime.mcp_servers.listing import Listed


class Connection(Protocol):
    """A connection from its start to its end. The task that runs `run` owns it; everybody else only uses it.

    `end` is set once it takes no more calls, `ended` once it is closed. `stopped`: nobody needs it any more. `changes`
    counts the changes of its tools that the server has announced. `is_spare`: no task uses it yet. `is_untried`: it was
    a spare, and its task has not listed its tools yet.
    """

    server_id: str
    end: asyncio.Event
    ended: asyncio.Event
    stopped: bool
    changes: int
    calls_made: int
    has_listed: bool
    is_spare: bool
    is_untried: bool

    @property
    def remote(self) -> bool:
        """True if somebody else runs the server, so that it may forget this connection."""

    @property
    def usable(self) -> bool:
        """True while it is starting or running and takes new work."""

    @property
    def has_open_call(self) -> bool:
        """True while the answer to a call is awaited."""

    async def run(self) -> None:
        """Open the connection, serve until the end, and close it. Never raises: an error is reported to
        those who wait.
        """

    def stop(self) -> None:
        """Make the owner close the connection; abort a start under way."""

    def retire(self) -> None:
        """Take no new work, and stop once the calls under way have ended."""

    async def ready(self) -> object:
        """Wait until it is open. Raises: ServerUnavailableError with the reason if it is not open any more."""

    async def definitions(self) -> Listed:
        """List the tools; the listing begins after the call. Raises: ServerUnavailableError."""

    async def call(
        self,
        tool: str,
        arguments: JsonObject,
        *,
        timeout_s: float,
        cancel: asyncio.Event,
        tasks: asyncio.TaskGroup,
        patience: Patience | None = None,
    ) -> StoredResult:
        """Send one call, once; see `ports.Lease.call`. `tasks` owns work that outlives a cancelled caller."""
