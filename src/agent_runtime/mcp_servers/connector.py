"""Makes the connections to MCP servers, for the pool that owns them.

This module brings the library of MCP. The pool imports it once it needs the first server that does not ship with the
service.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

import jsonschema  # noqa: F401 - the SDK imports it inside a call, which would stop the loop for 80 ms

from agent_runtime.config import LimitSettings, Secrets
from agent_runtime.domain.tools import HttpServer, PythonServer, StdioServer
from agent_runtime.mcp_servers.eras import Eras
from agent_runtime.mcp_servers.http import HttpAccess
from agent_runtime.mcp_servers.listing import Listed
from agent_runtime.mcp_servers.network import Network
from agent_runtime.mcp_servers.openers import InThread, OverHttp, OverStdio
from agent_runtime.mcp_servers.own_files import OwnFiles
from agent_runtime.mcp_servers.server import Opener, SessionConnection
from agent_runtime.mcp_servers.spawn import Spawn, prepare
from agent_runtime.mcp_servers.stdio import StdioTransport


class Connector:
    """Knows how each kind of server is reached, and what is shared by all connections.

    Relative paths of entries begin at `base_dir`. All processes get the variables in `inherited`. `stop_by` returns
    the time of the event loop by which all of them have to end.
    """

    def __init__(
        self,
        limits: LimitSettings,
        secrets: Secrets,
        base_dir: Path,
        inherited: Mapping[str, str],
        stop_by: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._secrets = secrets
        self._base_dir = base_dir
        self._inherited = inherited
        self._stop_by = stop_by
        self._eras = Eras()
        self._network = Network(secrets)

    def open(self, server: HttpServer | PythonServer) -> Opener:
        """Return how to connect to a server that is not a process. Raises: ServerUnavailableError."""
        match server:
            case HttpServer():
                return OverHttp(HttpAccess(server, self._network, self._limits, self._secrets), self._eras)
            case PythonServer():
                return InThread(server, self._eras)
            case _:
                assert_never(server)

    async def open_stdio(self, server: StdioServer, own: OwnFiles) -> OverStdio:
        """Return how to start the process of a server, from which `own` is hidden. Raises: ServerUnavailableError."""
        # In a thread: the first start probes bubblewrap, and secrets may be in files.
        spawn = await asyncio.to_thread(prepare, server, self._secrets, self._base_dir, own, self._inherited)
        return OverStdio(spawn, self._make_transport, self._eras)

    def _make_transport(self, spawn: Spawn, end: asyncio.Event) -> StdioTransport:
        return StdioTransport(spawn, self._limits, self._secrets.redactor, end, self._stop_by)

    def connect(
        self,
        server_id: str,
        opener: Opener,
        start_s: float,
        listings: dict[str, Listed],
        tell_change: Callable[[], None],
    ) -> SessionConnection:
        """Return a connection, which is made by its `run`."""
        return SessionConnection(
            server_id, opener, self._limits, start_s, self._secrets.redactor, listings, tell_change
        )

    def forget_eras(self) -> None:
        """Forget how the servers were reached: other servers may have come under the same ids."""
        self._eras.forget()

    async def aclose(self) -> None:
        """Close the connections to HTTP servers. Idempotent."""
        await self._network.aclose()
