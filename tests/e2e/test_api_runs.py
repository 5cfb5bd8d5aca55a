"""Runs: the calls of `/api/v1/runs`, over the real server."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callers import KeyedService, serve_with_keys
from serving import BUILTINS, Service, journal_of
from waiting import eventually_sync

FIELDS = {"run_id", "status", "steps", "result", "error", "created_at", "updated_at", "approval"}
LEDGER_SERVER = Path(__file__).parents[1] / "servers" / "ledger_server.py"
TODO = {"id": "todo", "type": "builtin", "config": {"server": "todo"}}


@pytest.fixture(scope="module")
def permissive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run a service whose policy allows plans that only read."""
    folder = tmp_path_factory.mktemp("permissive")
    service = Service(folder, approval={"auto_effects": ["read"]}, server={"allowed_origins": ["https://app.test"]})
    write_registry(folder, *BUILTINS, TODO)
    with service:
        yield service


def write_registry(folder: Path, *entries: Any) -> None:
    text = json.dumps({"tool_registry": entries})
    (folder / "tool_registry.yaml").write_text(text, encoding="utf-8")


def create(service: Service, prompt: str, **more: Any) -> str:
    response = service.client.post("/api/v1/runs", json={"prompt": prompt, **more})
    assert response.status_code == 201, response.text
    run = response.json()
    assert set(run) == FIELDS
    assert run["status"] in {"pending", "running", "completed"}
    return str(run["run_id"])


def read(service: Service, run_id: str) -> Any:
    return service.get(f"/api/v1/runs/{run_id}")


def wait_for_end(service: Service, run_id: str) -> Any:
    eventually_sync(lambda: read(service, run_id)["status"] in {"completed", "failed"})
    return read(service, run_id)


def wait_for_approval(service: Service, run_id: str) -> Any:
    eventually_sync(lambda: read(service, run_id)["approval"])
    return read(service, run_id)


def test_a_run_that_policy_allows_completes_by_itself_and_shows_its_steps(permissive: Service) -> None:
    run = wait_for_end(permissive, create(permissive, "calculate 6 * 7"))
    assert (run["status"], run["error"], run["approval"]) == ("completed", None, None)
    assert "42" in run["result"]
    (step,) = run["steps"]
    assert step == {
        "step_number": 1,
        "tool_name": "calculator.evaluate",
        "tool_input": {"expression": "6 * 7"},
        "reasoning": "",
        "result": {"success": True, "output": {"result": 42}, "error": None},
        "attempt": 1,
    }
    assert run["created_at"] < run["updated_at"]
    assert permissive.task(run["run_id"])["status"] == "completed"


def test_a_run_that_policy_does_not_allow_waits_at_the_address_of_its_approval(permissive: Service) -> None:
    run = wait_for_approval(permissive, create(permissive, "add a todo to buy milk and list my todos"))
    assert (run["status"], run["steps"], run["result"], run["error"]) == ("pending", [], None, None)
    asked = run["approval"]
    assert asked["plan"].startswith("1. ")
    approved = permissive.client.post(asked["url"], json={"plan_digest": asked["plan_digest"]})
    assert approved.status_code == 202
    run = wait_for_end(permissive, run["run_id"])
    assert run["status"] == "completed"
    assert [(step["step_number"], step["tool_name"]) for step in run["steps"]] == [(1, "todo.add"), (2, "todo.list")]
    assert run["steps"][1]["result"]["output"]["todos"][0]["text"] == "buy milk"


def test_health_is_answered(permissive: Service) -> None:
    assert permissive.get("/api/v1/health") == {"status": "ok"}


@pytest.mark.parametrize("run_id", ["3fa85f64-5717-4562-b3fc-2c963f66afa6", "%00", "x" * 200])
def test_a_run_that_does_not_exist_is_404(permissive: Service, run_id: str) -> None:
    response = permissive.client.get(f"/api/v1/runs/{run_id}")
    assert response.status_code == 404
    assert response.json()["detail"].startswith("Run not found: ")


BAD: list[tuple[Any, int, str]] = [
    (b"{", 400, ""),
    (b"[1]", 422, "body"),
    (b"", 422, "prompt"),
    (b'{"prompt": "a", "prompt": "b"}', 400, ""),
    (b'{"prompt": 5}', 422, "prompt"),
    (b'{"prompt": " "}', 422, "prompt"),
    (b'{"prompt": "a", "max_steps": 0}', 422, "max_steps"),
    (b'{"prompt": "a", "max_steps": 101}', 422, "max_steps"),
    (b'{"prompt": "a", "max_steps": "5"}', 422, "max_steps"),
    (b'{"prompt": "a", "steps": 5}', 422, "steps"),
    (b'{"prompt": "' + b"a" * 70_000 + b'"}', 422, "prompt"),
    (b'{"prompt": "' + b"a" * 1_100_000 + b'"}', 413, ""),
    (b"[" * 5000, 400, ""),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD, ids=range(len(BAD)))
