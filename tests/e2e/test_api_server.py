"""The server: health, start and stop."""

import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from agent_runtime.api import health
from agent_runtime.config import Settings
from agent_runtime.domain.errors import ConfigurationError, StoreUnavailableError
from serving import Service
from stores import ON_POSTGRESQL

SCRIPT = """
import sys
from pathlib import Path
from agent_runtime.api.server import serve
from agent_runtime.config import Secrets, Settings
folder = Path(sys.argv[1])
settings = Settings(server={"port": 0}, data_dir=folder / "data", tool_registry=folder / "tool_registry.yaml")
serve(settings, Secrets(), lambda url: print(url, flush=True))
print("stopped", flush=True)
"""


def test_the_service_is_alive_and_ready(service: Service) -> None:
    assert service.get("/healthz") == {"status": "ok"}
    ready = service.get("/readyz")
    assert ready["status"] == "ready"
    shared = {"listener": "ok", "queue": "ok"} if ON_POSTGRESQL else {}
    assert ready["checks"] == {"store": "ok", "recovery": "ok", **shared}
    assert ready["sandbox"]
    assert service.client.head("/healthz").status_code == 200


def test_it_is_not_ready_before_unfinished_tasks_were_taken_up(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.start(recover=False)
    try:
        response = service.client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["checks"]["store"] == "ok"
        assert "recovery" in response.json()["detail"]
        assert service.client.get("/healthz").status_code == 200
    finally:
        service.stop()


class FullStore:
    sharing = None

    async def check(self) -> None:
        raise StoreUnavailableError("The disk is full.")


async def test_it_is_not_ready_while_nothing_can_be_written() -> None:
    recovered = SimpleNamespace(is_set=lambda: True)
    runtime = SimpleNamespace(store=FullStore(), recovered=recovered, claims=None, settings=Settings())
    response = await health.readyz(Request({"type": "http", "path": "/readyz", "headers": []}), runtime)  # type: ignore[arg-type]
    assert response.status_code == 503
    assert b"The disk is full." in response.body
    assert response.headers["retry-after"]


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        service = Service(tmp_path, server={"port": port})
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}: Address already in use"):
            service.start()


def test_a_registry_that_is_not_there_is_named(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.settings.tool_registry.unlink()
    with pytest.raises(ConfigurationError, match=re.escape("tool_registry.yaml")):
        service.start()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_stops_it_gracefully(tmp_path: Path, number: signal.Signals) -> None:
    Service(tmp_path)  # writes the registry
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        url = next(line for line in process.stdout if line.startswith("http://"))
        service = Service(tmp_path)
        service.client.base_url = url.strip()
        with service.stream(service.submit()) as response:
            lines = response.iter_lines()  # keeps the connection open
            next(lines)
            process.send_signal(number)
            out, err = process.communicate(timeout=15)
    assert process.returncode == 0, err
    assert out.endswith("stopped\n")
    assert "Traceback" not in out + err
