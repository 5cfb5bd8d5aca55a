"""An MCP server over streamable HTTP on a given loopback port, with a tool `wait` that takes a minute."""

import sys
from pathlib import Path

import anyio
from mcp.server import MCPServer

server = MCPServer("http-waiting")


@server.tool()
async def wait(file: str) -> str:
    """Note in the file that the call has begun, and answer after a minute."""
    await anyio.Path(Path(file)).write_text("waiting\n")
    await anyio.sleep(60)
    return "waited"


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
