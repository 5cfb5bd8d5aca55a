"""The way to HTTP servers: proxies and certificates from the environment, and valid values of headers."""

import asyncio
import json
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.tools import HttpServer
from certificates import make_certificate, with_openssl
from hostile_http import hostile_http
from pools import Place, call, remote


class _Mcp(BaseHTTPRequestHandler):
    """Speaks MCP for any host that a request names, as a proxy would; opens no tunnel."""

    protocol_version = "HTTP/1.1"
    heard: list[tuple[str, str | None]]

    def do_POST(self) -> None:
        self.heard.append((self.path, self.headers.get("proxy-authorization")))
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        info = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "p", "version": "1"}}
        results: dict[str, Any] = {
            "initialize": info,
            "tools/list": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [{"type": "text", "text": "by the proxy"}]},
        }
        reply = {"jsonrpc": "2.0", "id": message.get("id"), "result": results.get(message["method"])}
        self.give(200, json.dumps(reply).encode()) if "id" in message else self.give(202)

    def do_CONNECT(self) -> None:
        self.heard.append((self.path, self.headers.get("proxy-authorization")))
        self.give(403)

    def do_GET(self) -> None:
        self.give(405)

    def do_DELETE(self) -> None:
        self.give(405)

    def give(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
        """Say nothing."""


@contextmanager
def listen(
    tls: ssl.SSLContext | None = None, handler: type[_Mcp] = _Mcp
) -> Iterator[tuple[int, list[tuple[str, str | None]]]]:
    """Run a server on a free loopback port. Yield the port and its requests: the paths, and the clients' proxy
    credentials.
    """
    heard: list[tuple[str, str | None]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"heard": heard}))
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1], heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def echo(place: Place, url: str) -> str:
    async with place.pool() as pool, asyncio.timeout(10), pool.lease([remote(url)]) as lease:
        return (await call(lease, "echo", server="remote")).text


async def refuse(place: Place, entry: HttpServer) -> ServerUnavailableError:
    async with place.pool() as pool, asyncio.timeout(10):
        with pytest.raises(ServerUnavailableError) as refused:
            await pool.discover(entry)
    return refused.value


async def refusal(place: Place, entry: HttpServer) -> str:
    return (await refuse(place, entry)).reason


async def test_a_server_is_reached_through_the_proxy_of_the_environment(place: Place) -> None:
    with listen() as (port, heard):
        place.environ = {"HTTP_PROXY": f"http://me:hunter22@127.0.0.1:{port}"}
        assert await echo(place, "http://far.example/mcp") == "by the proxy"
    assert {path for path, _ in heard} == {"http://far.example/mcp"}
    assert {authorization for _, authorization in heard} == {"Basic bWU6aHVudGVyMjI="}


async def test_what_no_proxy_names_and_this_machine_are_reached_directly(place: Place) -> None:
    with listen() as (proxy, heard), hostile_http() as near:
        place.environ = {"HTTP_PROXY": f"http://127.0.0.1:{proxy}", "NO_PROXY": "far.invalid"}
        assert await echo(place, near.url("good")) == "paid"
        assert "cannot connect: " in await refusal(place, remote("http://far.invalid/mcp"))
    assert heard == []


async def test_a_proxy_that_refuses_is_named_by_its_variable_alone(place: Place) -> None:
    with listen() as (port, _):
        place.environ = {"HTTPS_PROXY": f"http://me:hunter22@127.0.0.1:{port}"}
        refused = await refuse(place, remote("https://far.example/mcp"))
    reason = refused.reason
    assert "cannot connect through the proxy that HTTPS_PROXY names: 403" in reason
    assert not refused.may_pass
    assert "hunter22" not in reason


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "http://", "http://proxy:port", "ftp://proxy"])
async def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(place: Place, proxy: str) -> None:
    place.environ = {"ALL_PROXY": proxy}
    reason = await refusal(place, remote("http://far.example/mcp"))
    assert reason.startswith("The variable ALL_PROXY must name a proxy as http://HOST:PORT or https://HOST:PORT")


async def test_a_server_with_a_certificate_of_a_private_authority_is_reached(place: Place) -> None:
    certificate, tls = await make_certificate(place.folder, "far.example")
    with listen(tls) as (port, _):
        refused = await refuse(place, remote(f"https://127.0.0.1:{port}/mcp"))
        assert "CERTIFICATE_VERIFY_FAILED" in refused.reason
        assert not refused.may_pass
        place.environ = {"SSL_CERT_FILE": str(certificate)}
        assert await echo(place, f"https://127.0.0.1:{port}/mcp") == "by the proxy"


class _Tunnel(_Mcp):
    """A proxy that opens a tunnel to the port of a server on this machine, whatever host is asked for."""

    port: int

    def do_CONNECT(self) -> None:
        self.heard.append((self.path, self.headers.get("proxy-authorization")))
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as server:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            other = {self.connection: server, server: self.connection}
            while ready := select.select(list(other), [], [], 20)[0]:
                for side in ready:
                    data = side.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    other[side].sendall(data)


@with_openssl
async def test_a_server_over_tls_is_reached_through_a_tunnel_that_sees_nothing(place: Place) -> None:
    certificate, tls = await make_certificate(place.folder, "far.example")
    with (
        listen(tls) as (port, asked),
        listen(handler=type("Tunnel", (_Tunnel,), {"port": port})) as (proxy, heard),
    ):
        place.environ = {"HTTPS_PROXY": f"127.0.0.1:{proxy}", "SSL_CERT_FILE": str(certificate)}
        assert await echo(place, "https://far.example/mcp") == "by the proxy"
    assert set(heard) == {("far.example:443", None)}
    assert {path for path, _ in asked} == {"/mcp"}


async def test_certificates_that_are_not_there_are_named_by_their_variable(place: Place) -> None:
    place.environ = {"SSL_CERT_FILE": "/no/such/file.pem"}
    reason = await refusal(place, remote("https://far.example/mcp"))
    assert reason.startswith("The certificates of SSL_CERT_FILE (/no/such/file.pem) cannot be read: ")


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
async def test_a_line_break_at_the_end_of_a_secret_is_not_sent(place: Place, end: str) -> None:
    place.environ = {"TOKEN": f"sk-of-a-file{end}"}
    with hostile_http() as server:
        entry = remote(server.url("good"), Authorization="Bearer ${env:TOKEN}")
        async with place.pool() as pool, asyncio.timeout(10):
            await pool.discover(entry)
    assert {one.authorization for one in server.seen} == {"Bearer sk-of-a-file"}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("X-Team", "Büro", "config.headers.X-Team: must be one line of printable ASCII"),
        ("X-Team", "two\nlines", "config.headers.X-Team: must be one line of printable ASCII"),
        ("X Team", "one", "config.headers: 'X Team' is no name of a header"),
        ("", "one", "config.headers: '' is no name of a header"),
    ],
)
async def test_a_header_that_cannot_be_sent_is_named(place: Place, name: str, value: str, told: str) -> None:
    reason = await refusal(place, remote("http://127.0.0.1:9/mcp", **{name: value}))
    assert reason.startswith(told)
    assert value not in reason


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/mcp", "http:///mcp"])
async def test_an_address_that_cannot_be_used_is_named(place: Place, url: str) -> None:
    assert (await refusal(place, remote(url))).startswith("config.base_url ")
