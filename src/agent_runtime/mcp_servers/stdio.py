"""MCP over the standard streams of a process: our own transport, since a server may hang, flood, lie or fork (G9, G10).

The process leads its own session and process group. Whatever it does, it is gone when the transport is left.
"""

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import PIPE, SubprocessStreamProtocol
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import structlog
from mcp.client._transport import TransportStreams
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, jsonrpc_message_adapter

from agent_runtime.config import LimitSettings, Secrets
from agent_runtime.domain.errors import ConfigurationError, ServerUnavailableError
from agent_runtime.domain.tools import StdioServer
from agent_runtime.mcp_servers.sandbox import Confined, confine

log = structlog.get_logger(__name__)

GRACE_S = 0.5
"""How long a server may take to leave after its input was closed."""

_REAP_S = 2.0
"""How long the loop may take to see that a killed process is gone."""

_LINES_AT_ONCE = 32
"""After so many lines others get their turn, or a server that floods would own the loop."""

_RESYNC_ATTEMPTS = 16
_TAIL_CHARACTERS = 2000
_HEARD = frozenset({"notifications/tools/list_changed", "notifications/cancelled"})
"""The notifications that anybody here listens to; the others are dropped before they cost anything."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """What to start, where, and with which environment."""

    confined: Confined
    cwd: Path
    env: Mapping[str, str]


def prepare(server: StdioServer, secrets: Secrets, base_dir: Path) -> Spawn:
    """The entry as a command that can be started, its secrets expanded. May block for the first probe of bubblewrap.

    Raises: ServerUnavailableError naming what is missing and what to do.
    """
    config = server.config
    try:
        env = get_default_environment() | {name: secrets.expand(value) for name, value in config.env.items()}
        command, *args = (secrets.expand(word) for word in (config.command, *config.args))
        cwd = (base_dir / secrets.expand(config.cwd or ".")).absolute()
        if not cwd.is_dir():
            raise ConfigurationError(f"its working directory {str(cwd)!r} does not exist; correct config.cwd.")
        return Spawn(confine((_find(command, cwd, env), *args), server.sandbox, cwd, base_dir), cwd, env)
    except ConfigurationError as error:
        raise ServerUnavailableError(server.id, secrets.redact(str(error))) from error


def _find(command: str, cwd: Path, env: Mapping[str, str]) -> str:
    named = str(cwd / command) if "/" in command else command
    found = shutil.which(named, path=env.get("PATH"))
    if found is None:
        raise ConfigurationError(
            f"its command {command!r} was not found or is not executable. Install it, or correct config.command "
            "(a name is looked up on PATH, a path with a slash is taken from config.cwd)."
        )
    return found


class _Pipes(SubprocessStreamProtocol):
    """The streams of the process. Its stderr is always drained, and the end of it kept."""

    def __init__(self, line_bytes: int, stderr_bytes: int) -> None:
        super().__init__(limit=line_bytes, loop=asyncio.get_running_loop())
        self.exited = asyncio.Event()
        self.stderr_tail = bytearray()
        self._stderr_bytes = stderr_bytes

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        if fd != 2 or isinstance(data, str):  # noqa: PLR2004 - 2 is stderr
            super().pipe_data_received(fd, data)
            return
        self.stderr_tail += data
        if len(self.stderr_tail) > 2 * self._stderr_bytes:
            del self.stderr_tail[: -self._stderr_bytes]

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


class StdioTransport:
    """One process and its streams. Enter and leave it in one task; `closed` is set once it can no longer answer."""

    def __init__(self, spawn: Spawn, limits: LimitSettings, secrets: Secrets, closed: asyncio.Event) -> None:
        self._spawn = spawn
        self._limits = limits
        self._secrets = secrets
        self.closed = closed
        self.pipes = _Pipes(limits.server_line_bytes, limits.stderr_bytes)
        self.skipped_lines = 0
        self.pid: int | None = None
        self._process: asyncio.SubprocessTransport | None = None
        self._verdict: str | None = None

    async def __aenter__(self) -> TransportStreams:
        """Start the process. Raises: OSError where the system refuses."""
        confined = self._spawn.confined
        process, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: self.pipes,
            *confined.argv,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=self._spawn.cwd,
            env=dict(self._spawn.env),
            start_new_session=True,
            preexec_fn=confined.before_exec,
        )
        self._process, self.pid = process, process.get_pid()
        return _Lines(self), _Input(self)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.closed.set()
        try:
            with anyio.CancelScope(shield=True):
                await self._leave_in_peace()
        finally:
            # A native cancellation passes the shield, so what must happen stands here, and does not wait.
            self._kill_group()
            try:
                with anyio.CancelScope(shield=True), suppress(TimeoutError):
                    async with asyncio.timeout(_REAP_S):
                        await self.pipes.exited.wait()
            finally:
                if self._process is not None:
                    # A grandchild that escaped may hold the other ends: our ends are closed all the same.
                    self._process.close()

    async def _leave_in_peace(self) -> None:
        if self.pipes.stdin is not None:
            self.pipes.stdin.close()
        if self.pipes.stdout is not None:
            # Whatever it still says is dropped, so that a full pipe cannot keep it from leaving.
            self.pipes.stdout.set_exception(ConnectionResetError("the transport was left"))
            self.pipes.stdout.feed_data = lambda _: None  # type: ignore[method-assign]
        if self._verdict is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self.pipes.exited.wait()
        self._exit_code = self._process.get_returncode() if self._process else None

    def condemn(self, verdict: str) -> None:
        """Kill the server for what it did; `verdict` is what callers are told."""
        if self._verdict is None:
            self._verdict = verdict
        self._kill_group()
        self.closed.set()

    def _kill_group(self) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
