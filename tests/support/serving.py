"""The real server on a loopback port, in a thread of its own."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx2
import uvloop
import yaml

from agent_runtime.api.server import Server
from agent_runtime.bootstrap import Recover
from agent_runtime.config import Secrets, Settings
from agent_runtime.services.ports import PeerCheck, PeerRefusal, SocketName
from stores import use_store
from waiting import eventually_sync

PATIENCE_S = 20.0
BUILTINS = [
    {"id": "filesystem", "type": "builtin", "config": {"server": "filesystem", "root": "files"}},
    {"id": "calculator", "type": "builtin", "config": {"server": "calculator"}},
    {"id": "unused", "type": "builtin", "enabled": False, "config": {"server": "text"}},
]


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Anyone:
    """A `ports.PeerCheck` that accepts everybody, as tests start browsers and commands that call the service."""

    def refuse(self, client: SocketName, server: SocketName) -> PeerRefusal | None:  # noqa: ARG002 - the port's shape
        return None


_ANYONE = Anyone()


class Service:
    """The service on one folder. It can be stopped and started again.

    `peers` checks callers; None selects the check of a real service.
    """

    def __init__(self, folder: Path, *, peers: PeerCheck | None = _ANYONE, **settings: Any) -> None:
        (folder / "data").mkdir(exist_ok=True)
        (folder / "files").mkdir(exist_ok=True)
        registry = folder / "tool_registry.yaml"
        registry.write_text(yaml.safe_dump({"tool_registry": BUILTINS}), encoding="utf-8")
        server = {"port": 0, **settings.pop("server", {})}
        self.settings = Settings.model_validate(
            {"data_dir": folder / "data", "tool_registry": registry, "server": server, **use_store(settings)}
        )
        self.client = httpx2.Client(timeout=PATIENCE_S, headers={"Connection": "close"})
        self._peers = peers
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start the service; leaving the context stops it and closes the client."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop()

    def start(self, *, recover: Recover = True) -> None:
        started = threading.Event()
        failures: list[BaseException] = []

        def announce(url: str) -> None:
            self.client.base_url = httpx2.URL(url)
            started.set()

        server = self._server = Server(self.settings, Secrets(), announce, recover=recover, peers=self._peers)

        def run() -> None:
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(server.run())
            except BaseException as error:  # noqa: BLE001 - shown by the test that waits
                failures.append(error)
            started.set()

        self._thread = threading.Thread(target=run, name="service")
        self._thread.start()
        assert started.wait(PATIENCE_S)
        if failures:
            raise failures[0]

    def stop(self) -> float:
        """Stop the service, and return how many seconds that took."""
        began = time.monotonic()
        if self._server and self._thread:
            self._server.stop()
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive()
            self._server = self._thread = None
        return time.monotonic() - began

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def open_streams(self) -> int:
        return self._server.open_streams if self._server else 0

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def get(self, path: str, **query: Any) -> Any:
        response = self.client.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def refresh_tools(self) -> Any:
        """Query the tools of every server, and return the catalogue."""
        response = self.client.post("/v1/tools/refresh")
        assert response.status_code == 200, response.text
        return self.get("/v1/tools")

    def submit(self, prompt: str = "Add up", plan: Any = None, **more: Any) -> str:
        body = {"prompt": prompt, "plan": plan or sums(2), **more}
        response = self.client.post("/v1/tasks", json=body)
        assert response.status_code == 202, response.text
        return str(response.json()["task_id"])

    def task(self, task_id: str) -> Any:
        return self.get(f"/v1/tasks/{task_id}")

    def approve(self, task_id: str) -> None:
        response = self.client.post(f"/v1/tasks/{task_id}/approve")
        assert response.status_code == 202, response.text

    def wait_for_end(self, task_id: str) -> Any:
        """Follow the stream of the task to its end, and return the task."""
        with self.client.stream("GET", f"/v1/tasks/{task_id}/stream") as response:
            for _ in response.iter_bytes():
                pass
        task = self.task(task_id)
        assert task["terminal"]
        return task

    def complete_task(self, **more: Any) -> str:
        """Submit and approve a task, wait for its completion, and return its id."""
        task_id = self.submit(**more)
        self.approve(task_id)
        assert self.wait_for_end(task_id)["status"] == "completed"
        return task_id

    @contextmanager
    def stream(self, task_id: str, last: str | None = None, **query: Any) -> Iterator[httpx2.Response]:
        headers = {"Last-Event-ID": last} if last else {}
        path = f"/v1/tasks/{task_id}/stream"
        with self.client.stream("GET", path, headers=headers, params=query) as response:
            yield response

    def frames(self, task_id: str, last: str | None = None, **query: Any) -> list[tuple[str, str, str]]:
        """Return all frames of the stream after `last`, to its end."""
        with self.stream(task_id, last, **query) as response:
            return list(frames_of(response))

    def frames_until_waiting(self, task_id: str) -> list[tuple[str, str, str]]:
        """Return the frames of a task up to its plan, which waits for approval."""
        found: list[tuple[str, str, str]] = []
        with self.stream(task_id) as response:
            for frame in frames_of(response):
                found.append(frame)
                if frame[2].startswith("Plan proposed"):
                    break
        return found


class KillableService(Service):
    """The service as a process of its own, on a port that it keeps. It ends by SIGKILL, as in a crash."""

    _process: subprocess.Popen[bytes] | None = None

    def start(self, *, recover: Recover = True) -> None:
        assert recover is True
        folder = self.settings.data_dir.parent
        config = folder / "settings.yaml"
        config.write_text(yaml.safe_dump(self.settings.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
        command = [sys.executable, "-m", "agent_runtime", "serve", "--config", str(config)]
        self._log = folder / "service.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        self.client.base_url = httpx2.URL(f"http://127.0.0.1:{self.settings.server.port}")
        eventually_sync(self._is_ready, PATIENCE_S * 3)

    def stop(self) -> float:
        """Kill the process, and return how many seconds its end took."""
        began = time.monotonic()
        if self._process:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None
        return time.monotonic() - began

    def _is_ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log.read_text(encoding="utf-8")[-4000:]
        with suppress(httpx2.TransportError):
            return self.client.get("/readyz").status_code == 200
        return False


def connect(service: Service) -> socket.socket:
    """Open a connection for requests that no HTTP client would send."""
    return socket.create_connection((service.client.base_url.host, service.client.base_url.port or 80), timeout=20)


def read_to_end(connection: socket.socket) -> bytes:
    """Return everything that is received until the other side closes."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def frames_of(response: httpx2.Response) -> Iterator[tuple[str, str, str]]:
    """Parse the frames of a stream by the HTML standard, as (event, id, data), without comments."""
    fields: dict[str, list[str]] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        else:
            if "data" in fields:
                kind, frame_id = fields.get("event", ["message"])[-1], fields.get("id", [""])[-1]
                yield kind, frame_id, "\n".join(fields["data"])
            fields = {}


def sums(count: int) -> dict[str, Any]:
    """Return a plan with `count` steps, each of which adds 1 to the result of the step before."""
    steps: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        expression = f"${{s{number - 1}.text}} + 1" if number > 1 else "40 + 1"
        arguments = {"expression": expression}
        steps.append(
            {"id": f"s{number}", "kind": "tool", "server": "calculator", "tool": "evaluate", "arguments": arguments}
        )
    return {"goal": "add up", "steps": steps}


def journal_of(service: Service, task_id: str) -> list[Any]:
    """Return the whole journal, read in small pages."""
    events: list[Any] = []
    after: int | None = 0
    while after is not None:
        page = service.get(f"/v1/tasks/{task_id}/events", after=after, limit=3)
        events += page["events"]
        after = page["next_after"]
    return events


def read_everything(service: Service) -> str:
    """Return everything that a client can see of the tasks, to detect changes."""
    rows = service.get("/v1/tasks", limit=200)["tasks"]
    return json.dumps([[row, journal_of(service, row["task_id"])] for row in rows])
