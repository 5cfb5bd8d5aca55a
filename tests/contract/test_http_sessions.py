"""HTTP sessions that servers forget, and requests that they refuse (G2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from agent_runtime.domain.errors import OutcomeUnknownError, SessionLostError
from odd_servers import GOOD, HANDSHAKE, run_http_server
from pools import Place, call, remote


class Forgetful(BaseHTTPRequestHandler):
    """A server that forgets all its sessions when the test says so, and then gives the answer that the test chose."""

    protocol_version = "HTTP/1.1"
    sessions: set[str]
    calls: list[str]
    forget_at: str
    refusal: tuple[int, bytes]

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method, number = message.get("method"), message.get("id")
        if method == self.forget_at:
            self.sessions.clear()
            type(self).forget_at = ""
        if method == "initialize":
            session = uuid4().hex
            self.sessions.add(session)
            self.give(200, _reply(number, HANDSHAKE), session)
        elif self.headers.get("mcp-session-id") not in self.sessions:
            status, body = self.refusal
            self.give(status, body.replace(b"$ID", str(number).encode()))
        elif number is None:
            self.give(202, b"")
        elif method == "tools/list":
            self.give(200, _reply(number, {"tools": [GOOD]}))
        else:
            self.calls.append(message["params"]["name"])
            self.give(200, _reply(number, {"content": "done"}))

    def do_GET(self) -> None:
        self.give(405, b"")

    def do_DELETE(self) -> None:
        self.give(405, b"")

    def give(self, status: int, body: bytes, session: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if session:
            self.send_header("Mcp-Session-Id", session)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
        """Say nothing."""


def _reply(number: Any, result: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()


def _error(message: str, number: str = "null") -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32000,"message":"%b"}}' % (number.encode(), message.encode())


@pytest.fixture
def server() -> Iterator[tuple[type[Forgetful], int]]:
    kind = type("Handler", (Forgetful,), {"sessions": set(), "calls": [], "forget_at": "", "refusal": (404, b"")})
    with run_http_server(kind) as port:
        yield kind, port


@asynccontextmanager
async def open_lease(port: int, folder: Path, path: str = "mcp") -> AsyncIterator[Any]:
    entry = remote(f"http://127.0.0.1:{port}/{path}")
    async with asyncio.timeout(20), Place(folder).pool() as pool, pool.lease([entry]) as lease:
        yield lease


LOST = [
    (404, b""),
    (404, _error("Session not found")),
    (404, _error("Session not found", "$ID")),
    (404, b"no such session"),
    (400, _error("Bad Request: No valid session ID provided")),
    (400, _error("Bad Request: Server not initialized")),
    (400, b"unknown session"),
    (400, _error("Session has been terminated")),
    (200, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid Request"}}'),
]


@pytest.mark.parametrize("refusal", LOST)
async def test_a_call_in_a_session_that_the_server_has_forgotten_was_not_looked_at(
    server: tuple[type[Forgetful], int], tmp_path: Path, refusal: tuple[int, bytes]
) -> None:
    kind, port = server
    kind.refusal = refusal
    async with open_lease(port, tmp_path) as lease:
        await lease.definitions("remote")
        kind.forget_at = "tools/call"
        with pytest.raises(SessionLostError):
            await call(lease, "good", server="remote")
        assert not kind.calls
        await lease.renew("remote")
        assert list(await lease.definitions("remote")) == ["good"]
        assert (await call(lease, "good", server="remote")).text == "done"
    assert kind.calls == ["good"]


@pytest.mark.parametrize("refusal", [*LOST[:5:2], LOST[-1]])
async def test_a_list_in_a_session_that_the_server_has_forgotten_is_read_in_a_new_one(
    server: tuple[type[Forgetful], int], tmp_path: Path, refusal: tuple[int, bytes]
) -> None:
    kind, port = server
    kind.refusal = refusal
    async with open_lease(port, tmp_path) as lease:
        await lease.definitions("remote")
        kind.sessions.clear()
        assert list(await lease.definitions("remote")) == ["good"]


@pytest.mark.parametrize(
    "refusal",
    [
        (200, _error("no money")),
        (400, _error("no such browser session", "$ID")),
        (404, _error("no such page", "$ID")),
        (401, b"who are you"),
        (403, _error("not you")),
        (405, b""),
        (429, b"slow down"),
    ],
)
async def test_a_call_that_is_turned_away_is_a_definite_error(
    server: tuple[type[Forgetful], int], tmp_path: Path, refusal: tuple[int, bytes]
) -> None:
    kind, port = server
    kind.refusal = refusal
    async with open_lease(port, tmp_path) as lease:
        await lease.definitions("remote")
        kind.forget_at = "tools/call"
        result = await call(lease, "good", server="remote")
    assert result.is_error
    assert not result.unreadable
    if refusal[0] not in (200, 400, 404):
        assert f"HTTP {refusal[0]}" in result.text


@pytest.mark.parametrize("refusal", [(400, _error("no good")), (409, b""), (500, b"x"), (503, _error("busy"))])
async def test_any_other_refusal_leaves_the_outcome_unknown_and_is_named(
    server: tuple[type[Forgetful], int], tmp_path: Path, refusal: tuple[int, bytes]
) -> None:
    kind, port = server
    kind.refusal = refusal
    async with open_lease(port, tmp_path) as lease:
        await lease.definitions("remote")
        kind.forget_at = "tools/call"
        with pytest.raises(OutcomeUnknownError, match=f"HTTP {refusal[0]}"):
            await call(lease, "good", server="remote")
