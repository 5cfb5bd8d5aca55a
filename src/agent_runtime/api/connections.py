"""The connections that are open now, and what their clients have not read: bounded, so that tasks keep their
descriptors, health checks an answer and the service its memory (G9, G11).
"""

import asyncio

import structlog

log = structlog.get_logger()


class Connections:
    """At most `limit` transports. Where there is no room, the one that has waited longest for its client makes some.

    At most `unread_bytes` of answers wait for their clients together, or a single answer that is longer. Beyond that
    the connection is closed whose client has been slow for longest.
    """

    def __init__(self, limit: int, unread_bytes: int) -> None:
        self._limit = limit
        self._unread_bytes = unread_bytes
        self._unread: dict[asyncio.Transport, int] = {}  # in the order in which their clients fell behind
        self._open: set[asyncio.Transport] = set()
        self._waiting: dict[asyncio.Transport, None] = {}  # in the order in which they began to wait

    def admit(self, transport: asyncio.Transport) -> bool:
        """Count a new connection, unless all there may be are being answered."""
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
        """Note that nothing can be done now for this connection: its client must send, or read, something."""
        if transport in self._open:
            self._waiting.setdefault(transport)

    def work(self, transport: asyncio.Transport) -> None:
        """Note that a request of this connection is being answered."""
        self._waiting.pop(transport, None)

    def fall_behind(self, transport: asyncio.Transport) -> None:
        """Note that a client reads more slowly than it is answered."""
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
        """Note that a client has read what it had not."""
        self._unread.pop(transport, None)

    def remove(self, transport: asyncio.Transport) -> None:
        """Count a connection no more. Idempotent."""
        self._open.discard(transport)
        self._waiting.pop(transport, None)
        self._unread.pop(transport, None)

    def _drop(self, transport: asyncio.Transport) -> None:
        self.remove(transport)
        transport.abort()