def test_a_bad_request_is_refused_and_creates_nothing(
    permissive: Service, body: bytes, status: int, field: str
) -> None:
    before = permissive.get("/v1/tasks")
    response = permissive.client.post("/api/v1/runs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert {fault["field"] for fault in response.json().get("errors", [])} == ({field} if field else set())
    assert permissive.get("/v1/tasks") == before


@pytest.mark.slow
def test_a_run_is_created_from_an_allowed_origin_only(permissive: Service) -> None:
    body = {"prompt": "calculate 1 + 1"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = permissive.client.options("/api/v1/runs", headers={"Origin": "https://app.test", **asked})
    assert preflight.headers["access-control-allow-origin"] == "https://app.test"
    allowed = permissive.client.post("/api/v1/runs", json=body, headers={"Origin": "https://app.test"})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (201, "https://app.test")
    assert (
        permissive.client.post("/api/v1/runs", json=body, headers={"Origin": "https://other.test"}).status_code == 403
    )


@pytest.mark.slow
def test_an_error_of_an_idempotent_tool_is_tried_three_times(permissive: Service) -> None:
    run = wait_for_end(permissive, create(permissive, "calculate 1 / 0"))
    assert run["status"] == "failed"
    assert [(step["step_number"], step["attempt"], step["result"]["success"]) for step in run["steps"]] == [
        (1, 1, False),
        (1, 2, False),
        (1, 3, False),
    ]
    assert all("0" in step["result"]["error"] for step in run["steps"])
    assert run["error"]


@pytest.mark.slow
def test_a_plan_of_more_steps_than_the_run_may_have_fails_and_nothing_is_done(permissive: Service) -> None:
    prompt = "calculate 1 + 1, then calculate 2 + 2, then calculate 3 + 3"
    run = wait_for_end(permissive, create(permissive, prompt, max_steps=2))
    assert (run["status"], run["steps"]) == ("failed", [])
    assert "2" in run["error"]
    run = wait_for_end(permissive, create(permissive, prompt, max_steps=3))
    assert (run["status"], len(run["steps"])) == ("completed", 3)
    task = permissive.task(create(permissive, "calculate 1 + 1"))
    submitted, *_ = journal_of(permissive, task["task_id"])
    assert submitted["data"]["limits"]["max_steps"] == 10


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "said"), [("reject", "rejected"), ("cancel", "cancelled")])
def test_a_run_that_is_rejected_or_cancelled_has_failed(permissive: Service, verb: str, said: str) -> None:
    run_id = wait_for_approval(permissive, create(permissive, "add a todo to call Ann"))["run_id"]
    assert permissive.client.post(f"/v1/tasks/{run_id}/{verb}").status_code == 202
    run = wait_for_end(permissive, run_id)
    assert (run["status"], run["steps"], run["approval"]) == ("failed", [], None)
    assert said in run["error"]


@pytest.mark.slow
def test_what_cannot_be_planned_fails_with_the_reason(permissive: Service) -> None:
    run = wait_for_end(permissive, create(permissive, "paint the moon"))
    assert (run["status"], run["steps"], run["result"]) == ("failed", [], None)
    assert run["error"] == permissive.task(run["run_id"])["error"]["message"]


@pytest.mark.slow
def test_a_repeated_request_gives_the_same_run_and_no_task_of_another_door(permissive: Service) -> None:
    body, key = {"prompt": "calculate 2 + 3"}, {"Idempotency-Key": "one"}
    first, again = (permissive.client.post("/api/v1/runs", json=body, headers=key) for _ in range(2))
    assert first.json()["run_id"] == again.json()["run_id"]
    assert permissive.client.post("/v1/tasks", json=body, headers=key).status_code == 422


@pytest.fixture
def ledger_service(tmp_path: Path) -> Iterator[Service]:
    """Run a service with the server `ledger`, whose calls take as long as its file `delay` says."""
    service = Service(tmp_path, limits={"shutdown_s": 0.1})
    (tmp_path / "delay").write_text("60", encoding="utf-8")
    files = {"LEDGER": str(tmp_path / "ledger.txt"), "DELAY": str(tmp_path / "delay")}
    config = {"command": sys.executable, "args": ["-S", "-E", str(LEDGER_SERVER)], "env": files}
    tools = {"look": {"effect": "read", "idempotent": True}}
    write_registry(tmp_path, *BUILTINS, {"id": "ledger", "type": "local_stdio", "config": config, "tools": tools})
    with service:
        yield service


