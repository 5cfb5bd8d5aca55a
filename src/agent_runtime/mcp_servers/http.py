"""MCP over streamable HTTP: one pool of connections for all servers, and headers for each server."""

import asyncio
import re
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from math import inf
from time import monotonic
from urllib.request import Request

import httpx2
from mcp.client import Transport
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError
from pydantic_core import from_json, to_json

from agent_runtime.config import LimitSettings, Secrets
from agent_runtime.domain.errors import ConfigurationError, ServerUnavailableError
from agent_runtime.domain.tools import HttpServer
from agent_runtime.mcp_servers.answers import Body, read_body, set_media_type
from agent_runtime.mcp_servers.dispatcher import CURRENT_REQUEST, RequestState
from agent_runtime.mcp_servers.explaining import (
    BROKEN_CONNECTION,
    COMPRESSED,
    NO_CONNECTION,
    OUTAGES,
    REDIRECT,
    RETRY_AFTER,
    read_retry_after,
)
from agent_runtime.mcp_servers.network import Network
from agent_runtime.mcp_servers.old_sse import open_old_sse
from agent_runtime.mcp_servers.read_timeout import find_longest_read_s
from agent_runtime.mcp_servers.reading import read_answer
from agent_runtime.text.escaping import one_line

_CONNECT_S = 10.0
_SHORT_STREAM_S = 10.0
_MOST_SHORT_STREAMS = 3
_RESUME_PAUSE_S = 1.0

_HANDSHAKE_PAUSES_S = (0.1, 0.5)
_REFUSAL_BYTES = 64 * 1024
_REASON_CHARACTERS = 200

_MOST_COOKIES = 20
_LONGEST_COOKIE = 4096


class HttpAccess:
    """Access to one HTTP server for one session: its address, its headers, and what its answers have shown."""

    def __init__(self, server: HttpServer, network: Network, limits: LimitSettings, secrets: Secrets) -> None:
        """Expand the secrets of the entry, and choose the proxy.

        Raises: ServerUnavailableError where a secret is missing, or the address, a header or a proxy cannot be used.
        """
        try:
            self._url = secrets.expand(server.config.base_url).strip()
            headers = {
                name: _check_header(name, secrets.expand(value)) for name, value in server.config.headers.items()
            }
            proxy = network.choose_proxy(_read_address(self._url))
            connections = network.get_transport(proxy)
        except ConfigurationError as error:
            raise ServerUnavailableError(server.id, secrets.redactor.redact_message(str(error))) from error
        self._event_bytes = limits.server_line_bytes
        self._guard = _Guarded(connections, limits.server_line_bytes, proxy.variable if proxy else None)
        self._client = httpx2.AsyncClient(
            transport=self._guard,
            headers={**headers, "accept-encoding": "identity"},
            timeout=httpx2.Timeout(_CONNECT_S, read=find_longest_read_s(server, limits)),
            cookies=CookieJar(_FewCookies()),
            trust_env=False,
        )

    def open(self) -> Transport:
        """Return the transport of streamable HTTP."""
        return streamable_http_client(self._url, http_client=self._client, max_sse_event_size=self._event_bytes)

    def open_old(self, closed: asyncio.Event) -> Transport:
        """Return the transport of servers before streamable HTTP; `closed` is set once its stream has ended."""
        return open_old_sse(self._url, self._client, self._event_bytes, closed)

    @property
    def may_be_old(self) -> bool:
        """True if the server refused the handshake as one of the old transport would, which expects a GET first."""
        return self._guard.refused_handshake_with in _OLD_SERVERS

    @property
    def session_unknown(self) -> bool:
        """True if the server has answered that it does not know the session."""
        return self._guard.session_unknown


def _read_address(url: str) -> httpx2.URL:
    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfigurationError(f"config.base_url is no URL: {error}.") from error
    if not address.host:
        raise ConfigurationError("config.base_url names no host.")
    return address


def _check_header(name: str, value: str) -> str:
    """Return the value of a header as it is sent. Raises: ConfigurationError naming an invalid header."""
    if not _TOKEN.fullmatch(name):
        raise ConfigurationError(
            f"config.headers: {name!r} is no name of a header; it has letters, digits and hyphens."
        )
    sent = value.strip()  # a line break at the end of a secret is no part of it
    if not (sent.isascii() and sent.replace("\t", " ").isprintable()):
        raise ConfigurationError(
            f"config.headers.{name}: must be one line of printable ASCII, as a header can carry it; it holds another "
            "character."
        )
    return sent


_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

_OLD_SERVERS = frozenset({400, 404, 405})
"""How servers of the old transport answer the POST of a handshake (MCP, transports, backwards compatibility)."""


