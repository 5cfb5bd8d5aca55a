"""MCP over the standard streams of a process: our own transport, since a server may hang, flood, lie or fork (G9, G10).

The process leads its own session and process group. Whatever it does, it is gone when the transport is left.
"""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, SubprocessStreamProtocol
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio
import structlog
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCMessage, JSONRPCNotification, JSONRPCRequest

from agent_runtime.config import LimitSettings, before_exec
from agent_runtime.mcp_servers.dispatcher import HEARD, NESTED, has_many_arrays
from agent_runtime.mcp_servers.reading import read_tolerantly, read_well_formed
from agent_runtime.mcp_servers.sandbox import server_process
from agent_runtime.mcp_servers.spawn import Spawn
from agent_runtime.telemetry import log_debug
from agent_runtime.text.escaping import escape_hidden
from agent_runtime.text.redaction import Redactor

log = structlog.get_logger(__name__)

END_OF_INPUT_S = 2.0
"""How long a server may take to leave after its input was closed, before it is told by SIGTERM."""

_REAP_S = 2.0
"""How long the loop may take to see that a killed process is gone."""

_LAST_WORDS_S = 0.2
"""How long output may still come after the process has ended; what it forked may hold the pipes for ever."""

_LINES_AT_ONCE = 32
"""After so many lines others get their turn, or a server that floods would own the loop."""

_CHUNK_BYTES = 8 * 1024
"""A long line counts as one line for each of these."""

_MUCH_BYTES = 64 * 1024
"""From this size on, a line that is not well-formed is read in a thread, or it would stop the loop for long (G9)."""

_TAIL_CHARACTERS = 2000

_BEFORE_EXEC = before_exec()


class _Pipes(SubprocessStreamProtocol):
    """The streams of the process. Its stderr is always drained, and the end of it kept."""

    def __init__(self, line_bytes: int, stderr_bytes: int) -> None:
        super().__init__(limit=line_bytes, loop=asyncio.get_running_loop())
        self.exited = asyncio.Event()
        self.stderr_ended = asyncio.Event()
        self.stderr_tail = bytearray()
        self._stderr_bytes = stderr_bytes
        self._output_closed = False

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        if fd != 2 or isinstance(data, str):  # noqa: PLR2004 - 2 is stderr
            if not self._output_closed:
                super().pipe_data_received(fd, data)
            return
        self.stderr_tail += data
        if len(self.stderr_tail) > 2 * self._stderr_bytes:
            del self.stderr_tail[: -self._stderr_bytes]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        super().pipe_connection_lost(fd, exc)
        if fd == 2:  # noqa: PLR2004 - 2 is stderr
            self.stderr_ended.set()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()
        asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._end_output)

    def _end_output(self) -> None:
        """Hear nobody who inherited the output of a server that is gone."""
        self._output_closed = True
        if self.stdout is not None:
            self.stdout.feed_eof()


