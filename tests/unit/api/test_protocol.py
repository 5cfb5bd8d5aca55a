"""The protocol alone, over a real socket: requests are parsed correctly, however their bytes are split."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from agent_runtime.api.protocol import bounded_protocol
from agent_runtime.config import LimitSettings

HEAD_BYTES = 2000
BODY = b'{"plan_digest": "sha256:0"}'
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
WEBSOCKET = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"


class ReceivedRequest(NamedTuple):
    """A request as the app received it."""

    method: str
    path: str
    body: bytes
    headers: dict[bytes, bytes]


@dataclass
class Line:
    """A connection to the protocol, with the requests and answers on it."""

    protocol: asyncio.Protocol
    client: socket.socket
    heard: list[ReceivedRequest]
    came: asyncio.Event

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.protocol.data_received(piece)
            await asyncio.sleep(0)

    async def hear(self, count: int) -> list[ReceivedRequest]:
        """Wait for the first `count` requests and the answer to the last, and return the requests."""
        async with asyncio.timeout(10):
            while len(self.heard) < count:
                await self.came.wait()
                self.came.clear()
        return self.heard

    async def answer(self) -> bytes:
        """Return everything that is sent until the connection is closed."""
        received = b""
        async with asyncio.timeout(10):
            while data := await asyncio.get_running_loop().sock_recv(self.client, 65536):
                received += data
        return received


@contextlib.asynccontextmanager
async def line() -> AsyncIterator[Line]:
    heard: list[ReceivedRequest] = []
    came = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await Response()(scope, receive, send)
        heard.append(ReceivedRequest(scope["method"], scope["path"], body, dict(scope["headers"])))
        came.set()

    config = uvicorn.Config(
        app, http=bounded_protocol(LimitSettings(head_bytes=HEAD_BYTES)), ws="none", lifespan="off", log_config=None
    )
    config.load()
    loop = asyncio.get_running_loop()
    ours, client = socket.socketpair()
    client.setblocking(False)  # noqa: FBT003 - the call has no other form

    def create() -> asyncio.Protocol:
        return bounded_protocol(LimitSettings(head_bytes=HEAD_BYTES))(config, ServerState(), {}, loop)

    transport, protocol = await loop.connect_accepted_socket(create, ours)
    try:
        yield Line(protocol, client, heard, came)
    finally:
        transport.abort()
        client.close()


def post(*fields: bytes, body: bytes = BODY) -> bytes:
    head = b"POST /approve HTTP/1.1\r\nHost: localhost\r\n" + b"".join(fields)
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked_request(*chunks: bytes, fields: bytes = b"", trailers: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"POST /approve HTTP/1.1\r\nHost: localhost\r\n" + fields + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + body + b"0\r\n" + trailers + b"\r\n"


@pytest.mark.parametrize("upgrade", [b"", H2C, WEBSOCKET], ids=["plain", "h2c", "websocket"])
@pytest.mark.parametrize("form", ["length", "chunks"])
async def test_a_body_is_a_body_whatever_the_head_offers_and_wherever_it_is_cut(upgrade: bytes, form: str) -> None:
    request = post(upgrade) if form == "length" else chunked_request(BODY[:5], BODY[5:], fields=upgrade)
    sent = request + NEXT
    for cut in range(1, len(sent)):
        async with line() as connection:
            await connection.send(sent[:cut], sent[cut:])
            first, second = await connection.hear(2)
        assert (first.method, first.path, first.body) == ("POST", "/approve", BODY), cut
        assert b"upgrade" not in first.headers
        assert (second.method, second.path, second.body) == ("GET", "/next", b""), cut


async def test_requests_with_upgrade_follow_each_other_like_any_others() -> None:
    async with line() as connection:
        await connection.send(post(H2C) * 3 + NEXT.replace(b"\r\n\r\n", b"\r\n" + WEBSOCKET + b"\r\n") + NEXT)
        heard = await connection.hear(5)
    assert [request.body for request in heard] == [BODY, BODY, BODY, b"", b""]


@pytest.mark.parametrize("upgrade", [b"", H2C], ids=["plain", "h2c"])
async def test_trailers_are_never_headers(upgrade: bytes) -> None:
    trailers = b"Host: evil.example\r\nAuthorization: Bearer x\r\nX-New: 1\r\nLast: 2\r\n"
    async with line() as connection:
        sent = chunked_request(BODY, fields=upgrade, trailers=trailers)
        await connection.send(*(sent[at : at + 1] for at in range(len(sent))), NEXT)
        first, second = await connection.hear(2)
    assert first.body == BODY
    assert first.headers[b"host"] == b"localhost"
    assert not {b"authorization", b"x-new", b"last"} & (first.headers.keys() | second.headers.keys())


@pytest.mark.parametrize("target", [b"localhost:80", b"/v1/tasks"])
async def test_a_tunnel_is_refused_and_nothing_after_it_is_read(target: bytes) -> None:
    async with line() as connection:
        await connection.send(b"CONNECT " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT)
        assert (await connection.answer()).startswith(b"HTTP/1.1 400 ")
        assert connection.heard == []


def chunks_with_extensions(count: int, size: int) -> bytes:
    return b"".join(b"1;%b\r\nx\r\n" % (b"e" * size) for _ in range(count))


HEAD = post()[: -len(BODY)].replace(b"Content-Length: 27", b"Transfer-Encoding: chunked")
TOO_LARGE: Iterable[tuple[str, bytes]] = (
    ("an address", b"GET /" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("one header", post(b"X: " + b"x" * HEAD_BYTES + b"\r\n")),
    ("many headers with upgrade", post(H2C, b"X: 1\r\n" * HEAD_BYTES)),
    ("the extension of one chunk", HEAD + chunks_with_extensions(1, HEAD_BYTES)),
    ("the extensions of many chunks", HEAD + chunks_with_extensions(100, HEAD_BYTES // 50)),
    ("an extension without an end", HEAD + b"1;" + b"e" * HEAD_BYTES),
    ("zeros before a size", HEAD + b"0" * HEAD_BYTES + b"1\r\nx"),
    ("trailers", chunked_request(BODY, trailers=b"X: " + b"x" * HEAD_BYTES)[:-2]),
)


@pytest.mark.parametrize(("what", "sent"), TOO_LARGE, ids=[what for what, _ in TOO_LARGE])
@pytest.mark.parametrize("size", [100, 100_000])
async def test_all_that_is_no_body_counts_towards_the_limit_of_the_head(what: str, sent: bytes, size: int) -> None:
    del what
    async with line() as connection:
        with contextlib.suppress(AttributeError):  # a closed connection has no parser
            await connection.send(*(sent[at : at + size] for at in range(0, len(sent), size)))
        answer = await connection.answer()
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert answer.count(b"HTTP/1.1") == 1


async def test_a_large_body_in_small_chunks_is_no_large_head() -> None:
    body = b"x" * 2 * HEAD_BYTES
    async with line() as connection:
        await connection.send(chunked_request(*(body[at : at + 1] for at in range(len(body)))), NEXT, post(body=body))
        first, second, third = await connection.hear(3)
    assert (first.body, second.body, third.body) == (body, b"", body)


async def test_a_broken_body_behind_an_answer_that_has_begun_only_closes_the_connection() -> None:
    async with line() as connection:
        # Both arrive before the app runs, so the second waits for the answer to the first.
        await connection.send(NEXT + HEAD + b"no size\r\n")
        assert b" 400 " not in await connection.answer()


async def test_a_body_in_countless_chunks_is_refused_where_they_are_too_many() -> None:
    async with line() as connection:
        await connection.send(HEAD + b"1\r\nx\r\n" * 100_000)
        assert (await connection.answer()).startswith(b"HTTP/1.1 413 ")
        assert connection.heard == []


async def test_a_few_requests_may_be_sent_ahead() -> None:
    async with line() as connection:
        await connection.send(NEXT * 16)
        assert len(await connection.hear(16)) == 16


@pytest.mark.parametrize("request_sent", [NEXT, NEXT[:-2] + H2C + b"\r\n", post()], ids=["get", "upgrade", "post"])
async def test_countless_requests_that_are_sent_ahead_close_the_connection(request_sent: bytes) -> None:
    async with line() as connection:
        await connection.send(request_sent * 5000)
        await connection.answer()
        assert len(connection.heard) <= 1
