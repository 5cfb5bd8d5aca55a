"""The service under ASGI servers that are not ours, as real processes."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from command_line import PATIENCE_S, Folder
from serving import free_port
from waiting import eventually_sync

APP = "agent_runtime.main:app"


class AsgiServer:
    """A server process; `log` is its output so far."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.log = ""
        self._reader = threading.Thread(target=self._read, name="log")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.log += line

    def wait_for_start(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.log
            try:
                return httpx2.get(f"{self.url}/healthz").status_code == 200
            except httpx2.TransportError:
                return False

        eventually_sync(answers, within_s=2 * PATIENCE_S)

    def wait_for_end(self) -> int:
        """Wait until the process ends by itself, and return its exit code."""
        code = self.process.wait(2 * PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self._reader.join(PATIENCE_S)
            if self.process.stdout:
                self.process.stdout.close()


OTHERS = {
    "hypercorn": ("hypercorn==0.18.0", "hypercorn", "--bind", "127.0.0.1:{port}", APP),
    "granian": ("granian==2.8.9", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APP),
}
"""Other servers: the package that `uv run` adds to those of the project, and the command."""

_PROJECT = Path(__file__).parents[2]


@contextmanager
def start_uvicorn(folder: Folder, *words: str, host: str = "127.0.0.1") -> Iterator[AsgiServer]:
    """Start uvicorn in a folder. It may still be starting, or have refused to."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", APP, "--host", host, "--port", str(port), *words]
    with _start(folder, [*folder.starter, *command], port) as server:
        yield server


@contextmanager
def serve_with_uvicorn(folder: Folder, *words: str, host: str = "127.0.0.1") -> Iterator[AsgiServer]:
    """Run the service under uvicorn, and stop it with SIGTERM at the end."""
    with start_uvicorn(folder, *words, host=host) as server:
        server.wait_for_start()
        yield server


@contextmanager
def serve_with_another(name: str, folder: Folder) -> Iterator[AsgiServer]:
    """Run the service under one of `OTHERS`. Skip the test where its package cannot be had."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip(f"NOT TESTED: {name} needs uv, and this machine has none")
    package, *command = OTHERS[name]
    run = [uv, "run", "--no-sync", "--project", str(_PROJECT), "--with", package, "--"]
    environment = {"UV_PROJECT_ENVIRONMENT": sys.prefix}
    fetched = subprocess.run(
        [*run, "true"], env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )
    if fetched.returncode:
        pytest.skip(f"NOT TESTED: {package} cannot be had: {fetched.stderr[-300:]}")
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    folder.env |= environment | {"UV_CACHE_DIR": cache, "UV_OFFLINE": "1"}
    port = free_port()
    with _start(folder, [*run, *(word.format(port=port) for word in command)], port) as server:
        server.wait_for_start()
        yield server


@contextmanager
def _start(folder: Folder, command: Sequence[str], port: int) -> Iterator[AsgiServer]:
    process = subprocess.Popen(
        command,
        cwd=folder.path,
        env=folder.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = AsgiServer(process, f"http://127.0.0.1:{port}")
    try:
        yield server
    finally:
        server.stop()
