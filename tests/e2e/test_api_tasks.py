"""Tasks over REST, over the real server."""

import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from agent_runtime.api.console import ASSETS
from serving import Service, journal_of, sums


def test_a_task_goes_from_prompt_to_result_as_the_old_front_end_asks_for_it(service: Service) -> None:
    response = service.client.post("/v1/tasks", json={"prompt": "calculate 6 * 7"})
    assert response.status_code == 202
    created = response.json()
    assert set(created) == {"task_id", "status", "links"}
    task_id = created["task_id"]
    with service.stream(task_id) as stream:
        for line in stream.iter_lines():
            if "plan.proposed" in line:
                break
    task = service.task(task_id)
    assert (task["status"], task["terminal"], task["result"]) == ("awaiting_approval", False, None)
    assert task["plan"].startswith("1. ")

    approved = service.client.post(f"/v1/tasks/{task_id}/approve")  # neither a body nor a content type
    assert approved.status_code == 202
    assert approved.json()["plan_digest"] == task["plan_digest"]
    assert approved.json()["message"]

    task = service.wait_for_end(task_id)
    assert (task["status"], task["terminal"], task["error"]) == ("completed", True, None)
    assert "42" in task["result"]


def test_a_ready_made_plan_awaits_approval_at_once_and_shows_what_its_digest_is_of(service: Service) -> None:
    task = service.task(service.submit(plan=sums(3), metadata={"cell": "7"}, max_steps=3))
    assert task["status"] == "awaiting_approval"
    assert task["plan_digest"] == "sha256:" + hashlib.sha256(rfc8785.dumps(task["plan_object"])).hexdigest()
    assert [step["status"] for step in task["steps"]] == ["pending"] * 3
    assert task["metadata"] == {"cell": "7"}
    assert task["plan_object"]["limits"]["max_steps"] == 3
    assert task["plan_revision"] == 1


def test_a_finished_task_tells_what_each_step_gave_and_who_decided(service: Service) -> None:
    task = service.task(service.complete_task(plan=sums(2)))
    assert [(step["status"], step["output"], step["attempts"]) for step in task["steps"]] == [
        ("completed", "41", 1),
        ("completed", "42", 1),
    ]
    assert [(entry["who"], entry["decision"]) for entry in task["approvals"]] == [("anonymous", "approve")]
    assert task["usage"] == {"input_tokens": 0, "output_tokens": 0, "tool_calls": 2}
    assert task["created_at"] < task["steps"][0]["started_at"] <= task["steps"][0]["ended_at"] <= task["updated_at"]
    assert task["updated_at"].endswith("Z")


def test_of_many_approvals_at_once_one_is_accepted_and_the_plan_runs_once(service: Service) -> None:
    task_id = service.submit(plan=sums(1))
    gate = threading.Barrier(12, timeout=10)

    def approve(_: int) -> int:
        gate.wait()
        return int(service.client.post(f"/v1/tasks/{task_id}/approve").status_code)

    with ThreadPoolExecutor(12) as pool:
        assert sorted(pool.map(approve, range(12))) == [202, *[409] * 11]
    assert service.wait_for_end(task_id)["status"] == "completed"
    kinds = [event["type"] for event in journal_of(service, task_id)]
    assert (kinds.count("plan.approved"), kinds.count("tool.called")) == (1, 1)


def test_an_approval_of_another_digest_is_refused(service: Service) -> None:
    task_id = service.submit()
    path = f"/v1/tasks/{task_id}/approve"
    refused = service.client.post(path, json={"plan_digest": "sha256:" + "0" * 64})
    assert refused.status_code == 409
    assert refused.json()["task_status"] == "awaiting_approval"
    digest = service.task(task_id)["plan_digest"]
    assert service.client.post(path, json={"plan_digest": digest, "comment": "fine"}).status_code == 202
    assert service.task(task_id)["approvals"][0]["comment"] == "fine"


def test_a_second_approval_is_refused_and_names_the_status(service: Service) -> None:
    task_id = service.complete_task()
    refused = service.client.post(f"/v1/tasks/{task_id}/approve")
    assert refused.status_code == 409
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert "completed" in problem["detail"]
    assert (problem["status"], problem["title"], problem["task_status"]) == (409, "Conflict", "completed")
    assert problem["instance"] == f"/v1/tasks/{task_id}/approve"


