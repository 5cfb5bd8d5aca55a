"""The HTTP protocol of uvicorn, with deadlines and size limits (G11), and without upgrades that drop a body (G13).

uvicorn waits without limit for the rest of a request; this protocol answers 408. A request that arrives in one piece,
the usual case, needs no timer. The parser of uvicorn treats all bytes after a head with `Upgrade` as another protocol
and drops the body. This protocol upgrades only the handshake of a WebSocket, which has no body. It ignores any other
`Upgrade` (RFC 9110, section 7.8), and trailers (section 6.5.1).
"""

import asyncio
from enum import Enum
from http import HTTPStatus

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from agent_runtime.api.callers import CallerConnection
from agent_runtime.api.connections import Connections
from agent_runtime.api.edge import SECURITY_HEADERS, new_request_id
from agent_runtime.api.problems import RETRY_AFTER_S, problem
from agent_runtime.config import LimitSettings

log = structlog.get_logger()

_PLAIN_CHUNK_BYTES = 20
"""Framing bytes allowed per chunk: a size of 16 digits and two line ends. Any further bytes are chunk extensions."""


_MOST_WAITING = 16
"""Pipelined requests allowed on one connection while an earlier request is being answered. Received requests are parsed
at once: thousands of them on each of a hundred connections would block the event loop for half a minute (G9)."""

_MOST_CHUNKS = 4096
"""Chunks allowed per body, for the same reason: a chunk may be a single byte."""


class _Phase(Enum):
    """The part of a request that is expected next."""

    START = "start"
    HEAD = "head"
    BODY = "body"


def bounded_protocol(limits: LimitSettings) -> type[HttpToolsProtocol]:
    """Return a protocol class with `limits`; all its connections share one connection count."""
    members = {"limits": limits, "open": Connections(limits.connections, limits.unread_bytes)}
    return type("BoundedProtocol", (_BoundedProtocol,), members)


class _RefusedError(Exception):
    """Refuses a request while it is parsed. Arguments: status, code and detail."""


_UNREADABLE = (400, "bad_request", "This is not an HTTP request that the service can read.")


