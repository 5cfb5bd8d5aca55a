# ruff: noqa: INP001 - a script that the image runs
"""Exit code 0 while the service in this container answers; the image has no curl, and needs none."""

import http.client
import os
import sys

PORT = int(os.environ.get("AGENT_RUNTIME_SERVER__PORT") or 8000)


def main() -> int:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=4)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError as error:
        sys.stderr.write(f"127.0.0.1:{PORT} does not answer: {error}\n")
        return 1
    if status != http.client.OK:
        sys.stderr.write(f"/healthz answers {status}; 421 means that server.allowed_hosts lacks 127.0.0.1\n")
    return int(status != http.client.OK)


sys.exit(main())
