"""A small MCP server that changes its tools while it runs. It uses the standard library alone.

Files in the folder HOUSE control it: `tools.json` is its list of tools (read at each listing), and `answer.json` the
raw result of the tool `raw`. It writes every call to `ledger.txt`. A method that `hang.txt` names, `initialize` or
`tools/list`, is noted in `hangs.txt` and never answered. The tools:

`gate {label}` answers as soon as the file `gate` exists. `shift` replaces `tools.json` by `next.json`, and sends a
notification before it answers. `later` answers with an error, and shifts a moment later. If the file `shift-soon`
exists, every tool shifts a moment later. `die` ends the process at its first call; at each, if `always-dies` exists.

While the file `down` exists, a start ends at once, with the exit code and the words in that file: `LETTER` is replaced
by another letter each time, and `PID` by a number. `down-after-death` is renamed to `down` when `die` ends the process.
"""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

HOUSE = Path(os.environ["HOUSE"])
LEDGER = HOUSE / "ledger.txt"


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def shift() -> None:
    shutil.copy(HOUSE / "next.json", HOUSE / "tools.json")
    send({"method": "notifications/tools/list_changed"})


def run_tool(name: str, label: str) -> dict[str, Any]:
    with LEDGER.open("a") as ledger:
        ledger.write(f"{label}\n")
    if name == "gate":
        while not (HOUSE / "gate").exists():
            time.sleep(0.01)
    elif name == "shift":
        shift()
    elif name == "later" or (HOUSE / "shift-soon").exists():
        threading.Timer(0.1, shift).start()
    elif name == "die" and (LEDGER.read_text().split().count(label) == 1 or (HOUSE / "always-dies").exists()):
        if (HOUSE / "down-after-death").exists():
            (HOUSE / "down-after-death").rename(HOUSE / "down")
        os._exit(3)
    return {"content": [{"type": "text", "text": f"did {label}"}], "isError": name in {"later", "fail"}}


def answer(request: dict[str, Any]) -> None:
    method, params = request["method"], request.get("params") or {}
    if (hang := HOUSE / "hang.txt").exists() and method == hang.read_text():
        with (HOUSE / "hangs.txt").open("a") as hangs:
            hangs.write("here\n")
        time.sleep(600)
    if method == "initialize":
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "shifty", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": json.loads((HOUSE / "tools.json").read_text())}
    elif method == "tools/call":
        result = run_tool(params["name"], params["arguments"]["label"])
        if params["name"] == "raw":
            raw = (HOUSE / "answer.json").read_text()
            sys.stdout.write(f'{{"jsonrpc": "2.0", "id": {request["id"]}, "result": {raw}}}\n')
            sys.stdout.flush()
            return
    else:
        result = {}
    send({"id": request["id"], "result": result})


def fall() -> None:
    """End as `down` says, if there is such a file."""
    if (HOUSE / "down").exists():
        with (HOUSE / "starts.txt").open("a+") as starts:
            starts.write("x")
            starts.seek(0)
            letter = chr(ord("a") + len(starts.read()) % 26)
        code, _, words = (HOUSE / "down").read_text().partition(" ")
        sys.stderr.write(words.replace("LETTER", letter).replace("PID", str(os.getpid())) + "\n")
        sys.stderr.flush()
        os._exit(int(code))


fall()
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        answer(message)
