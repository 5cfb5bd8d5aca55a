"""Clients with many open connections block neither other clients nor tasks (G9, G11, G16)."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from agent_runtime.api.connections import Connections
from command_line import AGENT_RUNTIME, Folder, ServiceProcess, ledger_call
from serving import Service, connect, read_to_end
from waiting import eventually_sync

CONNECTIONS = 8
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("narrow"), limits={"connections": CONNECTIONS})
    with service:
        yield service


STARTS = {
    "say nothing": b"",
    "begin a head": b"GET /healthz HTTP/1.1\r\nHost: loc",
    "begin a body": (
        b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    ),
    "stay after an answer": HEALTH,
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_clients_that_do_nothing_make_room_for_those_that_do(narrow: Service, start: bytes) -> None:
    with ExitStack() as held:
        for _ in range(3 * CONNECTIONS):
            held.enter_context(connect(narrow)).sendall(start)
        assert [narrow.get("/healthz") for _ in range(CONNECTIONS)] == [{"status": "ok"}] * CONNECTIONS


def test_clients_that_read_no_answer_make_room_once_they_are_waited_for(narrow: Service) -> None:
    for _ in range(9):
        narrow.submit(metadata={f"label{number}": "x" * 4000 for number in range(30)})
    with ExitStack() as held:
        for _ in range(CONNECTIONS):
            held.enter_context(connect(narrow)).sendall(HEALTH.replace(b"/healthz", b"/v1/tasks") * 16)
        # 503 while all of them are being answered
        eventually_sync(lambda: narrow.client.get("/healthz").status_code == 200)
        assert [narrow.get("/healthz") for _ in range(CONNECTIONS)] == [{"status": "ok"}] * CONNECTIONS


def test_the_connection_that_has_waited_longest_is_closed(narrow: Service) -> None:
    with connect(narrow) as oldest, ExitStack() as held:
        oldest.sendall(HEALTH)
        assert oldest.recv(65536).startswith(b"HTTP/1.1 200 ")
        for _ in range(CONNECTIONS):
            held.enter_context(connect(narrow))
        assert narrow.client.get("/healthz").status_code == 200
        with contextlib.suppress(ConnectionResetError):
            assert oldest.recv(65536) == b""


def test_streams_leave_room_for_requests_and_are_not_closed_for_them(narrow: Service) -> None:
    task_id = narrow.submit()
    with ExitStack() as held:
        for _ in range(CONNECTIONS * 3 // 4):
            assert held.enter_context(narrow.stream(task_id)).status_code == 200
        refused = narrow.client.get(f"/v1/tasks/{task_id}/stream")
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        for _ in range(2 * CONNECTIONS):
            held.enter_context(connect(narrow))
        assert narrow.get("/healthz") == {"status": "ok"}
        assert narrow.open_streams == CONNECTIONS * 3 // 4
        narrow.client.post(f"/v1/tasks/{task_id}/cancel")


def test_where_every_connection_is_being_answered_another_is_503(tmp_path: Path) -> None:
    service = Service(tmp_path, limits={"connections": 1})
    service.start()
    try:
        task_id = service.submit()
        with service.stream(task_id) as stream:
            assert stream.status_code == 200
            with connect(service) as connection:
                answer = read_to_end(connection)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in answer
        assert "limits.connections" in json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]
        assert service.get("/healthz") == {"status": "ok"}
    finally:
        service.client.close()
        service.stop()


class Line:
    """The part of a transport that dropping it needs."""

    def __init__(self, connections: Connections, unread: int = 0) -> None:
        self._connections = connections
        self._unread = unread
        self.dropped = False

    def get_write_buffer_size(self) -> int:
        return self._unread

    def abort(self) -> None:
        self.dropped = True
        self._connections.remove(self)  # type: ignore[arg-type] # as the protocol does after a lost connection


def test_who_waits_longest_makes_room_and_who_is_answered_never_does() -> None:
    connections = Connections(3, unread_bytes=100)
    lines = [Line(connections) for _ in range(6)]
    for line in lines[:3]:
        assert connections.admit(line)  # type: ignore[arg-type]
        connections.wait(line)  # type: ignore[arg-type]
    connections.work(lines[0])  # type: ignore[arg-type]
    connections.wait(lines[1])  # type: ignore[arg-type] # it is waiting already, and keeps its place
    assert connections.admit(lines[3])  # type: ignore[arg-type]
    connections.work(lines[2])  # type: ignore[arg-type]
    assert not connections.admit(lines[4])  # type: ignore[arg-type]
    connections.wait(lines[0])  # type: ignore[arg-type]
    assert connections.admit(lines[5])  # type: ignore[arg-type]
    assert [line.dropped for line in lines] == [True, True, False, False, False, False]


def test_whose_answer_is_unread_for_longest_is_cut_off_where_there_are_too_many_bytes() -> None:
    connections = Connections(9, unread_bytes=100)
    lines = [Line(connections, unread=40) for _ in range(4)]
    for line in lines:
        assert connections.admit(line)  # type: ignore[arg-type]
    for line in lines[:2]:
        connections.fall_behind(line)  # type: ignore[arg-type]
    connections.catch_up(lines[0])  # type: ignore[arg-type]
    for line in lines[2:]:
        connections.fall_behind(line)  # type: ignore[arg-type]
    assert [line.dropped for line in lines] == [False, True, False, False]
    longer = Line(connections, unread=1000)
    connections.admit(longer)  # type: ignore[arg-type]
    connections.fall_behind(longer)  # type: ignore[arg-type]
    assert [line.dropped for line in (*lines, longer)] == [False, True, True, True, False]


def test_answers_that_nobody_reads_take_no_more_memory_than_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Service(tmp_path, limits={"unread_bytes": 2_000_000}) as service, ExitStack() as held:
        for _ in range(9):
            service.submit(metadata={f"label{number}": "x" * 4000 for number in range(30)})
        for _ in range(12):
            slow = held.enter_context(connect(service))
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # otherwise the kernel buffers all of it
            slow.sendall(b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n" * 16)

        def answer_dropped() -> bool:
            assert service.get("/healthz") == {"status": "ok"}
            return "answer_dropped" in capsys.readouterr().out

        eventually_sync(answer_dropped)


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
os.execv(sys.argv[3], sys.argv[3:])
"""


