"""The edge: the checks that every request passes before a handler sees it (G13, G14), as one ASGI middleware.

A WebSocket handshake passes the same checks as a request; any other kind of ASGI scope is refused. A browser tells no
page why a handshake was refused, so a caller is refused with a close code instead. The edge also gives every request an
id and every response its security headers, and it answers unexpected errors with 500.
"""

import re
import secrets
from collections.abc import Iterable
from contextlib import suppress

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_runtime.api.auth import Authenticator
from agent_runtime.api.closing import FAILED, close_code, close_reason
from agent_runtime.api.problems import Refusal, missing_scope, problem
from agent_runtime.api.scopes import RouteScopes, describe_missing
from agent_runtime.config import LimitSettings, ServerSettings
from agent_runtime.telemetry import log_debug

log = structlog.get_logger()

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PORT = re.compile(rb":[0-9]{1,5}\Z")
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared, not bound

_Headers = dict[bytes, bytes]

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Headers of every response."""

_DEFAULT_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}
"""Default headers: responses are private, and not web pages."""

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, X-Request-ID, "
        "Cache-Control, Mcp-Session-Id, MCP-Protocol-Version, Mcp-Method, Mcp-Name, "
        "X-CopilotKit-Runtime-Client-GQL-Version, X-CopilotCloud-Public-API-Key"
    ),
    "Access-Control-Max-Age": "600",
}
_EXPOSED = (b"access-control-expose-headers", b"ETag, X-Request-ID, Retry-After, WWW-Authenticate, Mcp-Session-Id")
_VARY = (b"vary", b"Origin")


_SINGLE = frozenset(
    {b"authorization", b"content-length", b"content-type", b"host", b"idempotency-key", b"last-event-id", b"origin"}
)
"""Headers with a single value (RFC 9110, section 5.3). Of two, a proxy could use the first and we the last."""

_ANY_HOST = frozenset({"/docs", "/health", "/healthz", "/openapi.json", "/readyz"})
"""Paths that any `Host` may request: they show no data, and probes send an IP address."""


class Edge:
    """Refuses repeated headers (400), foreign hosts (421), foreign origins (403), callers without a key (401) or scope
    (403), and bodies that are too large (413) or not JSON in UTF-8 (415), in this order.

    `allowed_hosts` are host names; a port in the request is ignored, and `*` allows any host. The host that the service
    listens on is always allowed, and so is an origin that equals the host of the request. Pages of `allowed_origins`
    get CORS headers, without credentials. `routes` know the scopes that a request needs. The edge stores the caller in
    the ASGI scope as `caller`; it is None for a path that is open to everybody. HEAD is handled as GET, and the server
    omits the body.
    """

    def __init__(
        self,
        app: ASGIApp,
        server: ServerSettings,
        limits: LimitSettings,
        routes: RouteScopes,
        authenticator: Authenticator,
    ) -> None:
        self._app = app
        self._routes = routes
        self._authenticator = authenticator
        own = [] if server.host in _WILDCARDS else [f"[{server.host}]" if ":" in server.host else server.host]
        self._hosts = _lower_all([*server.allowed_hosts, *own])
        self._root_path = server.root_path
        self._origins = _lower_all(origin.rstrip("/") for origin in server.allowed_origins)
        self._body_bytes = limits.body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] not in {"http", "websocket"}:
            raise ValueError(f"The service supports HTTP, and not the ASGI scope {scope['type']!r}.")
        headers: _Headers = {}
        refusal = None
        for name, value in scope["headers"]:
            if name in _SINGLE and name in headers:
                refusal = _refuse_repeated(name)
            headers[name] = value
        request_id = _request_id(headers)
        method = scope.get("method", "GET")  # a WebSocket handshake is a GET
        received = scope
        scope = {**scope, "request_id": request_id, "is_head": method == "HEAD", "caller": None}
        if scope["type"] == "http":
            scope["method"] = "GET" if method == "HEAD" else method
        if self._root_path and scope["path"].startswith(f"{self._root_path}/"):
            scope["path"] = scope["path"].removeprefix(self._root_path)  # the proxy has not removed it
        structlog.contextvars.bind_contextvars(request_id=request_id)
        origin = headers.get(b"origin")
        answer = _Answer(scope, send, request_id, self._cors(origin) if self._origins else [])
        refusal = refusal or self._refuse_foreign(scope["path"], headers)
        if refusal is None and method == "OPTIONS" and self._is_preflight(headers):
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, answer.send)
            return
        if b"ticket=" in received.get("query_string", b""):
            received["query_string"] = _without_ticket(received["query_string"])  # servers log the URL
        if refusal is None and scope["type"] == "websocket":
            refusal = await self._refuse_caller(scope) or self._refuse_path(scope)
            if refusal is not None:
                await _accept_and_close(refusal, receive, answer)
                return
        refusal = refusal or await self._refuse_caller(scope)
        if refusal is None and method in {"POST", "PUT", "PATCH"}:
            refusal = self._refuse_body(headers)
        if refusal is None:
            await self._call_app(scope, receive, answer)
        else:
            await _refuse(refusal, scope, receive, answer)

    async def _refuse_caller(self, scope: Scope) -> Refusal | None:
        """Store the caller in the ASGI scope, or return a refusal: no valid key, or a key without the scope."""
        needed = self._routes.needed_scopes(scope)
        if not needed:
            return None
        caller = await self._authenticator.authenticate(scope)
        if isinstance(caller, Refusal):
            return caller
        if not caller.may(*needed):
            method, path = scope.get("method", "WEBSOCKET"), scope["path"]
            log.info("caller_refused", method=method[:20], path=path[:200], reason="scope_missing", actor=caller.name)
            detail = describe_missing(caller, needed, "this call needs")
            return Refusal(403, "scope_missing", detail, missing_scope(needed[0]))
        scope["caller"] = caller
        return None

    def _refuse_path(self, scope: Scope) -> Refusal | None:
        if self._routes.takes_websocket(scope):
            return None
        return Refusal(404, "not_found", "No WebSocket is served at this path; that of a task is /v1/tasks/ID/stream.")

    def _cors(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """Return the headers that allow a page of an allowed origin to read the response."""
        if origin is None or origin.lower() not in self._origins:
            return [_VARY]
        return [(b"access-control-allow-origin", origin), _EXPOSED, _VARY]

    def _is_preflight(self, headers: _Headers) -> bool:
        listed = headers.get(b"origin", b"").lower() in self._origins
        return listed and b"access-control-request-method" in headers

    async def _call_app(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        # The router removes the root path again, exactly once, so that it routes the path that was checked here.
        routed = {**scope, "path": f"{self._root_path}{scope['path']}"}
        try:
            await self._app(routed, receive, answer.send)
        except ClientDisconnect:
            log.debug("client_gone", path=scope["path"])
        except Exception:  # the edge owns the request: the caller gets an answer in any case (G13)
            log.exception("request_failed", method=scope.get("method", "WEBSOCKET"), path=scope["path"])
            if scope["type"] == "websocket" and answer.started:
                await answer.close(FAILED, f"The error is logged with the request id {scope['request_id']}.")
                return
            if answer.started:
                raise
            detail = f"The service failed unexpectedly. The error is logged with the request id {scope['request_id']}."
            await _respond(Refusal(500, None, detail), scope, receive, answer)

    def _refuse_foreign(self, path: str, headers: _Headers) -> Refusal | None:
        host = headers.get(b"host", b"").lower()
        if path not in _ANY_HOST and not self._is_ours(host):
            detail = "This service does not accept that Host; server.allowed_hosts lists the hosts that it accepts."
            return Refusal(421, "foreign_host", detail)
        origin = headers.get(b"origin", b"").lower()
        if origin and not self._is_known(origin, host):
            setting = "server.allowed_origins (CORS_ORIGINS)"
            log.info("origin_refused", origin=origin[:200].decode("latin-1"), setting=setting)
            detail = f"Pages of that Origin may not use this service; {setting} lists which may."
            return Refusal(403, "foreign_origin", detail)
        return None

    def _is_ours(self, host: bytes) -> bool:
        return _PORT.sub(b"", host) in self._hosts or (bool(host) and b"*" in self._hosts)

    def _is_known(self, origin: bytes, host: bytes) -> bool:
        return origin in {b"http://" + host, b"https://" + host} or origin in self._origins

    def _refuse_body(self, headers: _Headers) -> Refusal | None:
        length = headers.get(b"content-length", b"0")
        size = int(length) if length.isdigit() else 0
        if size > self._body_bytes:
            return Refusal(413, "body_too_large", too_large(self._body_bytes))
        has_body = size > 0 or b"transfer-encoding" in headers
        if not has_body:
            return None
        kind, *parameters = headers.get(b"content-type", b"").lower().split(b";")
        if kind.strip() != b"application/json":
            return Refusal(415, "not_json", "The body must be JSON: send it with Content-Type: application/json.")
        if any(map(_names_other_charset, parameters)):
            detail = "The body must be JSON in UTF-8: send it with Content-Type: application/json and no other charset."
            return Refusal(415, "not_utf8", detail)
        return None


class _Answer:
    """Sends a response, and adds the headers of every response."""

    def __init__(self, scope: Scope, send: Send, request_id: str, cors: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._method, self._path = scope.get("method", "WEBSOCKET"), scope["path"]
        self._headers = [(b"x-request-id", request_id.encode()), *SECURITY_HEADERS, *cors]
        self.started = False

    async def close(self, code: int, reason: str) -> None:
        """Close a WebSocket, if the other side has not done so."""
        with suppress(RuntimeError, OSError):
            await self.send({"type": "websocket.close", "code": code, "reason": reason})

    async def send(self, message: Message) -> None:
        if message["type"] in {"websocket.accept", "websocket.close"}:
            self.started = True
        if message["type"] == "websocket.accept":
            message["headers"] = [*message.get("headers", ()), self._headers[0]]
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            self.started = True
            given = message.get("headers", ())
            names = {name for name, _ in given}
            defaults = [(name, value) for name, value in _DEFAULT_HEADERS.items() if name not in names]
            message["headers"] = [*given, *self._headers, *defaults]
            log_debug("request_answered", method=self._method, path=self._path, status=message["status"])
        await self._send(message)


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, answer: _Answer) -> None:
    if scope["type"] == "websocket":
        await receive()  # `websocket.connect`, which ASGI sends first
    await _respond(refusal, scope, receive, answer)


async def _accept_and_close(refusal: Refusal, receive: Receive, answer: _Answer) -> None:
    await receive()  # `websocket.connect`
    await answer.send({"type": "websocket.accept"})
    await answer.close(close_code(refusal.status), close_reason(refusal.code, refusal.detail))


async def _respond(refusal: Refusal, scope: Scope, receive: Receive, answer: _Answer) -> None:
    """Send the refusal. Close a handshake if the server does not support a response to it (ASGI extension)."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await answer.close(close_code(refusal.status), refusal.code or "")
        return
    refused = problem(scope, refusal.status, refusal.detail, code=refusal.code, headers=refusal.headers)
    await refused(scope, receive, answer.send)


def _without_ticket(query: bytes) -> bytes:
    return b"&".join(part for part in query.split(b"&") if not part.startswith(b"ticket="))


def _refuse_repeated(name: bytes) -> Refusal:
    return Refusal(400, "repeated_header", f"The header {name.decode().title()} may be sent only once in a request.")


def _names_other_charset(parameter: bytes) -> bool:
    name, _, value = parameter.partition(b"=")
    return name.strip() == b"charset" and value.strip(b' \t"') not in {b"utf-8", b"utf8", b""}


def too_large(limit: int) -> str:
    return f"The body is over the limit of {limit} bytes (limits.body_bytes)."


def _request_id(headers: _Headers) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else new_request_id()


def new_request_id() -> str:
    return f"req_{secrets.token_hex(8)}"


def _lower_all(texts: Iterable[str]) -> frozenset[bytes]:
    return frozenset(text.lower().encode() for text in texts)
