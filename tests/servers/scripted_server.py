"""An MCP server with scripted answers, from the JSON file that its first argument names.

See `odd_servers.Script` for the file. In the text of an answer `$ID` is replaced by the id of the request. It uses the
standard library alone.
"""

import json
import sys
import threading
from pathlib import Path
from typing import Any

SCRIPT: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


def write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.buffer.flush()


def reply(request_id: Any, result: Any) -> None:
    write(json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}))


def page(params: dict[str, Any]) -> Any:
    """Return the page of this cursor, or the first page."""
    pages = SCRIPT["pages"]
    return pages.get(params.get("cursor", "first"), pages["first"])


def fill() -> None:
    SCRIPT["pages"] = SCRIPT["later"]
    write(json.dumps({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))


def main() -> None:
    if "later" in SCRIPT:
        threading.Timer(0.2, fill).start()
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                reply(message["id"], SCRIPT["initialize"])
            case "tools/list":
                reply(message["id"], page(message.get("params") or {}))
            case "tools/call":
                name = message["params"]["name"]
                write(SCRIPT["answers"][name].replace("$ID", str(message["id"])))


main()
