"""MCP over streamable HTTP: one pool of connections for all servers, one set of headers for each."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from math import inf
from time import monotonic
from urllib.request import Request

import httpx2
from mcp.client import Transport
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED
from pydantic_core import from_json, to_json

from agent_runtime.config import LimitSettings, Secrets
from agent_runtime.domain.errors import ConfigurationError, ServerUnavailableError
from agent_runtime.domain.tools import HttpServer
from agent_runtime.mcp_servers.dispatcher import CURRENT_REQUEST, NESTED, ErrorFinder

_CONNECT_S = 10.0
_SPARE_S = 30.0
_SHORT_STREAM_S = 10.0
_MOST_SHORT_STREAMS = 3
_RESUME_PAUSE_S = 1.0

_CHUNKS_AT_ONCE = 32
"""After so many chunks others get their turn. A server may send one for each byte, thousands of them at once."""

_MOST_COOKIES = 20
_LONGEST_COOKIE = 4096


class Network:
    """The connections to all HTTP servers. Setting up TLS costs 20 ms, so it is done once, for the first of them."""

    def __init__(self) -> None:
        self._transport: httpx2.AsyncHTTPTransport | None = None

    def shared(self) -> httpx2.AsyncBaseTransport:
        if self._transport is None:
            # No common ceiling: a server that holds on to its requests must not starve the others (G9).
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
            self._transport = httpx2.AsyncHTTPTransport(limits=limits)
        return self._transport

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()


def open_http(server: HttpServer, network: Network, limits: LimitSettings, secrets: Secrets) -> Transport:
    """The transport of this entry, its secrets expanded.

    Raises: ServerUnavailableError where a secret is missing.
    """
    try:
        url = secrets.expand(server.config.base_url)
        headers = {name: secrets.expand(value) for name, value in server.config.headers.items()}
    except ConfigurationError as error:
        raise ServerUnavailableError(server.id, str(error)) from error
    client = httpx2.AsyncClient(
        transport=_Guarded(network.shared(), limits.server_line_bytes),
        headers={**headers, "accept-encoding": "identity"},
        timeout=httpx2.Timeout(_CONNECT_S, read=_longest_silence(server, limits)),
        cookies=CookieJar(_FewCookies()),
        trust_env=False,
    )
    return streamable_http_client(url, http_client=client, max_sse_event_size=limits.server_line_bytes)


class _FewCookies(DefaultCookiePolicy):
    """Keeps the first few cookies of a session, which balancers need, and no more: they would fill the memory (G11)."""

    def __init__(self) -> None:
        super().__init__()
        self._names: set[str] = set()

    def set_ok(self, cookie: Cookie, request: Request) -> bool:
        """Return whether the cookie is kept. Those that were kept may have new values."""
        known = cookie.name in self._names or len(self._names) < _MOST_COOKIES
        if not known or len(cookie.name) + len(cookie.value or "") > _LONGEST_COOKIE:
            return False
        self._names.add(cookie.name)
        return super().set_ok(cookie, request)


def _longest_silence(server: HttpServer, limits: LimitSettings) -> float:
    """Longer than any call of the entry is waited for, so that this never ends one, and never keeps a dead one."""
    said = [policy.timeout_s for policy in server.tools.values() if policy.timeout_s is not None]
    return max([server.client_session_timeout_seconds, *said]) + limits.cancel_grace_s + _SPARE_S


class _Guarded(httpx2.AsyncBaseTransport):
    """The shared connections for one session: bounded answers, faults that stay those of one request, one address.

    The SDK ends the whole session when a request raises; an error answer ends that request only. It would follow
    redirects of every request, calls included: here only the handshake may be sent on, once and within its origin,
    and the session stays where that led.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, answer_bytes: int) -> None:
        self._inner = inner
        self._answer_bytes = answer_bytes
        self._address: httpx2.URL | None = None
        self._streams = _Streams()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        state = CURRENT_REQUEST.get()
        if request.method == "GET" and not await self._streams.may_open(resuming=state is not None):
            return httpx2.Response(405, request=request)
        if self._address is not None:
            request.url = self._address
        try:
            response = await self._inner.handle_async_request(request)
            if response.has_redirect_location:
                response = await self._redirected(request, response)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if state is not None and request.method == "POST":
                # No connection, so not a byte of the call has left.
                state.sent = False
            return _refusal(request, f"cannot connect: {error}")
        except httpx2.TransportError as error:
            return _refusal(request, f"the connection broke: {error or type(error).__name__}")
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            return _refusal(request, "the answer is compressed, which was not asked for")
        streamed = _is_event_stream(response.headers)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(
                response,
                None if streamed else self._answer_bytes,
                ErrorFinder(state, self._answer_bytes, by_line=streamed) if state is not None else None,
                self._streams.closed if request.method == "GET" and state is None else None,
            ),
            extensions=response.extensions,
        )

    async def _redirected(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """Send the handshake on to where it is redirected; any other redirect is refused."""
        await response.aclose()
        target = _location(request, response)
        follow = target is not None and response.status_code in _KEEP_METHOD and _same_origin(request.url, target)
        if target is None or not follow or self._address is not None or not _is_handshake(request):
            where = "nowhere" if target is None else target.copy_with(userinfo=b"", query=None)
            return _refusal(
                request, f"it redirects to {where}, which is not followed; config.base_url names the address"
            )
        self._address = request.url = target
        response = await self._inner.handle_async_request(request)
        return await self._redirected(request, response) if response.has_redirect_location else response

    async def aclose(self) -> None:
        """Nothing to do: the connections are shared, and closed by their owner."""


_KEEP_METHOD = frozenset({307, 308})
_HANDSHAKE = frozenset({"initialize", "server/discover"})


def _location(request: httpx2.Request, response: httpx2.Response) -> httpx2.URL | None:
    try:
        return request.url.join(response.headers["location"]).copy_with(fragment=None)
    except (httpx2.InvalidURL, ValueError):
        return None


def _same_origin(one: httpx2.URL, other: httpx2.URL) -> bool:
    """Whether both have the same scheme, host and port, and the other brings no credentials of its own."""
    same = (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
    return same and other.userinfo in {b"", one.userinfo}


def _is_handshake(request: httpx2.Request) -> bool:
    try:
        message = from_json(request.content)
    except ValueError:
        return False
    return isinstance(message, dict) and message.get("method") in _HANDSHAKE


class _Streams:
    """When a session may open a GET stream: not again and again where the server closes it at once.

    The stream of server messages is given up after a few that did not last; one that takes up the answer to a call
    is asked for at most once a second, for as long as the call may take.
    """

    def __init__(self) -> None:
        self._short = 0
        self._opened_at = -inf
        self._resumed_at = -inf

    async def may_open(self, *, resuming: bool) -> bool:
        now = monotonic()
        if resuming:
            pause_s = self._resumed_at + _RESUME_PAUSE_S - now
            self._resumed_at = now + max(pause_s, 0)
            await asyncio.sleep(max(pause_s, 0))
            return True
        self._opened_at = now
        return self._short < _MOST_SHORT_STREAMS

    def closed(self) -> None:
        lasted = monotonic() - self._opened_at >= _SHORT_STREAM_S
        self._short = 0 if lasted else self._short + 1


def _is_event_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("text/event-stream")


def _refusal(request: httpx2.Request, message: str) -> httpx2.Response:
    body = to_json({"jsonrpc": "2.0", "id": None, "error": {"code": CONNECTION_CLOSED, "message": message}})
    return httpx2.Response(503, headers={"content-type": "application/json"}, content=body, request=request)


_END_OF_EVENT = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LONGEST_END = 4


class _Nesting:
    """Counts the arrays and objects of a plain answer, or of each event of a stream, as the chunks come (G9)."""

    def __init__(self, *, by_event: bool) -> None:
        self._by_event = by_event
        self._count = 0
        self._tail = b""

    def check(self, chunk: bytes) -> None:
        """Take the next chunk. Raises: httpx2.StreamError where one message has too many."""
        if not self._by_event:
            self._add(chunk)
            return
        seen = len(self._tail)
        data = self._tail + chunk
        begins = seen
        for end in _END_OF_EVENT.finditer(data):
            self._add(data[begins : end.end()])
            self._count, begins = 0, max(end.end(), seen)
        self._add(data[begins:])
        self._tail = data[-_LONGEST_END + 1 :]

    def _add(self, data: bytes) -> None:
        self._count += data.count(b"[") + data.count(b"{")
        if self._count > NESTED:
            raise httpx2.StreamError(f"the answer has a message with more than {NESTED} arrays and objects")


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer. The SDK bounds the events of a stream; a plain answer is bounded here (G11).

    `errors` sees each chunk before the SDK does; `closed` is called once, when the body is closed.
    """

    def __init__(
        self,
        response: httpx2.Response,
        limit: int | None,
        errors: ErrorFinder | None,
        closed: Callable[[], None] | None,
    ) -> None:
        self._response = response
        self._limit = limit
        self._errors = errors
        self._closed = closed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = chunks = 0
        nesting = _Nesting(by_event=self._limit is None)
        try:
            async for chunk in self._response.stream:  # type: ignore[union-attr] # of an async client
                chunks += 1
                if chunks % _CHUNKS_AT_ONCE == 0:
                    await asyncio.sleep(0)
                nesting.check(chunk)
                seen += len(chunk)
                if self._limit is not None and seen > self._limit:
                    raise httpx2.StreamError(f"the answer has more than {self._limit} bytes")
                if self._errors is not None:
                    self._errors.hear(chunk)
                yield chunk
            if self._errors is not None:
                self._errors.end()
        except httpx2.TransportError as error:
            raise httpx2.StreamError(f"the connection broke: {error or type(error).__name__}") from error

    async def aclose(self) -> None:
        if self._closed is not None:
            self._closed()
            self._closed = None
        await self._response.aclose()
