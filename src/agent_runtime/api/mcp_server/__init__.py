"""The service as an MCP server: its tools, its questions to a person and its resources. No door; doors serve it."""
