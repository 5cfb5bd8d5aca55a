"""The lower bound of a task: the same requests, stream and kind of MCP session, without any safety.

It has no plan validation, digest, policy or recovery; it makes one SQLite commit with `synchronous=FULL` per change.
"""

import asyncio
import json
import sqlite3
import sys
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

ECHO = Path(__file__).with_name("echo_server.py")


class Floor:
    def __init__(self, database: str) -> None:
        self.database = database
        self.writer = ThreadPoolExecutor(1)
        self.tasks: dict[str, dict[str, Any]] = {}
        self.queues: dict[str, asyncio.Queue[str | None]] = {}
        self.session: ClientSession | None = None
        self.group = asyncio.TaskGroup()

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.writer.submit(self._connect).result()
        parameters = StdioServerParameters(command=sys.executable, args=[str(ECHO)])
        async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session, self.group:
            await session.initialize()
            self.session = session
            yield

    def _connect(self) -> None:
        self.connection = sqlite3.connect(self.database)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, state TEXT)")

    def _write(self, task_id: str, state: str) -> None:
        with self.connection:
            self.connection.execute("INSERT OR REPLACE INTO tasks VALUES (?, ?)", (task_id, state))

    async def save(self, task: dict[str, Any], line: str) -> None:
        state = json.dumps(task)
        await asyncio.get_running_loop().run_in_executor(self.writer, self._write, task["task_id"], state)
        self.queues[task["task_id"]].put_nowait(line)

    async def create(self, request: Request) -> Response:
        body = await request.json()
        task = {"task_id": uuid.uuid4().hex, "status": "awaiting_approval", **body, "results": []}
        self.tasks[task["task_id"]] = task
        self.queues[task["task_id"]] = asyncio.Queue()
        await self.save(task, "planned")
        return JSONResponse({"task_id": task["task_id"], "status": task["status"]}, 202)

    async def approve(self, request: Request) -> Response:
        task = self.tasks[request.path_params["task_id"]]
        task["status"] = "executing"
        await self.save(task, "approved")
        self.group.create_task(self.execute(task))
        return JSONResponse({"task_id": task["task_id"], "status": task["status"]}, 202)

    async def execute(self, task: dict[str, Any]) -> None:
        for step in task["plan"]["steps"]:
            assert self.session  # noqa: S101 - the application has started
            result = await self.session.call_tool(step["tool"], step["arguments"])
            task["results"].append(result.content[0].text)  # type: ignore[union-attr]  # our own echo server
            await self.save(task, f"{step['id']} completed")
        task["status"] = "completed"
        await self.save(task, "completed")
        self.queues[task["task_id"]].put_nowait(None)

    async def stream(self, request: Request) -> Response:
        queue = self.queues[request.path_params["task_id"]]

        async def frames() -> AsyncIterator[str]:
            while (line := await queue.get()) is not None:
                yield f"data: {line}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(frames(), media_type="text/event-stream")

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})


if __name__ == "__main__":
    floor = Floor(sys.argv[2])
    app = Starlette(
        routes=[
            Route("/v1/tasks", floor.create, methods=["POST"]),
            Route("/v1/tasks/{task_id}/approve", floor.approve, methods=["POST"]),
            Route("/v1/tasks/{task_id}/stream", floor.stream),
            Route("/healthz", floor.health),
        ],
        lifespan=floor.lifespan,
    )
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
