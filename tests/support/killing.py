"""`agent-runtime serve` as a process that tests can kill, and the processes that it leaves behind."""

import json
import signal
import subprocess
import sys
from typing import Any

import httpx2

from harness import House, ledger_plan
from nursery import Forked
from processes import find_processes
from waiting import eventually_sync

PATIENCE_S = 30.0


class Process:
    """An `agent-runtime serve` process on the folder of a house."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.client = httpx2.Client(timeout=PATIENCE_S)
        self.process: subprocess.Popen[bytes] | Forked | None = None

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

        self.client.base_url = httpx2.URL(eventually_sync(url))

    def end(self, number: signal.Signals) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.client.close()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)

    def submit(self, *labels: str, tool: str = "count") -> str:
        plan = ledger_plan(*labels, tool=tool).model_dump(mode="json")
        return str(self._post("/v1/tasks", {"prompt": "count", "plan": plan})["task_id"])

    def approval(self, task_id: str, digest: str | None = None) -> httpx2.Response:
        """Approve the plan with this digest, or without a body; return the response."""
        path = f"/v1/tasks/{task_id}/approve"
        return self.client.post(path) if digest is None else self.client.post(path, json={"plan_digest": digest})

    def approve(self, task_id: str) -> None:
        self._post(f"/v1/tasks/{task_id}/approve")

    def submit_and_approve(self, *labels: str, tool: str = "count") -> str:
        task_id = self.submit(*labels, tool=tool)
        self.approve(task_id)
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

    def events(self, task_id: str) -> Any:
        return self.client.get(f"/v1/tasks/{task_id}/events", params={"limit": 1000}).json()["events"]

    def until_settled(self, task_id: str) -> Any:
        def task() -> Any:
            now = self.task(task_id)
            return now if now["terminal"] or now["status"] == "needs_attention" else None

        return eventually_sync(task)


def servers_of(house: House) -> list[int]:
    """Return the ids of the living MCP servers of this house and their children, found by their environment."""
    return find_processes(f"LEDGER={house.ledger}")


def nothing_left_of(house: House, within_s: float = 10) -> None:
    eventually_sync(lambda: not servers_of(house), within_s)
