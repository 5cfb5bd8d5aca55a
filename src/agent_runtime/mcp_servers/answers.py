"""Bodies of HTTP answers: bounded, read tolerantly, and checked for what they prove about a call (G2, G9, G11)."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator

import httpx2
from mcp_types import ErrorData, JSONRPCError, JSONRPCMessage

from agent_runtime.mcp_servers.dispatcher import NESTED, RequestState
from agent_runtime.mcp_servers.reading import read_answer, read_well_formed

_CHUNKS_AT_ONCE = 32
"""Yield to other tasks after this many chunks. A server may send one chunk per byte."""

_MUCH_BYTES = 64 * 1024
"""A message of this size or more is read in a thread, because it would block the event loop (G9)."""

_END_OF_EVENT = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_END_OF_LINE = re.compile(rb"\r\n|\n|\r")
_LONGEST_END = 4


class _Nesting:
    """Counts the arrays and objects of a message as its chunks arrive (G9)."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, data: bytes | bytearray) -> None:
        """Count the arrays and objects in the next part. Raises: httpx2.StreamError where there are too many."""
        self._count += data.count(b"[") + data.count(b"{")
        if self._count > NESTED:
            raise httpx2.StreamError(f"the answer has a message with more than {NESTED} arrays and objects")

    def reset(self) -> None:
        """Start counting for the next message."""
        self._count = 0


class _Events:
    """Splits a stream into events, each with the blank line that ends it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._nesting = _Nesting()
        self._parts = bytearray()

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """Take the next chunk, and yield the events that it completes. Raises: httpx2.StreamError where an event is too
        long.
        """
        looked_at = max(0, len(self._parts) - _LONGEST_END + 1)
        counted = len(self._parts)
        self._parts += chunk
        begin = 0
        for end in _END_OF_EVENT.finditer(self._parts, looked_at):
            self._nesting.add(self._parts[counted : end.end()])
            self._nesting.reset()
            yield bytes(self._parts[begin : end.end()])
            begin = end.end()
            counted = max(counted, begin)
        self._nesting.add(self._parts[counted:])
        del self._parts[:begin]
        if len(self._parts) > self._most_bytes:
            raise httpx2.StreamError(f"the answer has an event of more than {self._most_bytes} bytes")

    @property
    def rest(self) -> bytes:
        """The bytes after the last complete event."""
        return bytes(self._parts)


class Body(httpx2.AsyncByteStream):
    """The body of an answer, bounded and rewritten so that the SDK can read it.

    A plain answer, and each event of a stream (`streamed`), may have `most_bytes`. `state` belongs to the call that is
    answered, if any: an error with its id was sent by the server itself. `closed` is called once, when the body is
    closed. An error without an id in a plain answer belongs to the request that is answered; `nameless` gets it, and
    returns the id of that request.
    """

    def __init__(
        self,
        response: httpx2.Response,
        most_bytes: int,
        state: RequestState | None,
        *,
        streamed: bool,
        closed: Callable[[], None] | None = None,
        nameless: Callable[[ErrorData], int | str | None] | None = None,
    ) -> None:
        self._response = response
        self._most_bytes = most_bytes
        self._state = state
        self._streamed = streamed
        self._closed = closed
        self._nameless = nameless

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = self._read_events() if self._streamed else self._read_whole()
        async for part in parts:
            yield part

    async def _read_whole(self) -> AsyncIterator[bytes]:
        body = await read_body(self._response, self._most_bytes)
        yield await self._mend(body) if body.strip() else body

    async def _read_events(self) -> AsyncIterator[bytes]:
        events = _Events(self._most_bytes)
        async for chunk in _read_chunks(self._response):
            for event in events.add(chunk):
                yield await self._mend_event(event)
        yield events.rest

    async def _mend_event(self, event: bytes) -> bytes:
        """Return an event with its data rewritten as one line that the SDK can read; an event without
        data unchanged.
        """
        lines = _END_OF_LINE.split(event)
        data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
        if not data.strip():
            return event
        mended = await self._mend(data)
        if mended is data:
            return event
        return (
            b"".join(line + b"\n" for line in lines if line and not line.startswith(b"data")) + b"data: %b\n\n" % mended
        )

    async def _mend(self, data: bytes) -> bytes:
        """Return a message as the SDK can read it; unchanged if it is well-formed, or no message."""
        message, mended = await asyncio.to_thread(_read, data) if len(data) > _MUCH_BYTES else _read(data)
        if not isinstance(message, JSONRPCError):
            return mended
        if message.id is None and self._nameless is not None and not self._streamed:
            named = message.model_copy(update={"id": self._nameless(message.error)})
            return named.model_dump_json(by_alias=True, exclude_unset=True).encode()
        if self._state is not None:
            self._state.refused |= self._state.is_answered_by(message.id)
        return mended

    async def aclose(self) -> None:
        if self._closed is not None:
            self._closed()
            self._closed = None
        await self._response.aclose()


def _read(data: bytes) -> tuple[JSONRPCMessage | None, bytes]:
    message = read_well_formed(data)
    if message is not None:
        return message, data
    message = read_answer(data)
    return message, data if message is None else message.model_dump_json(by_alias=True, exclude_unset=True).encode()


async def _read_chunks(response: httpx2.Response) -> AsyncIterator[bytes]:
    seen = 0
    try:
        async for chunk in response.stream:  # type: ignore[union-attr] # of an async client
            seen += 1
            if seen % _CHUNKS_AT_ONCE == 0:
                await asyncio.sleep(0)
            yield chunk
    except httpx2.TransportError as error:
        raise httpx2.StreamError(f"the connection broke: {error or type(error).__name__}") from error


async def read_body(response: httpx2.Response, most_bytes: int) -> bytes:
    """Return the whole body. Raises: httpx2.StreamError where it is too long or the connection breaks."""
    nesting, parts, size = _Nesting(), [], 0
    async for chunk in _read_chunks(response):
        nesting.add(chunk)
        parts.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            raise httpx2.StreamError(f"the answer has more than {most_bytes} bytes")
    return b"".join(parts)


def set_media_type(headers: httpx2.Headers) -> httpx2.Headers:
    """Return the headers with the media type JSON, if the answer names no type or one that implies JSON."""
    said = headers.get("content-type", "").partition(";")[0].strip().lower()
    if said not in {"", "text/plain", "text/json"} and not (said.startswith("application/") and "json" in said):
        return headers
    changed = httpx2.Headers(headers)
    changed["content-type"] = "application/json"
    return changed
