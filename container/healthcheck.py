# ruff: noqa: INP001 - a script that the image runs
"""Exits with 0 if the service in this container answers at the address that it announced in its data directory."""

import http.client
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

LOCK = Path(os.environ.get("AGENT_RUNTIME_DATA_DIR") or "/data") / "agent-runtime.lock"


def read_address() -> tuple[str, int]:
    """Return the announced host and port of the service, or those of the environment until it has announced them."""
    try:
        url = urlsplit(str(json.loads(LOCK.read_text(encoding="utf-8"))["url"]))
        port = url.port
    except (OSError, ValueError, KeyError, TypeError):
        url, port = urlsplit(""), None
    given = os.environ.get("AGENT_RUNTIME_SERVER__PORT") or os.environ.get("PORT") or 8000
    return url.hostname or "127.0.0.1", port or int(given)


def main() -> int:
    host, port = read_address()
    connection = http.client.HTTPConnection(host, port, timeout=4)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError as error:
        sys.stderr.write(f"{host}:{port} does not answer: {error}\n")
        return 1
    if status != http.client.OK:
        sys.stderr.write(f"/healthz answers {status}\n")
    return int(status != http.client.OK)


sys.exit(main())
