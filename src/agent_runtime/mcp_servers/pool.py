"""The connections to all MCP servers: which lease uses which connection, and that none outlives its use (G10)."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from agent_runtime.config import LimitSettings, Secrets
from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.tools import (
    BuiltinServer,
    HttpServer,
    Offer,
    PythonServer,
    StdioServer,
    StoredResult,
    ToolDefinition,
    ToolServer,
)
from agent_runtime.domain.values import JsonObject
from agent_runtime.importing import one_import_at_a_time
from agent_runtime.live.breaker import CircuitState
from agent_runtime.live.patience import Patience
from agent_runtime.mcp_servers.circuits import Circuits
from agent_runtime.mcp_servers.connection import Connection
from agent_runtime.mcp_servers.in_process import InProcessConnection, ShippedServer
from agent_runtime.mcp_servers.listing import Listed
from agent_runtime.mcp_servers.own_files import OwnFiles
from agent_runtime.mcp_servers.read_timeout import find_longest_read_s
from agent_runtime.mcp_servers.spares import Spares, SpareTimes
from agent_runtime.registry.known_servers import may_install

if TYPE_CHECKING:
    from agent_runtime.mcp_servers.connector import Connector
    from agent_runtime.mcp_servers.openers import OverStdio
    from agent_runtime.mcp_servers.server import Opener

_NO_ERROR = (None, None, None)

_RULES = {"name", "enabled", "tools", "deny", "client_session_timeout_seconds"}
"""The fields of an entry that say nothing about how its server is started or reached."""

_STOP_S = 9.5
"""How long leaving the pool waits for its tasks before it cancels them, unless `stop_within` says otherwise (G10)."""

_KILL_S = 0.5
"""How long after `stop_by` a server may still be stopping before its task is cancelled."""


class ServerPool:
    """The MCP servers, with the shape of `ports.ToolServers`. Use it as a context manager: leaving it stops everything.

    `builtin` makes the in-process server of an entry. Relative paths of entries begin at `base_dir`. The files in `own`
    are the service's, and hidden from processes under bubblewrap. All processes get the variables in `inherited`.
    `spares` says when spare processes start and end; None: there are none.
    """

    def __init__(
        self,
        limits: LimitSettings,
        secrets: Secrets,
        builtin: Callable[[BuiltinServer], ShippedServer],
        base_dir: Path,
        own: OwnFiles = OwnFiles(),  # noqa: B008 - a frozen value
        inherited: Mapping[str, str] = MappingProxyType({}),
        spares: SpareTimes | None = None,
        circuit_s: float = 30.0,
    ) -> None:
        """Take `circuit_s`, the seconds for which a server is not started after too many failed starts in a row."""
        self._limits = limits
        self._secrets = secrets
        self._builtin = builtin
        self._base_dir = base_dir
        self._own = own
        self._inherited = inherited
        self._circuits = Circuits(circuit_s)
        self._connector: Connector | None = None
        self._group = asyncio.TaskGroup()
        self._owners: dict[Connection, asyncio.Task[None]] = {}
        self._shared: dict[str, Connection] = {}
        self._leased: dict[int, dict[str, Connection]] = {}
        self._reloads = 0
        self._in_force: frozenset[str] | None = None
        """The keys of the shared servers that outlive their leases; None if all do."""
        self._started: dict[str, tuple[Opener, ...]] = {}
        """How each server was started or reached the last two times, by its id, the newest first."""
        self._listings: dict[str, Listed] = {}  # the newest of each server, shared by its connections
        self._leaving = False
        self._stop_by = math.inf
        self._tell_change: Callable[[str], None] = _ignore
        self._spares = Spares(self._open_stdio, self._start, self._group, self._announce_change, spares)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self._leaving = True
        self._spares.close()
        for connection in self._owners:
            connection.stop()
        try:
            if self._owners:
                left_s = self._stop_by - asyncio.get_running_loop().time() + _KILL_S
                _, late = await asyncio.wait(self._owners.values(), timeout=max(_KILL_S, min(left_s, _STOP_S)))
                for task in late:
                    task.cancel()
        finally:
            # Without an error of the body, which the group would wrap; its tasks were all told to end.
            cancelled = isinstance(exc_val, asyncio.CancelledError)
            await (self._group.__aexit__(exc_type, exc_val, exc_tb) if cancelled else self._group.__aexit__(*_NO_ERROR))
            if self._connector is not None:
                await self._connector.aclose()

    def replace(
        self,
        servers: Iterable[ToolServer],
        builtin: Callable[[BuiltinServer], ShippedServer],
        own: OwnFiles,
    ) -> None:
        """Put these entries in force. For any other entry, the spare ends now, and a shared session with its last
        lease.
        """
        self._builtin, self._own = builtin, own
        self._reloads += 1
        servers = list(servers)
        self._spares.replace({server.id: server for server in servers if isinstance(server, StdioServer)})
        self._in_force = frozenset(map(self._make_key, servers))
        # Another server may have come under an id, and the redactor may know more secrets.
        if self._connector is not None:
            self._connector.forget_eras()
        self._circuits.forget()
        ids = {server.id for server in servers}
        self._started = {name: openers for name, openers in self._started.items() if name in ids}
        self._listings.clear()
        self._stop_unused()

    def _stop_unused(self) -> None:
        if self._in_force is None or self._shared.keys() <= self._in_force:
            return
        used = {connection for leased in self._leased.values() for connection in leased.values()}
        for key in self._shared.keys() - self._in_force:
            if self._shared[key] not in used:
                self._shared.pop(key).stop()

    def _make_key(self, server: ToolServer) -> str:
        """Return the key of a shared server: what makes it another one. The operator's rules for its tools do not.

        A built-in one gets a new key after a reload, because it protects other files.
        """
        reloads = self._reloads if server.type == "builtin" else ""
        patience_s = find_longest_read_s(server, self._limits) if isinstance(server, HttpServer) else ""
        return f"{reloads} {patience_s} {server.model_dump_json(exclude=_RULES)}"

    def stop_within(self, seconds: float) -> None:
        """Give all servers this many seconds together to stop, because the service stops."""
        self._stop_by = asyncio.get_running_loop().time() + seconds

    @property
    def connections(self) -> Counter[str]:
        """The number of connections of each server by its id, counted from their start until their
        processes are gone. Spares are not among them.
        """
        return Counter(connection.server_id for connection in self._owners if not connection.is_spare)

    @property
    def spares(self) -> Counter[str]:
        """The number of spare processes of each server by its id, counted from their start until they are gone."""
        return Counter(connection.server_id for connection in self._owners if connection.is_spare)

    @property
    def circuits(self) -> Mapping[str, CircuitState]:
        """See `ports.ToolServers`."""
        return self._circuits.states

    def read_stderr(self, server_id: str) -> str:
        """See `ports.ToolServers`."""
        return next(filter(None, (opener.read_stderr() for opener in self._started.get(server_id, ()))), "")

    async def discover(self, server: ToolServer) -> Offer:
        """Start or connect to the server, list its tools, and release it. Raises: ServerUnavailableError."""
        async with self._lease([server], self._connect_anew) as lease:
            listed = await lease.list(server.id)
        self._spares.note_listing(server.id, listed)
        return Offer(tuple(listed.tools.values()), listed.left_out)

    def on_change(self, tell: Callable[[str], None]) -> None:
        """Register `tell`, which is called with the id of a shared server that announces a change of its tools."""
        self._tell_change = tell

    def _announce_change(self, server_id: str) -> None:
        self._tell_change(server_id)

    @asynccontextmanager
    async def lease(self, servers: Iterable[ToolServer]) -> AsyncIterator["PoolLease"]:
        """Yield sessions with exactly these servers, all started at the same time. Those of scope `task` end with the
        lease; one that has a spare gets it.

        Entering raises: ServerUnavailableError.
        """
        entries = list(servers)
        async with self._lease(entries, self.connect) as lease:
            for entry in entries:
                if isinstance(entry, StdioServer):
                    self._spares.note_use(entry, lease.connection(entry.id))
            yield lease

    @asynccontextmanager
    async def _lease(
        self, servers: Iterable[ToolServer], connect: Callable[[ToolServer], Awaitable[Connection]]
    ) -> AsyncIterator["PoolLease"]:
        entries = {server.id: server for server in servers}
        connections: dict[str, Connection] = {}
        self._leased[id(connections)] = connections
        try:
            for server in entries.values():
                connections[server.id] = await connect(server)
            for name, connection in list(connections.items()):
                try:
                    await connection.ready()
                except ServerUnavailableError:
                    if not connection.is_untried:
                        raise
                    connections[name] = await self._connect_anew(entries[name])
                    await connections[name].ready()
            yield PoolLease(entries, connections, self._connect_anew, self._group)
        finally:
            del self._leased[id(connections)]
            self._stop_unused()
            own = [connection for name, connection in connections.items() if entries[name].scope == "task"]
            for connection in own:
                connection.stop()
            # The pool owns the connections' tasks: they end even if this wait is cancelled.
            for connection in own:
                await connection.ended.wait()

    async def connect(self, server: ToolServer) -> Connection:
        """Return a connection that is starting or running: the shared one of the entry, its spare, or a new one.

        Raises: ServerUnavailableError where it cannot be started.
        """
        if isinstance(server, StdioServer) and server.scope == "task":
            opener = await self._open_stdio(server)
            return self._spares.take(server, opener) or self._start(server, opener)
        return await self._connect_anew(server)

    async def _connect_anew(self, server: ToolServer) -> Connection:
        """Return the shared connection of the entry, or a new one. Raises: ServerUnavailableError, as `connect`."""
        if server.scope == "task":
            return self._start(server, await self._make_opener(server))
        key = self._make_key(server)
        running = self._shared.get(key)
        if running is not None and running.usable:
            return running
        if isinstance(server, BuiltinServer):
            made = InProcessConnection(server.id, self._builtin(server), self._limits, self._secrets.redactor)
            running = self._run(made)
        else:
            opener = await self._make_opener(server)
            running = self._shared.get(key)  # another task may have started it in the meantime
            if running is None or not running.usable:
                running = self._start(server, opener)
        self._shared[key] = running
        return running

    def _start(self, server: ToolServer, opener: "Opener") -> Connection:
        assert self._connector is not None  # noqa: S101 - it has made the opener
        start_s = max(self._limits.server_start_s, self._limits.server_install_s if may_install(server) else 0)

        def tell_change() -> None:
            if server.scope == "shared":
                self._announce_change(server.id)

        connection = self._connector.connect(server.id, opener, start_s, self._listings, tell_change)
        self._run(connection)
        self._started[server.id] = (opener, *self._started.get(server.id, ())[:1])
        return connection

    def _run(self, connection: Connection) -> Connection:
        if self._leaving:
            raise ServerUnavailableError(connection.server_id, "the service is stopping", may_pass=True)
        breaker = self._circuits.admit(connection.server_id)
        task = self._group.create_task(connection.run(), name=f"mcp server {connection.server_id}")
        self._owners[connection] = task
        task.add_done_callback(lambda _: self._owners.pop(connection, None))
        self._group.create_task(self._circuits.watch(connection, breaker))
        return connection

    async def _make_opener(self, server: StdioServer | HttpServer | PythonServer) -> "Opener":
        if isinstance(server, StdioServer):
            return await self._open_stdio(server)
        return (await self._get_connector()).open(server)

    async def _open_stdio(self, server: StdioServer) -> "OverStdio":
        return await (await self._get_connector()).open_stdio(server, self._own)

    async def _get_connector(self) -> "Connector":
        if self._connector is None:
            connector = await asyncio.to_thread(load_connector)
            self._connector = self._connector or connector(
                self._limits, self._secrets, self._base_dir, self._inherited, lambda: self._stop_by
            )
        return self._connector


def load_connector() -> "type[Connector]":
    """Import the library of MCP, which takes half a second: the servers that ship with the service do without."""
    with one_import_at_a_time:
        from agent_runtime.mcp_servers.connector import Connector  # noqa: PLC0415 - see above

    return Connector


def _ignore(_: str) -> None:
    return


class PoolLease:
    """The sessions of one run, with the shape of `ports.Lease`. `tasks` owns work that outlives a cancelled caller.

    `connections` always holds the connections in use: whoever ends the lease stops them.
    """

    def __init__(
        self,
        entries: Mapping[str, ToolServer],
        connections: dict[str, Connection],
        connect: Callable[[ToolServer], Awaitable[Connection]],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._entries = entries
        self._connections = connections
        self._connect = connect
        self._tasks = tasks
        self._changes_seen: dict[str, int] = {}

    def connection(self, server_id: str) -> Connection:
        """Return the connection in use with a server."""
        return self._connections[server_id]

    async def definitions(self, server_id: str) -> Mapping[str, ToolDefinition]:
        """List the tools in this session now, and return them by name. Raises: ServerUnavailableError."""
        return (await self.list(server_id)).tools

    async def list(self, server_id: str) -> Listed:
        """List the tools in this session now; in a new session if this one was lost while unused and is remote or a
        spare.

        Raises: ServerUnavailableError.
        """
        connection = self._connections[server_id]
        self._changes_seen[server_id] = connection.changes
        try:
            listed = await connection.definitions()
        except ServerUnavailableError:
            may_be_forgotten = connection.remote and connection.has_listed
            if not connection.is_untried and (connection.usable or not may_be_forgotten):
                raise
        else:
            connection.is_untried = False
            return listed
        await self.renew(server_id)
        return await self._connections[server_id].definitions()

    async def renew(self, server_id: str) -> None:
        """Replace a session that the server does not know any more.

        Raises: ServerUnavailableError.
        """
        self._connections[server_id].retire()
        connection = self._connections[server_id] = await self._connect(self._entries[server_id])
        self._changes_seen[server_id] = connection.changes
        await connection.ready()

    def has_changed(self, server_id: str) -> bool:
        """Return whether the server has sent `tools/list_changed` since this lease last listed its tools."""
        return self._connections[server_id].changes != self._changes_seen.get(server_id)

    async def call(
        self,
        server_id: str,
        tool: str,
        arguments: JsonObject,
        *,
        timeout_s: float,
        cancel: asyncio.Event,
        patience: Patience | None = None,
    ) -> StoredResult:
        """Send one call, once. Raises: CallNotSentError, OutcomeUnknownError."""
        connection = self._connections[server_id]
        return await connection.call(
            tool, arguments, timeout_s=timeout_s, cancel=cancel, tasks=self._tasks, patience=patience
        )
