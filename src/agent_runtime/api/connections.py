"""The connections that are open now: bounded, so that tasks keep their descriptors and health checks an answer (G9)."""

import asyncio

import structlog

log = structlog.get_logger()


class Connections:
    """At most `limit` transports. Where there is no room, the one that has waited longest for its client makes some."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
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
            self.remove(oldest)
            oldest.abort()
        self._open.add(transport)
        return True

    def wait(self, transport: asyncio.Transport) -> None:
        """Note that nothing can be done now for this connection: its client must send, or read, something."""
        if transport in self._open:
            self._waiting.setdefault(transport)

    def work(self, transport: asyncio.Transport) -> None:
        """Note that a request of this connection is being answered."""
        self._waiting.pop(transport, None)

    def remove(self, transport: asyncio.Transport) -> None:
        """Count a connection no more. Idempotent."""
        self._open.discard(transport)
        self._waiting.pop(transport, None)