class _BoundedProtocol(HttpToolsProtocol):
    """One connection.

    The head must arrive within `request_head_s` of its first byte or of the opening of the connection. The body must
    arrive within `request_body_s` after that, even if nobody reads it. Late requests get 408. A head over `head_bytes`
    gets 431; chunk extensions and trailers count towards the head. If a response has already begun, the connection is
    closed instead.
    """

    limits: LimitSettings
    open: Connections
    _phase = _Phase.START
    _messages = 0
    _chunks = 0
    _head_bytes = 0
    _received = 0
    _watched: tuple[int, _Phase] | None = None
    _timer: asyncio.TimerHandle | None = None
    _earlier: tuple[RequestResponseCycle, ...] = ()
    _upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        ends = CallerConnection(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
        self.app_state = {**self.app_state, "caller": ends}  # each request gets a copy of the state
        if not self.open.admit(transport):
            limit = f"{self.limits.connections} connections are open, as many as limits.connections allows."
            self._refuse(503, "too_many_connections", limit)
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.open.remove(self.transport)
        for cycle in self._earlier:  # uvicorn notifies the newest cycle only
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)  # `on_body` subtracts the bytes of the body
        self._received = max(self._head_bytes, len(data))
        try:
            self._parse(data)
            self._check_head(self._head_bytes)
        except httptools.HttpParserError as error:
            reason = error.__context__
            self._refuse(*(reason.args if isinstance(reason, _RefusedError) else _UNREADABLE))
        except _RefusedError as error:
            self._refuse(*error.args)
        if self._upgraded:
            return
        self._head_bytes = max(0, self._head_bytes)
        self._watch()

    def _parse(self, data: bytes) -> None:
        end_of_head = self._feed(data)
        rest = memoryview(data)
        while end_of_head is not None:
            rest = rest[end_of_head:]
            if self._is_handshake():
                self._upgrade(bytes(rest))
                return
            self._begin_again()
            end_of_head = self._feed(rest)

    def _feed(self, data: bytes | memoryview) -> int | None:
        """Parse the data. Return the end of a head with `Upgrade`, where the parser stops, and None otherwise."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        return None

    def _is_handshake(self) -> bool:
        """Return whether the current head is the handshake of a WebSocket, and nothing else is being answered."""
        names = {name for name, _ in self.headers}
        has_body = not names.isdisjoint((b"content-length", b"transfer-encoding"))
        plain_get = self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1" and not has_body
        return plain_get and self._get_upgrade() == b"websocket" and not self._answering and not self.pipeline

    def _upgrade(self, rest: bytes) -> None:
        """Hand the connection over to the WebSocket protocol. Raises: _RefusedError."""
        self._check_head(sum(len(name) + len(value) for name, value in self.headers) + len(self.url))
        url = httptools.parse_url(self.url)
        if rest or url.path is None:  # a client waits for the answer before it sends more (RFC 6455, section 4.1)
            raise _RefusedError(*_UNREADABLE)
        from agent_runtime.api.websocket_protocol import BoundedWebSocket  # noqa: PLC0415 - many services never need it

        self._disarm()
        self.connections.discard(self)
        self.open.work(self.transport)
        self._upgraded = True
        target = url.path + (b"?" + url.query if url.query else b"")
        protocol = BoundedWebSocket(self.config, self.server_state, self.app_state, self.limits, self.open)
        protocol.take_over(self.transport, target.decode("ascii"), self.headers)

    def _begin_again(self) -> None:
        """Parse the current head again with a new parser, without its `Upgrade` header."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def _check_head(self, size: int) -> None:
        """Check the size of a head in bytes. Raises: _RefusedError."""
        if size > self.limits.head_bytes and self._phase is not _Phase.START:
            limit = f"{self.limits.head_bytes} bytes (limits.head_bytes)"
            raise _RefusedError(431, "head_too_large", f"The head of the request is over the limit of {limit}.")

    def on_message_begin(self) -> None:
        self._phase = _Phase.HEAD
        self._messages += 1
        self._chunks = 0
        if len(self.pipeline) >= _MOST_WAITING:
            raise _RefusedError(503, "too_many_requests", f"More than {_MOST_WAITING} requests were pipelined.")
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._received > self.limits.head_bytes:  # most of these bytes may belong to the body
            self._check_head(len(self.url) + sum(len(name) + len(value) for name, value in self.headers))
        if self.parser.get_method() == b"CONNECT":  # the bytes after it are not HTTP
            raise _RefusedError(*_UNREADABLE)
        if self.parser.should_upgrade():
            return
        earlier = self.cycle
        super().on_headers_complete()
        self.headers = []  # the request keeps the old list; from here on trailers arrive
        self._earlier = (*self._earlier, earlier) if self.pipeline else ()
        self._phase = _Phase.BODY  # not earlier: a bad URL is an error of the head

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._answering:  # and no pipelined request follows
            self.open.wait(self.transport)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.open.wait(self.transport)  # waits for the client to read the response
        self.open.fall_behind(self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.open.catch_up(self.transport)
        self._watch()

    def on_chunk_header(self) -> None:
        self._head_bytes -= _PLAIN_CHUNK_BYTES
        self._chunks += 1
        if self._chunks > _MOST_CHUNKS:
            raise _RefusedError(
                413, "too_many_chunks", f"The body has more than {_MOST_CHUNKS} chunks: send longer ones."
            )

    def on_body(self, body: bytes) -> None:
        self._head_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._phase = _Phase.START
        self._head_bytes = 0
        super().on_message_complete()

    @property
    def _answering(self) -> bool:
        """True while a request is being handled, so that the service does not wait for the client."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _at_work(self) -> bool:
        """True while the client waits for a response, even if it has begun to send another request."""
        return bool(self.pipeline) or (self._phase is not _Phase.BODY and self._answering)

    def _watch(self) -> None:
        """Run a timer while waiting for the client. Data for the same part of a request does not restart it."""
        if self._at_work and not self.flow.write_paused:
            self.open.work(self.transport)
        else:
            self.open.wait(self.transport)
        if self.transport.is_closing() or (self._phase is _Phase.START and self._answering):
            self._disarm()
            return
        awaited = (self._messages, self._phase)
        if awaited != self._watched:
            self._disarm()
            self._watched = awaited
            self._arm()

    def _arm(self) -> None:
        seconds = self.limits.request_body_s if self._phase is _Phase.BODY else self.limits.request_head_s
        self._timer = self.loop.call_later(seconds, self._on_deadline)

    def _disarm(self) -> None:
        self._watched = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_deadline(self) -> None:
        if self.flow.read_paused or self._at_work:  # the service is late, not the client
            self._arm()
            return
        log.debug("request_late", phase=self._phase.value)
        if self._phase is _Phase.START:
            self.transport.close()
            return
        name = f"limits.request_{self._phase.value}_s"
        self._refuse(408, "request_late", f"The {self._phase.value} of the request did not arrive in time ({name}).")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Send the error and close the connection. Only close it if another response is due or has begun."""
        if self._phase is _Phase.BODY:
            begun = self.cycle.response_started or bool(self.pipeline)
            self.cycle.disconnected = True  # discards what its handler still sends
        else:
            begun = self._answering
        if not begun:
            self.transport.write(_answer(status, code, detail))
        self.transport.close()


def _answer(status: int, code: str, detail: str) -> bytes:
    request_id = new_request_id()
    later = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    answer = problem({"request_id": request_id}, status, detail, code=code, headers=later)
    headers = [
        *answer.raw_headers,
        *SECURITY_HEADERS,
        (b"x-request-id", request_id.encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"", bytes(answer.body)])
