"""MCP servers as processes and connections: starting them, talking to them, and stopping them."""
