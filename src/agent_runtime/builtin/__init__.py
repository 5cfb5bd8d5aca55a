"""The MCP servers that ship with the service and run inside it; each also runs alone, over standard streams.

`servers.py` is their registry.
"""
