"""Plans over REST before their approval: revised and edited, over the real server."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving import Service, frames_of, journal_of, read_everything, sums


def put(service: Service, task_id: str, plan: Any, match: str | None) -> Any:
    headers = {} if match is None else {"If-Match": match}
    return service.client.put(f"/v1/tasks/{task_id}/plan", json=plan, headers=headers)


def tag(task: Mapping[str, Any]) -> str:
    return f'"{task["plan_digest"]}"'


def revise(service: Service, task_id: str, feedback: str) -> Any:
    """Plan the task again, wait until it awaits approval or has ended, and return it."""
    with service.stream(task_id) as stream:
        asked = False
        for event, _, _ in frames_of(stream):
            if event == "plan.proposed" and not asked:
                asked = True
                response = service.client.post(f"/v1/tasks/{task_id}/revise", json={"feedback": feedback})
                assert response.status_code == 202, response.text
                assert response.json()["status"] in {"pending", "awaiting_approval"}
            elif event in {"plan.proposed", "plan.revision_failed"}:
                break
    return service.task(task_id)


def test_feedback_gives_the_next_revision_which_is_approved_by_its_digest_only(service: Service) -> None:
    task_id = service.submit(plan=sums(1))
    first = service.task(task_id)
    second = revise(service, task_id, "Multiply 6 by 7")
    assert (second["status"], second["plan_revision"]) == ("awaiting_approval", 1)  # "Add up" is not understood
    assert second["plan_digest"] == first["plan_digest"]
    failed = second["revision_failed"]
    assert (failed["feedback"], failed["code"]) == ("Multiply 6 by 7", "planning_refused")
    assert failed["message"] in second["result"]
    unnamed = service.client.post(f"/v1/tasks/{task_id}/approve")
    assert (unnamed.status_code, first["plan_digest"] in unnamed.json()["detail"]) == (428, True)
    named = service.client.post(f"/v1/tasks/{task_id}/approve", json={"plan_digest": first["plan_digest"]})
    assert named.status_code == 202

    task_id = service.client.post("/v1/tasks", json={"prompt": "Add 1 and 2"}).json()["task_id"]
    second = revise(service, task_id, "then multiply the result by 2")
    assert (second["status"], second["plan_revision"], len(second["steps"])) == ("awaiting_approval", 2, 2)
    approve = f"/v1/tasks/{task_id}/approve"
    assert service.client.post(approve).status_code == 428
    assert service.client.post(approve, json={"plan_digest": first["plan_digest"]}).status_code == 409
    assert service.client.post(approve, json={"plan_digest": second["plan_digest"]}).status_code == 202
    done = service.wait_for_end(task_id)
    assert (done["status"], done["result"]) == ("completed", "6")
    assert [made["decision"] for made in done["approvals"]] == ["revise", "approve"]
    assert service.client.post(f"/v1/tasks/{task_id}/revise", json={"feedback": "again"}).status_code == 409


def test_an_edited_plan_is_the_next_revision_and_what_runs(service: Service) -> None:
    task_id = service.submit(plan=sums(1))
    response = service.client.get(f"/v1/tasks/{task_id}")
    etag = response.headers["etag"]
    assert etag == tag(response.json())
    edited = put(service, task_id, sums(3), etag)
    assert edited.status_code == 200, edited.text
    task = edited.json()
    assert (task["status"], task["plan_revision"], len(task["steps"])) == ("awaiting_approval", 2, 3)
    assert edited.headers["etag"] == tag(task) != etag
    assert service.client.get(f"/v1/tasks/{task_id}").headers["etag"] == tag(task)
    event = journal_of(service, task_id)[-1]
    assert (event["type"], event["data"]["digest"]) == ("plan.edited", task["plan_digest"])
    approve = f"/v1/tasks/{task_id}/approve"
    for body, status in (({}, 428), ({"plan_digest": etag.strip('"')}, 409), ({"plan_digest": tag(task)[1:-1]}, 202)):
        assert service.client.post(approve, json=body).status_code == status
    done = service.wait_for_end(task_id)
    assert (done["status"], done["result"]) == ("completed", "43")
    assert put(service, task_id, sums(1), tag(done)).status_code == 409


def test_a_task_without_a_plan_has_no_tag(service: Service) -> None:
    task_id = service.client.post("/v1/tasks", json={"prompt": "frobnicate"}).json()["task_id"]
    service.wait_for_end(task_id)
    assert "etag" not in service.client.get(f"/v1/tasks/{task_id}").headers


def test_an_edit_must_name_the_plan_that_is_the_current_one(service: Service) -> None:
    task_id = service.submit(plan=sums(1))
    current = tag(service.task(task_id))
    before = read_everything(service)
    for match in (None, "*"):
        response = put(service, task_id, sums(2), match)
        assert (response.status_code, response.headers["content-type"]) == (428, "application/problem+json")
        assert current in response.json()["detail"]
    for match in ('"sha256:0"', f"W/{current}", '""', '"a", "b"'):
        response = put(service, task_id, sums(2), match)
        assert response.status_code == 412
        assert current.strip('"') in response.json()["detail"]
    for match in (current.strip('"'), f'{current}"', "", ",", f"{current} {current}", f"w/{current}"):
        assert put(service, task_id, sums(2), match).status_code == 400
    assert read_everything(service) == before
    assert put(service, task_id, sums(2), f'"other" ,\t{current}').status_code == 200


def test_of_edits_at_once_one_is_accepted_and_the_rest_are_out_of_date(service: Service) -> None:
    task_id = service.submit(plan=sums(1))
    current = tag(service.task(task_id))
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda count: put(service, task_id, sums(count), current).status_code, range(2, 10))
    assert sorted(answers) == [200, *[412] * 7]
    assert service.task(task_id)["plan_revision"] == 2


@pytest.mark.parametrize(
    ("plan", "fields"),
    [
        ({}, ["plan.steps"]),
        ([], ["plan"]),
        ("a plan", ["plan"]),
        ({"steps": []}, ["plan.steps"]),
        ({"steps": [7]}, ["plan.steps[0]"]),
        ({"steps": {"s1": {}}}, ["plan.steps"]),
        ({**sums(1), "limits": {}}, ["plan.limits"]),
        (
            {"steps": [{"id": "s1", "kind": "tool", "server": "none", "tool": "x", "depends_on": ["s2"]}]},
            ["plan.steps[0].depends_on", "plan.steps[0].server"],
        ),
        (
            {"steps": [*sums(1)["steps"], *sums(1)["steps"]]},
            ["plan.steps[1].id"],
        ),
        ({"steps": sums(21)["steps"]}, ["plan.steps"]),
    ],
)
def test_a_wrong_plan_is_refused_with_every_fault_and_changes_nothing(
    service: Service, plan: Any, fields: list[str]
) -> None:
    task_id = service.submit(plan=sums(1))
    before = read_everything(service)
    response = put(service, task_id, plan, tag(service.task(task_id)))
    assert response.status_code == 422
    assert sorted(fault["field"] for fault in response.json()["errors"]) == sorted(fields)
    assert read_everything(service) == before


def test_the_limits_of_the_task_hold_for_what_is_edited(service: Service) -> None:
    task_id = service.submit(plan=sums(1), max_steps=2)
    response = put(service, task_id, sums(3), tag(service.task(task_id)))
    assert response.status_code == 422
    assert "max_steps" in response.text


def test_a_preview_in_a_step_is_passed_over(service: Service) -> None:
    plan = sums(1)
    plan["steps"][0]["preview"] = {"effect": "made up"}
    task_id = service.submit(plan=plan)
    assert "preview" not in service.task(task_id)["plan_object"]["steps"][0]
    assert put(service, task_id, plan, tag(service.task(task_id))).status_code == 200


def test_every_revision_is_kept_and_what_differs_is_told(service: Service) -> None:
    task_id = service.client.post("/v1/tasks", json={"prompt": "Add 1 and 2"}).json()["task_id"]
    second = revise(service, task_id, "then multiply the result by 2")
    third = put(service, task_id, sums(1), tag(second)).json()
    rows = service.get(f"/v1/tasks/{task_id}/plan/revisions")["revisions"]
    assert [(row["revision"], row["by"], row["feedback"]) for row in rows] == [
        (1, "rules", None),
        (2, "rules", "then multiply the result by 2"),
        (3, "anonymous", None),
    ]
    assert [row["digest"] for row in rows[1:]] == [second["plan_digest"], third["plan_digest"]]
    assert rows[2]["plan_object"] == third["plan_object"]
    diff = service.get(f"/v1/tasks/{task_id}/plan/diff", **{"from": 1, "to": 2})
    assert (diff["from"], diff["to"]) == (1, 2)
    assert [(change["step_id"], change["change"]) for change in diff["changes"]] == [(None, "changed"), ("s2", "added")]
    assert diff["changes"][0]["fields"]["goal"]["from"] == "Add 1 and 2"
    assert "\n+s2:" in diff["text"]
    same = service.get(f"/v1/tasks/{task_id}/plan/diff", **{"from": 3, "to": 3})
    assert same["changes"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": 1, "to": 2}, "to"),
        ({"from": 0, "to": 1}, "from"),
        ({"from": -1, "to": 1}, "from"),
        ({"from": 1}, "to"),
        ({"from": "x", "to": 1}, "from"),
        ({"from": 1, "to": 10**30}, "to"),
        ({"from": 1, "to": 1, "more": 1}, "more"),
    ],
)
def test_a_comparison_with_what_is_not_there_is_refused(service: Service, query: dict[str, Any], field: str) -> None:
    response = service.client.get(f"/v1/tasks/{service.submit()}/plan/diff", params=query)
    assert response.status_code == 422
    assert [fault["field"] for fault in response.json()["errors"]] == [field]
    assert service.client.get("/v1/tasks/none/plan/diff?from=1&to=1").status_code == 404
    assert service.client.get("/v1/tasks/none/plan/revisions").status_code == 404


def test_a_task_without_a_plan_has_no_revisions(service: Service) -> None:
    task_id = service.client.post("/v1/tasks", json={"prompt": "frobnicate"}).json()["task_id"]
    service.wait_for_end(task_id)
    assert service.get(f"/v1/tasks/{task_id}/plan/revisions") == {"revisions": []}
    response = service.client.get(f"/v1/tasks/{task_id}/plan/diff?from=1&to=1")
    assert "there is no plan yet" in response.json()["detail"]


def test_a_preview_says_what_each_step_would_do(service: Service) -> None:
    steps = [
        {"id": "s1", "kind": "tool", "server": "filesystem", "tool": "read_file", "arguments": {"path": "notes.txt"}},
        {
            "id": "s2",
            "kind": "tool",
            "server": "filesystem",
            "tool": "write_file",
            "arguments": {"path": "${s1.text}.txt", "content": "x"},
        },
    ]
    task = service.task(service.submit(plan={"steps": steps}))
    response = service.client.post(f"/v1/tasks/{task['task_id']}/preview")
    assert response.status_code == 200
    preview = response.json()
    assert preview["plan_digest"] == task["plan_digest"]
    first, second = preview["steps"]
    touch = {"server": "filesystem", "tool": "read_file", "argument": "path", "value": "notes.txt", "resolved": True}
    assert (first["effect"], first["touches"], first["waits_on"], first["asks"]) == ("read", [touch], [], None)
    assert second["waits_on"] == ["s1"]
    assert (second["touches"][0]["value"], second["touches"][0]["resolved"]) == ("${s1.text}.txt", False)
    assert (first["sentence"], second["sentence"]) == (
        "Reads notes.txt, which does not exist now.",
        'Writes "x" to the path the result of step 1 followed by ".txt", in place of anything that is there.',
    )
    in_task = {"step_id": "s1", **task["steps"][0]["preview"]}
    assert in_task == {**first, "sentence": "Reads notes.txt."}


def test_there_is_no_preview_without_a_plan(service: Service) -> None:
    task_id = service.client.post("/v1/tasks", json={"prompt": "frobnicate"}).json()["task_id"]
    service.wait_for_end(task_id)
    response = service.client.post(f"/v1/tasks/{task_id}/preview")
    assert (response.status_code, response.json()["task_status"]) == (409, "failed")
    assert service.client.post("/v1/tasks/none/preview").status_code == 404


def test_a_denied_plan_is_422_and_a_denied_tool_is_in_the_catalogue_as_such(tmp_path: Path) -> None:
    denials = [{"tool": "divide", "reason": "no fractions"}, {"tool": "add", "arguments": {"a": "13"}}]
    service = Service(tmp_path, approval={"deny": denials})
    service.start()
    try:
        steps = [
            {"id": name, "kind": "tool", "server": "calculator", "tool": name, "arguments": {"a": 13, "b": 1}}
            for name in ("divide", "add", "multiply")
        ]
        response = service.client.post("/v1/tasks", json={"prompt": "p", "plan": {"goal": "g", "steps": steps}})
        assert response.status_code == 422, response.text
        assert [(fault["field"], fault["message"]) for fault in response.json()["errors"]] == [
            ("plan.steps[0].tool", "Denied by the operator: no fractions (deny 'divide')."),
            ("plan.steps[1].arguments", "Denied by the operator (deny 'add' with a like '13')."),
        ]
        assert service.get("/v1/tasks")["tasks"] == []
        tools = {tool["tool"]: tool for tool in service.refresh_tools()["tools"]}
    finally:
        service.client.close()
        service.stop()
    assert (tools["divide"]["status"], tools["add"]["status"]) == ("unavailable", "available")
    assert tools["divide"]["detail"] == "denied by the operator: no fractions (deny 'divide')"


def test_a_message_in_characters_that_are_not_seen_is_spelled_out_to_whoever_approves(service: Service) -> None:
    hidden = "".join(chr(0xE0100 + byte) for byte in b"and send it to eve")
    write = {"kind": "tool", "server": "filesystem", "tool": "write_file"}
    steps = [
        {**write, "id": "s1", "arguments": {"path": "report.txt", "content": "fine"}},
        {**write, "id": "s2", "arguments": {"path": "report.txt\u3164", "content": f"All is well.{hidden}"}},
    ]
    task_id = service.submit(plan={"steps": steps})
    task = service.task(task_id)
    _, second, note = task["plan"].split("\n")
    assert not any(character in task["plan"] for character in f"{hidden}\u3164")
    assert r'path="report.txt\u3164"' in second
    assert r"All is well.\U000e0161" in second
    assert task["plan_notes"] == [note]
    assert note.startswith(r'Look closely: "report.txt" and "report.txt\u3164" differ only')

    steps[1]["arguments"] = {"path": "report.txt", "content": "All is well.\ufe0f"}
    assert put(service, task_id, {"steps": steps}, tag(task)).status_code == 200
    assert service.task(task_id)["plan_notes"] == []
    diff = service.client.get(f"/v1/tasks/{task_id}/plan/diff?from=1&to=2").json()["text"]
    assert r'-    arguments.path = "report.txt\u3164"' in diff
    assert r'+    arguments.content = "All is well.\ufe0f"' in diff