class StdioTransport:
    """One process and its streams. Enter and leave it in one task; `closed` is set once it can no longer answer.

    `stop_by` says until when, in the time of the loop, all processes must have left.
    """

    def __init__(
        self,
        spawn: Spawn,
        limits: LimitSettings,
        redactor: Redactor,
        closed: asyncio.Event,
        stop_by: Callable[[], float],
    ) -> None:
        self._spawn = spawn
        self._limits = limits
        self._redactor = redactor
        self.closed = closed
        self._stop_by = stop_by
        self.pipes = _Pipes(limits.server_line_bytes, limits.stderr_bytes)
        self.skipped_lines = 0
        self.pid: int | None = None
        self._process: asyncio.SubprocessTransport | None = None
        self._verdict: str | None = None
        self._exit_code: int | None = None
        self._left_us = False
        self._lines = 0
        self._messages: deque[JSONRPCMessage] = deque()

    async def __aenter__(self) -> tuple["_Lines", "_Input"]:
        """Start the process. Raises: OSError where the system refuses."""
        confined = self._spawn.confined
        # A start that is interrupted half-way would leave its pipes open; it takes milliseconds.
        with anyio.CancelScope(shield=True):
            process, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: self.pipes,
                *confined.argv,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=self._spawn.cwd,
                env=dict(self._spawn.env),
                start_new_session=True,
                preexec_fn=self._before_exec,
            )
        self._process, self.pid = process, process.get_pid()
        log_debug("process_started", pid=self.pid, command=self._spawn.command, folder=str(self._spawn.cwd))
        return _Lines(self), _Input(self)

    def _before_exec(self) -> None:
        """Run in the new process, where nothing may be imported, opened or locked."""
        _BEFORE_EXEC()
        if self._spawn.confined.before_exec is not None:
            self._spawn.confined.before_exec()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.closed.set()
        try:
            # The shield keeps the SDK's cancel scopes out; every wait inside is bounded.
            with anyio.CancelScope(shield=True):
                await self._stop_gently()
        finally:
            # A native cancellation passes the shield, so what must happen does not wait.
            self._kill_group()
            try:
                with anyio.CancelScope(shield=True), suppress(TimeoutError):
                    async with asyncio.timeout(_REAP_S):
                        await self.pipes.exited.wait()
            finally:
                self._close()

    async def _stop_gently(self) -> None:
        """Close the input of the server and, where that does not end it, send it a SIGTERM (MCP, lifecycle: stdio)."""
        if self.pipes.stdin is not None:
            self.pipes.stdin.close()
        if self._verdict is not None or self.pid is None:
            return
        if not await self._wait_for_exit(END_OF_INPUT_S):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(server_process(self.pid, self._spawn.confined), signal.SIGTERM)
            await self._wait_for_exit(self._spawn.stop_s - END_OF_INPUT_S)

    async def _wait_for_exit(self, seconds: float) -> bool:
        left_s = self._stop_by() - asyncio.get_running_loop().time()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, left_s)):
                await self.pipes.exited.wait()
                self._exit_code = self._process.get_returncode() if self._process else None
                if self._left_us:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LAST_WORDS_S):
                            await self.pipes.stderr_ended.wait()
        return self.pipes.exited.is_set()

    def _kill_group(self) -> None:
        """Kill whatever is left of the process and its children."""
        if self.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _close(self) -> None:
        """Close our ends, even where a grandchild that escaped holds the other ones."""
        if self.pipes.stdin is not None and self.pipes.stdin.transport.get_write_buffer_size():
            # Closed long ago, and still waiting for a reader. One that is lost may not be aborted again.
            self.pipes.stdin.transport.abort()
        if self._process is not None:
            log_debug("process_ended", pid=self.pid, exit_code=self._process.get_returncode())
            self._process.close()

    def kill(self, verdict: str) -> None:
        """Kill the server for what it did; `verdict` is what callers are told."""
        if self._verdict is None:
            self._verdict = verdict
            log.warning("mcp_server_killed", pid=self.pid, reason=verdict)
        self._kill_group()
        self.closed.set()

    def describe_end(self) -> str:
        """How the process ended of itself, if it did, with the end of its stderr; complete once it was left."""
        said = [self._verdict or self._describe_exit()] if self._verdict or self._left_us else []
        if self.skipped_lines:
            said.append(f"{self.skipped_lines} lines of its output were not JSON-RPC and were skipped")
        if tail := self._tail():
            said.append(f"stderr ends with: {tail}")
        return "; ".join(said)

    def _describe_exit(self) -> str:
        if self._exit_code is None:
            return "its process closed its output"
        if self._exit_code < 0:
            return f"its process was ended by signal {-self._exit_code}"
        return f"its process exited with code {self._exit_code}"

    def _tail(self) -> str:
        text = self._redactor.redact_message(self.pipes.stderr_tail.decode(errors="replace"))
        return escape_hidden(text.strip()[-_TAIL_CHARACTERS:], keep="\n\t")

    async def read(self) -> SessionMessage | None:
        """The next message that anybody here listens to, or None after the last one."""
        while not self._messages:
            line = await self._line()
            if line is None:
                self._left_us = not self.closed.is_set()
                self.closed.set()
                return None
            self._lines += 1 + len(line) // _CHUNK_BYTES
            if self._lines >= _LINES_AT_ONCE:
                self._lines = 0
                await asyncio.sleep(0)
            if has_many_arrays(line):
                self.kill(f"it sent a line with more than {NESTED} arrays and objects and was killed")
                continue
            message = read_well_formed(line)
            messages = [message] if message is not None else await self._read_tolerantly(line)
            self._messages.extend(one for one in messages if _is_wanted(one))
        return SessionMessage(self._messages.popleft())

    async def _read_tolerantly(self, line: bytes) -> list[JSONRPCMessage]:
        whole = line.endswith(b"\n")
        if len(line) > _MUCH_BYTES:
            messages = await asyncio.to_thread(read_tolerantly, line, whole=whole)
        else:
            messages = read_tolerantly(line, whole=whole)
        if not messages and line.strip():
            self.skipped_lines += 1
        return messages

    async def _line(self) -> bytes | None:
        if self.pipes.stdout is None or self._verdict is not None:
            return None
        try:
            return await self.pipes.stdout.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial or None
        except asyncio.LimitOverrunError:
            self.kill(f"it sent a line of more than {self._limits.server_line_bytes} bytes and was killed")
            return None
        except OSError:
            return None

    async def write(self, item: SessionMessage) -> None:
        """Hand a message over. Only a request waits for a server that is slow to read.

        Raises: anyio.BrokenResourceError where nothing was written.
        """
        stdin = self.pipes.stdin
        if stdin is None or self.closed.is_set() or stdin.is_closing():
            raise anyio.BrokenResourceError
        stdin.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        if isinstance(item.message, JSONRPCRequest):
            with suppress(ConnectionError):
                # A broken pipe is not "nothing was written": the end of the output tells, and the outcome is unknown.
                await stdin.drain()
        elif stdin.transport.get_write_buffer_size() > self._limits.server_line_bytes:
            # It asks and never reads our answers: waiting would only pile them up.
            self.kill("it does not read its input and was killed")


def _is_wanted(message: JSONRPCMessage) -> bool:
    return not isinstance(message, JSONRPCNotification) or message.method in HEARD


class _Lines:
    """The read stream: the dispatcher's own loop reads the pipe, with no task or queue between."""

    def __init__(self, transport: StdioTransport) -> None:
        self._transport = transport

    async def receive(self) -> SessionMessage | Exception:
        message = await self._transport.read()
        if message is None:
            raise anyio.EndOfStream
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        message = await self._transport.read()
        if message is None:
            raise StopAsyncIteration
        return message

    async def aclose(self) -> None:
        """Nothing to do: the pipes are closed where the transport is left."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class _Input:
    """The write stream: straight into the pipe."""

    def __init__(self, transport: StdioTransport) -> None:
        self._transport = transport

    async def send(self, item: SessionMessage, /) -> None:
        await self._transport.write(item)

    async def aclose(self) -> None:
        """Nothing to do: the pipes are closed where the transport is left."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()
