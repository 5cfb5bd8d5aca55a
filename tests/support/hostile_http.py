"""A streamable HTTP MCP server in a thread. The first part of the path names its misbehaviour."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream"}


@dataclass(frozen=True)
class ReceivedRequest:
    """A received request. `asked` is the method of its JSON-RPC message, or empty."""

    verb: str
    path: str
    asked: str
    authorization: str | None


@dataclass
class HostileHttp:
    """The port of the server, and the requests that it has received.

    `outage`: the status of all its answers. `call_outage`: that of its answers to `tools/call`; "reset": it closes the
    connection instead; "silence": it never answers. `retry_after`: its header in both.
    """

    port: int
    outage: int | None = None
    call_outage: int | Literal["reset", "silence"] | None = None
    retry_after: str | None = None
    seen: list[ReceivedRequest] = field(default_factory=list)
    streamed: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def url(self, mode: str) -> str:
        return f"http://127.0.0.1:{self.port}/{mode}/mcp"

    def find_paths(self, method: str) -> list[str]:
        """Return the paths that received this JSON-RPC method."""
        return [one.path for one in self.seen if one.asked == method]

    def count_streams(self) -> int:
        return sum(one.verb == "GET" for one in self.seen)


@contextmanager
def hostile_http(port: int = 0) -> Iterator[HostileHttp]:
    """Run the server on this loopback port, or on a free one."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    _Handler.state = state = HostileHttp(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: HostileHttp

    @property
    def mode(self) -> str:
        return self.path.split("/")[1]

    def note(self, asked: str = "") -> None:
        self.state.seen.append(ReceivedRequest(self.command, self.path, asked, self.headers.get("authorization")))

    def give(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.note()
        if self.mode == "asking":
            ask = b'data: {"jsonrpc":"2.0","id":%d,"method":"ping"}\n\n'
            self.stream(b"".join(ask % number for number in range(5000)))
        elif self.mode == "babbling":
            self.stream(b"event: nonsense\ndata: x\n\ndata: {\n\n" * 5000)
        elif self.mode.startswith("closing"):
            self.give(200, EVENTS, b"id: 1\nretry: 0\n\n")
        else:
            self.give(405, {})

    def stream(self, events: bytes) -> None:
        """Send a stream of events, and keep it open."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(events) + 1))
        self.end_headers()
        self.wfile.write(events)
        self.state.streamed.set()
        self.state.ended.wait(60)

    def do_DELETE(self) -> None:
        self.note()
        self.give(200, {})

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method, number = message.get("method", ""), message.get("id")
        self.note(method)
        if self.state.outage is not None or (self.state.call_outage is not None and method == "tools/call"):
            self.go_down(self.state.outage or self.state.call_outage)
            return
        if not method:  # a response to a request of the server
            self.state.ended.wait(60)
        if number is None:
            self.give(202, {})
        elif redirect := self.redirect(method):
            self.give(redirect[0], {"Location": redirect[1]})
        elif method == "initialize":
            version = {"protocolVersion": "2025-06-18", "serverInfo": {"name": "hostile", "version": "1"}}
            headers = {**JSON, "Mcp-Session-Id": "one", "Set-Cookie": "seen=1"}
            self.give(200, headers, _reply(number, result={**version, "capabilities": {"tools": {}}}))
        elif method == "tools/list":
            self.give(200, JSON, _reply(number, result={"tools": [{"name": "pay", "inputSchema": {"type": "object"}}]}))
        elif self.mode == "trickling":
            self.trickle(_reply(number, result={"content": [{"type": "text", "text": "x" * 20_000}]}))
        elif self.mode == "baking":
            self.bake(_reply(number, result={"content": [{"type": "text", "text": self.headers.get("cookie", "")}]}))
        else:
            self.give(*self.answer_call(number))

    def go_down(self, how: int | str | None) -> None:
        """Answer as a server that is down."""
        if isinstance(how, int):
            self.give(how, {} if self.state.retry_after is None else {"Retry-After": self.state.retry_after})
            return
        self.close_connection = True
        if how == "silence":
            self.state.ended.wait(60)
        self.connection.shutdown(socket.SHUT_RDWR)

    def trickle(self, body: bytes) -> None:
        """Send an answer in chunks of one byte each, without pauses."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")

    def bake(self, body: bytes) -> None:
        """Send an answer with many cookies."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for number in range(50):
            self.send_header("Set-Cookie", f"crumb{len(self.state.seen)}_{number}=1")
        self.end_headers()
        self.wfile.write(body)

    def redirect(self, method: str) -> tuple[int, str] | None:
        """Return the status and target of the redirect for this request, if there is one."""
        elsewhere = f"http://localhost:{self.state.port}/good/mcp"
        match self.mode.split("-"), method:
            case ["moved", status], "initialize" if not self.path.endswith("/"):
                return int(status), f"{self.path}/"
            case ["forth", "307"], "initialize":
                return 307, f"{self.path}/again"
            case ["away", status], "initialize":
                return int(status), elsewhere
            case ["userinfo", "307"], "initialize":
                return 307, f"http://me:you@127.0.0.1:{self.state.port}/good/mcp"
            case ["list", status], "tools/list":
                return int(status), "/good/mcp"
            case ["call", status], "tools/call":
                return int(status), "/good/mcp"
            case ["self", status], "tools/call":
                return int(status), self.path
            case ["cross", status], "tools/call":
                return int(status), elsewhere
        return None

    def answer_call(self, number: int) -> tuple[int, dict[str, str], bytes]:
        """Return the status, headers and body of the answer to a call."""
        kind, _, code = self.mode.partition("_")
        error = {"code": -int(code) if code.isdecimal() else -32000, "message": "no money"}
        plain, event = _reply(number, error=error), b"data: %s\n\n"
        match kind:
            case "json":
                return 200, JSON, json.dumps(json.loads(plain), indent=1).encode()
            case "events":
                progress = b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/progress"}\r\n\r\n'
                return 200, EVENTS, progress + event % plain
            case "status":
                return 500, JSON, plain
            case "nested":
                return 200, JSON, plain[:-1] + b',"x":[%s0]}' % (b"[]," * 1_000_000)
            case "nested-events":
                return 200, EVENTS, event % (plain[:-1] + b',"x":[%s0]}' % (b"[]," * 1_000_000))
            case "many-events":
                said = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":[%s0]}}' % (b"[]," * 2000)
                return 200, EVENTS, b"data: %s\r\n\r\n" % said * 60 + event % _reply(number, result={"content": []})
            case "nobody":
                return 400, JSON, _reply(None, error=error)
            case "stranger":
                return 200, EVENTS, event % _reply(number + 7, error=error)
            case "ended":
                return 200, EVENTS, b": nothing\n\n"
            case "closing-call":
                return 200, EVENTS, b"id: 7\nretry: 0\ndata: \n\n"
            case "login":
                return 200, {"Content-Type": "text/html"}, b"<html>"
        return 200, JSON, _reply(number, result={"content": [{"type": "text", "text": "paid"}]})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
        """Say nothing."""


def _reply(number: int | None, **outcome: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, **outcome}).encode()
