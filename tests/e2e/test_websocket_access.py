"""Access to WebSockets: what keys, tickets and scopes allow on them (G12, G14)."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from websockets.sync.connection import Connection

from agent_runtime.api.decisions import DECISIONS
from callers import KeyedService, serve_with_keys
from serving import read_everything
from sockets import messages_of, next_message, open_socket, send
from waiting import eventually_sync

CALLERS = {
    "reader": ("read",),
    "approver": ("read", "approve"),
    "submitter": ("read", "submit"),
    "blind": ("submit", "approve"),
}
MESSAGES: dict[str, dict[str, Any]] = {
    "approve": {},
    "reject": {},
    "revise": {"feedback": "x"},
    "cancel": {},
    "resolve": {"step_id": "s1", "resolution": "skip"},
    "approve_call": {"call_id": "c", "arguments_digest": "x"},
    "deny_call": {"call_id": "c", "arguments_digest": "x"},
    "answer": {"question_id": "q", "action": "decline"},
}


@pytest.fixture(scope="module")
def keyed_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedService]:
    with serve_with_keys(tmp_path_factory.mktemp("keyed"), CALLERS) as keyed_service:
        yield keyed_service


def open_as(
    keyed_service: KeyedService, task_id: str, caller: str, query: str = ""
) -> AbstractContextManager[Connection]:
    headers = {"Authorization": f"Bearer {keyed_service.keys.get(caller, caller)}"} if caller else {}
    return open_socket(keyed_service.service, f"/v1/tasks/{task_id}/stream{query}", additional_headers=headers)


def ticket_of(keyed_service: KeyedService, task_id: str, caller: str) -> str:
    made = keyed_service.call("POST", f"/v1/tasks/{task_id}/stream-ticket", caller).json()
    return str(made["ticket"])


@pytest.mark.parametrize(("caller", "code"), [("", 4401), ("ar_wrong", 4401), ("blind", 4403)])
def test_who_may_not_read_is_told_by_the_close_code(keyed_service: KeyedService, caller: str, code: int) -> None:
    with open_as(keyed_service, keyed_service.service.submit(), caller) as connection:
        messages, closed, reason = messages_of(connection)
    assert (messages, closed) == ([], code)
    assert re.match(r"(key_missing|key_invalid|scope_missing): ", reason)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MESSAGES)
def test_a_decision_needs_its_scope(keyed_service: KeyedService, kind: str) -> None:
    for caller in ("reader", "approver", "submitter"):
        task_id = keyed_service.service.submit()
        before = read_everything(keyed_service.service)
        allowed = not set(CALLERS[caller]).isdisjoint(DECISIONS[kind].scopes)
        with open_as(keyed_service, task_id, caller, "?after=2") as connection:
            send(connection, type=kind, id=kind, **MESSAGES[kind])
            reply = next_message(connection)
            while reply["event"] != "reply":
                reply = next_message(connection)
        assert reply["to"] == kind
        refused = not reply["ok"] and reply["data"]["type"].endswith(":scope_missing")
        assert refused == (not allowed)
        if refused:
            assert reply["data"]["status"] == 403
            assert read_everything(keyed_service.service) == before
        elif reply["ok"]:
            last = keyed_service.call("GET", f"/v1/tasks/{task_id}/events", "reader").json()["events"]
            assert caller in [event["data"].get("actor") for event in last]


def test_a_ticket_reads_and_never_decides(keyed_service: KeyedService) -> None:
    task_id = keyed_service.service.submit()
    ticket = ticket_of(keyed_service, task_id, "approver")
    with open_as(keyed_service, task_id, "", f"?after=2&ticket={ticket}") as connection:
        send(connection, type="approve", id=1)
        reply = next_message(connection)
    assert (reply["ok"], reply["data"]["status"]) == (False, 403)
    assert keyed_service.service.task(task_id)["status"] == "awaiting_approval"
    other = keyed_service.service.submit()
    for path in (f"/v1/tasks/{other}/stream", f"/tasks/{other}/stream"):
        with open_socket(keyed_service.service, f"{path}?ticket={ticket}") as connection:
            assert messages_of(connection)[1] == 4401
    with open_socket(keyed_service.service, f"/api/tasks/{task_id}/stream?ticket={ticket}") as connection:
        assert next_message(connection)["id"] == "1.0"


def test_a_ticket_on_a_websocket_is_not_logged(keyed_service: KeyedService, capsys: pytest.CaptureFixture[str]) -> None:
    task_id = keyed_service.service.submit()
    ticket = ticket_of(keyed_service, task_id, "reader")
    with open_as(keyed_service, task_id, "", f"?ticket={ticket}") as connection:
        next_message(connection)
    said = capsys.readouterr()
    assert ticket not in said.out + said.err


@pytest.mark.slow
def test_a_key_that_is_revoked_decides_nothing_more(keyed_service: KeyedService) -> None:
    task_id = keyed_service.service.submit()
    with open_as(keyed_service, task_id, "approver", "?after=2") as connection:
        send(connection, type="approve", id=1, plan_digest="sha256:0")
        assert next_message(connection)["data"]["status"] == 409
        lines = keyed_service.file.read_text().splitlines()
        keyed_service.file.write_text("\n".join(line for line in lines if not line.startswith("approver ")))
        eventually_sync(lambda: keyed_service.call("GET", "/v1/tasks", "approver").status_code == 401)
        send(connection, type="approve", id=2)
        messages, code, _ = messages_of(connection)
        keyed_service.file.write_text("\n".join(lines))
    assert (messages, code) == ([], 4401)
    assert keyed_service.service.task(task_id)["status"] == "awaiting_approval"
