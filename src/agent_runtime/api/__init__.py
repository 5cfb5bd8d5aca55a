"""The HTTP door: REST, Server-Sent Events, health checks and a web page. It decodes, calls and encodes."""