def run_edited(service: Service, tool: str) -> str:
    """Start a run whose plan a person has edited to a call of this tool, and wait until its server has the call."""
    waiting = wait_for_approval(service, create(service, "calculate 1 + 1"))
    step = {"id": "s1", "kind": "tool", "server": "ledger", "tool": tool, "reasoning": "It is to be counted."}
    plan = {"goal": "Count", "steps": [{**step, "arguments": {"label": "one"}}]}
    here, tag = f"/v1/tasks/{waiting['run_id']}", waiting["approval"]["plan_digest"]
    edited = service.client.put(f"{here}/plan", json=plan, headers={"If-Match": f'"{tag}"'})
    assert edited.status_code == 200, edited.text
    asked = read(service, waiting["run_id"])["approval"]
    assert service.client.post(asked["url"], json={"plan_digest": asked["plan_digest"]}).status_code == 202
    ledger = service.settings.tool_registry.with_name("ledger.txt")
    eventually_sync(ledger.exists)
    assert read(service, waiting["run_id"])["status"] == "running"
    return str(waiting["run_id"])


@pytest.mark.slow
def test_a_run_goes_on_after_a_restart_in_its_middle(ledger_service: Service, tmp_path: Path) -> None:
    run_id = run_edited(ledger_service, "look")
    ledger_service.stop()
    (tmp_path / "delay").write_text("0", encoding="utf-8")
    ledger_service.start()
    run = wait_for_end(ledger_service, run_id)
    assert run["status"] == "completed"
    (step,) = run["steps"]
    assert (step["attempt"], step["reasoning"]) == (2, "It is to be counted.")
    assert step["result"] == {"success": True, "output": "counted one", "error": None}
    assert (tmp_path / "ledger.txt").read_text(encoding="utf-8") == "one\none\n"


@pytest.mark.slow
def test_a_run_that_is_cancelled_in_its_middle_has_failed(ledger_service: Service) -> None:
    run_id = run_edited(ledger_service, "look")
    assert ledger_service.client.post(f"/v1/tasks/{run_id}/cancel").status_code == 202
    run = wait_for_end(ledger_service, run_id)
    assert (run["status"], run["error"]) == ("failed", "The run was cancelled.")


@pytest.mark.slow
def test_a_call_that_may_not_be_repeated_is_asked_about_after_a_restart(
    ledger_service: Service, tmp_path: Path
) -> None:
    run_id = run_edited(ledger_service, "count")
    ledger_service.restart()
    run = wait_for_approval(ledger_service, run_id)
    assert (run["status"], run["approval"]["url"]) == ("running", f"/v1/tasks/{run_id}")
    assert f"/v1/tasks/{run_id}/resolve" in run["approval"]["message"]
    assert [step["result"]["success"] for step in run["steps"]] == [False]
    answered = {"step_id": "s1", "resolution": "done", "output": "seen"}
    assert ledger_service.client.post(f"/v1/tasks/{run_id}/resolve", json=answered).status_code == 202
    run = wait_for_end(ledger_service, run_id)
    assert run["status"] == "completed"
    assert [step["result"] for step in run["steps"]] == [{"success": True, "output": "seen", "error": None}]
    assert (tmp_path / "ledger.txt").read_text(encoding="utf-8") == "one\n"


@pytest.mark.slow
def test_without_the_scope_read_a_run_shows_no_more_than_its_status(tmp_path: Path) -> None:
    with serve_with_keys(tmp_path, approval={"auto_effects": ["read"]}) as keyed:
        sent: dict[str, Any] = {"json": {"prompt": "calculate 6 * 7"}, "headers": {"Idempotency-Key": "k"}}
        run_id = send(keyed, **sent)["run_id"]
        eventually_sync(lambda: keyed.call("GET", f"/api/v1/runs/{run_id}", "read").json()["status"] == "completed")
        again = send(keyed, **sent)
        assert (again["run_id"], again["status"]) == (run_id, "completed")
        assert (again["steps"], again["result"], again["error"], again["approval"]) == ([], None, None, None)


def send(keyed: KeyedService, **sent: Any) -> Any:
    response = keyed.call("POST", "/api/v1/runs", "submit", **sent)
    assert response.status_code == 201, response.text
    return response.json()
