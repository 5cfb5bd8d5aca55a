"""The service under plain uvicorn and other servers: it serves, stops, and keeps the rules of the edge by itself."""

import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from websockets.sync.client import connect as connect_client

from asgi_servers import OTHERS, AsgiServer, serve_with_another, serve_with_uvicorn, start_uvicorn
from command_line import LEDGER_SERVER, PATIENCE_S, Folder
from processes import find_processes
from serving import sums
from sockets import messages_of
from waiting import eventually_sync

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CALLING_SERVER = Path(__file__).parents[1] / "servers" / "calling_server.py"
SILENCE_S = 3.0
WRONG = json.dumps({"plan_digest": "sha256:" + "0" * 64}).encode()
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "websocket": (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
    ),
}


@pytest.fixture(scope="module")
def uvicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiServer]:
    with serve_with_uvicorn(Folder(tmp_path_factory.mktemp("uvicorn"))) as server:
        yield server


@pytest.fixture
def client(uvicorn: AsgiServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=uvicorn.url, timeout=PATIENCE_S) as client:
        yield client


def run_one_task(client: httpx2.Client) -> None:
    """Submit a task at the short addresses, approve it on its WebSocket, and see its result there and over HTTP."""
    made = client.post("/api/tasks", json={"description": "Add 15 and 27"})
    assert made.status_code == 202
    task_id = made.json()["task_id"]
    seen: list[Any] = []
    with connect_client(f"ws{str(client.base_url)[4:].rstrip('/')}/tasks/{task_id}/stream") as connection:
        for message in connection:
            seen.append(json.loads(message))
            if seen[-1]["event"] == "plan.proposed":
                digest = client.get(f"/api/tasks/{task_id}").json()["plan_digest"]
                connection.send(json.dumps({"type": "approve", "id": 1, "plan_digest": digest}))
    assert seen[-1]["data"] == "[DONE]"
    assert [one["ok"] for one in seen if one["event"] == "reply"] == [True]
    assert client.get(f"/api/tasks/{task_id}").json()["result"] == "42"
    lines = client.get(f"/v1/tasks/{task_id}/stream", params={"view": "log"}).text.splitlines()
    assert lines[-2] == "data: [DONE]"


def submit(client: httpx2.Client) -> str:
    return str(client.post("/v1/tasks", json={"prompt": "x", "plan": sums(1)}).json()["task_id"])


def exchange(server: AsgiServer, *pieces: bytes) -> bytes:
    """Send pieces, one after the other was certainly read, and return everything until the server closes or says no
    more.
    """
    port = httpx2.URL(server.url).port
    received = b""
    with socket.create_connection(("127.0.0.1", port or 0), PATIENCE_S) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                httpx2.get(f"{server.url}/healthz")  # the same loop answers both
            connection.settimeout(SILENCE_S)
            while data := connection.recv(65536):
                received += data
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass  # closed, or never answered
    return received


def test_a_task_is_submitted_read_and_followed_in_json_at_the_short_addresses(client: httpx2.Client) -> None:
    run_one_task(client)


def test_a_task_has_its_rows_in_postgresql(tmp_path: Path, postgres_url: str) -> None:
    folder = Folder(tmp_path)
    folder.env |= {"AGENT_RUNTIME_STORAGE__URL": postgres_url, "AGENT_RUNTIME_AUTH__MODE": "anonymous"}
    with (
        serve_with_uvicorn(folder) as server,
        httpx2.Client(base_url=server.url, timeout=PATIENCE_S) as client,
        psycopg.connect(postgres_url) as database,
    ):
        run_one_task(client)
        rows = [kind for (kind,) in database.execute("SELECT type FROM events ORDER BY seq")]
    assert (rows[0], rows[-1]) == ("task.submitted", "task.completed")


