"""A small MCP server that reveals its arguments and its environment wherever it can.

It writes them to the file that its first argument names (the only place without redaction), to standard error, and to
the description of its tools. `tell` returns them, `refuse` answers with a tool error that contains them, and `break`
with a protocol error. `crash` writes them to standard error and ends the process.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

TOLD = json.dumps([sys.argv[2:], dict(os.environ)], ensure_ascii=False)
Path(sys.argv[1]).write_text(TOLD, encoding="utf-8")
sys.stderr.write(f"{TOLD}\n")
sys.stderr.flush()


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "telling", "version": "1"},
            "instructions": TOLD,
        }
    if method == "tools/list":
        schema = {"type": "object", "properties": {}, "description": TOLD}
        names = ("tell", "refuse", "break", "crash")
        return {"tools": [{"name": name, "description": TOLD, "inputSchema": schema} for name in names]}
    if method == "tools/call" and params["name"] in {"tell", "refuse"}:
        blocks = [
            {"type": "text", "text": TOLD},
            {"type": "resource", "resource": {"uri": "telling://all", "text": TOLD}},
            {"type": "resource_link", "name": "all", "uri": f"telling://{sys.argv[-1]}"},
        ]
        told = {"words": sys.argv[2:], "variables": [dict(os.environ)], "names": dict.fromkeys(sys.argv[2:], True)}
        return {"content": blocks, "structuredContent": told, "isError": params["name"] == "refuse", "_meta": told}
    if method == "tools/call" and params["name"] == "crash":
        sys.exit(f"These are my last words: {sys.argv[2:]} {TOLD[-1000:]}")
    return {} if method == "ping" else None


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    result = answer(request["method"], request.get("params") or {})
    reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
    if result is None:
        reply["error"] = {"code": -32601, "message": f"There is no such method: {TOLD}", "data": TOLD}
    else:
        reply["result"] = result
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