def test_a_thread_has_one_task_after_another_the_newest_first(service: Service) -> None:
    first = service.complete_task(thread="chat 7")
    second = service.submit(thread="chat 7")
    other = service.submit()
    assert (service.task(first)["thread"], service.task(other)["thread"]) == ("chat 7", None)
    listed = service.get("/v1/tasks", thread="chat 7")["tasks"]
    assert [(task["task_id"], task["thread"]) for task in listed] == [(second, "chat 7"), (first, "chat 7")]
    waiting = service.get("/v1/tasks", thread="chat 7", status="completed")["tasks"]
    assert [task["task_id"] for task in waiting] == [first]
    again = service.client.post(f"/v1/tasks/{first}/rerun", json={}).json()["task_id"]
    assert service.get("/v1/tasks", thread="chat 7", limit=1)["tasks"][0]["task_id"] == again
    assert service.get(f"/v1/tasks/{first}/audit")["index"]["thread"] == "chat 7"
    assert "thread" not in service.get(f"/v1/tasks/{other}/audit")["index"]
    service.client.delete(f"/v1/tasks/{first}")
    assert first not in [task["task_id"] for task in service.get("/v1/tasks", thread="chat 7")["tasks"]]
    for unusable in ("", "x" * 201):
        refused = service.client.get("/v1/tasks", params={"thread": unusable})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "thread")
        refused = service.client.post("/v1/tasks", json={"prompt": "Add up", "thread": unusable})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "thread")


def test_the_same_key_and_body_give_the_same_task_and_another_body_is_refused(service: Service) -> None:
    headers = {"Idempotency-Key": "cell-7"}
    body: dict[str, Any] = {"prompt": "Add up", "plan": sums(1)}
    first = service.client.post("/v1/tasks", json=body, headers=headers)
    again = service.client.post("/v1/tasks", content=_respell(body), headers={**headers, **JSON})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["task_id"] == again.json()["task_id"]
    other = service.client.post("/v1/tasks", json={**body, "prompt": "Other"}, headers=headers)
    assert other.status_code == 422
    assert "Idempotency-Key" in other.json()["detail"]


JSON = {"Content-Type": "application/json"}


def _respell(body: dict[str, Any]) -> bytes:
    """Encode the same body differently."""
    return b" " + rfc8785.dumps(body).replace(b":", b" : ", 1)


def test_the_same_key_many_times_at_once_gives_one_task(service: Service) -> None:
    def submit(_: int) -> str:
        body = {"prompt": "Once", "plan": sums(1)}
        response = service.client.post("/v1/tasks", json=body, headers={"Idempotency-Key": "at-once"})
        return str(response.json()["task_id"])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(submit, range(8)))) == 1


def test_a_rejected_plan_never_runs(service: Service) -> None:
    task_id = service.submit()
    rejected = service.client.post(f"/v1/tasks/{task_id}/reject", json={"reason": "too dear"})
    assert rejected.status_code == 202
    assert (rejected.json()["status"], rejected.json()["terminal"]) == ("rejected", True)
    assert rejected.json()["approvals"][0]["comment"] == "too dear"
    assert service.client.post(f"/v1/tasks/{task_id}/approve").status_code == 409


def test_a_cancelled_task_ends_and_cannot_be_cancelled_again(service: Service) -> None:
    task_id = service.submit()
    cancelled = service.client.post(f"/v1/tasks/{task_id}/cancel")
    assert cancelled.status_code == 202
    assert (cancelled.json()["status"], cancelled.json()["cancel_requested"]) == ("cancelled", True)
    again = service.client.post(f"/v1/tasks/{task_id}/cancel")
    assert (again.status_code, again.json()["task_status"]) == (409, "cancelled")


def test_nothing_can_be_resolved_where_nothing_is_asked(service: Service) -> None:
    task_id = service.submit()
    response = service.client.post(f"/v1/tasks/{task_id}/resolve", json={"step_id": "s1", "resolution": "retry"})
    assert (response.status_code, response.json()["task_status"]) == (409, "awaiting_approval")


def test_only_an_ended_task_can_be_deleted_and_then_it_is_gone(service: Service) -> None:
    task_id = service.submit()
    path = f"/v1/tasks/{task_id}"
    assert service.client.delete(path).status_code == 409
    service.client.post(f"{path}/cancel")
    deleted = service.client.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for response in (service.client.get(path), service.client.delete(path), service.client.get(f"{path}/stream")):
        assert response.status_code == 404