@contextlib.contextmanager
def serving_with(folder: Folder, soft: int, hard: int) -> Iterator[ServiceProcess]:
    """Run a service in a process with these limits of open files."""
    limited = [sys.executable, "-c", LIMITED, str(soft), str(hard)]
    command = [*limited, *AGENT_RUNTIME, "serve", "--port", "0"]
    serving = ServiceProcess(
        subprocess.Popen(command, cwd=folder.path, env=folder.env, stderr=subprocess.PIPE, text=True)
    )
    try:
        serving.wait_for_start()
        yield serving
    finally:
        serving.stop()


@pytest.mark.slow
def test_with_few_descriptors_idle_clients_stop_neither_health_checks_nor_tasks(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.add_ledger(delay_s=0)
    fresh = httpx2.Limits(max_keepalive_connections=0)  # an idle connection of the client may be closed as any other
    with (
        serving_with(folder, 96, 96) as serving,
        ExitStack() as held,
        httpx2.Client(base_url=serving.url, limits=fresh) as client,
    ):
        address = (client.base_url.host, client.base_url.port or 80)
        for _ in range(200):
            held.enter_context(socket.create_connection(address, timeout=20))
        for number in range(5):
            assert client.get("/readyz").status_code == 200
            task_id = serving.submit(ledger_call("count" if number % 2 else "look"), approve=True)
            serving.follow_until(task_id, "task.completed")
            for _ in range(40):
                held.enter_context(socket.create_connection(address, timeout=20))


@pytest.mark.slow
def test_a_low_soft_limit_of_open_files_bounds_neither_streams_nor_tasks(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.add_ledger(delay_s=0)
    with serving_with(folder, 128, 2048) as serving, ExitStack() as held, httpx2.Client(base_url=serving.url) as client:
        task_id = serving.submit(ledger_call("look"))
        head = f"GET /v1/tasks/{task_id}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        for _ in range(300):
            address = (client.base_url.host, client.base_url.port or 80)
            connection = held.enter_context(socket.create_connection(address, timeout=20))
            connection.sendall(head)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert client.get("/healthz").status_code == 200
        assert client.post(f"/v1/tasks/{task_id}/approve").status_code == 202
        serving.follow_until(task_id, "task.completed")
