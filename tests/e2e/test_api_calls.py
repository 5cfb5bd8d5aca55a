"""Call approvals over the wire: a call is sent only with the arguments that `attention` shows and a digest approves."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from callers import serve_with_keys
from serving import PATIENCE_S, Service, journal_of
from sockets import messages_of, open_socket, send

ASKING = {
    "id": "calculator",
    "type": "builtin",
    "config": {"server": "calculator"},
    "tools": {"add": {"approval": "call"}},
}
PLAN = {
    "goal": "add",
    "steps": [{"id": "s1", "kind": "tool", "server": "calculator", "tool": "add", "arguments": {"a": 2, "b": 3}}],
}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [ASKING]}), encoding="utf-8")
    with service:
        yield service


def task_that(service: Service, task_id: str, status: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        task = service.client.get(f"/v1/tasks/{task_id}").json()
        if task["status"] == status:
            return task
        time.sleep(0.02)
    raise AssertionError(f"it did not become {status}")


def asked_call(service: Service) -> tuple[str, Any]:
    task_id = service.client.post("/v1/tasks", json={"prompt": "add", "plan": PLAN}).json()["task_id"]
    waiting = task_that(service, task_id, "awaiting_approval")
    assert waiting["steps"][0]["preview"]["asks"] == "the operator requires approval of every call of calculator/add"
    assert service.client.post(f"/v1/tasks/{task_id}/approve").status_code == 202
    (asked,) = task_that(service, task_id, "needs_attention")["attention"]
    return task_id, asked


def test_a_call_is_shown_and_approved_by_the_digest_of_its_arguments(service: Service) -> None:
    task_id, asked = asked_call(service)
    assert (asked["kind"], asked["step_id"], asked["actions"]) == ("call_approval", "s1", ["approve", "deny"])
    assert asked["arguments"] == {"a": 2, "b": 3}
    url = f"/v1/tasks/{task_id}/calls/{asked['call_id']}"
    digest = {"arguments_digest": asked["arguments_digest"]}

    for path, body, status in (
        (f"{url}/approve", {}, 422),
        (f"{url}/approve", {"arguments_digest": "sha256:0"}, 409),
        (f"{url}/approve", {**digest, "more": 1}, 422),
        (f"/v1/tasks/{task_id}/calls/call_0/approve", digest, 404),
        (f"/v1/tasks/task_0/calls/{asked['call_id']}/approve", digest, 404),
    ):
        refused = service.client.post(path, json=body)
        assert refused.status_code == status, refused.text
        assert refused.headers["content-type"] == "application/problem+json"
    assert service.client.get(f"/v1/tasks/{task_id}").json()["attention"] == [asked]

    approved = service.client.post(f"{url}/approve", json={**digest, "comment": "go on"})
    assert approved.status_code == 202
    ended = task_that(service, task_id, "completed")
    assert ended["result"] == "5"
    assert [(entry["decision"], entry["comment"]) for entry in ended["approvals"]] == [
        ("approve", None),
        ("approve", "go on"),
    ]
    assert service.client.post(f"{url}/deny", json=digest).status_code == 409


def test_a_denied_call_fails_its_step_and_the_stream_says_so(service: Service) -> None:
    task_id, asked = asked_call(service)
    denied = service.client.post(
        f"/v1/tasks/{task_id}/calls/{asked['call_id']}/deny", json={"arguments_digest": asked["arguments_digest"]}
    )
    assert denied.status_code == 202
    ended = task_that(service, task_id, "failed")
    assert ended["error"] == {"code": "call_denied", "message": "anonymous denied the call", "step_id": "s1"}
    lines = service.client.get(f"/v1/tasks/{task_id}/stream?view=log").text
    assert "Step s1 needs approval for its call of calculator.add" in lines
    assert "Call of step s1 denied" in lines


def test_a_call_shows_what_a_form_and_its_reader_need(service: Service) -> None:
    _, asked = asked_call(service)
    assert asked["input_schema"]["properties"].keys() == {"a", "b"}
    assert (asked["effect"], asked["idempotent"], asked["edited_by"]) == ("read", True, None)
    assert asked["hints"]["readOnlyHint"] is True
    assert (asked["sent_at"], asked["attempt"]) == (None, 0)
    assert asked["asked_at"].endswith("Z")


def test_a_call_is_edited_and_sent_so_and_what_does_not_fit_is_named(service: Service) -> None:
    task_id, asked = asked_call(service)
    url = f"/v1/tasks/{task_id}/calls/{asked['call_id']}"
    digest = {"arguments_digest": asked["arguments_digest"]}
    for body, fields in (
        ({"edited_arguments": {"a": "two", "b": 3}}, ["edited_arguments.a"]),
        ({"edited_arguments": {"a": 2}}, ["edited_arguments.b"]),
        ({"edited_arguments": [2, 3]}, ["edited_arguments"]),
    ):
        refused = service.client.post(f"{url}/approve", json={**digest, **body})
        assert refused.status_code == 422, refused.text
        assert [fault["field"] for fault in refused.json()["errors"]] == fields
    assert service.client.post(f"{url}/deny", json={**digest, "edited_arguments": {}}).status_code == 422
    outdated = {"arguments_digest": "sha256:0", "edited_arguments": {"a": 4, "b": 3}}
    assert service.client.post(f"{url}/approve", json=outdated).status_code == 409
    assert service.client.get(f"/v1/tasks/{task_id}").json()["attention"] == [asked]
    approved = service.client.post(f"{url}/approve", json={**digest, "edited_arguments": {"a": 40, "b": 3}})
    assert approved.status_code == 202
    ended = task_that(service, task_id, "completed")
    assert ended["result"] == "43"
    decided = ended["approvals"][-1]
    (sent,) = [event["data"] for event in journal_of(service, task_id) if event["type"] == "tool.called"]
    assert (sent["arguments"], sent["arguments_digest"]) == ({"a": 40, "b": 3}, decided["edited_digest"])
    assert decided["digest"] == asked["arguments_digest"]
    lines = service.client.get(f"/v1/tasks/{task_id}/stream?view=log").text
    assert "Call of step s1 approved, with edited arguments." in lines


def test_a_call_is_edited_on_its_stream(service: Service) -> None:
    task_id, asked = asked_call(service)
    with open_socket(service, task_id) as connection:
        call = {"call_id": asked["call_id"], "arguments_digest": asked["arguments_digest"]}
        send(connection, type="deny_call", id="a", **call, edited_arguments={})
        send(connection, type="approve_call", id="b", **call, edited_arguments={"a": 40, "b": 3})
        messages, _, _ = messages_of(connection)
    assert [(one["to"], one["ok"]) for one in messages if one["event"] == "reply"] == [("a", False), ("b", True)]
    assert "Completed: 43" in [one["data"] for one in messages]


def test_an_edit_takes_a_key_with_both_scopes(tmp_path: Path) -> None:
    (tmp_path / "tool_registry.yaml").write_text(yaml.safe_dump({"tool_registry": [ASKING]}), encoding="utf-8")
    callers = {"approver": ("read", "approve"), "submitter": ("read", "submit"), "both": ("submit", "approve")}
    with serve_with_keys(tmp_path, callers) as keyed:
        keyed.service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [ASKING]}), encoding="utf-8")
        assert keyed.service.client.post("/v1/tools/reload").status_code == 200
        task_id, asked = asked_call(keyed.service)
        path = f"/v1/tasks/{task_id}/calls/{asked['call_id']}/approve"
        body = {"arguments_digest": asked["arguments_digest"], "edited_arguments": {"a": 40, "b": 3}}
        for caller, scope in (("approver", "submit"), ("submitter", "approve")):
            refused = keyed.call("POST", path, caller, json=body)
            assert (refused.status_code, f'scope="{scope}"' in refused.headers["www-authenticate"]) == (403, True)
        assert task_that(keyed.service, task_id, "needs_attention")["attention"] == [asked]
        assert keyed.call("POST", path, "both", json=body).status_code == 202
        ended = task_that(keyed.service, task_id, "completed")
    assert (ended["result"], ended["approvals"][-1]["who"]) == ("43", "both")
