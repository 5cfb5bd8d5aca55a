"""The part of HTTP/1.1 that the test model server needs, so that it can violate it."""

import asyncio
import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from model_server.requests import RESPONSES, Request, WireError
from model_server.wire import Turn, error_frame, frames, whole

BROKEN = b'data: {"type": "response.output_te\n\n'


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], dict[str, Any] | None]:
    """Read method, target, headers (lower case) and body; the body is None if it is not a JSON object.

    Raises: IncompleteReadError.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    fields = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    try:
        body = json.loads(raw or b"{}")
    except ValueError:
        body = None
    return method, target, headers, body if isinstance(body, dict) else None


class Wire:
    """Sends the answer to one request. `complete` is True when all of it has been sent."""

    def __init__(self, writer: asyncio.StreamWriter, request: Request) -> None:
        self.request = request
        self.reusable = True
        self.complete = False
        self._writer = writer

    async def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send an answer in one piece."""
        self.complete = True
        await self._write(self._head(status, {"content-length": str(len(body)), **(headers or {})}) + body)

    async def send_turn(self, turn: Turn) -> None:
        """Send a turn of the model in the form that the request asks for."""
        if not self.request.stream:
            await self.send(200, whole(self.request, turn))
            return
        await self._begin()
        await self.send_rest(frames(self.request, turn))

    async def send_half(self, turn: Turn) -> list[bytes]:
        """Send the first half of an answer, and return the rest, for `send_rest`."""
        if self.request.stream:
            events = frames(self.request, turn)
            await self._begin()
            await self._write(*map(_chunk, events[: len(events) // 2]))
            return events[len(events) // 2 :]
        body = whole(self.request, turn)
        await self._write(self._head(200, {"content-length": str(len(body))}) + body[: len(body) // 2])
        return [body[len(body) // 2 :]]

    async def send_rest(self, pieces: list[bytes]) -> None:
        """Send the rest of an answer."""
        if not self.request.stream:
            self.complete = True
            await self._write(*pieces)
            return
        for piece in pieces[:-1]:
            await self._write(_chunk(piece))
        self.complete = True
        await self._write(*map(_chunk, pieces[-1:]), b"0\r\n\r\n")

    async def send_on(self, pieces: Iterable[bytes], pause_s: float) -> None:
        """Send pieces of a body without an end, until the client leaves."""
        if self.request.stream:
            await self._begin()
        else:
            await self._write(self._head(200, {"content-length": str(10**12)}))
        for piece in pieces:
            await self._write(_chunk(piece) if self.request.stream else piece)
            await asyncio.sleep(pause_s)

    async def send_unfinished(self, turn: Turn) -> None:
        """Send half of an answer in a complete body."""
        if self.request.stream:
            await self.send_half(turn)
            await self.send_rest([])
        else:
            body = whole(self.request, turn)
            await self.send(200, body[: len(body) // 2])

    async def send_broken(self, turn: Turn) -> None:
        """Send a server error after the answer has begun."""
        error = WireError(500, "The server had an error while processing your request.", kind="server_error")
        error.error["code"] = "server_error"
        if self.request.stream:
            sent = len(frames(self.request, turn)) // 2
            await self.send_half(turn)
            await self.send_rest([error_frame(self.request, error.error, sent)])
        elif self.request.path == RESPONSES:
            await self.send(200, whole(self.request, Turn(str(error), finish="failed")))
        else:
            await self.send(500, error.body)

    async def send_garbage(self, turn: Turn) -> None:
        """Send an answer that is not JSON."""
        if self.request.stream:
            await self.send_half(turn)
            await self.send_rest([BROKEN])
        else:
            await self.send(200, b'I am afraid that {"this" is no JSON')

    async def _begin(self) -> None:
        stream = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
        await self._write(self._head(200, stream))

    def _head(self, status: int, headers: dict[str, str]) -> bytes:
        fields = {"content-type": "application/json", "x-request-id": f"req_{self.request.index}", **headers}
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {fields[name]}" for name in fields)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _write(self, *data: bytes) -> None:
        self._writer.writelines(data)
        await self._writer.drain()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
