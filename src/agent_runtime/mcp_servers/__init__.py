"""MCP servers as processes and connections: starting them, talking to them, and stopping them."""

from agent_runtime.mcp_servers.pool import ServerPool
from agent_runtime.mcp_servers.sandbox import describe_level

__all__ = ["ServerPool", "describe_level"]
