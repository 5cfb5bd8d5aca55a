"""MCP over the standard streams of a process. Our own transport, since a server may hang, flood, lie or fork (G9, G10).

The process leads its own session and process group. When the transport is closed, the process is gone in any case.
"""

import asyncio
import os
import re
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
from agent_runtime.mcp_servers.sandbox import find_server_process
from agent_runtime.mcp_servers.spawn import Spawn
from agent_runtime.telemetry import log_debug
from agent_runtime.text.escaping import escape_hidden
from agent_runtime.text.redaction import Redactor

log = structlog.get_logger(__name__)

END_OF_INPUT_S = 2.0
"""How long a server may take to exit after its input was closed, before it gets a SIGTERM."""

_REAP_S = 2.0
"""How long the event loop may take to notice that a killed process is gone."""

_LAST_WORDS_S = 0.2
"""How long output is still read after the process has ended; a child of it may hold the pipes open for ever."""

_LINES_AT_ONCE = 32
"""Yield to other tasks after this many lines, or a server that floods would own the event loop."""

_CHUNK_BYTES = 8 * 1024
"""A long line counts as one line for every so many bytes."""

_MUCH_BYTES = 64 * 1024
"""A malformed line of this size or more is read in a thread, because it would block the event loop (G9)."""

_TAIL_CHARACTERS = 2000
_LONGEST_LINE = 200
_DIGITS = re.compile(r"\d+")


class _Pipes(SubprocessStreamProtocol):
    """The streams of the process. Its stderr is always drained, and the end of it is kept."""

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
        """Ignore output from processes that inherited the pipes of a server that has exited."""
        self._output_closed = True
        if self.stdout is not None:
            self.stdout.feed_eof()


class StdioTransport:
    """One process and its streams. Enter and leave it in one task. `closed` is set once it can no longer answer.

    `stop_by` returns the time, by the event loop's clock, by which all processes must have ended.
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
        # An interrupted start would leave pipes open. Starting takes milliseconds.
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
                preexec_fn=before_exec(confined.before_exec),
            )
        self._process, self.pid = process, process.get_pid()
        log_debug("process_started", pid=self.pid, command=self._spawn.command, folder=str(self._spawn.cwd))
        return _Lines(self), _Input(self)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        if not self.closed.is_set() and self.pipes.stdin is not None:
            # A broken input may be noticed, and end the session, before the end of the output is read.
            self._left_us |= self.pipes.stdin.is_closing()
        self.closed.set()
        try:
            # The shield keeps the SDK's cancel scopes out; every wait inside is bounded.
            with anyio.CancelScope(shield=True):
                await self._stop_gently()
        finally:
            # A native cancellation passes the shield, so the kill does not wait.
            self._kill_group()
            try:
                with anyio.CancelScope(shield=True), suppress(TimeoutError):
                    async with asyncio.timeout(_REAP_S):
                        await self.pipes.exited.wait()
            finally:
                self._close()

    async def _stop_gently(self) -> None:
        """Close the server's input; if it does not exit, send it a SIGTERM (MCP, lifecycle: stdio)."""
        if self.pipes.stdin is not None:
            self.pipes.stdin.close()
        if self._verdict is not None or self.pid is None:
            return
        if not await self._wait_for_exit(END_OF_INPUT_S):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(find_server_process(self.pid, self._spawn.confined), signal.SIGTERM)
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
        """Kill everything left in the process group."""
        if self.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _close(self) -> None:
        """Close our ends of the pipes, even if an escaped grandchild holds the other ends."""
        if self.pipes.stdin is not None and self.pipes.stdin.transport.get_write_buffer_size():
            # It was closed long ago and still has unread data. A lost transport must not be aborted again.
            self.pipes.stdin.transport.abort()
        if self._process is not None:
            log_debug("process_ended", pid=self.pid, exit_code=self._process.get_returncode())
            self._process.close()

    def kill(self, verdict: str) -> None:
        """Kill the server for misbehaving. `verdict` is the reason that callers get."""
        if self._verdict is None:
            self._verdict = verdict
            log.warning("mcp_server_killed", pid=self.pid, reason=verdict)
        self._kill_group()
        self.closed.set()

    def describe_end(self) -> str:
        """Return how the process exited, if it did so by itself, with the end of its stderr; complete once it was
        closed.
        """
        said = [self._verdict or self._describe_exit()] if self._verdict or self._left_us else []
        if self.skipped_lines:
            lines = "1 line" if self.skipped_lines == 1 else f"{self.skipped_lines} lines"
            said.append(f"skipped {lines} of its standard output, which may have only JSON-RPC: it must log to stderr")
        if tail := self.read_stderr():
            said.append(f"stderr ends with: {tail}")
        return "; ".join(said)

    def find_exit_mark(self) -> str | None:
        """Return how the process exited by itself, with the last line of its stderr without digits; else None."""
        if self._verdict or not self._left_us:
            return None
        last = self.read_stderr().rpartition("\n")[2]
        return f"{self._exit_code}: {_DIGITS.sub('0', last)[:_LONGEST_LINE]}"

    def _describe_exit(self) -> str:
        if self._exit_code is None:
            return "its process closed its output"
        if self._exit_code < 0:
            return f"its process was ended by signal {-self._exit_code}"
        return f"its process exited with code {self._exit_code}"

    def read_stderr(self) -> str:
        """Return the last 2,000 characters that the server wrote to its stderr, redacted; empty if there are none."""
        text = self._redactor.redact_message(self.pipes.stderr_tail.decode(errors="replace"))
        return escape_hidden(text.strip()[-_TAIL_CHARACTERS:], keep="\n\t")

    async def read(self) -> SessionMessage | None:
        """Return the next message that is handled here; None after the last one."""
        while not self._messages:
            line = await self._read_line()
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

    async def _read_line(self) -> bytes | None:
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
        """Write a message. Only a request waits for a server that reads slowly.

        Raises: anyio.BrokenResourceError where nothing was written.
        """
        stdin = self.pipes.stdin
        if stdin is None or self.closed.is_set() or stdin.is_closing():
            raise anyio.BrokenResourceError
        stdin.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        if isinstance(item.message, JSONRPCRequest):
            with suppress(ConnectionError):
                # A broken pipe does not prove that nothing was written; the end of the output follows.
                await stdin.drain()
        elif stdin.transport.get_write_buffer_size() > self._limits.server_line_bytes:
            # It sends requests and never reads our answers, which would pile up.
            self.kill("it does not read its input and was killed")


def _is_wanted(message: JSONRPCMessage) -> bool:
    return not isinstance(message, JSONRPCNotification) or message.method in HEARD


class _Lines:
    """The read stream: the dispatcher's own loop reads the pipe, without a task or queue between."""

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
        """Do nothing: the transport closes the pipes."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class _Input:
    """The write stream: writes straight into the pipe."""

    def __init__(self, transport: StdioTransport) -> None:
        self._transport = transport

    async def send(self, item: SessionMessage, /) -> None:
        await self._transport.write(item)

    async def aclose(self) -> None:
        """Do nothing: the transport closes the pipes."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()
