"""The service as an MCP server at `/mcp`, over streamable HTTP, in both protocol eras; see docs/reference/mcp.md.

The SDK carries the protocol, behind the edge. It is imported with the first request.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from agent_runtime.api.auth import Authenticator, caller_of
from agent_runtime.api.background import Background
from agent_runtime.api.json_bodies import judge_body
from agent_runtime.api.problems import BadRequestError, Refusal, problem_of
from agent_runtime.api.scopes import requires
from agent_runtime.api.stream import Streams
from agent_runtime.api.views import address_of, root_path_of
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import AgentRuntimeError, StoreUnavailableError
from agent_runtime.importing import one_import_at_a_time
from agent_runtime.text.escaping import cut

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

router = APIRouter(include_in_schema=False)

_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600
_LONGEST_MESSAGE = 4000
_STOPPING = "The service is stopping: send the request again in a moment."


@requires("read", "submit", "approve")  # and each call of a tool needs the scope of that tool
async def serve_mcp(request: Request) -> Response:
    """Serve one request of an MCP client."""
    if request.scope.get("is_head"):
        return Response(status_code=405, headers={"Allow": "GET, POST, DELETE"})
    return _McpResponse()


router.add_route("/mcp", serve_mcp, methods=["GET", "POST", "DELETE"], include_in_schema=False)


class McpSessions:
    """The MCP server of an app, opened with the first request."""

    def __init__(self) -> None:
        self._opening = asyncio.Lock()
        self._manager: StreamableHTTPSessionManager | None = None

    async def open(self, app: FastAPI) -> "StreamableHTTPSessionManager":
        """Return the open server."""
        async with self._opening:
            if self._manager is not None:
                return self._manager
            background: Background = app.state.background
            manager: StreamableHTTPSessionManager = await background.hold(
                await asyncio.to_thread(_open_server, app.state)
            )
            self._manager = manager
            return manager


def _sessions_of(app: FastAPI) -> McpSessions:
    if not hasattr(app.state, "mcp"):
        app.state.mcp = McpSessions()
    sessions: McpSessions = app.state.mcp
    return sessions


def _open_server(state: Any) -> Any:
    open_manager, create_server = load_server()
    limits = state.runtime.settings.limits
    manager: StreamableHTTPSessionManager = open_manager(
        create_server(state.runtime, state.whole_journals, _identify, partial(_authenticate, state.authenticator)),
        max_request_body_size=limits.body_bytes,
        session_idle_timeout=limits.mcp_session_s,
        max_sessions=limits.mcp_sessions,
    )

    @asynccontextmanager
    async def run() -> AsyncIterator[Any]:
        async with manager.run():
            yield manager

    return run()


def load_server() -> tuple[Any, Any]:
    """Import the library, which takes a second, and return what makes the manager of the sessions and their server."""
    with one_import_at_a_time:
        manager_module = import_module("mcp.server.streamable_http_manager")
        server_module = import_module("agent_runtime.api.mcp_server.server")
    return manager_module.StreamableHTTPSessionManager, server_module.create_server


def _identify(request: Request) -> tuple[Caller, str, asyncio.Event]:
    """Return the caller of the request, the URL at which the client reaches us, and the event of its end."""
    gone: asyncio.Event = request.scope["gone"]
    return caller_of(request.scope), address_of(request), gone


async def _authenticate(authenticator: Authenticator, request: Request) -> Caller:
    """Return the caller of a request that was let in a while ago; without scopes if its key is no longer valid."""
    scope = request.scope
    found = await authenticator.authenticate({**scope, "path": scope["path"].removeprefix(root_path_of(request))})
    return replace(caller_of(scope), scopes=frozenset()) if isinstance(found, Refusal) else found


class _McpResponse(Response):
    """Has the SDK answer a request whose body is judged already. It counts as a stream, and ends with the service."""

    def __init__(self) -> None:
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = scope["app"]
        streams: Streams = app.state.streams
        answer = _Answer(send)
        try:
            streams.check()
            body = await _read_body(scope, receive)
        except AgentRuntimeError as error:
            await _refuse(error, scope, receive, answer)
            return
        manager = await _sessions_of(app).open(app)
        gone = asyncio.Event()
        headers = [(name, value.strip(b" \t")) for name, value in scope["headers"]]  # as the SDK compares them
        ours = {**scope, "headers": headers, "gone": gone, "user": _user_of(caller_of(scope))}
        try:
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(manager.handle_request(ours, _replay(body, receive), answer.send))
                with streams.admit(pump):
                    await asyncio.wait([pump])
        finally:
            gone.set()
        if not answer.started:
            await _refuse(StoreUnavailableError(_STOPPING), scope, receive, answer)
        elif not answer.ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Answer:
    """Notes how far the response is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = self.ended = False

    async def send(self, message: Message) -> None:
        self.started = True
        self.ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the body of a POST as it was sent, once it is known to be JSON within the limits.

    Raises: AgentRuntimeError.
    """
    if scope["method"] != "POST":
        return b""
    chunks: list[bytes] = []

    async def record() -> Message:
        message = await receive()
        chunks.append(message.get("body", b""))
        return message

    await judge_body(Request(scope, record), lambda value: value)
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


async def _refuse(error: AgentRuntimeError, scope: Scope, receive: Receive, answer: _Answer) -> None:
    """Send one of our errors as an error of JSON-RPC. Raises: the error itself if the caller did not cause it."""
    refused = problem_of(scope, error)
    code = _PARSE_ERROR if isinstance(error, BadRequestError) else _INVALID_REQUEST
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": cut(str(error), _LONGEST_MESSAGE)}}
    headers = {name: value for name, value in refused.headers.items() if name == "retry-after"}
    response = Response(json.dumps(body), refused.status_code, headers, media_type="application/json")
    await response(scope, receive, answer.send)


def _user_of(caller: Caller) -> Any:
    """Return the caller as the SDK knows users: a session answers only the user who has opened it."""
    users, tokens = import_module("mcp.server.auth.middleware.bearer_auth"), import_module("mcp.server.auth.provider")
    identity = json.dumps([caller.tenant, caller.name])
    return users.AuthenticatedUser(tokens.AccessToken(token="", client_id=identity, scopes=[]))
