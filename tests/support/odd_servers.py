"""Servers with scripted answers, over standard streams and over HTTP, as registry entries."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agent_runtime.domain.tools import StdioServer, ToolServer
from pools import remote

SERVER = Path(__file__).parents[1] / "servers" / "scripted_server.py"
HANDSHAKE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "odd", "version": "1"},
}
GOOD = {"name": "good", "inputSchema": {"type": "object"}}


@dataclass
class Script:
    """The answers of a server: the result of its handshake, its pages of tools by cursor, and a text per call."""

    initialize: Any = field(default_factory=lambda: dict(HANDSHAKE))
    pages: dict[str, Any] = field(default_factory=lambda: {"first": {"tools": [GOOD]}})
    answers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_tools(cls, *tools: Any) -> "Script":
        return cls(pages={"first": {"tools": [GOOD, *tools]}})

    @classmethod
    def of_result(cls, result: str) -> "Script":
        """Return the script of a server whose tool `good` answers with this result, a JSON text."""
        return cls(answers={"good": f'{{"jsonrpc":"2.0","id":$ID,"result":{result}}}'})

    def over_stdio(self, folder: Path, **more: Any) -> ToolServer:
        path = folder / "script.json"
        path.write_text(json.dumps({**vars(self), **more.pop("script", {})}), encoding="utf-8")
        config = {"command": sys.executable, "args": ["-S", "-E", str(SERVER), str(path)]}
        return StdioServer.model_validate({"id": "remote", "type": "local_stdio", "config": config, **more})


@contextmanager
def over_http(script: Script, *, events: bool = False) -> Iterator[ToolServer]:
    """Run the server on a free loopback port, and yield its entry. With `events` it answers with event streams."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            match message.get("method"):
                case "initialize":
                    self.reply(message["id"], script.initialize)
                case "tools/list":
                    cursor = (message.get("params") or {}).get("cursor", "first")
                    self.reply(message["id"], script.pages.get(cursor, script.pages["first"]))
                case "tools/call":
                    self.give(script.answers[message["params"]["name"]].replace("$ID", str(message["id"])))
                case _:
                    self.send(202, b"", "")

        def do_GET(self) -> None:
            self.send(405, b"", "")

        def reply(self, number: Any, result: Any) -> None:
            self.give(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}))

        def give(self, text: str) -> None:
            body = text.encode("utf-8", "surrogateescape")
            self.send(
                200, *((b"data: %b\r\n\r\n" % body, "text/event-stream") if events else (body, "application/json"))
            )

        def send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
            """Say nothing."""

    with run_http_server(Handler) as port:
        yield remote(f"http://127.0.0.1:{port}/mcp")


@contextmanager
def run_http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Run a server with this handler on loopback, and yield its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class EventStreamHandler(BaseHTTPRequestHandler):
    """A server that answers every request with an event stream. A subclass answers the requests."""

    def read_message(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def begin_stream(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/event-stream", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def say(self, message: Any) -> None:
        self.wfile.write(b"data: %b\r\n\r\n" % json.dumps(message).encode())
        self.wfile.flush()

    def do_GET(self) -> None:
        self.send_error(405)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
        """Say nothing."""


@contextmanager
def serve_over(transport: str, program: Path, handler: type[BaseHTTPRequestHandler]) -> Iterator[ToolServer]:
    """Yield the entry of a server over this transport: `stdio`, which starts the program, or `http`."""
    if transport == "http":
        with run_http_server(handler) as port:
            yield remote(f"http://127.0.0.1:{port}/mcp")
        return
    env = {"KEY": "${env:KEY_OF_THE_OPERATOR}"}
    config = {"command": sys.executable, "args": ["-S", "-E", str(program)], "env": env}
    yield StdioServer.model_validate({"id": "remote", "type": "local_stdio", "config": config})
