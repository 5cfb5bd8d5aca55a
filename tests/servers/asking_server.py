"""An MCP server that asks the user something in the middle of a call, on the standard library alone.

The name of the tool says what it asks (see `questions`). What it gets is the text of its answer, as JSON.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}}
FORM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": "Your name", "minLength": 1},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "sure": {"type": "boolean", "default": False},
    },
    "required": ["name"],
}
TOOLS = ("form", "twice", "many", "others", "odd", "hostile", "secret", "hasty", "withdrawn")
EVIL = "<img src=x onerror=window.hacked=1>"
HOSTILE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": EVIL, "description": EVIL, "pattern": "^(a+)+$"},
        "city": {"type": "string", "enum": [f"City {n}" for n in range(10_000)]},
        "__proto__": {"type": "string"},
        "constructor": {"type": ["string", "null"]},
        "kind": {"type": "file", "title": {"a": 1}, "enumNames": 5, "minLength": "x", "default": [[[[[]]]]]},
        "nothing": None,
        "choice": {"oneOf": [{"const": 1, "title": EVIL}, {"const": 2, "title": [2]}]},
        "large " + "n" * 20_000: {"type": "string"},
        **{f"field {n}": {"type": "string"} for n in range(1000)},
    },
    "required": [[], {}, None, "name", "name", "absent"],
}
NAME = {"name": "asking", "version": "1"}
HANDSHAKE = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": NAME}

Ask = Callable[[str, dict[str, Any]], Any]
"""Sends a request to the client, and returns what comes for it."""


def form(message: str, schema: Any = None) -> dict[str, Any]:
    return {"message": message, "requestedSchema": FORM if schema is None else schema}


def carry_out(tool: str, ask: Ask) -> Any:
    """Ask what the tool asks, and return what it got."""
    match tool:
        case "twice":
            return [ask("elicitation/create", form(message)) for message in ("First?", "Second?")]
        case "many":
            return [ask("elicitation/create", form(f"Number {n}?"))["action"] for n in range(20)]
        case "others":
            sampling = {"messages": [], "maxTokens": 1}
            asked = {"sampling/createMessage": sampling, "roots/list": {}, "no/such/thing": {}}
            return [ask(method, params) for method, params in asked.items()]
        case "odd":
            odd: list[Any] = [
                {},
                {"message": "\u200b", "requestedSchema": FORM},
                {"mode": "url", "message": "Open this", "url": "https://evil.example", "elicitationId": "1"},
                form("Much?", {"type": "object", "properties": {"a": {"enum": list(range(30_000))}}}),
            ]
            return [ask("elicitation/create", params) for params in odd]
        case "hostile":
            return ask("elicitation/create", form("Can you show this?", HOSTILE))
        case "secret":
            key = os.environ.get("KEY", "")
            return ask("elicitation/create", form(f"Is {key} right?", {"properties": {"a": {"title": key}}}))
        case _:
            return ask("elicitation/create", form("Who are you?"))


def handshake(message: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a request that is no call; None for a call."""
    match message.get("method"):
        case "initialize":
            offered = message["params"]["capabilities"].get("elicitation")
            return {**HANDSHAKE, "serverInfo": {**NAME, "version": json.dumps(offered)}}
        case "tools/list":
            return {"tools": [{"name": name, "inputSchema": SCHEMA} for name in TOOLS]}
    return None


def result(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


class Stdio:
    """The server on standard streams: each call in a thread of its own."""

    def __init__(self) -> None:
        self.waiting: dict[str, queue.Queue[Any]] = {}
        self.lock = threading.Lock()

    def send(self, **message: Any) -> None:
        with self.lock:
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            sys.stdout.flush()

    def call(self, number: Any, tool: str) -> None:
        asked = 0

        def ask(method: str, params: dict[str, Any]) -> Any:
            nonlocal asked
            asked += 1
            request_id = f"ask-{number}-{asked}"
            got: queue.Queue[Any] = queue.Queue()
            self.waiting[request_id] = got
            self.send(id=request_id, method=method, params=params)
            if tool == "hasty":  # it does not wait for the answer
                return None
            if tool == "withdrawn":
                self.send(method="notifications/cancelled", params={"requestId": request_id})
                return "withdrawn"
            return got.get()

        self.send(id=number, result=result(json.dumps(carry_out(tool, ask))))

    def serve(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if "method" not in message:
                self.waiting[message["id"]].put(message.get("result") or {"error": message["error"]["code"]})
            elif (answer := handshake(message)) is not None:
                self.send(id=message["id"], result=answer)
            elif message["method"] == "tools/call":
                arguments = (message["id"], message["params"]["name"])
                threading.Thread(target=self.call, args=arguments, daemon=True).start()
        os._exit(0)


def messages(number: Any, tool: str, answers: "queue.Queue[Any]") -> Iterator[dict[str, Any]]:
    """Give all that is said about a call over HTTP, its answer last; what comes for its questions is in `answers`."""
    said: queue.Queue[Any] = queue.Queue()
    ids = iter(range(1, 100))

    def ask(method: str, params: dict[str, Any]) -> Any:
        said.put({"jsonrpc": "2.0", "id": f"ask-{number}-{next(ids)}", "method": method, "params": params})
        return answers.get()

    def call() -> None:
        said.put({"jsonrpc": "2.0", "id": number, "result": result(json.dumps(carry_out(tool, ask)))})

    threading.Thread(target=call, daemon=True).start()
    while True:
        message = said.get()
        yield message
        if "result" in message:
            return


class Modern:
    """A server of MCP 2026-07-28 on standard streams: it asks by answering that it needs input, and is called again."""

    def answer_call(self, params: dict[str, Any]) -> dict[str, Any]:
        tool, state = params["name"], params.get("requestState")
        number = int(state or 0)
        if tool == "others":
            return self.ask(number, {"a": {"method": "sampling/createMessage", "params": {}}})
        if tool == "many" or (tool == "later" and number < 2):
            return self.ask(number, {})
        if number < (2 if tool == "twice" else 1):
            params = form(f"Number {number}?", HOSTILE if tool == "hostile" else None)
            return self.ask(number, {"who": {"method": "elicitation/create", "params": params}})
        if tool == "die":
            os._exit(1)
        got = {**params.get("inputResponses", {}), "arguments": params["arguments"]}
        offered = params["_meta"]["io.modelcontextprotocol/clientCapabilities"]
        return {"resultType": "complete", **result(json.dumps({**got, "offered": offered, "state": state}))}

    def ask(self, number: int, requests: dict[str, Any]) -> dict[str, Any]:
        return {"resultType": "input_required", "inputRequests": requests, "requestState": str(number + 1)}

    def serve(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            answer: dict[str, Any] = {"error": {"code": -32601, "message": "no such method"}}
            match message.get("method"):
                case "server/discover":
                    about = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0}
                    answer = {"result": {"resultType": "complete", "cacheScope": "private", **about}}
                case "tools/list":
                    tools = [{"name": name, "inputSchema": SCHEMA} for name in (*TOOLS, "later", "die", "leave")]
                    answer = {"result": {"resultType": "complete", "tools": tools, "ttlMs": 0}}
                case "tools/call":
                    answer = {"result": self.answer_call(message["params"])}
            if "id" in message:
                sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}) + "\n")
                sys.stdout.flush()
            if (message.get("params") or {}).get("name") == "leave":
                os._exit(1)


if __name__ == "__main__":
    (Modern() if "modern" in sys.argv else Stdio()).serve()
