"""Clients get the reason, and never a server error, on every route of a task whose journal was changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import Folder
from harms import HARMS, harm, read_stored
from serving import Service

PLAN = {
    "goal": "count",
    "steps": [
        {"id": "s1", "kind": "tool", "server": "calculator", "tool": "evaluate", "arguments": {"expression": "1 + one"}}
    ],
}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path) as service:
        yield service


def changed_task(service: Service, name: str) -> str:
    """Create a task that awaits approval, and change its journal while no service runs."""
    task_id = service.submit("count", PLAN)
    service.stop()
    harm(service.settings.storage.database_path, HARMS[name], task_id)
    service.start()
    return task_id


@pytest.mark.slow
@pytest.mark.parametrize("name", HARMS)
def test_every_route_answers_on_a_changed_journal_and_only_delete_changes_anything(service: Service, name: str) -> None:
    task_id = changed_task(service, name)
    before = read_stored(service.settings.storage.database_path, task_id)
    here = f"/v1/tasks/{task_id}"
    assert service.client.get("/readyz").json()["checks"]["recovery"] == "ok"
    for path in ("events", "audit", "plan/revisions", "plan/diff?from=1&to=1"):  # before any request for the task
        assert service.client.get(f"{here}/{path}").status_code < 500, path
    task = service.task(task_id)
    assert task["status"] == "needs_attention"
    assert not task["terminal"]
    [attention] = task["attention"]
    assert attention["kind"] == "journal_changed"
    assert attention["record"] >= 1
    assert attention["actions"] == ["delete"]
    for path in ("events", "audit", "plan/revisions", "plan/diff?from=1&to=1"):
        assert service.client.get(f"{here}/{path}").status_code < 500, path
    verbs: dict[str, Any] = {
        "approve": {},
        "reject": {},
        "cancel": {},
        "revise": {"feedback": "better"},
        "resolve": {"step_id": "s1", "resolution": "retry"},
        "calls/call_1/approve": {"arguments_digest": "sha256:1"},
        "calls/call_1/deny": {"arguments_digest": "sha256:1"},
    }
    answers = {verb: service.client.post(f"{here}/{verb}", json=body) for verb, body in verbs.items()}
    answers["plan"] = service.client.put(f"{here}/plan", json=PLAN, headers={"If-Match": '"sha256:1"'})
    for verb, refused in answers.items():
        assert refused.status_code == 409, (verb, refused.text)
        problem = refused.json()
        assert problem["type"].endswith("journal_changed"), verb
        assert f"changed at record {attention['record']}" in problem["detail"]
        assert problem["task_status"] == "needs_attention"
    for path in ("preview", "stream-ticket"):
        assert service.client.post(f"{here}/{path}").status_code < 500
    assert read_stored(service.settings.storage.database_path, task_id) == before
    assert service.client.delete(here).status_code == 204
    assert service.client.get(here).status_code == 404
    assert read_stored(service.settings.storage.database_path, task_id) == [[], []]
    assert service.task(service.complete_task())["status"] == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["the row counts too many", "the last record was deleted", "the row was deleted"])
@pytest.mark.parametrize("running", [True, False])
def test_an_ended_task_whose_journal_was_changed_can_be_deleted(service: Service, name: str, *, running: bool) -> None:
    task_id = service.complete_task()
    if not running:
        service.stop()
    harm(service.settings.storage.database_path, HARMS[name], task_id)
    if not running:
        service.start()
    here = f"/v1/tasks/{task_id}"
    first = service.client.delete(here)  # if it was deleted already, it is not found, and later unknown
    assert first.status_code == 204 or (running and name == "the row was deleted" and first.status_code == 404)
    assert service.client.delete(here).status_code in {204, 404}
    assert service.client.get(here).status_code == 404
    assert read_stored(service.settings.storage.database_path, task_id) == [[], []]


@pytest.mark.slow
def test_the_list_and_the_metrics_count_a_changed_task_once_it_was_read(service: Service) -> None:
    task_id = changed_task(service, "the plan was changed")
    other = service.submit()
    service.task(task_id)
    listed = {task["task_id"]: task["status"] for task in service.get("/v1/tasks")["tasks"]}
    assert listed == {task_id: "needs_attention", other: "awaiting_approval"}
    for status, expected in (("needs_attention", task_id), ("awaiting_approval", other)):
        assert [task["task_id"] for task in service.get("/v1/tasks", status=status)["tasks"]] == [expected]
    metrics = service.client.get("/metrics").text
    assert 'agent_runtime_tasks{status="needs_attention"} 1.0' in metrics
    assert 'agent_runtime_tasks{status="awaiting_approval"} 1.0' in metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "readable"), [("the prompt was changed", 2), ("a record is no JSON", 0), ("the row counts too many", 2)]
)
def test_the_stream_of_a_changed_journal_has_what_can_be_read_and_then_waits(
    tmp_path: Path, name: str, readable: int
) -> None:
    service = Service(tmp_path, limits={"keep_alive_s": 0.2})
    service.start()
    try:
        task_id = changed_task(service, name)
        with service.stream(task_id) as response:
            lines = response.iter_lines()
            seen = [next(lines)]
            while seen[-1] != ": keep-alive":
                seen.append(next(lines))
            assert sum(line.startswith("event: ") for line in seen) == readable
            assert service.client.delete(f"/v1/tasks/{task_id}").status_code == 204
            assert set(lines) <= {": keep-alive", ""}  # the stream ends with the task
    finally:
        service.stop()


@pytest.mark.slow
def test_the_command_line_says_what_is_wrong_with_a_changed_task(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    task_id = folder.propose_task()
    harm(folder.path / "data" / "agent-runtime.db", HARMS["the last record was deleted"], task_id)
    shown = folder("show", task_id)
    assert "journal was changed at record 3" in shown.stderr
    assert f"agent_runtime audit verify {task_id}" in shown.stderr
    refused = folder("approve", task_id)
    assert refused.returncode == 1
    assert "changed at record 3" in refused.stderr
