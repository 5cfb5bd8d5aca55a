"""Limits on open connections and on unread responses, so that descriptors and memory remain for tasks and health
checks (G9, G11).
"""

import asyncio

import structlog

log = structlog.get_logger()


class Connections:
    """Counts at most `limit` connections. When full, it closes the one that has waited longest for its client.

    Unread responses may hold `unread_bytes` in total; a single response may be longer. Above that, the connection whose
    client has been slow for longest is closed.
    """

    def __init__(self, limit: int, unread_bytes: int) -> None:
        self._limit = limit
        self._unread_bytes = unread_bytes
        self._unread: dict[asyncio.Transport, int] = {}  # oldest first, by when the client fell behind
        self._open: set[asyncio.Transport] = set()
        self._waiting: dict[asyncio.Transport, None] = {}  # oldest first, by when it began to wait

    def admit(self, transport: asyncio.Transport) -> bool:
        """Count a new connection. Return False if there is no room, and every open connection is being answered."""
        if len(self._open) >= self._limit:
            oldest = next(iter(self._waiting), None)
            if oldest is None:
                log.debug("connection_refused", limit=self._limit)
                return False
            log.debug("connection_dropped", limit=self._limit)
            self._drop(oldest)
        self._open.add(transport)
        return True

    def wait(self, transport: asyncio.Transport) -> None:
        """Note that this connection waits for its client to send or read data."""
        if transport in self._open:
            self._waiting.setdefault(transport)

    def work(self, transport: asyncio.Transport) -> None:
        """Note that a request of this connection is being answered."""
        self._waiting.pop(transport, None)

    def fall_behind(self, transport: asyncio.Transport) -> None:
        """Note that a client reads its response more slowly than it is written."""
        if transport not in self._open:
            return
        self._unread[transport] = transport.get_write_buffer_size()
        while sum(self._unread.values()) > self._unread_bytes:
            slowest = next(iter(self._unread))
            if slowest is transport:
                return
            log.debug("answer_dropped", limit=self._unread_bytes)
            self._drop(slowest)

    def catch_up(self, transport: asyncio.Transport) -> None:
        """Note that a client has read its response up to now."""
        self._unread.pop(transport, None)

    def remove(self, transport: asyncio.Transport) -> None:
        """Stop counting a connection. Idempotent."""
        self._open.discard(transport)
        self._waiting.pop(transport, None)
        self._unread.pop(transport, None)

    def _drop(self, transport: asyncio.Transport) -> None:
        self.remove(transport)
        transport.abort()
