"""Questions of servers over the wire: what `attention` shows is answered, and the server gets exactly that."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_runtime.client import Client
from serving import Service, journal_of
from sockets import next_message, open_socket, send
from waiting import eventually_sync

SERVER = Path(__file__).parents[1] / "servers" / "asking_server.py"
ASKING = {
    "id": "asking",
    "type": "local_stdio",
    "config": {"command": sys.executable, "args": ["-S", "-E", str(SERVER)]},
    "tools": {"*": {"effect": "read", "open_world": False, "timeout_s": 20}},
}
ANSWER = {"name": "Ann", "count": 3}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"), limits={"cancel_grace_s": 0.1})
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [ASKING]}), encoding="utf-8")
    with service:
        service.refresh_tools()
        yield service


def plan_of(*tools: str, **more: Any) -> dict[str, Any]:
    steps = [
        {"id": f"s{n}", "kind": "tool", "server": "asking", "tool": tool, **more} for n, tool in enumerate(tools, 1)
    ]
    return {"goal": "ask", "steps": steps}


def asked_by(service: Service, *tools: str, **more: Any) -> tuple[str, Any]:
    """A task of these steps, and what a server asks in it."""
    task_id = service.submit(plan=plan_of(*tools, **more))
    service.approve(task_id)
    eventually_sync(lambda: service.task(task_id)["attention"])
    task = service.task(task_id)
    assert task["status"] == "needs_attention"
    return task_id, task["attention"][0]


def answer(service: Service, task_id: str, asked: Any, **body: Any) -> Any:
    return service.client.post(f"/v1/tasks/{task_id}/answers/{asked['question_id']}", json=body)


def wait_for_server_answer(service: Service, task_id: str) -> Any:
    """Wait for the completion of the task, and return the answer that the server got."""
    task = service.wait_for_end(task_id)
    assert task["status"] == "completed", task["error"]
    return json.loads(task["result"])


def test_a_question_is_shown_with_its_server_and_its_schema_and_gets_its_answer(service: Service) -> None:
    task_id, asked = asked_by(service, "form")
    named = {name: asked[name] for name in ("kind", "step_id", "server", "tool", "message", "actions")}
    assert named == {
        "kind": "input",
        "step_id": "s1",
        "server": "asking",
        "tool": "form",
        "message": "Who are you?",
        "actions": ["accept", "decline", "cancel"],
    }
    assert asked["schema"]["required"] == ["name"]
    assert asked["sent_at"] <= asked["asked_at"]
    assert asked["schema"]["properties"]["count"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert f"POST /v1/tasks/{task_id}/answers/{asked['question_id']}" in service.task(task_id)["result"]
    taken = answer(service, task_id, asked, action="accept", content=ANSWER)
    assert (taken.status_code, taken.json()["attention"]) == (202, [])
    assert wait_for_server_answer(service, task_id) == {"action": "accept", "content": ANSWER}
    kinds = [event["type"] for event in journal_of(service, task_id)]
    assert kinds[kinds.index("tool.called") :] == [
        "tool.called",
        "input.requested",
        "input.answered",
        "tool.returned",
        "step.completed",
        "task.completed",
    ]
    again = answer(service, task_id, asked, action="accept", content=ANSWER)
    assert again.status_code == 409
    assert "was already answered" in again.json()["detail"]


def test_what_was_approved_stays_as_it_was(service: Service) -> None:
    task_id, asked = asked_by(service, "form")
    before = service.task(task_id)
    answer(service, task_id, asked, action="accept", content=ANSWER)
    wait_for_server_answer(service, task_id)
    after = service.task(task_id)
    for part in ("plan_digest", "plan_object", "plan_revision"):
        assert after[part] == before[part]


@pytest.mark.parametrize(("action", "line"), [("decline", "declined"), ("cancel", "dismissed")])
def test_a_server_learns_that_its_question_was_declined_or_dismissed(service: Service, action: str, line: str) -> None:
    task_id, asked = asked_by(service, "form")
    assert answer(service, task_id, asked, action=action).status_code == 202
    assert wait_for_server_answer(service, task_id) == {"action": action}
    (_, decided) = service.task(task_id)["approvals"]
    assert (decided["decision"], decided["step_id"]) == (action, "s1")
    (answered,) = [event for event in journal_of(service, task_id) if event["type"] == "input.answered"]
    assert (answered["data"]["action"], answered["data"]["content"]) == (action, None)
    assert f"Question of step s1 {line}." in service.client.get(f"/v1/tasks/{task_id}/stream").text


def test_a_question_with_a_hostile_form_is_answered_declined_or_dismissed(service: Service) -> None:
    odd = {"name": "Ann", "__proto__": "x", "choice": 2, "city": "Oslo", "kind": [1], "left out": "y"}
    for body in ({"action": "accept", "content": odd}, {"action": "decline"}, {"action": "cancel"}):
        task_id, asked = asked_by(service, "hostile")
        assert asked["schema"]["required"] == ["name"]
        assert "large n" in asked["message"]
        refused = answer(service, task_id, asked, action="accept", content={"choice": 3, "__proto__": 1})
        assert {fault["field"] for fault in refused.json()["errors"]} == {
            "content.name",
            "content.choice",
            "content.__proto__",
        }
        assert answer(service, task_id, asked, **body).status_code == 202
        assert wait_for_server_answer(service, task_id) == body


def test_a_socket_and_the_client_dismiss_a_question(service: Service) -> None:
    task_id, asked = asked_by(service, "form")
    with open_socket(service, f"/v1/tasks/{task_id}/stream") as connection:
        send(connection, type="answer", id="1", question_id=asked["question_id"], action="cancel")
        while (reply := next_message(connection)).get("to") != "1":
            pass
        assert reply["ok"] is True
    assert wait_for_server_answer(service, task_id) == {"action": "cancel"}
    task_id, asked = asked_by(service, "form")
    with Client(service.url) as client:
        client.dismiss(task_id, asked["question_id"])
    assert wait_for_server_answer(service, task_id) == {"action": "cancel"}


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"action": "accept", "content": {}}, "content.name", "required"),
        ({"action": "accept"}, "content.name", "required"),
        ({"action": "accept", "content": {"name": "Ann", "count": 10}}, "content.count", "10"),
        ({"action": "accept", "content": {"name": "Ann", "count": "3"}}, "content.count", "integer"),
        ({"action": "accept", "content": {"name": {"a": {"b": {}}}}}, "content", "lists of texts"),
        ({"action": "accept", "content": {"name": "x" * 70_000}}, "content", "limit"),
        ({"action": "accept", "content": [1]}, "content", ""),
        ({"action": "decline", "content": {}}, "content", "'accept' only"),
        ({"action": "cancel", "content": {}}, "content", "'accept' only"),
        ({"action": "dismiss"}, "action", "accept"),
        ({}, "action", ""),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_with_what_is_wrong(
    open_question: tuple[str, Any], service: Service, body: dict[str, Any], field: str, said: str
) -> None:
    refused = answer(service, *open_question, **body)
    assert refused.status_code == 422
    (fault,) = refused.json()["errors"]
    assert fault["field"] == field
    assert said in fault["message"]


@pytest.fixture(scope="module")
def open_question(service: Service) -> Iterator[tuple[str, Any]]:
    """A question that stays open while answers to it are refused."""
    task_id, asked = asked_by(service, "form")
    yield task_id, asked
    assert answer(service, task_id, asked, action="decline").status_code == 202


def test_a_question_that_nobody_asked_is_not_found(service: Service) -> None:
    task_id, asked = asked_by(service, "form")
    unknown = answer(service, task_id, {"question_id": "question_1"}, action="decline")
    assert unknown.status_code == 404
    assert unknown.json()["type"].endswith("question_not_found")
    answer(service, task_id, asked, action="decline")


def test_one_question_follows_the_other(service: Service) -> None:
    task_id, first = asked_by(service, "twice")
    answer(service, task_id, first, action="accept", content={"name": "one"})
    eventually_sync(lambda: [one for one in service.task(task_id)["attention"] if one["message"] == "Second?"])
    (second,) = service.task(task_id)["attention"]
    answer(service, task_id, second, action="accept", content={"name": "two"})
    assert [one["content"]["name"] for one in wait_for_server_answer(service, task_id)] == ["one", "two"]


def test_a_question_that_nobody_answers_is_declined_and_the_call_goes_on(service: Service) -> None:
    task_id, asked = asked_by(service, "form", timeout_s=1)
    assert wait_for_server_answer(service, task_id) == {"action": "decline"}
    (withdrawn,) = [event for event in journal_of(service, task_id) if event["type"] == "input.withdrawn"]
    assert withdrawn["data"]["question_id"] == asked["question_id"]
    late = answer(service, task_id, asked, action="decline")
    assert late.status_code == 404


@pytest.mark.parametrize(("tool", "said"), [("hasty", None), ("withdrawn", "withdrawn")])
def test_a_server_that_does_not_wait_for_the_answer_ends_its_question(service: Service, tool: str, said: Any) -> None:
    task_id = service.submit(plan=plan_of(tool))
    service.approve(task_id)
    assert wait_for_server_answer(service, task_id) == said
    assert service.task(task_id)["attention"] == []


def test_a_server_may_ask_only_so_often(service: Service) -> None:
    task_id = service.submit(plan=plan_of("many", timeout_s=2))
    service.approve(task_id)
    eventually_sync(lambda: service.task(task_id)["attention"])
    for number in range(16):
        eventually_sync(partial(asks, service, task_id, f"Number {number}?"))
        (asked,) = service.task(task_id)["attention"]
        answer(service, task_id, asked, action="accept", content={"name": "Ann"})
    assert wait_for_server_answer(service, task_id) == ["accept"] * 16 + ["decline"] * 4


def asks(service: Service, task_id: str, message: str) -> bool:
    return any(asked["message"] == message for asked in service.task(task_id)["attention"])


def test_steps_side_by_side_ask_at_the_same_time(service: Service) -> None:
    task_id, _ = asked_by(service, "form", "form")
    eventually_sync(lambda: len(service.task(task_id)["attention"]) == 2)
    for asked in service.task(task_id)["attention"]:
        answer(service, task_id, asked, action="accept", content={"name": asked["step_id"]})
    task = service.wait_for_end(task_id)
    names = {json.loads(step["output"])["content"]["name"] for step in task["steps"]}
    assert names == {"s1", "s2"}


def test_a_cancelled_task_asks_nothing_any_more(service: Service) -> None:
    task_id, asked = asked_by(service, "form")
    assert service.client.post(f"/v1/tasks/{task_id}/cancel").status_code == 202
    assert answer(service, task_id, asked, action="decline").status_code in {404, 409}
    assert service.wait_for_end(task_id)["status"] == "cancelled"


def test_a_call_that_asked_something_before_the_service_died_has_an_unknown_outcome(tmp_path: Path) -> None:
    with Service(tmp_path, limits={"cancel_grace_s": 0.1, "shutdown_s": 0.1}) as service:
        service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [ASKING]}), encoding="utf-8")
        service.restart()
        service.refresh_tools()
        task_id, asked = asked_by(service, "form")
        service.restart()
        eventually_sync(lambda: [one["kind"] for one in service.task(task_id)["attention"]] == ["outcome_unknown"])
        assert answer(service, task_id, asked, action="decline").status_code == 404
