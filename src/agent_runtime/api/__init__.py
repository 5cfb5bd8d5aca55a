"""The front door over HTTP: REST, Server-Sent Events, health and a plain page. It decodes, calls, encodes."""