@pytest.mark.parametrize("name", OTHERS)
def test_other_servers_serve_a_task_and_stop(name: str, tmp_path: Path) -> None:
    with serve_with_another(name, Folder(tmp_path)) as server:
        with httpx2.Client(base_url=server.url, timeout=PATIENCE_S) as client:
            run_one_task(client)
            assert client.get("/v1/tasks", headers={"Host": "evil.example"}).status_code == 421
            assert client.get("/v1/tasks", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 403
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_for_end() == 0
        assert '"stopped"' in server.log
        assert "Traceback" not in server.log


def test_a_server_that_the_service_started_cannot_use_it_in_any_way(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    report = tmp_path / "report.json"
    env = {"REPORT": str(report), "URL_FILE": str(tmp_path / "url"), "ADDRESS": own_address()}
    config = {"command": sys.executable, "args": ["-S", "-E", str(CALLING_SERVER)], "env": env}
    folder.write_registry({"id": "calling", "type": "local_stdio", "config": config, "sandbox": {"mode": "off"}})
    folder.env |= {"AGENT_RUNTIME_SERVER__ALLOWED_HOSTS": "localhost", "AGENT_RUNTIME_LIMITS__SERVER_START_S": "60"}
    with serve_with_uvicorn(folder) as server:
        (tmp_path / "url.draft").write_text(server.url, encoding="utf-8")
        (tmp_path / "url.draft").rename(tmp_path / "url")
        eventually_sync(report.exists, within_s=2 * PATIENCE_S)
        ways: dict[str, str] = json.loads(report.read_text(encoding="utf-8"))
        assert ways["health"] == "200"
        assert {ways[name] for name in ("read", "submit", "approve", "follow")} == {"403 caller_started_by_service"}
        assert {name for name, outcome in ways.items() if outcome.startswith("2")} == {"health"}
        assert httpx2.get(f"{server.url}/v1/tasks").json()["tasks"] == []


@pytest.mark.parametrize("packets", [1, 2])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_body_that_uvicorn_drops_is_400_and_never_an_approval_or_another_request(
    uvicorn: AsgiServer, client: httpx2.Client, offer: bytes, packets: int
) -> None:
    task_id = submit(client)
    for path, body in (
        (f"/v1/tasks/{task_id}/approve", WRONG),
        ("/v1/tasks", b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("/v1/tools/refresh", b"{}"),
    ):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
        head += offer + b"Content-Length: %d\r\n\r\n" % len(body)
        received = exchange(uvicorn, head + body) if packets == 1 else exchange(uvicorn, head, body)
        statuses = [line.split()[1] for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        # uvicorn itself takes a POST for the handshake of a WebSocket, and never answers it.
        assert statuses == ([] if offer == OFFERS["websocket"] else [b"400"]), received
    assert client.get(f"/v1/tasks/{task_id}").json()["status"] == "awaiting_approval"


def test_a_forwarded_request_is_refused_and_a_foreign_host_too(client: httpx2.Client) -> None:
    for name in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto"):
        refused = client.get("/v1/tasks", headers={name: "192.0.2.1"})
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (403, "caller_forwarded")
    assert client.get("/v1/tasks", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/v1/tasks", headers={"Origin": "http://evil.example"}).status_code == 403


def test_the_command_line_finds_the_service_after_its_first_request(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with serve_with_uvicorn(folder):
        assert folder.json("tasks")["tasks"] == []


def test_an_address_that_others_reach_needs_keys(tmp_path: Path) -> None:
    address = own_address()
    if address == "127.0.0.1":
        pytest.skip("NOT TESTED: this machine has no other address than loopback")
    folder = Folder(tmp_path)
    folder.env["AGENT_RUNTIME_SERVER__ALLOWED_HOSTS"] = f"127.0.0.1,{address}"
    with serve_with_uvicorn(folder, host="0.0.0.0") as server:  # noqa: S104 - that is what is tested
        assert httpx2.get(f"{server.url}/v1/tasks").status_code == 200
        reached = f"http://{address}:{httpx2.URL(server.url).port}"
        refused = httpx2.get(f"{reached}/v1/tasks")
        assert refused.status_code == 401
        assert "auth.keys_file" in refused.json()["detail"]
        assert httpx2.get(f"{reached}/healthz").status_code == 200


def own_address() -> str:
    """Return an address of this machine other than loopback, if there is one, without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 1))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def test_several_workers_on_one_database_are_refused(tmp_path: Path) -> None:
    with start_uvicorn(Folder(tmp_path), "--workers", "2") as server:
        eventually_sync(lambda: "--workers 1" in server.log, within_s=120)
        assert "is owned by process" in server.log
        assert "Traceback" not in server.log


def test_a_wrong_setting_is_said_without_a_traceback(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.env["AGENT_RUNTIME_LIMITS__CONNECTIONS"] = "many"
    with start_uvicorn(folder) as server:
        assert server.wait_for_end() == 3
        assert "AGENT_RUNTIME_LIMITS__CONNECTIONS" in server.log
        assert "Traceback" not in server.log


def test_a_stop_ends_streams_and_every_process(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    mark = f"LEDGER={folder.ledger}"
    config = {
        "command": sys.executable,
        "args": ["-S", "-E", str(LEDGER_SERVER)],
        "env": {"LEDGER": str(folder.ledger)},
    }
    folder.write_registry({"id": "ledger", "type": "local_stdio", "config": config, "scope": "shared"})
    with serve_with_uvicorn(folder) as server, httpx2.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        client.post("/v1/tools/refresh")
        eventually_sync(lambda: bool(find_processes(mark)), within_s=PATIENCE_S)
        task_id = submit(client)
        url = f"ws{server.url[4:]}/v1/tasks/{task_id}/stream?after=2"
        with client.stream("GET", f"/v1/tasks/{task_id}/stream") as response, connect_client(url) as connection:
            lines = response.iter_lines()
            next(lines)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.wait_for_end() in {0, -signal.SIGTERM}
            assert time.monotonic() - began < PATIENCE_S
            list(lines)
            assert messages_of(connection)[1] == 1012
    assert not find_processes(mark)
