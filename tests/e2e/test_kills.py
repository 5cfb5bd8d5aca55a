"""G1-G3 and G10 with a real process: SIGKILL between a call and its answer, and nothing is left of any server."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent_runtime.mcp_servers.sandbox import sandbox_level
from harness import House, ledger_plan

PATIENCE_S = 30.0


class Process:
    """`agent-runtime serve` as its own process on the folder of a house."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.client = httpx2.Client(timeout=PATIENCE_S)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        data_dir, registry = self.house.settings.data_dir, self.house.settings.tool_registry
        command = [sys.executable, "-m", "agent_runtime", "serve", "--port", "0"]
        command += ["--data-dir", str(data_dir), "--registry", str(registry)]
        with (self.house.folder / "service.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.house.folder, stderr=log)
        lock = data_dir / "agent-runtime.lock"

        def url() -> str | None:
            assert self.process
            assert self.process.poll() is None, (self.house.folder / "service.log").read_text()
            content = json.loads(lock.read_text() or "{}") if lock.exists() else {}
            return content.get("url") if content.get("pid") == self.process.pid else None

        self.client.base_url = httpx2.URL(eventually(url))

    def end(self, number: signal.Signals) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.client.close()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)

    def submitted_and_approved(self, *labels: str, tool: str = "count") -> str:
        plan = ledger_plan(*labels, tool=tool).model_dump(mode="json")
        task_id = str(self._post("/v1/tasks", {"prompt": "count", "plan": plan})["task_id"])
        self._post(f"/v1/tasks/{task_id}/approve")
        return task_id

    def resolve(self, task_id: str, step_id: str, resolution: str) -> None:
        self._post(f"/v1/tasks/{task_id}/resolve", {"step_id": step_id, "resolution": resolution})

    def cancel(self, task_id: str) -> None:
        self._post(f"/v1/tasks/{task_id}/cancel")

    def _post(self, path: str, body: Any = None) -> Any:
        response = self.client.post(path, json=body) if body is not None else self.client.post(path)
        assert response.status_code == 202, response.text
        return response.json()

    def task(self, task_id: str) -> Any:
        return self.client.get(f"/v1/tasks/{task_id}").json()

    def settled(self, task_id: str) -> Any:
        def task() -> Any:
            now = self.task(task_id)
            return now if now["terminal"] or now["status"] == "needs_attention" else None

        return eventually(task)


def eventually(look: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """What `look` gives as soon as it gives something; other processes are watched, so there is nothing to await."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def servers_of(house: House) -> list[int]:
    """The living processes that were given the ledger of this house: its MCP servers, and all that they started."""
    mark = f"LEDGER={house.ledger}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            given = environment.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in given:
            found.append(int(environment.parent.name))
    return found


def nothing_left_of(house: House, within_s: float = 10) -> None:
    eventually(lambda: not servers_of(house), within_s)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Process]:
    service = Process(House(tmp_path))
    try:
        yield service
    finally:
        service.close()


@pytest.mark.parametrize("resolution", ["done", "retry", "skip", "fail"])
def test_a_kill_between_a_call_and_its_answer_asks_a_person_and_repeats_nothing(
    place: Process, resolution: str
) -> None:
    house = place.house
    house.write_registry(delay_s=60)
    place.start()
    task_id = place.submitted_and_approved("one", "two")
    eventually(lambda: house.counted == ["one"])
    place.end(signal.SIGKILL)

    house.write_registry()
    place.start()
    asking = place.settled(task_id)
    assert asking["status"] == "needs_attention"
    (attention,) = asking["attention"]
    assert (attention["kind"], attention["step_id"]) == ("outcome_unknown", "s1")
    assert house.counted == ["one"]

    place.resolve(task_id, "s1", resolution)
    ended = place.settled(task_id)
    expected = {
        "done": ("completed", ["one", "two"]),
        "retry": ("completed", ["one", "one", "two"]),
        "skip": ("completed", ["one"]),
        "fail": ("failed", ["one"]),
    }
    assert (ended["status"], house.counted) == expected[resolution]


def test_a_kill_in_a_call_that_the_operator_called_idempotent_repeats_it_and_goes_on(place: Process) -> None:
    house = place.house
    house.write_registry(delay_s=60)
    place.start()
    task_id = place.submitted_and_approved("one", "two", tool="look")
    eventually(lambda: house.counted == ["one"])
    place.end(signal.SIGKILL)

    house.write_registry()
    place.start()
    assert place.settled(task_id)["status"] == "completed"
    assert house.counted == ["one", "one", "two"]


def test_no_server_is_left_after_a_task_and_after_a_cancel(place: Process) -> None:
    place.start()
    task_id = place.submitted_and_approved("one")
    assert place.settled(task_id)["status"] == "completed"
    nothing_left_of(place.house)

    place.house.write_registry(delay_s=60)
    place.end(signal.SIGTERM)
    place.start()
    task_id = place.submitted_and_approved("two")
    eventually(lambda: "two" in place.house.counted)
    place.cancel(task_id)
    ended = place.settled(task_id)
    assert ended["status"] == "cancelled"
    nothing_left_of(place.house)


def test_no_server_is_left_after_the_service_was_told_to_stop_in_the_middle_of_a_call(place: Process) -> None:
    place.house.write_registry(delay_s=60)
    place.start()
    place.submitted_and_approved("one")
    eventually(lambda: place.house.counted)
    began = time.monotonic()
    assert place.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 15
    nothing_left_of(place.house)


@pytest.mark.skipif("bubblewrap" not in sandbox_level(), reason="NOT TESTED: bubblewrap does not work on this machine")
def test_with_bubblewrap_no_server_is_left_after_the_service_was_killed(place: Process) -> None:
    place.house.write_registry(delay_s=60)
    place.start()
    place.submitted_and_approved("one")
    eventually(lambda: place.house.counted)
    assert servers_of(place.house)
    place.end(signal.SIGKILL)
    nothing_left_of(place.house)


def test_without_bubblewrap_the_server_itself_ends_with_a_killed_service(place: Process) -> None:
    place.house.write_registry(delay_s=60, sandbox={"mode": "off"})
    place.start()
    place.submitted_and_approved("one")
    eventually(lambda: place.house.counted)
    place.end(signal.SIGKILL)
    nothing_left_of(place.house)
