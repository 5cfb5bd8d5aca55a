"""MCP over streamable HTTP: one pool of connections for all servers, one set of headers for each."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED
from pydantic_core import to_json

from agent_runtime.config import LimitSettings, Secrets
from agent_runtime.domain.errors import ConfigurationError, ServerUnavailableError
from agent_runtime.domain.tools import HttpServer
from agent_runtime.mcp_servers.wire import SENDING

_CONNECT_S = 10.0
_SPARE_S = 30.0


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


def open_http(
    server: HttpServer, network: Network, limits: LimitSettings, secrets: Secrets
) -> AbstractAsyncContextManager[TransportStreams]:
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
        trust_env=False,
    )
    return streamable_http_client(url, http_client=client, max_sse_event_size=limits.server_line_bytes)


def _longest_silence(server: HttpServer, limits: LimitSettings) -> float:
    """Longer than any call of the entry is waited for, so that this never ends one, and never keeps a dead one."""
    said = [policy.timeout_s for policy in server.tools.values() if policy.timeout_s is not None]
    return max([server.client_session_timeout_seconds, *said]) + limits.cancel_grace_s + _SPARE_S


class _Guarded(httpx2.AsyncBaseTransport):
    """The shared connections, with bounded answers, and with faults that stay those of one request.

    The SDK ends the whole session when a request raises; an error answer ends that request only.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, answer_bytes: int) -> None:
        self._inner = inner
        self._answer_bytes = answer_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        sending = SENDING.get()
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if sending is not None and request.method == "POST":
                # No connection, so not a byte of the call has left.
                sending.sent = False
            return _refusal(request, f"cannot connect: {error}")
        except httpx2.TransportError as error:
            return _refusal(request, f"the connection broke: {error or type(error).__name__}")
        limit = None if _is_event_stream(response.headers) else self._answer_bytes
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            return _refusal(request, "the answer is compressed, which was not asked for")
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response, limit),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Nothing to do: the connections are shared, and closed by their owner."""


def _is_event_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("text/event-stream")


def _refusal(request: httpx2.Request, message: str) -> httpx2.Response:
    body = to_json({"jsonrpc": "2.0", "id": None, "error": {"code": CONNECTION_CLOSED, "message": message}})
    return httpx2.Response(503, headers={"content-type": "application/json"}, content=body, request=request)


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer. The SDK bounds the events of a stream; a plain answer is bounded here (G11)."""

    def __init__(self, response: httpx2.Response, limit: int | None) -> None:
        self._response = response
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        try:
            async for chunk in self._response.stream:  # type: ignore[union-attr] # of an async client
                seen += len(chunk)
                if self._limit is not None and seen > self._limit:
                    raise httpx2.StreamError(f"the answer has more than {self._limit} bytes")
                yield chunk
        except httpx2.TransportError as error:
            raise httpx2.StreamError(f"the connection broke: {error or type(error).__name__}") from error

    async def aclose(self) -> None:
        await self._response.aclose()