def test_the_list_is_newest_first_and_comes_in_pages(own_service: Service) -> None:
    made = [own_service.submit(prompt=f"number {number}") for number in range(5)]
    own_service.client.post(f"/v1/tasks/{made[0]}/cancel")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = own_service.get("/v1/tasks", limit=2, **cursor)
        seen += [row["task_id"] for row in page["tasks"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == made[::-1]
    (row,) = own_service.get("/v1/tasks", status="cancelled")["tasks"]
    assert (row["task_id"], row["terminal"], row["prompt"]) == (made[0], True, "number 0")


def test_the_journal_is_numbered_without_gaps_and_says_which_run_wrote_it(service: Service) -> None:
    events = journal_of(service, service.complete_task(plan=sums(2)))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["type"], events[-1]["type"]) == ("task.submitted", "task.completed")
    assert events[0]["epoch"] is None
    assert events[-1]["epoch"] >= 1
    assert events[0]["data"]["prompt"] == "Add up"


def test_the_catalogue_lists_every_tool_with_its_policy(service: Service) -> None:
    service.complete_task()  # planning waits until the servers are known
    tools = {(tool["server"], tool["tool"]): tool for tool in service.get("/v1/tools")["tools"]}
    evaluate = tools["calculator", "evaluate"]
    assert (evaluate["effect"], evaluate["idempotent"], evaluate["status"]) == ("read", True, "available")
    assert evaluate["pin"].startswith("sha256:")
    assert evaluate["input_schema"]["properties"]


def test_the_catalogue_comes_whole_or_a_page_at_a_time(service: Service) -> None:
    whole = service.refresh_tools()
    pages = [service.get("/v1/tools", limit=2)]
    while pages[-1]["next_cursor"]:
        pages.append(service.get("/v1/tools", limit=2, cursor=pages[-1]["next_cursor"]))
    assert whole["next_cursor"] is None
    assert [tool for page in pages for tool in page["tools"]] == whole["tools"]
    assert [len(page["tools"]) for page in pages[:-1]] == [2] * (len(pages) - 1)


@pytest.mark.parametrize(
    ("field", "value"), [("cursor", "x"), ("cursor", "MDE"), ("cursor", "-"), ("limit", "0"), ("limit", "501")]
)
def test_a_page_of_the_catalogue_that_there_is_not_is_refused(service: Service, field: str, value: str) -> None:
    response = service.client.get("/v1/tools", params={field: value})
    assert response.status_code == 422
    assert [fault["field"] for fault in response.json()["errors"]] == [field]


@pytest.mark.parametrize("value", ["true", "false", "perhaps", ""])
def test_a_look_at_the_catalogue_starts_nothing(service: Service, value: str) -> None:
    response = service.client.get("/v1/tools", params={"refresh": value})
    assert response.status_code == 400
    assert "POST /v1/tools/refresh" in response.json()["detail"]


def test_the_status_of_the_servers_is_a_plain_list(service: Service) -> None:
    refreshed = service.client.post("/v1/tools/refresh")
    servers = service.get("/v1/tools/status")
    assert (refreshed.status_code, refreshed.json()) == (200, servers)
    assert [(server["id"], server["enabled"], server["connected"]) for server in servers] == [
        ("filesystem", True, True),
        ("calculator", True, True),
        ("unused", False, False),
    ]
    assert set(servers[0]) == {"id", "name", "type", "enabled", "connected", "detail", "circuit", "spares", "stderr"}


def test_a_plan_may_run_unasked_where_the_policy_allows_its_effects(tmp_path: Path) -> None:
    service = Service(tmp_path, approval={"auto_effects": ["read"]})
    service.start()
    try:
        task = service.wait_for_end(service.submit(approval="auto"))
        assert task["status"] == "completed"
        assert [entry["who"] for entry in task["approvals"]] == ["policy"]
    finally:
        service.stop()


def test_the_digest_must_be_named_where_the_operator_wants_it(tmp_path: Path) -> None:
    service = Service(tmp_path, approval={"require_digest": True})
    service.start()
    try:
        task_id = service.submit()
        refused = service.client.post(f"/v1/tasks/{task_id}/approve")
        assert refused.status_code == 428
        assert service.task(task_id)["plan_digest"] in refused.json()["detail"]
    finally:
        service.stop()


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", *(f"/console/{name}" for name in ASSETS if not name.startswith("vendor/"))],
)
def test_the_pages_load_nothing_from_elsewhere(service: Service, path: str) -> None:
    response = service.client.get(path)
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]
    code = re.sub(r"(?m)^ *//.*|<//>|http://www\.w3\.org", "", response.text)
    assert "//" not in code


