"""An MCP server that answers with what the file in its first argument says, on the standard library alone.

The file is JSON, see `odd_servers.Script`. In the text of an answer `$ID` is the id of the request.
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
    """The page of the list that the cursor names: the first one where it names none."""
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
