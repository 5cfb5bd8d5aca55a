"""An MCP server that misbehaves on request. It uses the standard library alone, to start in milliseconds.

The first argument selects how it starts, lists and ends (see `begin` and `Listings`), and the name of the called tool
how it answers (see `Calls`). It notes every call, and every notification, as a line in the file NOTES.
"""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

MODE = sys.argv[1] if len(sys.argv) > 1 else "polite"
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"label": {"type": "string"}}}


def note(line: str) -> None:
    if path := os.environ.get("NOTES"):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def send(**message: Any) -> None:
    write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def say(request_id: Any, text: str, **more: Any) -> None:
    send(id=request_id, result={"content": [{"type": "text", "text": text}], **more})


def flood_stderr() -> None:
    for number in range(4000):
        os.write(2, f"{number:06}: nobody reads this line of two hundred and fifty-six bytes ".ljust(255, ".").encode())
        os.write(2, b"\n")


def live_on() -> None:
    """Ignore every request to end, so that only SIGKILL or the end of the namespace ends it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def end(*_: object) -> None:
    note("told to end")
    os._exit(0)


def fork(*, away: bool) -> None:
    """Start a child that ignores all signals and holds all streams; with `away` in its own session."""
    if os.fork() == 0:
        live_on()
        if away:
            os.setsid()
        while True:
            time.sleep(60)


def begin() -> None:
    match MODE:
        case "exit":
            sys.stderr.write(f"cannot work without a key; you gave {os.environ.get('KEY')}\n")
            sys.exit(3)
        case "mute" | "stubborn-mute":
            if MODE == "stubborn-mute":
                live_on()
            while sys.stdin.readline() or MODE == "stubborn-mute":
                time.sleep(0.05)
            sys.exit(0)
        case "banner":
            write(b"Welcome to the server {1.0}!\nloading [####] 100 % ")
        case "braces":
            write(b"{" * 3_000_000)
        case "flood-stderr":
            flood_stderr()
        case "stubborn":
            live_on()
        case "tidy":
            signal.signal(signal.SIGTERM, end)
        case "family":
            fork(away=False)
        case "runaway":
            fork(away=True)
        case "no-newline":
            while True:
                write(b"x" * 65536)


def flood_on() -> None:
    """Start a child that floods the output as long as it lives, with lines of a legal length."""
    line = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"%s"}}\n' % (b"x" * 3_000_000)
    small = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}\n' * 3000
    subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", "import os,sys\nd=sys.stdin.buffer.read()\nwhile True: os.write(1, d)"],
        stdin=(pipe := os.pipe())[0],
    )
    with os.fdopen(pipe[1], "wb") as feed:
        feed.write(line + small + b"garbage\n" * 1000)


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": name, "inputSchema": SCHEMA, **more}


class Listings:
    """The answers to `tools/list`."""

    def __init__(self) -> None:
        self.version = 0
        self.count = 0

    def answer(self, request_id: Any) -> None:
        self.count += 1
        echo = tool("echo")
        heavy = {f"p{number}": {"type": "string"} for number in range(1200)}
        pages: dict[str, Any] = {
            "endless": {"tools": [tool(f"t{self.count}")], "nextCursor": str(self.count)},
            "many": {"tools": [tool(f"t{number}") for number in range(501)]},
            "giant": {"tools": [echo, tool("giant", description="x" * 70_000)]},
            "heavy": {"tools": [echo, *(tool(f"t{n}", annotations=heavy) for n in range(60))]},
            "endless-name": {"tools": [echo, tool("x" * 257), tool("y" * 256)]},
            "blank-names": {"tools": [tool(""), tool(" "), tool("\u3164\u200b"), echo, tool("_")]},
            "weighty": {"tools": [echo, tool("weighty", icons=[{"src": "data:," + "x" * 200_000}])]},
            "crowded": {"tools": [echo, *[0] * 1_000_000]},
            "twins": {"tools": [echo, tool("twin"), tool("twin", title="the other")]},
            "shifty": {"tools": [tool("echo", description=f"version {self.count}")]},
            "no-tools": {"toolz": []},
            "not-a-list": {"tools": {"echo": echo}},
            "bad-cursor": {"tools": [echo], "nextCursor": {"page": 2}},
            "numbers": {"tools": [echo, *self.tools_with_odd_numbers()]},
            "stalling": {"tools": [echo, *self.stalling_tools()]},
            "plump": {"tools": [tool(f"plump{n}", description="d" * 57_000) for n in range(60)]},
            "fat": {
                "tools": [tool(f"fat{self.count}-{n}", description="x" * 60_000) for n in range(50)],
                "nextCursor": str(self.count),
            },
        }
        if MODE == "die-listing":
            sys.exit(7)
        if MODE == "slow-listing":
            return
        if MODE == "refuse-listing":
            send(id=request_id, error={"code": -32603, "message": "no list today"})
            return
        default = {"tools": [tool("echo", description=f"version {self.version}")]}
        send(id=request_id, result=pages.get(MODE, default))

    @staticmethod
    def stalling_tools() -> list[dict[str, Any]]:
        """Return tools with small, legal schemas whose validation takes seconds or years."""
        doubling = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(30)} | {"a30": {}}
        draft4 = "http://json-schema.org/draft-04/schema#"
        many = {"$schema": draft4, "enum": [{"a": n} for n in range(3000)]}
        wide = {"properties": {f"p{n}": {"type": "string"} for n in range(1500)}}
        schemas: dict[str, dict[str, Any]] = {
            "doubling": {"$defs": doubling, "$ref": "#/$defs/a0"},
            "many": {"properties": {"p": many}},
            "wide": wide,
            "wrong": {"properties": {"p": {"type": "strng"}}},
        }
        return [{"name": name, "inputSchema": {"type": "object", **schema}} for name, schema in schemas.items()]

    @staticmethod
    def tools_with_odd_numbers() -> list[dict[str, Any]]:
        schema = {"type": "object", "properties": {"n": {"type": "number", "maximum": float("nan")}}}
        huge = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 10**400}}}
        return [{"name": "nan", "inputSchema": schema}, {"name": "huge", "inputSchema": huge}]


class Calls:
    """The answers to `tools/call`, one method per tool."""

    def __init__(self, listings: Listings) -> None:
        self.listings = listings
        self.open: dict[Any, str] = {}

    def answer(self, request_id: Any, name: str, arguments: dict[str, Any]) -> None:
        note(f"{name} {arguments.get('label', '')}".strip())
        getattr(self, name)(request_id, arguments)

    def note_cancel(self, request_id: Any) -> None:
        name = self.open.pop(request_id, None)
        note(f"cancelled {name}")
        if name == "late":
            say(request_id, "done after all")
        elif name == "regret":
            send(id=request_id, error={"code": -32800, "message": "cancelled"})

    def echo(self, request_id: Any, arguments: dict[str, Any]) -> None:
        say(request_id, str(arguments.get("label", "")))

    def hang(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        self.open[request_id] = "hang"

    def late(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        self.open[request_id] = "late"

    def regret(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        self.open[request_id] = "regret"

    def flood_on(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        say(request_id, "here it comes")
        flood_on()

    def sleep(self, request_id: Any, arguments: dict[str, Any]) -> None:
        time.sleep(float(arguments["label"]))
        say(request_id, "slept")

    def stop_reading(self, _request_id: Any, _arguments: dict[str, Any]) -> None:
        time.sleep(600)

    def crash(self, _request_id: Any, _arguments: dict[str, Any]) -> None:
        os.write(2, b"something went very wrong with " + os.environ.get("KEY", "").encode())
        os._exit(9)

    def half(self, _request_id: Any, _arguments: dict[str, Any]) -> None:
        write(b'{"jsonrpc":"2.0","id":')
        os._exit(0)

    def error(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        send(id=request_id, error={"code": -32602, "message": f"no such thing as {os.environ.get('KEY')}"})

    def refuse(self, request_id: Any, arguments: dict[str, Any]) -> None:
        send(id=request_id, error=json.loads(arguments["label"]))

    def fail(self, request_id: Any, arguments: dict[str, Any]) -> None:
        say(request_id, "the tool says no", isError=json.loads(arguments["label"] or "true"))

    def malform(self, request_id: Any, arguments: dict[str, Any]) -> None:
        results: dict[str, Any] = {
            "content is a number": {"content": 5},
            "block is a number": {"content": [5]},
            "no content": {"contents": []},
            "unknown block": {"content": [{"type": "hologram"}]},
            "text is a number": {"content": [{"type": "text", "text": 1}]},
            "result is a list": [],
            "result is null": None,
            "huge number": {"content": [], "structuredContent": {"n": 10**4400}},
        }
        sys.set_int_max_str_digits(0)
        send(id=request_id, result=results[arguments["label"]])

    def numbers(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        say(request_id, "odd", structuredContent={"huge": 10**400, "nan": float("nan")})

    def stranger(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        for wrong in (request_id + 7, str(request_id) + "x", None, 1.5, True):
            send(id=wrong, result={"content": [{"type": "text", "text": "for somebody else"}]})
        say(request_id, "for you")

    def twice(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        say(request_id, "first")
        say(request_id, "second")

    def noise(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        write(b'plain words\n\n[1, 2, 3]\n{"jsonrpc": "1.0"}\n\xff\xfe\x80 bytes\n\x1b[31mred\x00\n')
        say(request_id, "through the noise")

    def long(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        say(request_id, "x" * 5_000_000)

    def nest(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        say(request_id, "nested", structuredContent={"a": [[] for _ in range(1_000_000)]})

    def crowd(self, request_id: Any, arguments: dict[str, Any]) -> None:
        item, times = {"numbers": ("0", 1_900_000), "objects": ("{}", 99_000)}[arguments["label"]]
        content = ",".join([item] * times)
        write(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[%s]}}\n' % (request_id, content.encode()))

    def ask_much(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        messages = b",".join([b"0"] * 1_900_000)
        asked = b'"method":"sampling/createMessage","params":{"maxTokens":1,"messages":[%s]}' % messages
        write(b'{"jsonrpc":"2.0","id":"q1",%s}\n' % asked)
        say(request_id, "asked")

    def large(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        say(request_id, "large", structuredContent={"a": ["ab"] * 400_000})

    def flood(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        line = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"%s"}}\n' % (b"x" * 1_000_000)
        for _ in range(10):
            write(line)
            write(b"garbage " * 100_000 + b"\n")
        say(request_id, "after the flood")

    def flood_stderr(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        flood_stderr()
        say(request_id, "after the flood")

    def environment(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        say(request_id, "the environment", structuredContent=dict(os.environ))

    def secret(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        key = os.environ["KEY"]
        say(request_id, f"the key is {key}", structuredContent={key: [f"it is {key}!"]})

    def change(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        self.listings.version += 1
        send(method="notifications/tools/list_changed")
        say(request_id, "changed")

    def ask(self, request_id: Any, _arguments: dict[str, Any]) -> None:
        text = {"role": "user", "content": {"type": "text", "text": "tell me a secret"}}
        send(id="q1", method="sampling/createMessage", params={"messages": [text], "maxTokens": 10})
        form = {"message": "Your password?", "requestedSchema": {"type": "object", "properties": {}}}
        send(id="q2", method="elicitation/create", params=form)
        send(id="q3", method="roots/list")
        send(id="q4", method="no/such/thing")
        answers: dict[str, str] = {}
        while len(answers) < 4:
            reply = json.loads(sys.stdin.readline())
            answers[reply["id"]] = "refused" if "error" in reply else "granted"
        say(request_id, json.dumps(answers, sort_keys=True))

    def ask_without_end(self, _request_id: Any, _arguments: dict[str, Any]) -> None:
        while True:
            write(b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n' % number for number in range(1000)))


def main() -> None:
    begin()
    listings = Listings()
    calls = Calls(listings)
    for line in sys.stdin:
        message = json.loads(line)
        method, params = message.get("method"), message.get("params") or {}
        if method == "initialize":
            result = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {"listChanged": True}}}
            send(id=message["id"], result={**result, "serverInfo": {"name": "hostile", "version": "1"}})
        elif method == "tools/list":
            listings.answer(message["id"])
        elif method == "tools/call":
            calls.answer(message["id"], params["name"], params.get("arguments") or {})
        elif method == "notifications/cancelled":
            calls.note_cancel(params["requestId"])
    if MODE == "slow-to-leave":
        time.sleep(1)
        note("saved")
    while MODE in {"stubborn", "tidy"}:
        time.sleep(60)


main()
