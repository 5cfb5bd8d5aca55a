"""The WebSocket protocol of uvicorn on the sans-I/O parser of `websockets`, with limits like `protocol.py` (G11, G13).

Imported with the first handshake. uvicorn pauses reading after each message until the app has taken it. This protocol
adds what a hostile client makes necessary: deadlines for messages, and bounds for what arrives in one piece. Messages
are not compressed, so no small one becomes a large one.
"""

import asyncio
import logging
from collections.abc import Iterable

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import State

from agent_runtime.api.closing import STOPPING, STOPS, VIOLATED
from agent_runtime.api.connections import Connections
from agent_runtime.config import LimitSettings

_SLICE_BYTES = 2048
"""Bytes that are parsed at once. A read has up to 256 KiB, which may be 40,000 frames."""

_MOST_WAITING = 16
"""Messages that may wait while an earlier one is answered."""

_MOST_FRAGMENTS = 4096
"""Frames of one message. A frame may be empty."""

_MOST_CONTROL = 256
"""Pings and pongs in one interval of keep-alive pings."""

_LINGER_S = 2.0
"""Seconds in which a client that is refused may read why, or a client may close its side. What it sends is discarded: a
connection that is closed with unread data loses the close frame.
"""

_BARE_HEAD = b"GET / HTTP/1.1\r\n\r\n"


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One connection, taken over from the HTTP protocol with a head that is parsed already.

    A message must arrive within `request_body_s` of its first byte. Each connection counts as one that is being
    answered, unless its client is slow to read.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        limits: LimitSettings,
        open_connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.logger = logging.getLogger("uvicorn.access")  # uvicorn logs every handshake; errors are logged there too
        self.close_timeout = _LINGER_S
        self._limits = limits
        self._open = open_connections
        self._head: Request | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False
        self._control = 0
        self._control_since = 0.0

    def take_over(self, transport: asyncio.Transport, target: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin the handshake of a request whose head is parsed already. Nothing is read until it is answered."""
        self._head = Request(target, Headers([(name.decode(), _decode(value)) for name, value in headers]))
        self.connection_made(transport)
        transport.pause_reading()
        transport.set_protocol(self)
        super().data_received(_BARE_HEAD)  # the parser of `websockets` has narrower limits than ours

    def handle_connect(self, event: Request) -> None:
        """Answer the handshake with the head that arrived, in place of the bare one."""
        assert self._head is not None  # noqa: S101 - `take_over` sets it
        super().handle_connect(self._head if event.path == "/" else event)

    async def send(self, message) -> None:  # type: ignore[no-untyped-def]  # uvicorn keeps the type private
        await super().send(message)
        if message["type"] == "websocket.accept" and not self.transport.is_closing():
            self.transport.resume_reading()
        if self.close_sent:
            self._open.wait(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._open.remove(self.transport)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._open.wait(self.transport)
        self._open.fall_behind(self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._open.catch_up(self.transport)
        if not self.close_sent:
            self._open.work(self.transport)

    def data_received(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _SLICE_BYTES):
            if self._refused or self.transport.is_closing():
                break
            super().data_received(bytes(view[start : start + _SLICE_BYTES]))
            if self.queue.qsize() > _MOST_WAITING:
                self._refuse(f"More than {_MOST_WAITING} messages were sent before the first was answered.")
        self._watch()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _MOST_FRAGMENTS:
            self._refuse(f"A message has more than {_MOST_FRAGMENTS} frames.")
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # the client does not read; its pongs would only take memory
        self._count_control()

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        self._count_control()

    def send_keepalive_ping(self) -> None:
        if self.writable.is_set():
            super().send_keepalive_ping()
        else:
            self.schedule_ping()  # it would wait behind what the client has not read yet

    def keepalive_timeout(self) -> None:
        if self.writable.is_set():
            super().keepalive_timeout()
        else:
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)

    def handle_parser_exception(self) -> None:
        assert self.conn.close_sent is not None  # noqa: S101 - the parser has failed the connection
        self._end(self.conn.close_sent.code)

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent and self.conn.state is State.OPEN:
            self.conn.send_close(STOPPING, STOPS)
            self._end(STOPPING)
            self.transport.close()
        else:
            super().shutdown()

    def _count_control(self) -> None:
        now = self.loop.time()
        if now - self._control_since > (self.ping_interval or 1):
            self._control, self._control_since = 0, now
        self._control += 1
        if self._control > _MOST_CONTROL and not self.close_sent:
            self._refuse(f"More than {_MOST_CONTROL} pings and pongs.")

    def _watch(self) -> None:
        """Run a timer while a message has arrived in part."""
        partial = self.conn.current_size is not None or bool(self.conn.reader.buffer)
        if not partial or self.close_sent or self.transport.is_closing():
            self._disarm()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.request_body_s, self._on_deadline)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        self._deadline = None
        if self.read_paused:  # the service is late, not the client
            self._watch()
            return
        self._refuse("A message did not arrive in time (limits.request_body_s).")

    def _refuse(self, reason: str) -> None:
        """Close the connection of a client that is against the limits, and tell the app."""
        if self.close_sent or self.transport.is_closing():
            return
        self.conn.fail(CloseCode(VIOLATED), reason)
        self._end(VIOLATED)

    def _end(self, code: int) -> None:
        """Send the close frame that the parser has prepared, tell the app, and close the connection soon."""
        self._refused = True
        self._disarm()
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._open.wait(self.transport)
        self.close_timer = self.loop.call_later(_LINGER_S, self.transport.close)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()


def _decode(value: bytes) -> str:
    return value.decode("ascii", errors="surrogateescape")  # as uvicorn encodes it again
