"""The MCP server of the benchmarks: one tool that says what it is told, over standard streams."""

from mcp.server import MCPServer

server = MCPServer("echo")


@server.tool()
def echo(message: str) -> str:
    """Say the message."""
    return message


if __name__ == "__main__":
    server.run("stdio")
