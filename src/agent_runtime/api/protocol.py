"""The HTTP protocol with deadlines (G11): uvicorn waits for ever for the rest of a request, this does not.

In the usual case, a request in one piece, no timer is set for it.
"""

import asyncio
from enum import Enum
from http import HTTPStatus

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from agent_runtime.api.edge import SECURITY_HEADERS, new_request_id
from agent_runtime.api.problems import problem
from agent_runtime.config import LimitSettings

log = structlog.get_logger()


class _Phase(Enum):
    """What of a request is to come next."""

    START = "start"
    HEAD = "head"
    BODY = "body"


def bounded(limits: LimitSettings) -> type[HttpToolsProtocol]:
    """The protocol of uvicorn, which closes connections whose head or body does not arrive in time."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"limits": limits})


class _BoundedProtocol(HttpToolsProtocol):
    """A connection. The head has `request_head_s` from its first byte, or from the opening of the connection; the body
    `request_body_s` after that, whether it is read or not. Late is 408, a head over `head_bytes` 431; where an answer
    is already on its way the connection is closed without a word.
    """

    limits: LimitSettings
    _phase = _Phase.START
    _messages = 0
    _head_bytes = 0
    _watched: tuple[int, _Phase] | None = None
    _timer: asyncio.TimerHandle | None = None
    _earlier: tuple[RequestResponseCycle, ...] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        for cycle in self._earlier:  # uvicorn tells the newest only
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._phase is _Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes and not self._answering:
                limit = f"{self.limits.head_bytes} bytes (limits.head_bytes)"
                self._refuse(431, "head_too_large", f"The head of the request is over the limit of {limit}.")
        self._watch()

    def on_message_begin(self) -> None:
        self._phase = _Phase.HEAD
        self._messages += 1
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        earlier = self.cycle
        super().on_headers_complete()
        self._earlier = (*self._earlier, earlier) if self.pipeline else ()
        self._phase = _Phase.BODY  # not before: a bad address is a fault of the head

    def on_message_complete(self) -> None:
        self._phase = _Phase.START
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are no problem document
        self._refuse(400, "bad_request", "This is not an HTTP request that the service can read.")

    @property
    def _answering(self) -> bool:
        """Whether a request is being handled, so that it is not the client who is waited for."""
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        """Have a timer run if the client is waited for, and the same one for as long as it is for the same thing."""
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
        self._timer = self.loop.call_later(seconds, self._late)

    def _disarm(self) -> None:
        self._watched = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        # While the body is not read, or an earlier request of the connection is handled, it is us who are late.
        if self.flow.read_paused or self.pipeline or (self._phase is not _Phase.BODY and self._answering):
            self._arm()
            return
        log.debug("request_late", phase=self._phase.value)
        if self._phase is _Phase.START:
            self.transport.close()
            return
        name = f"limits.request_{self._phase.value}_s"
        self._refuse(408, "request_late", f"The {self._phase.value} of the request did not arrive in time ({name}).")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Say what is wrong, unless an answer is due or has begun for something else, and close the connection."""
        if self._phase is _Phase.BODY:
            begun = self.cycle.response_started
            self.cycle.disconnected = True  # whatever its handler says now comes too late
        else:
            begun = self._answering
        if not begun:
            self.transport.write(_answer(status, code, detail))
        self.transport.close()


def _answer(status: int, code: str, detail: str) -> bytes:
    request_id = new_request_id()
    answer = problem({"request_id": request_id}, status, detail, code=code)
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
