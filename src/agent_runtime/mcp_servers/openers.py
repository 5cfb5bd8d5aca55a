"""Opens the session with each kind of server: a process, a URL, or an object in a thread of this process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from mcp import ClientSession

from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.tools import PythonServer
from agent_runtime.mcp_servers.eras import Eras, open_session
from agent_runtime.mcp_servers.explaining import explain, find_retry_after, may_pass
from agent_runtime.mcp_servers.http import HttpAccess
from agent_runtime.mcp_servers.server import SessionConnection
from agent_runtime.mcp_servers.spawn import Spawn, explain_withheld
from agent_runtime.mcp_servers.stdio import StdioTransport


class OverStdio:
    """A process of our own, started by `spawn`. `start` makes its transport; the event passed to it is set once the
    process can no longer answer.
    """

    remote = False
    session_unknown = False

    def __init__(self, spawn: Spawn, start: Callable[[Spawn, asyncio.Event], StdioTransport], eras: Eras) -> None:
        self.spawn = spawn
        self._start = start
        self._eras = eras
        self._transport: StdioTransport | None = None

    @asynccontextmanager
    async def open(self, connection: SessionConnection) -> AsyncIterator[ClientSession]:
        """Start the process and agree on a protocol version."""
        self._transport = self._start(self.spawn, connection.end)
        async with open_session(connection, self._transport, self._eras, remote=False) as session:
            yield session

    def describe_end(self) -> str:
        """Return how the process ended, with the end of its stderr, and what it may lack for the network."""
        told = self._transport.describe_end() if self._transport else ""
        return "; ".join(part for part in (told, explain_withheld(self.spawn, told)) if part)

    def find_exit_mark(self) -> str | None:
        """Return the exit code with the last line of the stderr; None if the process has not exited by itself."""
        return self._transport.find_exit_mark() if self._transport else None

    def read_stderr(self) -> str:
        """Return the end of what the process has written to its stderr so far."""
        return self._transport.read_stderr() if self._transport else ""


class OverHttp:
    """A server that somebody else runs."""

    remote = True

    def __init__(self, access: HttpAccess, eras: Eras) -> None:
        self._access = access
        self._eras = eras

    @asynccontextmanager
    async def open(self, connection: SessionConnection) -> AsyncIterator[ClientSession]:
        """Connect and agree on a protocol version, over the old transport if the server knows no other."""
        old = self._eras.old_transports
        async with AsyncExitStack() as stack:
            if connection.server_id not in old:
                try:
                    session = await stack.enter_async_context(self._open_streamable(connection))
                except Exception as error:
                    if not self._access.may_be_old:
                        raise
                    session = await self._enter_old(connection, stack, explain(error))
                    old.add(connection.server_id)
            else:
                old.discard(connection.server_id)  # added again below if it still works
                session = await stack.enter_async_context(self._open_old(connection))
                old.add(connection.server_id)
            yield session

    async def _enter_old(self, connection: SessionConnection, stack: AsyncExitStack, first: str) -> ClientSession:
        """Try the old transport, after the new one failed for the reason `first`."""
        try:
            return await stack.enter_async_context(self._open_old(connection))
        except Exception as error:
            reason = f"{first}; {explain(error)}"
            after_s = find_retry_after(error)
            raise ServerUnavailableError(
                connection.server_id, reason, may_pass=may_pass(error), retry_after_s=after_s
            ) from error

    def _open_streamable(self, connection: SessionConnection) -> AbstractAsyncContextManager[ClientSession]:
        return open_session(connection, self._access.open(), self._eras, remote=True)

    def _open_old(self, connection: SessionConnection) -> AbstractAsyncContextManager[ClientSession]:
        # Not `remote`: on its stream, an answer with the id of a request is the server's own.
        return open_session(connection, self._access.open_old(connection.end), self._eras, remote=False)

    @property
    def session_unknown(self) -> bool:
        """True if the server has answered that it does not know the session."""
        return self._access.session_unknown

    def describe_end(self) -> str:
        """Return nothing: all that is known is in the error itself."""
        return ""

    def find_exit_mark(self) -> None:
        """Return None: there is no process of our own."""

    def read_stderr(self) -> str:
        """Return nothing: there is no process of our own."""
        return ""


class InThread:
    """Python code of the operator's in this process, in a thread of its own."""

    remote = False
    session_unknown = False

    def __init__(self, entry: PythonServer, eras: Eras) -> None:
        self._entry = entry
        self._eras = eras

    @asynccontextmanager
    async def open(self, connection: SessionConnection) -> AsyncIterator[ClientSession]:
        """Import the code in its thread, and connect to it."""
        from agent_runtime.mcp_servers.in_thread import serve_in_thread  # noqa: PLC0415 - many services have none
        from agent_runtime.mcp_servers.python_objects import load_server  # noqa: PLC0415 - likewise

        thread = serve_in_thread(self._entry.id, partial(load_server, self._entry), connection.end)
        async with open_session(connection, thread, self._eras, remote=False) as session:
            yield session

    def describe_end(self) -> str:
        """Return nothing: all that is known is in the error itself."""
        return ""

    def find_exit_mark(self) -> None:
        """Return None: there is no process of our own."""

    def read_stderr(self) -> str:
        """Return nothing: there is no process of our own."""
        return ""
