"""The MCP server of the benchmarks, over standard streams, with one tool that returns its argument."""

from mcp.server import MCPServer

server = MCPServer("echo")


@server.tool()
def echo(message: str) -> str:
    """Return the message."""
    return message


if __name__ == "__main__":
    server.run("stdio")