def test_a_browser_loads_a_file_of_the_page_once_compressed_and_all_modules_at_once(service: Service) -> None:
    page = service.client.get("/")
    assert page.headers["content-encoding"] == "gzip"
    plain = service.client.get("/", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == page.text
    again = service.client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == page.headers["content-security-policy"]
    preloaded = re.findall(r'<link rel="modulepreload" href="(.*?)">', page.text)
    assert {"console/main.js", "client.js", "console/vendor/preact.mjs", "console/views/task.js"} <= set(preloaded)
    for path in preloaded:
        assert service.client.get(f"/{path}").headers["content-type"].startswith("text/javascript")


def test_tasks_are_found_by_words_of_their_prompt_and_metadata(own_service: Service) -> None:
    wanted = own_service.submit(prompt="Count the words", metadata={"customer": "Acme"})
    own_service.submit(prompt="Count the lines", metadata={"customer": "Other"})
    for query in ("words COUNT", "acme", "customer the words", wanted):
        assert [task["task_id"] for task in own_service.get("/v1/tasks", q=query)["tasks"]] == [wanted]
    assert own_service.get("/v1/tasks", q="count", status="completed")["tasks"] == []
    for query in ("", "x" * 257):
        refused = own_service.client.get("/v1/tasks", params={"q": query})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "q")


VERBS = ("approve", "reject", "rerun", "revise", "preview", "cancel", "resolve", "stream-ticket")


def test_every_call_is_documented(service: Service) -> None:
    described = service.get("/openapi.json")
    calls = {(method, path) for path, methods in described["paths"].items() for method in methods}
    one = "/v1/tasks/{task_id}"
    assert calls == {
        ("post", "/v1/tasks"),
        ("get", "/v1/tasks"),
        ("get", one),
        ("delete", one),
        *(("post", f"{one}/{verb}") for verb in VERBS),
        *(("post", f"{one}/calls/{{call_id}}/{verb}") for verb in ("approve", "deny")),
        ("post", f"{one}/answers/{{question_id}}"),
        ("put", f"{one}/plan"),
        ("get", f"{one}/plan/revisions"),
        ("get", f"{one}/plan/diff"),
        ("get", f"{one}/planning"),
        ("get", f"{one}/conversations"),
        ("get", f"{one}/images/{{digest}}"),
        ("get", f"{one}/stream"),
        ("get", f"{one}/events"),
        ("get", f"{one}/audit"),
        ("get", "/v1/tools"),
        ("get", "/v1/tools/status"),
        ("post", "/v1/tools/refresh"),
        ("post", "/v1/tools/reload"),
        ("get", "/v1/events/stream"),
        *((method, "/v1/state/{agent}/{thread}") for method in ("get", "put", "delete")),
        ("get", "/v1/models/status"),
        ("get", "/v1/me"),
        ("get", "/v1/status"),
        ("get", "/health"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
        ("get", "/api/v1/health"),
        ("post", "/api/v1/runs"),
        ("get", "/api/v1/runs/{run_id}"),
        *((method, "/v1/state/{agent}/{thread}") for method in ("get", "put", "delete")),
    }
    shapes = described["components"]["schemas"]
    assert {"prompt", "plan", "approval", "tools", "max_steps", "metadata", "budget", "thread"} == set(
        shapes["TaskRequest"]["properties"]
    )
    assert "plan_digest" in shapes["TaskView"]["properties"]
    body = described["paths"]["/v1/tasks"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/TaskRequest"}
    for path, method, name in (("/v1/tasks", "post", "Idempotency-Key"), (f"{one}/stream", "get", "Last-Event-ID")):
        assert name in [each["name"] for each in described["paths"][path][method]["parameters"]]
    assert "HTTPValidationError" not in shapes
    assert _find_dangling_references(described, shapes) == set()


def _find_dangling_references(node: Any, shapes: dict[str, Any]) -> set[str]:
    if isinstance(node, dict):
        named = node.get("$ref")
        missing = {named} if isinstance(named, str) and named.rpartition("/")[2] not in shapes else set()
        return missing.union(*(_find_dangling_references(inner, shapes) for inner in node.values()))
    return (
        set().union(*(_find_dangling_references(inner, shapes) for inner in node)) if isinstance(node, list) else set()
    )
