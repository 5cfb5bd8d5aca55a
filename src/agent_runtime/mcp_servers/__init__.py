"""MCP servers as processes and connections: who starts them, who talks to them, and how they end."""

from agent_runtime.mcp_servers.pool import ServerPool
from agent_runtime.mcp_servers.sandbox import sandbox_level

__all__ = ["ServerPool", "sandbox_level"]
