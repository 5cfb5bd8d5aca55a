"""The rules of the edge under an ASGI server that is not ours, such as plain uvicorn (G13, G14).

Such a server shows the app what ASGI says of a request, and not the connection. So every request is judged by itself:
by the address at which it arrived, by the headers that proxies add, and by the body that it announced.
"""

import ipaddress
from collections.abc import Mapping

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_runtime.api.auth import Authenticator
from agent_runtime.api.callers import CallerConnection
from agent_runtime.api.problems import Refusal, problem
from agent_runtime.config import Settings
from agent_runtime.domain.caller import Caller

log = structlog.get_logger()

_FORWARDED = Refusal(
    403,
    "caller_forwarded",
    "A proxy has forwarded this request, and the service asks for no keys, so it cannot know who calls: configure keys "
    "(auth.mode: keys).",
)
_UNSEEN = Refusal(
    403,
    "caller_unseen",
    "The server does not say at which address this request arrived, or from where, so the service cannot know who "
    "calls: configure keys (auth.mode: keys), or let the server listen on a TCP port.",
)
_LOCKED = Refusal(
    401,
    "locked",
    "This service is reached at an address that other machines can reach, and it asks for no keys: make one with "
    "`agent-runtime keys new NAME --scopes admin` and name the file of its line in auth.keys_file, or let everybody in "
    "with auth.mode: anonymous.",
    {"WWW-Authenticate": 'Bearer realm="agent-runtime"'},
)
_MISSING_BODY = "The head of the request announced a body that did not arrive: send it, and no `Upgrade`."


class ForeignServerAuthenticator:
    """Asks another `Authenticator`, and refuses anonymous callers about whom the server says too little."""

    def __init__(self, inner: Authenticator, settings: Settings) -> None:
        self._inner = inner
        self._lets_everybody_in = settings.auth.mode == "anonymous"

    @property
    def asks_for_keys(self) -> bool:
        """See `Authenticator.asks_for_keys`."""
        return self._inner.asks_for_keys

    async def authenticate(self, scope: Scope) -> Caller | Refusal:
        """See `Authenticator.authenticate`."""
        if self._inner.asks_for_keys:
            return await self._inner.authenticate(scope)
        refusal = self._refuse(scope)
        if refusal is not None:
            log.info("caller_refused", path=scope["path"][:200], reason=refusal.code)
            return refusal
        ends = CallerConnection(scope["client"], scope["server"])
        return await self._inner.authenticate({**scope, "state": {**scope.get("state", {}), "caller": ends}})

    def issue_ticket(self, scope: Scope, task_id: str) -> tuple[str, int]:
        """See `Authenticator.issue_ticket`."""
        return self._inner.issue_ticket(scope, task_id)

    async def close(self) -> None:
        """See `Authenticator.close`."""
        await self._inner.close()

    def _refuse(self, scope: Scope) -> Refusal | None:
        # uvicorn takes the address of the client from these headers, even if a process of this machine wrote them.
        if any(name == b"forwarded" or name.startswith(b"x-forwarded-") for name, _ in scope["headers"]):
            return _FORWARDED
        if not (self._lets_everybody_in or is_local(scope)):
            return _LOCKED
        return None if _is_tcp(scope.get("client")) and _is_tcp(scope.get("server")) else _UNSEEN


def is_local(scope: Mapping[str, object]) -> bool:
    """Return whether the request arrived at a loopback address of this machine."""
    server = scope.get("server")
    if not isinstance(server, list | tuple) or not server:
        return False
    try:
        address = ipaddress.ip_address(str(server[0]))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _is_tcp(end: object) -> bool:
    """Return whether an end of a connection has an address and a port; that of a Unix socket has none."""
    return isinstance(end, list | tuple) and len(end) > 1 and bool(end[1])


class ExpectBody:
    """Refuses a request whose announced body does not arrive. Stands behind the edge, which has admitted the caller."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _announces_body(scope):
            await self._app(scope, receive, send)
            return
        first: Message | None = await receive()
        if first and first["type"] == "http.request" and not (first.get("body") or first.get("more_body")):
            await problem(scope, 400, _MISSING_BODY, code="bad_request")(scope, receive, send)
            return

        async def receive_again() -> Message:
            nonlocal first
            message, first = first, None
            return message or await receive()

        await self._app(scope, receive_again, send)


class CloseUnread:
    """Has the server close each connection on which an announced body has not arrived when its response begins.

    What arrives later on such a connection could be taken for another request. Stands before the edge. The root path is
    that of our settings: one that the server adds is removed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root_path = scope.get("root_path")
        if root_path:
            scope["path"], scope["root_path"] = scope["path"].removeprefix(root_path), ""
        if scope["type"] != "http" or not _announces_body(scope) or not scope["http_version"].startswith("1"):
            await self._app(scope, receive, send)
            return
        size, ended = 0, False

        async def count(message: Message) -> Message:
            nonlocal size, ended
            size += len(message.get("body", b""))
            ended = message["type"] == "http.request" and not message.get("more_body", False)
            return message

        async def receive_counted() -> Message:
            return await count(await receive())

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and not (ended and size):
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive_counted, send_closing)


def _announces_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in scope["headers"]
    )
