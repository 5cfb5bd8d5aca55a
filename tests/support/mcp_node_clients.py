"""Clients of the MCP TypeScript SDK, in processes of their own, which tests drive."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from node_servers import FOLDER, NODE, install

PATIENCE_S = 40.0

SDKS: Mapping[str, Mapping[str, Any]] = {
    "sdk 1.32": {"sdk": 1},
    "client 2.4 legacy": {"sdk": 2, "mode": "legacy"},
    "client 2.4 modern": {"sdk": 2, "mode": {"pin": "2026-07-28"}},
}
"""The settings of each client by its name."""


class RefusedError(Exception):
    """The client says that a request failed."""


class NodeClient:
    """One client in a process. Several calls may be open at the same time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count()
        self._open: dict[int, asyncio.Future[Any]] = {}

    async def do(self, verb: str, **more: Any) -> Any:
        """Have the client do something, and return the result. Raises: RefusedError."""
        assert self._process.stdin is not None
        number = next(self._ids)
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, "verb": verb, **more}).encode() + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            return await answer

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool, and return its result with the text and the progress."""
        return await self.do("call", name=tool, args=arguments)

    async def read_answers(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer = json.loads(line)
            waiting = self._open.pop(answer["id"])
            if waiting.done():
                continue
            if "error" in answer:
                waiting.set_exception(RefusedError(answer["error"], answer["code"]))
            else:
                waiting.set_result(answer["result"])


@asynccontextmanager
async def node_client(
    sdk: str,
    url: str = "",
    *,
    command: Mapping[str, Any] | None = None,
    answer: Mapping[str, Any] | None = None,
    key: str = "",
) -> AsyncIterator[NodeClient]:
    """Start a client and connect it to the service at `url`, or to the command. `answer`: that of the person."""
    install("@modelcontextprotocol/client", "dist/index.mjs")
    assert NODE is not None
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    settings = {**SDKS[sdk], "url": f"{url}/mcp", "command": command, "answer": answer, "headers": headers}
    script = Path("mcp_client.mjs")
    process = await asyncio.create_subprocess_exec(
        NODE,
        str(script),
        json.dumps(settings),
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    client = NodeClient(process)
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(client.read_answers())
            await client.do("connect")
            yield client
            reading.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
