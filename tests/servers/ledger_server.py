"""A small MCP server on the standard library alone: it starts in a few milliseconds, and keeps a ledger of its calls.

`count {label}` appends `label` to the file LEDGER (fsynced) and answers after DELAY_S seconds, or as many as the
file DELAY says; `look {label}` is the same, for a registry that calls it idempotent; `fail {label}` is counted and
answers with an error of the tool.
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
    """A file can change while the entry of the registry stays what it is."""
    file = Path(os.environ.get("DELAY", ""))
    return float(file.read_text() if file.is_file() else os.environ.get("DELAY_S", "0"))


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
        time.sleep(delay_s())
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
