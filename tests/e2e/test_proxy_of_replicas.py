"""The shipped configuration of nginx in front of two services. Skipped without nginx."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from proxying import run_proxy_of_replicas
from serving import PATIENCE_S, free_port

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Upstream(socketserver.ThreadingTCPServer):
    """A server that behaves as a path says, and keeps the first line of each request."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.requests: list[str] = []
        self.proceed = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Request(socketserver.StreamRequestHandler):
    server: Upstream

    def handle(self) -> None:
        line = self.rfile.readline().decode().strip()
        self.server.requests.append(line)
        headers = {}
        while header := self.rfile.readline().decode().strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        match line.split()[1]:
            case "/lost":
                return  # the request was read, and no answer comes
            case "/stream":
                self.wfile.write(SSE + b"9\r\ndata: 1\n\n\r\n")
                assert self.server.proceed.wait(PATIENCE_S)
                self.wfile.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
            case "/stream-to-the-end":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
                assert self.server.proceed.wait(PATIENCE_S)
                self.wfile.write(b"data: 2\n\n")
            case "/socket":
                assert (headers["upgrade"], headers["connection"]) == ("websocket", "upgrade")
                self.wfile.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                )
                self.wfile.write(b"echo " + self.rfile.readline())
            case _:
                body = headers["host"].encode()
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server
        server.shutdown()


@pytest.fixture
def proxy(tmp_path: Path, upstream: Upstream) -> Iterator[httpx2.Client]:
    """A client of the proxy in front of two servers, one of which is down."""
    with (
        run_proxy_of_replicas(tmp_path / "nginx", [free_port(), upstream.port]) as url,
        httpx2.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        yield client


@pytest.mark.parametrize("path", ["/stream", "/stream-to-the-end"])
def test_a_frame_of_a_stream_comes_before_the_next_one_is_sent(
    proxy: httpx2.Client, upstream: Upstream, path: str
) -> None:
    with proxy.stream("GET", path) as response:
        frames: Any = response.iter_lines()
        assert next(frames) == "data: 1"
        upstream.proceed.set()
        assert [line for line in frames if line] == ["data: 2"]


def test_the_upgrade_of_a_connection_is_passed_on(proxy: httpx2.Client) -> None:
    address = (proxy.base_url.host, proxy.base_url.port or 80)
    with socket.create_connection(address, PATIENCE_S) as connection:
        connection.sendall(b"GET /socket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        answer = connection.makefile("rb")
        assert answer.readline().startswith(b"HTTP/1.1 101 ")
        while answer.readline().strip():
            pass
        connection.sendall(b"hello\n")
        assert answer.readline() == b"echo hello\n"


def test_a_request_goes_to_a_replica_that_lives(proxy: httpx2.Client, upstream: Upstream) -> None:
    host = f"{proxy.base_url.host}:{proxy.base_url.port}"
    for method in ("GET", "POST", "POST", "GET"):
        response = proxy.request(method, "/v1/tasks")
        assert (response.status_code, response.text) == (200, host)
    assert len(upstream.requests) == 4


def test_a_request_that_was_sent_is_not_sent_again(tmp_path: Path, upstream: Upstream) -> None:
    with (
        Upstream() as other,
        run_proxy_of_replicas(tmp_path / "nginx", [other.port, upstream.port]) as url,
        httpx2.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        assert client.post("/lost", json={}).status_code == 502
        assert upstream.requests + other.requests == ["POST /lost HTTP/1.1"]
        other.shutdown()
