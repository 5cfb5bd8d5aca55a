"""An MCP server that tries an operation and returns its result. It uses the standard library alone.

The name of the called tool is the operation (see `Probes`), and `words` are its arguments. The answer is JSON: the
result, or the name of the error. `python probe_server.py NAME WORD...` tries one operation and prints its result.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000


def check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class Probes:
    """The operations."""

    def read(self, path: str) -> str:
        return Path(path).read_bytes().decode(errors="replace")

    def write(self, path: str) -> int:
        with Path(path).open("ab") as file:
            return file.write(b"written by a server")

    def open(self, path: str) -> None:
        """Open a file for writing, without writing: some files would affect the whole machine."""
        os.close(os.open(path, os.O_WRONLY))

    def create(self, path: str) -> int:
        return Path(path).write_text("created by a server")

    def remove(self, path: str) -> None:
        Path(path).unlink()

    def rename(self, path: str, to: str) -> None:
        Path(path).rename(to)

    def replace(self, path: str) -> None:
        """Replace this file by another one."""
        other = Path(f"{path}.other")
        other.write_text("replaced by a server")
        other.replace(path)

    def names(self, path: str) -> list[str]:
        return sorted(entry.name for entry in Path(path).iterdir())

    def link(self, path: str, to: str) -> None:
        Path(path).symlink_to(to)

    def folder(self) -> str:
        return str(Path.cwd())

    def connect(self, path: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path.replace("@", "\0"))
            return "connected"

    def connect_port(self, port: str) -> str:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=5):
            return "connected"

    def status(self, field: str) -> list[str]:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(line.split()[1:] for line in lines if line.startswith(f"{field}:"))

    def processes(self) -> list[int]:
        return sorted(int(path.name) for path in Path("/proc").glob("[0-9]*"))

    def namespace(self, kind: str) -> str:
        return str(Path(f"/proc/self/ns/{kind}").readlink())

    def session(self, pid: str) -> int:
        return os.getsid(int(pid))

    def mount(self, path: str) -> int:
        return check(ctypes.CDLL(None, use_errno=True).mount(b"none", path.encode(), b"tmpfs", 0, None))

    def unmount(self, path: str) -> int:
        return check(ctypes.CDLL(None, use_errno=True).umount2(path.encode(), 2))

    def new_namespace(self) -> int:
        """Become root in a new user namespace, which permits mounts, in a child process that ends."""
        pid = os.fork()
        if pid == 0:
            os._exit(0 if ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNS) == 0 else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def disks(self) -> list[str]:
        """Return the disks that can be opened."""
        found = []
        for path in Path("/dev").iterdir():
            try:
                if path.is_block_device():
                    os.close(os.open(path, os.O_RDONLY))
                    found.append(path.name)
            except OSError:
                continue
        return found

    def run(self, *argv: str) -> str:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def try_operation(name: str, words: list[str]) -> Any:
    probe: Callable[..., Any] = getattr(Probes(), name)
    try:
        return probe(*words)
    except Exception as error:  # noqa: BLE001 - the error is the answer
        return type(error).__name__


def serve() -> None:
    schema = {"type": "object", "properties": {"words": {"type": "array", "items": {"type": "string"}}}}
    tools = [{"name": name, "inputSchema": schema} for name in vars(Probes) if not name.startswith("_")]
    for line in sys.stdin:
        message = json.loads(line)
        params = message.get("params") or {}
        match message.get("method"):
            case "initialize":
                result: dict[str, Any] = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
                result["serverInfo"] = {"name": "probe", "version": "1"}
            case "tools/list":
                result = {"tools": tools}
            case "tools/call":
                text = json.dumps(try_operation(params["name"], params["arguments"].get("words", [])))
                result = {"content": [{"type": "text", "text": text}]}
            case _:
                continue
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n")
        sys.stdout.flush()


if len(sys.argv) > 1:
    sys.stdout.write(json.dumps(try_operation(sys.argv[1], sys.argv[2:])))
else:
    serve()