class _FewCookies(DefaultCookiePolicy):
    """Accepts the first few cookies of a session, which load balancers need; more would fill the memory (G11)."""

    def __init__(self) -> None:
        super().__init__()
        self._names: set[str] = set()

    def set_ok(self, cookie: Cookie, request: Request) -> bool:
        """Return whether the cookie is accepted. Known cookies may change their values."""
        known = cookie.name in self._names or len(self._names) < _MOST_COOKIES
        if not known or len(cookie.name) + len(cookie.value or "") > _LONGEST_COOKIE:
            return False
        self._names.add(cookie.name)
        return super().set_ok(cookie, request)


class _Guarded(httpx2.AsyncBaseTransport):
    """The shared connections as one session may use them: bounded answers, contained errors, one address.

    The SDK ends the whole session when a request raises, but only the request after an error answer. So errors become
    answers here. The SDK would also follow redirects of every request, calls included. Here only the handshake may be
    redirected, once and within its origin, and the session stays at the new address.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, answer_bytes: int, proxy: str | None) -> None:
        self._inner = inner
        self._way = f" through the proxy that {proxy} names" if proxy else ""
        self._answer_bytes = answer_bytes
        self._address: httpx2.URL | None = None
        self._streams = _Streams()
        self.session_unknown = False
        self.refused_handshake_with: int | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        state = CURRENT_REQUEST.get()
        if request.method == "GET" and not await self._streams.may_open(resuming=state is not None):
            return httpx2.Response(405, request=request)
        if self._address is not None:
            request.url = self._address
        try:
            response = await self._send(request)
            if response.has_redirect_location:
                response = await self._follow_redirect(request, response)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            if state is not None and request.method == "POST":
                # There was no connection, so no byte of the call was sent.
                state.sent = False
            return _make_refusal(request, f"{NO_CONNECTION}{self._way}: {error}")
        except _RedirectRefusedError as refused:
            return _make_refusal(request, str(refused))
        except httpx2.TransportError as error:
            return _make_refusal(request, f"{BROKEN_CONNECTION}: {error or type(error).__name__}")
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            return _make_refusal(request, f"{COMPRESSED}, which was not asked for")
        if request.method == "POST" and response.is_error:
            return await self._translate_error(request, response, state)
        streamed = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        closed = self._streams.note_closed if request.method == "GET" and state is None else None
        return httpx2.Response(
            response.status_code,
            headers=set_media_type(response.headers),
            stream=Body(
                response,
                self._answer_bytes,
                state,
                streamed=streamed,
                closed=closed,
                nameless=partial(self._name_error, request, state) if request.method == "POST" else None,
            ),
            extensions=response.extensions,
        )

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. If the connection breaks during a handshake, which changes nothing, try again."""
        for pause_s in _HANDSHAKE_PAUSES_S if _is_handshake(request) else ():
            try:
                return await self._inner.handle_async_request(request)
            except httpx2.NetworkError as error:
                if isinstance(error, httpx2.ConnectError):
                    raise
            except httpx2.RemoteProtocolError:
                pass
            await asyncio.sleep(pause_s)
        return await self._inner.handle_async_request(request)

    async def _translate_error(
        self, request: httpx2.Request, response: httpx2.Response, state: RequestState | None
    ) -> httpx2.Response:
        """Turn an HTTP error into an answer with the server's own JSON-RPC error, or with its status."""
        body = b""
        try:
            with suppress(httpx2.StreamError):
                body = await read_body(response, _REFUSAL_BYTES)
        finally:
            await response.aclose()
        status = response.status_code
        message = read_answer(body) if b'"jsonrpc"' in body else None
        error = message if isinstance(message, JSONRPCError) else None
        said = error.error.message if error else body.decode(errors="replace")
        if _is_handshake(request):
            self.refused_handshake_with = status
        ours = state is not None and state.is_answered_by(error.id if error else None)
        if MCP_SESSION_ID in request.headers and _means_session_lost(status, said, ours=ours):
            self.session_unknown = True
            if state is not None:
                state.session_unknown = True
        elif state is not None:
            state.refused = ours or status in _REFUSALS
        words = said if ours else _describe_status(status, said)
        told = (
            error.error if error is not None and (ours or state is None) else ErrorData(code=INTERNAL_ERROR, message="")
        )
        update: dict[str, object] = {"message": words}
        if status in OUTAGES:
            after_s = read_retry_after(response)
            update["data"] = {RETRY_AFTER: after_s}
            if state is not None:
                state.retry_after_s = after_s
        return _make_error_response(request, status, told.model_copy(update=update))

    def _name_error(self, request: httpx2.Request, state: RequestState | None, error: ErrorData) -> int | str | None:
        """Return the id of the request that an error without an id answers, and note what the error proves."""
        unread = error.code in _UNREAD and MCP_SESSION_ID in request.headers
        self.session_unknown |= unread
        if state is not None:
            state.session_unknown, state.refused = unread, not unread
        request_id: int | str | None = from_json(request.content).get("id")
        return request_id

    async def _follow_redirect(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """Follow the redirect of a handshake. Raises: _RedirectRefusedError for any other redirect."""
        await response.aclose()
        target = _resolve_location(request, response)
        follow = target is not None and response.status_code in _KEEP_METHOD and _has_same_origin(request.url, target)
        if target is None or not follow or self._address is not None or not _is_handshake(request):
            where = "nowhere" if target is None else target.copy_with(userinfo=b"", query=None)
            raise _RedirectRefusedError(f"{REDIRECT} {where}, which is not followed; config.base_url names the address")
        self._address = request.url = target
        response = await self._inner.handle_async_request(request)
        return await self._follow_redirect(request, response) if response.has_redirect_location else response

    async def aclose(self) -> None:
        """Do nothing: the connections are shared, and their owner closes them."""


class _RedirectRefusedError(Exception):
    """A server answered a request with a redirect that is not followed."""


_KEEP_METHOD = frozenset({307, 308})
_HANDSHAKE = frozenset({"initialize", "server/discover"})


def _resolve_location(request: httpx2.Request, response: httpx2.Response) -> httpx2.URL | None:
    try:
        return request.url.join(response.headers["location"]).copy_with(fragment=None)
    except (httpx2.InvalidURL, ValueError):
        return None


def _has_same_origin(one: httpx2.URL, other: httpx2.URL) -> bool:
    """Return whether both have the same scheme, host and port, and the second brings no credentials of its own."""
    same = (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
    return same and other.userinfo in {b"", one.userinfo}


def _is_handshake(request: httpx2.Request) -> bool:
    if request.method != "POST" or not any(b'"%b"' % name.encode() in request.content for name in _HANDSHAKE):
        return False
    try:
        message = from_json(request.content)
    except ValueError:
        return False
    return isinstance(message, dict) and message.get("method") in _HANDSHAKE


class _Streams:
    """Limits how often a session opens GET streams, in case the server closes them at once.

    The stream of server messages is given up after a few short ones. A stream that resumes the answer to a call is
    opened once a second at most, for as long as the call may take.
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

    def note_closed(self) -> None:
        lasted = monotonic() - self._opened_at >= _SHORT_STREAM_S
        self._short = 0 if lasted else self._short + 1


_UNREAD = frozenset({PARSE_ERROR, INVALID_REQUEST})
"""The codes of errors without an id that say that the request was not read (JSON-RPC 2.0, section 5).

In a session such an error counts as an unknown session, because some servers send it after they have forgotten one.
"""

_REFUSALS = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
"""The statuses by which a server or its proxy refuses a request without looking at it."""

_NO_SESSION = re.compile(
    r"\b(?:no|not|unknown|invalid|missing|expired|terminated|closed|stale)\b.{0,40}\bsession|not initialized|"
    r"\bsession\w*.{0,80}\b(?:not|no|unknown|invalid|missing|expired|terminated|closed|does)\b",
    re.IGNORECASE | re.DOTALL,
)


def _means_session_lost(status: int, said: str, *, ours: bool) -> bool:
    """Return whether an answer means that the session is gone and that the server has not looked at the request.

    `ours` is True if the answer holds an error with the id of the call.
    """
    named = _NO_SESSION.search(said[:_REFUSAL_BYTES]) is not None
    match status:
        case HTTPStatus.NOT_FOUND:
            return named or not ours
        case HTTPStatus.BAD_REQUEST:
            return named and not ours
    return False


def _describe_status(status: int, said: str) -> str:
    try:
        name = f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        name = f"HTTP {status}"
    words = one_line(said.strip()[:_REASON_CHARACTERS])
    return f"{name}: {words}" if words else name


def _make_refusal(request: httpx2.Request, message: str) -> httpx2.Response:
    return _make_error_response(request, 503, ErrorData(code=CONNECTION_CLOSED, message=message))


def _make_error_response(request: httpx2.Request, status: int, error: ErrorData) -> httpx2.Response:
    body = to_json({"jsonrpc": "2.0", "id": None, "error": error.model_dump(exclude_none=True)})
    return httpx2.Response(status, headers={"content-type": "application/json"}, content=body, request=request)
