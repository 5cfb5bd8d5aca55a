"""A pool of real MCP servers: entries for the hostile server, and the processes that it leaves behind."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent_runtime.builtin import servers as builtin
from agent_runtime.config import LimitSettings, Secrets
from agent_runtime.domain.tools import BuiltinServer, HttpServer, StdioServer, StoredResult
from agent_runtime.mcp_servers.own_files import OwnFiles
from agent_runtime.mcp_servers.pool import ServerPool
from agent_runtime.mcp_servers.spares import SpareTimes
from agent_runtime.services.ports import Lease
from processes import find_processes
from waiting import eventually

HOSTILE_SERVER = Path(__file__).parents[1] / "servers" / "hostile_server.py"
KEY = "key-of-the-operator"
PATIENCE_S = 20.0


class Place:
    """A folder for the notes of the servers, and for pools of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes_file = folder / "notes.txt"
        self.environ = {"KEY_OF_THE_OPERATOR": KEY}
        self.inherited: dict[str, str] = {}
        self.spares: SpareTimes | None = None

    @property
    def notes(self) -> list[str]:
        return self.notes_file.read_text(encoding="utf-8").splitlines() if self.notes_file.exists() else []

    def entry(self, mode: str = "polite", server_id: str = "hostile", **more: Any) -> StdioServer:
        config = {
            "command": sys.executable,
            "args": ["-S", "-E", str(HOSTILE_SERVER), mode],
            "env": {"NOTES": str(self.notes_file), "KEY": "${env:KEY_OF_THE_OPERATOR}"},
        }
        return StdioServer.model_validate({"id": server_id, "type": "local_stdio", "config": config, **more})

    @asynccontextmanager
    async def pool(self, circuit_s: float = 30.0, **limits: Any) -> AsyncIterator[ServerPool]:
        def make_builtin(entry: BuiltinServer) -> Any:
            return builtin.create(entry.config, base_dir=self.folder, data_dir=self.folder)

        chosen = LimitSettings(**{"cancel_grace_s": 0.5, "server_start_s": 10, **limits})
        secrets = Secrets(environ=self.environ)
        rest = (OwnFiles(), self.inherited, self.spares, circuit_s)
        async with ServerPool(chosen, secrets, make_builtin, self.folder, *rest) as pool:
            yield pool

    def find_processes(self) -> list[int]:
        """Return the ids of the living servers of this folder and their children, found by their environment."""
        return find_processes(f"NOTES={self.notes_file}")


def remote(url: str, **headers: str) -> HttpServer:
    config = {"base_url": url, "headers": headers}
    return HttpServer.model_validate({"id": "remote", "type": "remote_http", "config": config})


async def call(
    lease: Lease,
    tool: str,
    label: str = "",
    *,
    server: str = "hostile",
    timeout_s: float = PATIENCE_S,
    cancel: asyncio.Event | None = None,
) -> StoredResult:
    arguments = {"label": label}
    return await lease.call(server, tool, arguments, timeout_s=timeout_s, cancel=cancel or asyncio.Event())


async def all_gone(place: Place) -> None:
    """Wait until every process is gone. Processes of a namespace are not our children, so their end is polled."""
    await eventually(lambda: not place.find_processes(), within_s=1)


def zombies() -> list[int]:
    """Return the children of this process that have ended without being reaped."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == os.getpid():
            found.append(int(stat.parent.name))
    return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Lag:
    """Measures the longest time that one task blocked the event loop.

    Counts CPU time of this process only, so that other load on the machine does not matter.
    """

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def measure(self) -> None:
        while True:
            wall, computed = time.perf_counter(), time.process_time()
            await asyncio.sleep(0.005)
            late = min(time.perf_counter() - wall - 0.005, time.process_time() - computed)
            self.worst_s = max(self.worst_s, late)
