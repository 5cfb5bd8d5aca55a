"""An update of replicas one after the other, under load: the version before the last migration, then this one.

Skipped where the history of the project is not there.
"""

import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from agent_runtime.domain.chain import record_hash
from harness import House, ledger_plan
from postgres_server import PostgresServer
from proxying import run_proxy_of_replicas
from replica_processes import Replica
from serving import frames_of
from waiting import eventually_sync

ROOT = Path(__file__).parents[2]
MIGRATIONS = "src/agent_runtime/storage/postgres/migrations"
SHARED_SINCE = "src/agent_runtime/runners/worker.py"
REPLICAS = 3
USERS = 4
IN_FLIGHT_S = 1.0
"""How long after SIGTERM a replica may still get requests that it does not answer."""


def git(*arguments: str) -> bytes:
    """Return what git prints. The test is skipped where there is no git, or no history."""
    program = shutil.which("git")
    if program is None:
        pytest.skip("NOT TESTED: an update needs the history of the project, and this machine has no git")
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: an update needs the history of the project: git {' '.join(arguments)} failed")
    return done.stdout


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the last commit that does not have the last migration."""
    added = git("log", "--diff-filter=A", "--format=%H", "-1", "--", MIGRATIONS).decode().strip()
    if not added or not git("ls-tree", f"{added}^", SHARED_SINCE):
        pytest.skip("NOT TESTED: an update needs the history of the project, back to before the last migration")
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=BytesIO(git("archive", f"{added}^", "src"))) as archive:
        archive.extractall(folder, filter="data")
    assert len(list((folder / MIGRATIONS).iterdir())) < len(list((ROOT / MIGRATIONS).iterdir()))
    return folder


@dataclass(frozen=True, slots=True)
class Request:
    """A request that failed: when it was sent and when that was known, on the monotonic clock."""

    began: float
    ended: float
    what: str


class Load:
    """Users who submit, approve and follow tasks through the proxy, one after the other, until they are stopped."""

    def __init__(self, url: str) -> None:
        self.failed: list[Request] = []
        self.completed: list[str] = []
        self.faults: list[str] = []
        self._url = url
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(user,)) for user in range(USERS)]
        for thread in self._threads:
            thread.start()

    def has_completed(self, count: int) -> bool:
        return len(self.completed) >= count

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _work(self, user: int) -> None:
        number = 0
        with httpx2.Client(base_url=self._url, timeout=60) as client:
            while not self._stopping.is_set():
                number += 1
                self._do_task(client, f"u{user}-{number}")

    def _do_task(self, client: httpx2.Client, mark: str) -> None:
        plan = ledger_plan(*(f"{mark}-{step}" for step in range(3)), tool="look").model_dump(mode="json")
        submitted = self._ask(client, "POST", "/v1/tasks", {"prompt": "count", "plan": plan})
        if submitted is None:
            return
        path = f"/v1/tasks/{submitted['task_id']}"
        if self._ask(client, "POST", f"{path}/approve", {}) is None:
            return
        ids = self._follow(client, path)
        if ids != self._follow(client, path):  # the second time in one piece, unless a replica ends just then
            self.faults.append(f"{mark}: {ids}")
        task = self._ask(client, "GET", path)
        if task is not None:
            (self.completed if task["status"] == "completed" else self.faults).append(f"{mark}: {task['status']}")

    def _ask(self, client: httpx2.Client, method: str, path: str, body: Any = None) -> Any:
        """Return the answer, or None after noting that the request failed."""
        began = time.monotonic()
        try:
            response = client.request(method, path, json=body) if body is not None else client.request(method, path)
        except httpx2.TransportError as error:
            self.failed.append(Request(began, time.monotonic(), f"{method} {path}: {error!r}"))
            return None
        if response.is_success:
            return response.json()
        self.failed.append(Request(began, time.monotonic(), f"{method} {path}: {response.status_code} {response.text}"))
        return None

    def _follow(self, client: httpx2.Client, path: str) -> list[str]:
        """Follow a task to its end, and go on after the last frame where the stream is cut. Return the ids."""
        ids: list[str] = []
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            began = time.monotonic()
            headers = {"Last-Event-ID": ids[-1]} if ids else {}
            try:
                with client.stream("GET", f"{path}/stream", headers=headers) as response:
                    if response.status_code != 200:
                        self.failed.append(Request(began, time.monotonic(), f"stream: {response.status_code}"))
                        continue
                    for _, frame_id, data in frames_of(response):
                        if frame_id:
                            ids.append(frame_id)
                        if data == "[DONE]":
                            return ids
            except httpx2.TransportError:
                continue  # a replica ended; the stream goes on at another one
        self.faults.append(f"{path}: the stream did not end")
        return ids


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_request_fails_while_replicas_are_replaced_one_by_one(
    tmp_path: Path, postgres_server: PostgresServer, older: Path, stack: ExitStack
) -> None:
    house, url = House(tmp_path), postgres_server.create_schema()
    house.write_registry(delay_s=0.02)
    replicas = [Replica(house, f"replica-{number}", url, source=older) for number in range(1, REPLICAS + 1)]
    for replica in replicas:
        stack.callback(replica.close)
        replica.launch()
    for replica in replicas:
        replica.wait_until_ready()
    load = Load(stack.enter_context(run_proxy_of_replicas(tmp_path / "nginx", [one.port for one in replicas])))
    stopped_at: list[float] = []
    try:
        eventually_sync(partial(load.has_completed, USERS), 120)
        for replica in replicas:
            assert replica.process
            stopped_at.append(time.monotonic())
            replica.process.terminate()
            assert replica.process.wait(60) == 0
            replica.source = None
            replica.start()
            before = len(load.completed)  # the new version takes its part before the next one is stopped
            eventually_sync(partial(load.has_completed, before + USERS), 120)
    finally:
        load.stop()
    assert not load.faults
    unexplained = [
        one for one in load.failed if not any(one.began <= at + IN_FLIGHT_S and one.ended >= at for at in stopped_at)
    ]
    assert not unexplained
    assert len(load.completed) > REPLICAS * USERS


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_older_version_leaves_a_journal_alone_that_a_newer_one_wrote_and_says_so(
    tmp_path: Path, postgres_server: PostgresServer, older: Path, stack: ExitStack
) -> None:
    house, url = House(tmp_path), postgres_server.create_schema()
    new, old = Replica(house, "new", url), Replica(house, "old", url, source=older)
    for replica in (new, old):
        stack.callback(replica.close)
        replica.start()
    task_id = new.submit("one")
    assert old.task(task_id)["status"] == "awaiting_approval"
    add_event_of_a_newer_version(postgres_server, url, task_id)
    assert old.end(signal.SIGTERM) == 0
    old.start()
    (attention,) = old.task(task_id)["attention"]
    assert (attention["kind"], "a newer version wrote it" in attention["reason"]) == ("journal_changed", True)
    assert old.approval(task_id).status_code == 409
    rows = postgres_server.execute("SELECT type FROM events ORDER BY seq DESC LIMIT 1", url)  # of its only task
    assert rows == [("task.rethought",)]
    assert house.counted == []


def add_event_of_a_newer_version(server: PostgresServer, url: str, task_id: str) -> None:
    """Add an event to the only journal that no version of today knows, with the hash that belongs to it."""
    ((seq, head),) = server.execute("SELECT version, head FROM tasks", url)
    at, kind, data = "2030-01-01T00:00:00.000000Z", "task.rethought", "{}"
    own = record_hash(head, task_id, seq + 1, None, at, kind, data)
    with psycopg.connect(url) as connection:
        values = (task_id, seq + 1, at, kind, data, own)
        connection.execute(
            "INSERT INTO events (task_id, seq, at, type, data, hash) VALUES (%s, %s, %s, %s, %s, %s)", values
        )
        connection.execute("UPDATE tasks SET version = %s, head = %s", (seq + 1, own))
