"""Agrees with a server on the version of the protocol."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from mcp import ClientSession
from mcp.client import IncomingMessage, Transport
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

from agent_runtime.domain.elicitation import Question, Reply
from agent_runtime.mcp_servers.dispatcher import Dispatcher, Outgoing, RequestState


class Eras:
    """Remembers for each server the protocol era that worked, so that the next connection tries it first.

    `old_transports` are the servers that use the HTTP transport of before 2025.
    """

    def __init__(self) -> None:
        self._modern: dict[str, bool] = {}
        self.old_transports: set[str] = set()

    def forget(self) -> None:
        """Forget all eras, because the same ids may name other servers now."""
        self._modern.clear()
        self.old_transports.clear()

    async def negotiate(self, server_id: str, session: ClientSession) -> None:
        """Do the handshake of the era that worked last, by default `initialize`; if the server refuses, try the other
        one.

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
    """The owner of a session: its server's id, and the handlers of its notifications and questions."""

    server_id: str

    async def handle_message(self, message: IncomingMessage) -> None:
        """Handle a notification of the server."""

    async def answer(self, question: Question, state: RequestState | None) -> Reply:
        """Return the reply to a question of the server."""


@asynccontextmanager
async def open_session(
    speaker: Speaker, transport: Transport, eras: Eras, *, remote: bool
) -> AsyncIterator[ClientSession]:
    """Open a session over a transport and negotiate its protocol version."""
    async with transport as (read, write):
        wire = Dispatcher(read, Outgoing(write), remote=remote, answer=speaker.answer)
        async with ClientSession(dispatcher=wire, message_handler=speaker.handle_message) as session:
            await eras.negotiate(speaker.server_id, session)
            yield session
