"""A small MCP server that keeps a ledger of its calls. It uses the standard library alone, to start in milliseconds.

`count {label}` appends `label` to the file LEDGER (with fsync) and answers after DELAY_S seconds, or after the seconds
in the file DELAY, which may be changed meanwhile. `look {label}` does the same, for a registry that declares it
idempotent. `fail {label}` does the same, and answers with an error of the tool.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}


def count(label: str) -> None:
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{label}\n".encode())
    os.fsync(descriptor)
    os.close(descriptor)


def delay_s() -> float:
    """Return the delay in seconds. In a file it can change without a change of the registry entry."""
    file = Path(os.environ.get("DELAY", ""))
    said = file.read_text() if file.is_file() else os.environ.get("DELAY_S", "0")
    return float(said or "0.02")  # it is empty while it is being written


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "ledger", "version": "1"},
        }
    if method == "tools/list":
        names = ("count", "look", "fail")
        return {"tools": [{"name": name, "description": name, "inputSchema": SCHEMA} for name in names]}
    if method == "tools/call":
        label = params["arguments"]["label"]
        count(label)
        began = time.monotonic()
        while (left := began + delay_s() - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
        text = {"type": "text", "text": f"counted {label}"}
        return {"content": [text], "isError": params["name"] == "fail"}
    return {} if method == "ping" else None


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    result = answer(request["method"], request.get("params") or {})
    reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
    if result is None:
        reply["error"] = {"code": -32601, "message": "Method not found"}
    else:
        reply["result"] = result
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
