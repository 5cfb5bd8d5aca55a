"""Reads the events of a stream (server-sent events), each of which is JSON."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import httpx2

_END = b"[DONE]"
_DRAIN_S = 0.1
"""How long to wait for the end of the body after the last event; only then can the connection be used again."""


class EventDecoder:
    """Finds the events in the bytes of a stream, wherever these are cut. `ended`: the last event came."""

    def __init__(self) -> None:
        self.ended = False
        self._begun: list[bytes] = []
        self._data: list[bytes] = []

    def feed(self, part: bytes) -> list[Any]:
        """Return the events that are whole with this part. Raises: ValueError for one that is no JSON."""
        first, *lines = part.split(b"\n")
        self._begun.append(first)
        if not lines:
            return []
        lines.insert(0, b"".join(self._begun))
        self._begun = [lines.pop()]
        return [event for line in lines if (event := self._take_line(line)) is not None]

    def finish(self) -> list[Any]:
        """Return the last event where the stream ended without an empty line; none where it was cut in the midst."""
        try:
            return [*self.feed(b"\n"), *self.feed(b"\n")]
        except ValueError:
            return []

    def _take_line(self, line: bytes) -> Any:
        if self.ended:
            return None
        if line.startswith(b"data:"):
            self._data.append(line[5:])
        elif self._data and not line.strip():
            data = b"\n".join(self._data)
            self._data = []
            if data.strip().startswith(_END):
                self.ended = True
            elif data.strip():
                return json.loads(data)
        return None


async def read_events(response: httpx2.Response) -> AsyncGenerator[Any]:
    """Yield the events of a response up to the last one. Raises: ValueError for one that is no JSON."""
    decoder = EventDecoder()
    parts = response.aiter_raw()
    async for part in parts:
        for event in decoder.feed(part):
            yield event
        if decoder.ended:
            with suppress(TimeoutError, httpx2.HTTPError):
                async with asyncio.timeout(_DRAIN_S):
                    async for _ in parts:
                        pass
            return
    for event in decoder.finish():
        yield event
