"""MCP over HTTP as of 2024-11-05: the server sends everything on one stream of events, and names the address to post
to.

The SDK's own client is not used: when a message is refused, it logs that and leaves the caller waiting.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectSendStream
from httpx2 import EventSource, ServerSentEvent
from mcp.client._transport import TransportStreams
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse, RequestId

from agent_runtime.mcp_servers.explaining import read_retry_after
from agent_runtime.mcp_servers.reading import read_well_formed

_WAITING_MESSAGES = 16
_FAULTS = (httpx2.HTTPError, httpx2.StreamError, httpx2.SSEError)


@asynccontextmanager
async def open_old_sse(
    url: str, client: httpx2.AsyncClient, event_bytes: int, closed: asyncio.Event
) -> AsyncGenerator[TransportStreams]:
    """Open the stream of a server, and yield the streams of a session over it. `closed` is set once the stream has
    ended.

    Raises: ConnectionError where the address gives no such stream, or names another origin to post to.
    """
    accept = {"accept": "text/event-stream", "cache-control": "no-store"}
    async with client.stream("GET", url, headers=accept) as stream:
        media_type = stream.headers.get("content-type", "").lower()
        if stream.is_error or not media_type.startswith("text/event-stream"):
            raise NoStreamError(stream)
        events = aiter(EventSource(stream, max_event_size=event_bytes))
        address = await _read_address(stream.request.url, events)
        give, read = anyio.create_memory_object_stream[SessionMessage | Exception](_WAITING_MESSAGES)
        async with give, read, anyio.create_task_group() as group:
            posts = _Posts(client, address)
            group.start_soon(_listen, events, give, posts, closed)
            try:
                yield read, posts
            finally:
                group.cancel_scope.cancel()


class NoStreamError(ConnectionError):
    """A GET gives no stream of events."""

    def __init__(self, answer: httpx2.Response) -> None:
        super().__init__(f"a GET gives no stream of events either (HTTP {answer.status_code})")
        self.retry_after_s = read_retry_after(answer)


async def _read_address(url: httpx2.URL, events: AsyncIterator[ServerSentEvent]) -> httpx2.URL:
    """Return the address to post to, which is the first event of the stream."""
    async for event in events:
        if event.event == "endpoint":
            target = url.join(event.data.strip())
            if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
                raise ConnectionError("it names another origin to send messages to, which is refused")
            return target.copy_with(userinfo=url.userinfo)
    raise ConnectionError("its stream of events ended before it named where to send messages")


async def _listen(
    events: AsyncIterator[ServerSentEvent],
    give: MemoryObjectSendStream[SessionMessage | Exception],
    posts: "_Posts",
    closed: asyncio.Event,
) -> None:
    """Forward the server's messages until its stream ends."""
    try:
        async with give:
            with suppress(*_FAULTS):
                async for event in events:
                    message = read_well_formed(event.data.encode()) if event.event == "message" else None
                    if message is not None:
                        posts.note(message)
                        await give.send(SessionMessage(message))
    finally:
        closed.set()


class _Posts:
    """The write stream: posts each message in the task that sends it.

    Answers come on the other stream. So the body of a successful post is not read, and a post is not awaited any longer
    once its request is answered.
    """

    def __init__(self, client: httpx2.AsyncClient, address: httpx2.URL) -> None:
        self._client = client
        self._address = address
        self._under_way: dict[RequestId, anyio.CancelScope] = {}

    def note(self, message: JSONRPCMessage) -> None:
        """Note a message of the server, which may answer a request whose post is under way."""
        if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id in self._under_way:
            self._under_way[message.id].cancel()

    async def send(self, item: SessionMessage, /) -> None:
        """Post a message. Raises: MCPError where a request is refused, httpx2 errors where the connection breaks."""
        message = item.message
        if isinstance(message, JSONRPCRequest):
            with anyio.CancelScope() as scope:
                self._under_way[message.id] = scope
                try:
                    await self._post(message)
                finally:
                    del self._under_way[message.id]
        else:
            with suppress(MCPError, *_FAULTS):
                await self._post(message)

    async def _post(self, message: JSONRPCMessage) -> None:
        content = message.model_dump_json(by_alias=True, exclude_unset=True).encode()
        headers = {"content-type": "application/json"}
        async with self._client.stream("POST", self._address, content=content, headers=headers) as response:
            if response.is_error:
                said = read_well_formed(await response.aread())
                if isinstance(said, JSONRPCError):
                    raise MCPError(said.error.code, said.error.message, said.error.data)
                raise MCPError(INTERNAL_ERROR, f"HTTP {response.status_code}")

    async def aclose(self) -> None:
        """Do nothing: the owner of the client closes it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()
