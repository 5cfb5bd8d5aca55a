"""How each kind of server is reached: a process, a URL, or an object in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client, ClientSession
from mcp.client import Transport
from mcp.server import MCPServer, Server

from agent_runtime.mcp_servers.server import Connection, Eras, open_session
from agent_runtime.mcp_servers.stdio import StdioTransport


class OverStdio:
    """A process of our own. `start` makes the transport around the event that is set once it can no longer answer."""

    remote = False
    uninterrupted = False

    def __init__(self, start: Callable[[asyncio.Event], StdioTransport], eras: Eras) -> None:
        self._start = start
        self._eras = eras
        self._transport: StdioTransport | None = None

    @asynccontextmanager
    async def open(self, connection: Connection) -> AsyncIterator[ClientSession]:
        """Start the process and agree on a protocol version."""
        self._transport = self._start(connection.end)
        async with open_session(connection, self._transport, self._eras, remote=False) as session:
            yield session

    def why(self) -> str:
        """How the process ended, with the end of its stderr."""
        return self._transport.why() if self._transport else ""


class OverHttp:
    """A server that somebody else runs."""

    remote = True
    uninterrupted = False

    def __init__(self, connect: Callable[[], Transport], eras: Eras) -> None:
        self._connect = connect
        self._eras = eras

    @asynccontextmanager
    async def open(self, connection: Connection) -> AsyncIterator[ClientSession]:
        """Connect and agree on a protocol version."""
        async with open_session(connection, self._connect(), self._eras, remote=True) as session:
            yield session

    def why(self) -> str:
        """Nothing is known beyond the fault itself."""
        return ""


class InProcess:
    """A server that ships with the service. Its calls are bounded work, and are waited for to their end."""

    remote = False
    uninterrupted = True

    def __init__(self, server: MCPServer[Any] | Server[Any]) -> None:
        self._server = server

    @asynccontextmanager
    async def open(self, connection: Connection) -> AsyncIterator[ClientSession]:
        """Connect in memory; the handshake is known to work."""
        async with Client(self._server, mode="legacy", message_handler=connection.hear) as client:
            yield client.session

    def why(self) -> str:
        """Nothing is known beyond the fault itself."""
        return ""
