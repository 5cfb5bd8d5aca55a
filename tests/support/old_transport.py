"""A server of the transport of 2024-11-05 (HTTP+SSE), which also misbehaves: by the path of its stream, and by tool."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import uuid4

from odd_servers import GOOD, HANDSHAKE, run_http_server

TOOLS = ("refused", "error", "end", "large", "nested", "babble", "late", "endless")
LARGE = 300_000

TARGETS = {
    "/away": "http://localhost:1/messages",
    "/away-by-scheme": "https://127.0.0.1:{port}/messages",
    "/away-by-port": "//127.0.0.1:1/messages",
    "/away-with-a-user": "http://me:you@localhost:{port}/messages",
}
"""The addresses for messages that lead elsewhere."""


class Old(BaseHTTPRequestHandler):
    """Answers come on the stream that a GET opens."""

    protocol_version = "HTTP/1.1"
    streams: dict[str, queue.Queue[bytes | None]]
    posted: list[str]
    ended: threading.Event

    def do_GET(self) -> None:
        session = uuid4().hex
        said: queue.Queue[bytes | None] = queue.Queue()
        self.streams[session] = said
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        with suppress(OSError):
            match self.path:
                case "/silent":
                    self.repeat(b": nothing yet\n\n")
                case "/long":
                    self.repeat(b"x" * 65536)
                case path:
                    port = self.connection.getsockname()[1]
                    target = TARGETS.get(path, f"/messages?session={session}").replace("{port}", str(port))
                    self.wfile.write(b"event: endpoint\ndata: %b\n\n" % target.encode())
                    self.tell(said)
        self.close_connection = True

    def tell(self, said: "queue.Queue[bytes | None]") -> None:
        while (event := said.get(timeout=20)) is not None:
            if event == b"babble":
                self.repeat(b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n')
            self.wfile.write(b"event: message\ndata: %b\n\n" % event)
            self.wfile.flush()

    def repeat(self, data: bytes) -> None:
        """Write this until the client has gone."""
        while not self.ended.is_set():
            self.wfile.write(data)

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = self.streams.get(self.path.partition("session=")[2])
        if said is None:
            self.give(405)
            return
        number, name = message.get("id"), str((message.get("params") or {}).get("name"))
        self.posted.append(message.get("method", ""))
        match message.get("method"):
            case "initialize":
                said.put(reply(number, HANDSHAKE | {"protocolVersion": "2024-11-05"}))
            case "tools/list":
                said.put(reply(number, {"tools": [GOOD, *({"name": name} for name in TOOLS)]}))
            case "tools/call":
                self.answer(name, number, said)
                return
        self.give(202)

    def answer(self, name: str, number: Any, said: "queue.Queue[bytes | None]") -> None:
        text = {"large": "x" * LARGE}.get(name, "done")
        match name:
            case "refused":
                self.give(403)
                return
            case "error":
                said.put(b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32000,"message":"no money"}}' % number)
            case "end":
                said.put(None)
            case "babble":
                said.put(b"babble")
            case "nested":
                said.put(b'{"jsonrpc":"2.0","id":%d,"result":%b1%b}' % (number, b"[" * 100_000, b"]" * 100_000))
            case _:
                said.put(reply(number, {"content": [{"type": "text", "text": text}]}))
        match name:
            case "late":
                self.ended.wait(20)
                self.give(202)
            case "endless":
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                with suppress(OSError):
                    self.repeat(b"x" * 65536)
                self.close_connection = True
            case _:
                self.give(202)

    def give(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
        """Say nothing."""


def reply(number: Any, result: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()


@contextmanager
def run_old_server() -> Iterator[tuple[int, list[str]]]:
    """Run the server, and yield its port and the methods that were posted to it."""
    state: dict[str, Any] = {"streams": {}, "posted": [], "ended": threading.Event()}
    with run_http_server(type("Handler", (Old,), state)) as port:
        try:
            yield port, state["posted"]
        finally:
            state["ended"].set()
            for said in state["streams"].values():
                said.put(None)
