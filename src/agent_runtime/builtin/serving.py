"""Serves a built-in server over MCP, to other programs: with the library of MCP, which the service does not need."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

from agent_runtime import __version__
from agent_runtime.builtin.toolbox import Toolbox


def make_mcp_server(toolbox: Toolbox) -> Server[Any]:
    """Return the MCP server of these tools."""
    listed = ListToolsResult.model_validate({"tools": toolbox.list_tools()})

    async def list_tools(_: Any, __: PaginatedRequestParams | None) -> ListToolsResult:
        return listed

    async def call_tool(_: Any, params: CallToolRequestParams) -> CallToolResult:
        return CallToolResult.model_validate(await toolbox.call(params.name, params.arguments or {}))

    @asynccontextmanager
    async def lifespan(_: Server[None]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            # Another session of the same server simply opens again what it needs.
            await anyio.to_thread.run_sync(toolbox.close)

    return Server(
        toolbox.name,
        version=__version__,
        instructions=toolbox.instructions,
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def serve(toolbox: Toolbox) -> None:
    """Serve the tools on standard streams until they close."""
    anyio.run(_serve, make_mcp_server(toolbox))


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
