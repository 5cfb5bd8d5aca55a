"""An MCP server over streamable HTTP on a given loopback port: `echo`, and `who`, which returns a header."""

import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("http-echo")


@server.tool()
def echo(message: str) -> str:
    """Return the message."""
    return message


@server.tool()
def who(context: Context) -> str:
    """Return the token that the caller sent."""
    request = context.request_context.request
    return str(request.headers.get("x-token", "nobody")) if request else "nobody"


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
