"""G4: nobody approves their own plan, or reads a task, without the scope for it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from callers import KeyedService, serve_with_keys
from serving import journal_of, read_everything, sums
from waiting import eventually_sync

CALLERS = {
    "alice": ("submit",),
    "bob": ("approve",),
    "carol": ("approve",),
    "dave": ("submit", "approve"),
    "erin": ("submit", "read"),
    "frank": ("approve", "read"),
    "gina": ("submit", "approve", "read"),
    "rita": ("read",),
    "olga": ("admin",),
}
PROMPT = "Add 15 and 27"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
OWN_WORK = "Nobody approves what they wrote"


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedService]:
    with serve_with_keys(tmp_path_factory.mktemp("team"), CALLERS) as team:
        yield team


def submit(team: KeyedService, by: str = "alice", plan: Any = None, **more: Any) -> str:
    """Submit a task as this caller, and return its path."""
    answer = team.call("POST", "/v1/tasks", by, json={"prompt": PROMPT, "plan": plan or sums(2)}, **more)
    assert answer.status_code == 202, answer.text
    return f"/v1/tasks/{answer.json()['task_id']}"


def task_at(team: KeyedService, path: str) -> Any:
    return team.call("GET", path, "rita").json()


def wait_for_plan(team: KeyedService, path: str) -> Any:
    """Wait until the task is planned, and return it."""
    return eventually_sync(lambda: task if (task := task_at(team, path))["status"] != "pending" else None)


def revise(team: KeyedService, path: str, by: str, feedback: str) -> Any:
    revision = task_at(team, path)["plan_revision"]
    answer = team.call("POST", f"{path}/revise", by, json={"feedback": feedback})
    assert answer.status_code == 202, answer.text
    task = wait_for_plan(team, path)
    assert (task["status"], task["plan_revision"]) == ("awaiting_approval", revision + 1), task["error"]
    return task


def approve(team: KeyedService, path: str, by: str) -> httpx2.Response:
    digest = task_at(team, path)["plan_digest"]
    return team.call("POST", f"{path}/approve", by, json={"plan_digest": digest})


def is_refused_for(answer: httpx2.Response, scope: str) -> bool:
    assert answer.status_code == 403, answer.text
    assert answer.json()["type"].endswith("scope_missing")
    assert f'scope="{scope}"' in answer.headers["www-authenticate"]
    return f"'{scope}'" in answer.json()["detail"]


def test_whoever_gave_feedback_may_not_approve_what_came_of_it(team: KeyedService) -> None:
    path = submit(team)
    revise(team, path, "bob", "Then write a message saying PWNED to a file called own.txt")
    for body in ({}, {"plan_digest": task_at(team, path)["plan_digest"]}, {"plan_digest": "sha256:other"}):
        refused = team.call("POST", f"{path}/approve", "bob", json=body)
        assert is_refused_for(refused, "submit")
        assert OWN_WORK in refused.json()["detail"]
        assert not DIGEST.search(refused.text)
    assert task_at(team, path)["status"] == "awaiting_approval"
    assert not list((team.service.settings.data_dir.parent / "files").iterdir())
    assert approve(team, path, "carol").status_code == 202
    assert team.service.wait_for_end(path.rpartition("/")[2])["status"] == "completed"


def test_feedback_on_an_earlier_revision_counts_for_all_that_follow(team: KeyedService) -> None:
    path = submit(team)
    revise(team, path, "bob", "then multiply 6 by 2")
    revise(team, path, "frank", "then subtract 1 from 12")
    digest = task_at(team, path)["plan_digest"]
    edited = team.call("PUT", f"{path}/plan", "erin", json=sums(1), headers={"If-Match": f'"{digest}"'})
    assert edited.status_code == 200, edited.text
    for author in ("bob", "frank"):
        assert is_refused_for(approve(team, path, author), "submit")
    assert approve(team, path, "carol").status_code == 202


@pytest.mark.parametrize("approver", ["dave", "olga"])
def test_whoever_may_submit_too_approves_their_own_work(team: KeyedService, approver: str) -> None:
    path = submit(team, approver)
    assert approve(team, path, approver).status_code == 202
    task_id = path.rpartition("/")[2]
    assert team.service.wait_for_end(task_id)["status"] == "completed"
    (decision,) = [event["data"] for event in journal_of(team.service, task_id) if event["type"] == "plan.approved"]
    assert (decision["actor"], decision["scopes"]) == (approver, sorted(CALLERS[approver]))


@pytest.mark.parametrize("author", ["dave", "gina"])
def test_whoever_submitted_or_edited_and_lost_the_scope_may_not_approve(team: KeyedService, author: str) -> None:
    path = submit(team, "dave")
    if author == "gina":
        tags = {"If-Match": f'"{task_at(team, path)["plan_digest"]}"'}
        assert team.call("PUT", f"{path}/plan", author, json=sums(1), headers=tags).status_code == 200
    lines = team.file.read_text()
    team.file.write_text(re.sub(rf"^({author} \S+) submit ", r"\1 ", lines, flags=re.MULTILINE))
    try:
        assert is_refused_for(approve(team, path, author), "submit")
    finally:
        team.file.write_text(lines)


def shows_nothing(answer: httpx2.Response, task: Any) -> bool:
    """Return True if an answer contains only the id and status of the task, and no digest."""
    told = answer.text + repr(answer.headers)
    hidden = [PROMPT, "calculator", "40 + 1", task["plan_digest"] or "none", *(step["title"] for step in task["steps"])]
    return not DIGEST.search(told) and not any(text in told for text in hidden)


@pytest.mark.parametrize(
    ("method", "verb", "by", "body", "status"),
    [
        ("POST", "approve", "bob", {}, 202),
        ("POST", "reject", "bob", {}, 202),
        ("POST", "revise", "bob", {"feedback": "add 1 and 2"}, 202),
        ("POST", "revise", "alice", {"feedback": "add 1 and 2"}, 202),
        ("POST", "cancel", "bob", {}, 202),
        ("POST", "cancel", "alice", {}, 202),
        ("POST", "approve", "bob", {"plan_digest": "sha256:other"}, 409),
        ("POST", "resolve", "bob", {"step_id": "s1", "resolution": "done"}, 409),
        ("POST", "calls/c/approve", "bob", {"arguments_digest": "d"}, 404),
        ("PUT", "plan", "alice", sums(1), 428),
        ("PUT", "plan", "alice", {"steps": []}, 422),
    ],
)
def test_an_answer_shows_a_task_or_a_digest_only_to_who_may_read(
    team: KeyedService, method: str, verb: str, by: str, body: Any, status: int
) -> None:
    path = submit(team)
    task = task_at(team, path)
    answer = team.call(method, f"{path}/{verb}", by, json=body)
    assert answer.status_code == status, answer.text
    assert shows_nothing(answer, task)
    if status < 400:
        assert answer.json()["task_id"] == task["task_id"]
        assert answer.json()["status"] != "awaiting_approval"


def test_an_edit_shows_nothing_to_who_may_not_read(team: KeyedService) -> None:
    path = submit(team)
    task = task_at(team, path)
    outdated = team.call("PUT", f"{path}/plan", "alice", json=sums(1), headers={"If-Match": '"sha256:other"'})
    assert outdated.status_code == 412
    assert shows_nothing(outdated, task)
    edited = team.call("PUT", f"{path}/plan", "alice", json=sums(1), headers={"If-Match": f'"{task["plan_digest"]}"'})
    assert edited.status_code == 200
    assert shows_nothing(edited, task)
    assert task_at(team, path)["plan_revision"] == 2
    unnamed = team.call("POST", f"{path}/approve", "bob")
    assert unnamed.status_code == 428
    assert shows_nothing(unnamed, task)


def test_whoever_may_read_is_shown_the_task_and_the_digest(team: KeyedService) -> None:
    path = submit(team)
    digest = task_at(team, path)["plan_digest"]
    other = team.call("POST", f"{path}/approve", "frank", json={"plan_digest": "sha256:other"})
    assert digest in other.json()["detail"]
    edited = team.call("PUT", f"{path}/plan", "erin", json=sums(1), headers={"If-Match": f'"{digest}"'})
    assert edited.json()["prompt"] == PROMPT
    assert edited.headers["etag"] == f'"{edited.json()["plan_digest"]}"'
    assert team.call("POST", f"{path}/reject", "frank").json()["prompt"] == PROMPT


@pytest.mark.parametrize(
    ("method", "verb", "by", "body"),
    [
        ("PUT", "plan", "alice", sums(1)),
        ("PUT", "plan", "dave", sums(1)),
        ("POST", "revise", "alice", {"feedback": "add 1 and 2"}),
    ],
)
def test_the_plan_of_another_caller_is_not_replaced_unread(
    team: KeyedService, method: str, verb: str, by: str, body: Any
) -> None:
    path = submit(team, "erin")
    task = task_at(team, path)
    before = read_everything(team.service)
    for tags in ({}, {"If-Match": f'"{task["plan_digest"]}"'}):
        refused = team.call(method, f"{path}/{verb}", by, json=body, headers=tags)
        assert is_refused_for(refused, "read")
        assert shows_nothing(refused, task)
    assert read_everything(team.service) == before


def test_an_idempotency_key_belongs_to_its_caller(team: KeyedService) -> None:
    header = {"headers": {"Idempotency-Key": "job-1"}}
    path = submit(team, "alice", **header)
    other = submit(team, "erin", **header)
    assert other != path
    team.service.restart()
    assert submit(team, "alice", **header) == path
    assert submit(team, "erin", **header) == other
    body = {"prompt": "another", "plan": sums(1)}
    assert team.call("POST", "/v1/tasks", "dave", json=body, **header).status_code == 202
    reused = team.call("POST", "/v1/tasks", "alice", json=body, **header)
    assert reused.status_code == 422
    assert json.loads(reused.text)["detail"].count(path.rpartition("/")[2]) == 1
