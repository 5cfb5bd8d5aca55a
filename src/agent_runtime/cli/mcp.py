"""`agent-runtime mcp serve`: the service as an MCP server on standard input and output.

Nothing but the protocol is written to standard output.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp_types.jsonrpc import jsonrpc_message_adapter
from pydantic import ValidationError

from agent_runtime.cli.mcp_relay import Relay
from agent_runtime.cli.service import connect, key_of
from agent_runtime.client.requests import Url

LONGEST_LINE = 8 * 1024 * 1024
_READ_BYTES = 64 * 1024

_ANSWERS_S = 2.0
"""Seconds that open requests get after the end of standard input."""

_Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
_Outgoing = MemoryObjectSendStream[SessionMessage]


def serve(options: argparse.Namespace) -> int:
    """Serve until standard input ends, or a signal comes. Raises: ConfigurationError, StoreUnavailableError."""
    output = _claim_output()
    with connect(options, creates=True, recovers=True) as service:
        asyncio.run(_serve(service.client.url, None if service.here else key_of(options), output))
    return 0


def _claim_output() -> int:
    """Return a descriptor of standard output for the protocol; whatever else is printed goes to standard error."""
    sys.stdout.flush()
    claimed = os.dup(1)
    os.dup2(2, 1)
    return claimed


async def _serve(url: Url, key: str | None, output: int) -> None:
    relay = Relay(url, key)
    server = relay.create_server()
    try:
        with anyio.CancelScope() as scope:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, scope.cancel)
            async with _open_streams(output) as (incoming, outgoing):
                await server.run(incoming, outgoing, server.create_initialization_options())
    finally:
        await relay.close()


@asynccontextmanager
async def _open_streams(output: int) -> AsyncIterator[tuple[_Incoming, _Outgoing]]:
    """Yield the messages that come on standard input, and those to write."""
    received, incoming = anyio.create_memory_object_stream[SessionMessage | Exception]()
    outgoing, written = anyio.create_memory_object_stream[SessionMessage]()
    lines, to_parse = anyio.create_memory_object_stream[bytes]()
    unanswered: set[RequestId | None] = set()
    ended, all_answered = anyio.Event(), anyio.Event()
    lock = anyio.Lock()
    loop = asyncio.get_running_loop()

    async def write(text: str) -> None:
        async with lock:
            await anyio.to_thread.run_sync(_write_all, output, text.encode() + b"\n", abandon_on_cancel=True)

    async def parse() -> None:
        async with received:
            async for line in to_parse:
                if not line.strip():
                    continue
                message = _parse(line)
                if isinstance(message, SessionMessage):
                    if isinstance(message.message, JSONRPCRequest):
                        unanswered.add(message.message.id)
                    await received.send(message)
                else:
                    await write(message.model_dump_json(by_alias=True))
            ended.set()
            if unanswered:
                with anyio.move_on_after(_ANSWERS_S):
                    await all_answered.wait()

    async def answer() -> None:
        async for message in written:
            await write(message.message.model_dump_json(by_alias=True, exclude_unset=True))
            if isinstance(message.message, JSONRPCResponse | JSONRPCError):
                unanswered.discard(message.message.id)
                if ended.is_set() and not unanswered:
                    all_answered.set()

    # A thread of its own, which nobody waits for: a read cannot be interrupted.
    threading.Thread(target=_read_lines, args=(loop, lines), daemon=True, name="stdin").start()
    async with anyio.create_task_group() as group:
        group.start_soon(parse)
        group.start_soon(answer)
        yield incoming, outgoing
        await outgoing.aclose()
        group.cancel_scope.cancel()


def _read_lines(loop: asyncio.AbstractEventLoop, lines: MemoryObjectSendStream[bytes]) -> None:
    """Pass on the lines of standard input, each once the one before is taken. The last one may lack its end."""
    rest = b""
    try:
        while chunk := os.read(0, _READ_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                asyncio.run_coroutine_threadsafe(lines.send(line), loop).result()
            if len(rest) > LONGEST_LINE:
                break
        asyncio.run_coroutine_threadsafe(lines.send(rest), loop).result()
        asyncio.run_coroutine_threadsafe(lines.aclose(), loop).result()
    except (OSError, RuntimeError, anyio.ClosedResourceError, anyio.BrokenResourceError):
        return  # the loop has ended


def _parse(line: bytes) -> SessionMessage | JSONRPCError:
    """Return the message of a line, or the answer to a line that has none."""
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError as error:
        broken = any(fault["type"] == "json_invalid" for fault in error.errors(include_url=False))
        why = "The line is not JSON." if broken else "The line is not a message of JSON-RPC."
        return JSONRPCError(
            jsonrpc="2.0", id=None, error=ErrorData(code=PARSE_ERROR if broken else INVALID_REQUEST, message=why)
        )


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
