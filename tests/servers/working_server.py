"""An MCP server that reports the progress of its calls. It uses the standard library alone.

The name of the tool selects the kind of reports, and its argument `label` their number. Reports contain the environment
variable KEY.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}}
TOOLS = ("work", "stall", "flood", "mistake", "mumble")
PAUSE_S = 0.2
HANDSHAKE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "w", "version": "1"},
}


def report(token: Any, progress: Any, **more: Any) -> dict[str, Any]:
    params = {"progressToken": token, "progress": progress, **more}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


def work(name: str, token: Any, times: int) -> Iterator[dict[str, Any]]:
    """Yield the reports of a call, at their times."""
    if name == "mumble":
        odd: Any
        for odd in ("half", None, True, [], 10**400, float("nan")):
            yield report(token, odd, total=odd, message=[odd])
        yield {"jsonrpc": "2.0", "method": "notifications/progress"}
        yield report(token, 1, message="\u202egnp.exe\n" + "x" * 100_000)
    for number in range(1, times + 1):
        if name == "flood":
            yield report(token, number, message="y" * 100)
        elif name == "mistake":
            time.sleep(PAUSE_S)
            yield from (report(other, number) for other in (token + 1, f"{token}x", 0, None, True, {"a": token}))
        else:
            time.sleep(PAUSE_S)
            yield report(token, number, total=times, message=f"part {number} with {os.environ.get('KEY')}")
    if name == "stall":
        time.sleep(60)


def messages(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all messages about a request, its answer last."""
    params, number = request.get("params") or {}, request.get("id")
    match request.get("method"):
        case "initialize":
            yield {"jsonrpc": "2.0", "id": number, "result": HANDSHAKE}
        case "tools/list":
            listed = [{"name": name, "inputSchema": SCHEMA} for name in TOOLS]
            yield {"jsonrpc": "2.0", "id": number, "result": {"tools": listed}}
        case "tools/call":
            token = (params.get("_meta") or {}).get("progressToken")
            yield from work(params["name"], token, int(params["arguments"]["label"]))
            content = [{"type": "text", "text": "done" if token is not None else "nobody wants to know"}]
            yield {"jsonrpc": "2.0", "id": number, "result": {"content": content}}


def answer(line: str) -> None:
    for message in messages(json.loads(line)):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def main() -> None:
    for line in sys.stdin:
        threading.Thread(target=answer, args=[line], daemon=True).start()
    os._exit(0)


if __name__ == "__main__":
    main()
