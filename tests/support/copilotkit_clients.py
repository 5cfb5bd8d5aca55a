"""The npm packages of CopilotKit that speak GraphQL: two clients, and the last server. A lock file names them."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node_servers import install_packages

FOLDER = Path(__file__).parents[1] / "e2e" / "copilotkit_gql"
PATIENCE_S = 90


def install() -> str:
    """Install the packages if necessary, and return the path of Node. Skip the test as `install_packages`."""
    return install_packages(FOLDER, "--legacy-peer-deps")


def talk(version: str, url: str, **request: Any) -> Any:
    """Send a request with the client of this version, and return what it got."""
    return decode_answer(start_talk(version, url, **request))


def start_talk(version: str, url: str, **request: Any) -> "subprocess.Popen[str]":
    """Start a client of this version that sends a request."""
    command = [install(), "talk.mjs", version, f"{url}/copilotkit", json.dumps(request)]
    return subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def decode_answer(process: "subprocess.Popen[str]") -> Any:
    """Wait for the end of a client, and return what it got."""
    said, complaints = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, complaints
    return json.loads(said)


@contextmanager
def run_last_server() -> Iterator[str]:
    """Run the server of `@copilotkit/runtime` 1.10.6, and yield its URL."""
    command, env = [install(), "runtime.cjs"], {**os.environ, "COPILOTKIT_TELEMETRY_DISABLED": "true"}
    with subprocess.Popen(
        command, cwd=FOLDER, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            port = next(line.split()[1] for line in process.stdout if line.startswith("port "))
            yield f"http://127.0.0.1:{port}/copilotkit"
        finally:
            process.kill()
