"""The npm packages of the end-to-end tests: MCP servers, a model server, a WebSocket client. A lock file names them."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "e2e" / "node"
NODE = shutil.which("node")
NPM = shutil.which("npm")


_UNREACHABLE = ("EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "ENOTFOUND", "ETIMEDOUT")
"""What npm says where it cannot reach its registry."""


def install_packages(folder: Path, *options: str) -> str:
    """Install what the lock file of a folder names, unless that has been done, and return the path of Node.

    Skip the test without Node, or where npm cannot reach its registry.
    """
    if NODE is None or NPM is None:
        pytest.skip("NOT TESTED: the npm packages need node and npm, and this machine has none")
    wanted, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    with wanted.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
            command = [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", *options]
            done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=300)
            if any(code in done.stderr for code in _UNREACHABLE):
                pytest.skip(f"NOT TESTED: npm cannot reach its registry for {folder.name}: {done.stderr[:300]}")
            assert done.returncode == 0, done.stderr
    return NODE


def install(package: str, start_file: str = "dist/index.js") -> Path:
    """Install the packages if necessary, and return the start file of one. Skip the test as `install_packages`."""
    install_packages(FOLDER)
    return FOLDER / "node_modules" / package / start_file
