"""Which version of the protocol is spoken with a server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from mcp import ClientSession
from mcp.client import IncomingMessage, Transport
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

from agent_runtime.mcp_servers.dispatcher import Dispatcher, Outgoing


class Eras:
    """Which era of the protocol worked, by server, so that the next connection begins with it.

    `old_transports` are the servers that speak the HTTP of before 2025.
    """

    def __init__(self) -> None:
        self._modern: dict[str, bool] = {}
        self.old_transports: set[str] = set()

    async def negotiate(self, server_id: str, session: ClientSession) -> None:
        """The handshake first, or what worked last; the other one where the server refuses the first.

        Raises: MCPError where it refuses both.
        """
        modern = self._modern.get(server_id, False)
        try:
            await (session.discover() if modern else session.initialize())
        except MCPError as error:
            if error.code in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
                raise
            modern = not modern
            await (session.discover() if modern else session.initialize())
        self._modern[server_id] = modern


class Speaker(Protocol):
    """Who has the session: the id of the server, and who hears its notifications."""

    server_id: str

    async def handle_message(self, message: IncomingMessage) -> None:
        """Take a notification of the server."""


@asynccontextmanager
async def open_session(
    speaker: Speaker, transport: Transport, eras: Eras, *, remote: bool
) -> AsyncIterator[ClientSession]:
    """A session over a transport, ready to be used."""
    async with transport as (read, write):
        wire = Dispatcher(read, Outgoing(write), remote=remote)
        async with ClientSession(dispatcher=wire, message_handler=speaker.handle_message) as session:
            await eras.negotiate(speaker.server_id, session)
            yield session
