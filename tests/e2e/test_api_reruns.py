"""Finished tasks that are run again, over REST and at the command line."""

from pathlib import Path
from typing import Any

import pytest

from command_line import Folder
from serving import Service

READ = {"id": "read", "kind": "tool", "server": "filesystem", "tool": "read_file"}
WRITE = {
    "id": "write",
    "kind": "tool",
    "server": "filesystem",
    "tool": "write_file",
    "arguments": {"path": "out.txt", "content": "${read.text}"},
}
LATE = {**READ, "id": "late", "arguments": {"path": "late.txt"}, "depends_on": ["write"]}
PLAN = {"goal": "copy", "steps": [{**READ, "arguments": {"path": "in.txt"}}, WRITE, LATE]}


def rerun(service: Service, task_id: str, body: Any = None, key: str | None = None) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return service.client.post(f"/v1/tasks/{task_id}/rerun", json=body, headers=headers)


def test_a_failed_task_is_run_again_from_its_failed_step(own_service: Service, tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "in.txt").write_text("first")
    failed = own_service.submit(plan=PLAN)
    assert rerun(own_service, failed).status_code == 409
    own_service.approve(failed)
    assert own_service.wait_for_end(failed)["status"] == "failed"

    (files / "late.txt").write_text("here it is")
    (files / "in.txt").write_text("second")
    response = rerun(own_service, failed, {"from": "failed_step"}, key="k")
    assert response.status_code == 202, response.text
    made = response.json()["task_id"]
    assert rerun(own_service, failed, {"from": "failed_step"}, key="k").json()["task_id"] == made
    assert rerun(own_service, failed, {"from": "start"}, key="k").status_code == 422
    task = own_service.task(made)
    assert (task["status"], task["rerun_of"]["reused"]) == ("awaiting_approval", ["read", "write"])
    taken = f"The results of steps read, write are taken from task {failed}; these calls are not made again."
    assert task["plan_notes"][0] == taken
    assert taken in task["plan"]
    assert own_service.client.delete(f"/v1/tasks/{failed}").status_code == 204
    own_service.approve(made)
    done = own_service.wait_for_end(made)
    assert (done["status"], done["usage"]["tool_calls"]) == ("completed", 1)
    assert "here it is" in done["result"]
    assert (files / "out.txt").read_text() == "first"


@pytest.mark.parametrize(
    ("body", "field"),
    [({"from": "middle"}, "from"), ({"start": "start"}, "start"), ({"approval": "maybe"}, "approval")],
)
def test_a_rerun_that_is_asked_for_wrongly_names_the_field(service: Service, body: Any, field: str) -> None:
    refused = rerun(service, "task_none", body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == field


def test_a_task_that_does_not_exist_cannot_be_run_again(service: Service) -> None:
    assert rerun(service, "task_none").status_code == 404


@pytest.mark.slow
def test_the_command_line_runs_a_task_again_and_shows_what_may_be_repeated(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    first = folder.json("run", "Write a message saying hello to a file called x.txt", "--yes")
    again = folder("rerun", first["task_id"])
    assert again.returncode == 3, again.stderr
    assert "filesystem.write_file" in again.stderr
    made = again.stdout.strip()
    assert made.startswith("task_")
    assert f"agent_runtime approve {made}" in again.stderr
    assert first["task_id"] in again.stderr
