"""The service checks callers once per connection, in a thread, and only if it requires no keys (G14)."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent_runtime.api.keys import new_key
from agent_runtime.services.ports import PeerRefusal, SocketName
from serving import PATIENCE_S, Service


class Judge:
    """A `ports.PeerCheck` that refuses everybody or nobody, and records the callers."""

    def __init__(self, refusal: PeerRefusal | None = None) -> None:
        self.refusal = refusal
        self.asked: list[tuple[SocketName, SocketName]] = []
        self.threads = set[str]()

    def refuse(self, client: SocketName, server: SocketName) -> PeerRefusal | None:
        self.asked.append((client, server))
        self.threads.add(threading.current_thread().name)
        return self.refusal


@contextmanager
def serve_with_judge(folder: Path, judge: Judge, **settings: Any) -> Iterator[httpx2.Client]:
    """Run a service with this judge, and yield a client that keeps its connection."""
    service = Service(folder, peers=judge, **settings)
    service.start()
    try:
        with httpx2.Client(base_url=service.url, timeout=PATIENCE_S) as client:
            yield client
    finally:
        service.client.close()
        service.stop()


def test_a_connection_is_judged_with_its_first_request_and_off_the_loop(tmp_path: Path) -> None:
    judge = Judge()
    with serve_with_judge(tmp_path, judge) as client:
        assert client.get("/healthz").status_code == 200
        assert judge.asked == []
        assert {client.get("/v1/tasks").status_code for _ in range(3)} == {200}
        assert client.post("/v1/tasks", json={"prompt": "Add 1 and 2"}).status_code == 202
        ((caller, ours),) = judge.asked
        assert caller[0] == ours[0] == "127.0.0.1"
        assert ours[1] == client.base_url.port
    assert "service" not in judge.threads


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("started_by_service", "The service started the process that calls"),
        ("gone", "closed its end"),
        ("unseen", "auth.mode: keys"),
    ],
)
def test_a_caller_that_is_refused_is_told_why_and_stays_refused(tmp_path: Path, reason: Any, words: str) -> None:
    judge = Judge(PeerRefusal(reason))
    with serve_with_judge(tmp_path, judge) as client:
        for _ in range(2):
            answer = client.post("/v1/tasks", json={"prompt": "Add 1 and 2"})
            assert answer.status_code == 403
            assert answer.json()["type"] == f"urn:agent-runtime:problem:caller_{reason}"
            assert words in answer.json()["detail"]
        assert len(judge.asked) == 1


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz", "/console/text.js"])
def test_what_holds_nothing_is_open_to_a_caller_that_is_refused(tmp_path: Path, path: str) -> None:
    with serve_with_judge(tmp_path, Judge(PeerRefusal("started_by_service"))) as client:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/v1/tasks", "/v1/tasks/t", "/v1/tasks/t/stream", "/v1/tasks/t/events")),
        *(("GET", path) for path in ("/v1/tools", "/v1/models/status", "/v1/audit/export", "/metrics")),
        *(("POST", f"/v1/tasks/t/{verb}") for verb in ("approve", "reject", "revise", "cancel", "resolve", "preview")),
        *(("POST", f"/v1/tasks/t/{verb}") for verb in ("calls/c/approve", "calls/c/deny", "stream-ticket")),
        ("HEAD", "/v1/tasks"),
        ("OPTIONS", "/v1/tasks"),
        ("PUT", "/v1/tasks/t/plan"),
        ("DELETE", "/v1/tasks/t"),
        ("GET", "/nothing/is/here"),
    ],
)
def test_every_other_call_is_refused(refusing_client: httpx2.Client, method: str, path: str) -> None:
    assert refusing_client.request(method, path).status_code == 403


@pytest.fixture(scope="module")
def refusing_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with serve_with_judge(tmp_path_factory.mktemp("refusing"), Judge(PeerRefusal("started_by_service"))) as client:
        yield client


def test_where_keys_are_asked_for_a_key_counts_and_nobody_is_looked_up(tmp_path: Path) -> None:
    key, made = new_key("alice", ["admin"])
    judge = Judge(PeerRefusal("started_by_service"))
    with serve_with_judge(tmp_path, judge, auth={"keys": (made.line,)}) as client:
        assert client.get("/v1/tasks").status_code == 401
        assert client.get("/v1/tasks", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert judge.asked == []


def test_the_service_may_call_itself(tmp_path: Path) -> None:
    """A command runs the service in its own process. Callers are looked up only while a child process lives."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        service = Service(tmp_path, peers=None)
        service.start()
        try:
            assert service.get("/v1/tasks")["tasks"] == []
        finally:
            service.client.close()
            service.stop()
            child.kill()


@pytest.mark.parametrize(("host", "other"), [("127.0.0.1", "::1"), ("0.0.0.0", "::1"), ("::1", "127.0.0.1")])  # noqa: S104
def test_nobody_else_can_serve_localhost_at_its_port(tmp_path: Path, host: str, other: str) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with serve_with_judge(tmp_path, Judge(), server={"host": host}, auth={"mode": "anonymous"}) as client:
        family = socket.AF_INET6 if ":" in other else socket.AF_INET
        with pytest.raises(OSError, match="in use"):
            socket.create_server((other, client.base_url.port or 0), family=family).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, client.base_url.port or 0), PATIENCE_S)
