"""The npm packages of the end-to-end tests, MCP servers and a model server, which they install from a lock file."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "e2e" / "node"
NODE = shutil.which("node")
NPM = shutil.which("npm")


def install(package: str, start_file: str = "index.js") -> Path:
    """Install a package if necessary, and return its start file. Skip the test without Node."""
    if NODE is None or NPM is None:
        pytest.skip("NOT TESTED: the npm packages need node and npm, and this machine has none")
    start = FOLDER / "node_modules" / package / "dist" / start_file
    with (FOLDER / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not start.exists():
            command = [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, timeout=300)
    return start
