"""The stream over a WebSocket: the same frames, decisions on the way back, clients that break the rules (G8, G13)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from serving import Service, connect, frames_of, journal_of, read_everything, read_to_end, sums
from sockets import (
    BINARY,
    CLOSE,
    CONTINUED,
    HANDSHAKE,
    PING,
    TEXT,
    close_of,
    exchange_frames,
    frame,
    messages_of,
    messages_until,
    next_message,
    open_socket,
    send,
)
from waiting import eventually_sync


@pytest.fixture(scope="module")
def ended_task(service: Service) -> str:
    return service.complete_task(plan=sums(2))


def as_frames(messages: list[Any]) -> list[tuple[str, str, Any]]:
    return [(one["event"], one["id"], one["data"]) for one in messages]


def as_messages(frames: list[tuple[str, str, str]]) -> list[tuple[str, str, Any]]:
    return [(kind, frame_id, data if kind == "message" else json.loads(data)) for kind, frame_id, data in frames]


# Frames


@pytest.mark.parametrize("query", ["", "?view=events", "?view=log"])
def test_the_messages_are_the_frames_of_the_stream(service: Service, ended_task: str, query: str) -> None:
    with open_socket(service, f"/v1/tasks/{ended_task}/stream{query}") as connection:
        messages, code, reason = messages_of(connection)
    view = {"view": query.rpartition("=")[2]} if query else {}
    assert as_frames(messages) == as_messages(service.frames(ended_task, **view))
    assert (code, reason) == (1000, "done")


@pytest.mark.slow
def test_a_client_goes_on_after_any_frame(service: Service, ended_task: str) -> None:
    whole = as_messages(service.frames(ended_task))
    stream = f"/v1/tasks/{ended_task}/stream"
    for seen in (0, 4, len(whole) - 2, len(whole) - 1):
        last = whole[seen][1]
        with open_socket(service, f"{stream}?after={last}") as connection:
            by_query = messages_of(connection)
        with open_socket(service, stream, additional_headers={"Last-Event-ID": last}) as connection:
            by_header = messages_of(connection)
        with open_socket(service, stream) as connection:
            send(connection, type="resume", after=last)
            by_message = messages_of(connection)
        assert by_query == by_header == by_message
        assert as_frames(by_query[0]) == whole[seen + 1 :]
        assert by_query[1] == 1000


@pytest.mark.slow
def test_a_client_that_reconnects_while_a_task_runs_sees_it_once(service: Service) -> None:
    task_id = service.submit(plan=sums(3))
    seen: list[Any] = []
    while not seen or seen[-1]["data"] != "[DONE]":
        after = f"?after={seen[-1]['id']}" if seen else ""
        with open_socket(service, f"/v1/tasks/{task_id}/stream{after}") as connection:
            seen.append(next_message(connection))
            if seen[-1]["event"] == "plan.proposed":
                service.approve(task_id)
    assert as_frames(seen) == as_messages(service.frames(task_id))


@pytest.mark.slow
def test_a_stop_of_the_service_closes_the_stream_and_a_restart_loses_nothing(own_service: Service) -> None:
    task_id = own_service.submit(plan=sums(2))
    with open_socket(own_service, task_id) as connection:
        seen = messages_until(connection, "plan.proposed")
        own_service.stop()
        rest, code, reason = messages_of(connection)
    assert (code, rest[1:]) == (1012, [])
    assert "resume" in reason
    seen += rest
    own_service.start()
    with open_socket(own_service, f"/v1/tasks/{task_id}/stream?after={seen[-1]['id']}") as connection:
        send(connection, type="approve", id=1)
        more, code, _ = messages_of(connection)
    assert code == 1000
    (reply,) = [one for one in more if one["event"] == "reply"]
    assert (reply["to"], reply["ok"]) == (1, True)
    seen += [one for one in more if one is not reply]
    assert as_frames(seen) == as_messages(own_service.frames(task_id))


@pytest.mark.slow
def test_a_client_that_waits_is_pinged(tmp_path: Path) -> None:
    with Service(tmp_path, limits={"keep_alive_s": 0.1}) as service:
        path = f"/v1/tasks/{service.submit()}/stream?view=log&after=2"
        head, frames = exchange_frames(service, path, b"", until=PING)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert [opcode for opcode, _ in frames] == [PING]


# Decisions


def test_a_plan_is_approved_and_its_result_seen_on_one_connection(service: Service) -> None:
    task_id = service.submit(plan=sums(2))
    digest = service.task(task_id)["plan_digest"]
    with open_socket(service, task_id) as connection:
        messages_until(connection, "plan.proposed")
        send(connection, type="approve", id="a", plan_digest="sha256:" + "0" * 64)
        send(connection, type="approve", id="b", plan_digest=digest, comment="read it")
        send(connection, type="approve", id="c", plan_digest=digest)
        messages, code, _ = messages_of(connection)
    assert code == 1000
    wrong, right, again = [one for one in messages if one["event"] == "reply"]
    assert (wrong["to"], wrong["ok"], wrong["data"]["status"]) == ("a", False, 409)
    assert wrong["data"]["type"].endswith(":digest_mismatch")
    assert (right["to"], right["ok"], right["data"]["plan_digest"]) == ("b", True, digest)
    assert (again["to"], again["ok"], again["data"]["status"]) == ("c", False, 409)
    assert [one["data"] for one in messages][-2:] == ["Completed: 42", "[DONE]"]
    approvals = [event for event in journal_of(service, task_id) if event["type"] == "plan.approved"]
    assert [event["data"]["comment"] for event in approvals] == ["read it"]


def test_a_plan_that_cannot_be_revised_awaits_approval_again_on_the_stream(service: Service) -> None:
    task_id = service.submit(plan=sums(2))
    digest = service.task(task_id)["plan_digest"]
    with open_socket(service, task_id) as connection:
        messages_until(connection, "plan.proposed")
        send(connection, type="revise", feedback="with more gusto")
        failed = messages_until(connection, "plan.revision_failed")[-1]["data"]["data"]
        send(connection, type="approve", plan_digest=digest)
        messages, _, _ = messages_of(connection)
    assert (failed["digest"], failed["code"]) == (digest, "planning_refused")
    assert [one["data"] for one in messages][-2:] == ["Completed: 42", "[DONE]"]


@pytest.mark.parametrize(
    ("message", "last"),
    [
        ({"type": "reject", "reason": "no"}, "plan.rejected"),
        ({"type": "cancel", "reason": "no"}, "task.cancelled"),
    ],
)
def test_a_task_is_ended_on_its_stream(service: Service, message: dict[str, str], last: str) -> None:
    task_id = service.submit()
    with open_socket(service, task_id) as connection:
        messages_until(connection, "plan.proposed")
        send(connection, id=7, **message)
        messages, code, _ = messages_of(connection)
    assert code == 1000
    assert [(one["to"], one["ok"]) for one in messages if one["event"] == "reply"] == [(7, True)]
    assert [one["event"] for one in messages if one["event"] not in {"reply", "message"}][-1] == last


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "'type'"),
        ("no", "not JSON"),
        ("[]", "type"),
        ("{}", "type"),
        ('{"type": 1}', "type"),
        ('{"type": "explode"}', "'approve'"),
        ('{"type": "approve", "plan_digest": 1}', "plan_digest"),
        ('{"type": "approve", "colour": 1}', "colour"),
        ('{"type": "approve", "type": "approve"}', "more than once"),
        ('{"type": "approve", "id": []}', "id of a message"),
        ('{"type": "answer", "action": "decline"}', "question_id"),
        ('{"type": "approve_call", "call_id": "c", "arguments_digest": "x"}', "call"),
        ("[" * 100 + "]" * 100, "nested"),
    ],
)
def test_a_message_that_means_nothing_is_answered_and_changes_nothing(
    service: Service, waiting_task: str, text: str, detail: str
) -> None:
    before = read_everything(service)
    with open_socket(service, f"/v1/tasks/{waiting_task}/stream?after=2") as connection:
        connection.send(text)
        reply = next_message(connection)
        send(connection, type="approve", id="x", plan_digest="y")
        assert next_message(connection)["to"] == "x"
    assert (reply["event"], reply["id"], reply["to"], reply["ok"]) == ("reply", None, None, False)
    assert 400 <= reply["data"]["status"] < 500
    assert detail.strip("'") in json.dumps(reply["data"])
    assert read_everything(service) == before


@pytest.fixture(scope="module")
def waiting_task(service: Service) -> str:
    return service.submit()


def test_two_doors_race_to_approve_and_one_is_told_that_the_other_won(service: Service) -> None:
    task_id = service.submit()
    with open_socket(service, task_id) as one, open_socket(service, f"/api/tasks/{task_id}/stream") as other:
        for connection in (one, other):
            messages_until(connection, "plan.proposed")
        for connection in (one, other):
            send(connection, type="approve", id="race")
        third = service.client.post(f"/v1/tasks/{task_id}/approve").status_code
        seen = [messages_of(connection)[0] for connection in (one, other)]
    replies = [next(message for message in messages if message["event"] == "reply") for messages in seen]
    outcomes = [202 if reply["ok"] else reply["data"]["status"] for reply in replies]
    assert sorted([*outcomes, third]) == [202, 409, 409]
    facts = [[message for message in messages if message["event"] != "reply"] for messages in seen]
    assert facts[0] == facts[1]


# Refusals


@pytest.mark.parametrize(
    ("path", "code", "word"),
    [
        ("/v1/tasks/task_none/stream", 4404, "task_not_found"),
        ("/v1/tasks/%00/stream", 4404, "task_not_found"),
        ("/v1/tasks", 4404, "not_found"),
        ("/v1/tasks/ID/stream?after=x", 4400, "bad_request"),
        ("/v1/tasks/ID/stream?after=99.0", 4400, "bad_request"),
        ("/v1/tasks/ID/stream?view=all", 4400, "bad_request"),
        ("/api/tasks/task_none/stream", 4404, "task_not_found"),
    ],
)
def test_the_close_code_says_why_there_is_no_stream(
    service: Service, ended_task: str, path: str, code: int, word: str
) -> None:
    with open_socket(service, path.replace("ID", ended_task)) as connection:
        messages, closed, reason = messages_of(connection)
    assert (messages, closed) == ([], code)
    assert reason.startswith(f"{word}: ")


def test_a_first_message_with_a_bad_position_closes_the_stream(service: Service, ended_task: str) -> None:
    with open_socket(service, ended_task) as connection:
        send(connection, type="resume", after="99.1")
        assert messages_of(connection)[1] == 4400


@pytest.mark.slow
def test_a_stream_over_the_limit_is_put_off(tmp_path: Path) -> None:
    with Service(tmp_path, limits={"stream_clients": 1}) as service:
        task_id = service.submit()
        with open_socket(service, task_id) as first:
            next_message(first)
            with open_socket(service, task_id) as second:
                assert messages_of(second)[1] == 1013
            assert service.client.get(f"/v1/tasks/{task_id}/stream").status_code == 503
        eventually_sync(lambda: service.open_streams == 0)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403)],
)
def test_a_page_of_another_origin_gets_no_connection(
    service: Service, ended_task: str, headers: dict[str, str], status: int
) -> None:
    with connect(service) as connection:
        head = HANDSHAKE.format(path=f"/v1/tasks/{ended_task}/stream", more="")
        if "Host" in headers:
            head = head.replace("Host: localhost", f"Host: {headers['Host']}")
        else:
            head = head.replace("Connection:", f"Origin: {headers['Origin']}\r\nConnection:")
        connection.sendall(head.encode())
        answer = read_to_end(connection)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"x-content-type-options: nosniff" in answer


@pytest.mark.slow
def test_what_is_no_handshake_is_answered_as_http(service: Service, ended_task: str) -> None:
    stream = f"/v1/tasks/{ended_task}/stream"
    good = HANDSHAKE.format(path=stream, more="")
    for head, start in (
        (good.replace("Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n", ""), b"HTTP/1.1 400 "),
        (good.replace("Version: 13", "Version: 7"), b"HTTP/1.1 400 "),
        (good.replace("Upgrade: websocket", "Upgrade: h2c").replace("keep-alive, ", "close, "), b"HTTP/1.1 200 "),
        (good + "x", b"HTTP/1.1 400 "),
        (HANDSHAKE.format(path=stream, more=f"X-Long: {'x' * 70_000}\r\n"), b"HTTP/1.1 431 "),
    ):
        with connect(service) as connection:
            connection.sendall(head.encode())
            assert read_to_end(connection).startswith(start), head[:300]


# Hostile frames


HOSTILE = {
    "not masked": (frame(TEXT, b"{}", masked=False), 1002),
    "a reserved bit, as of compression": (frame(TEXT, b"{}", reserved=4), 1002),
    "an unknown opcode": (frame(5, b"{}"), 1002),
    "a fragmented ping": (frame(PING, b"", fin=False), 1002),
    "a long ping": (frame(PING, b"x" * 126), 1002),
    "the rest of no message": (frame(CONTINUED, b"{}"), 1002),
    "half a close code": (frame(CLOSE, b"x"), 1002),
    "not UTF-8": (frame(TEXT, b'{"type": "\xff"}'), 1007),
    "bytes": (frame(BINARY, b"{}"), 1003),
    "a huge message": (frame(TEXT, b"x" * (1024 * 1024 + 1)), 1009),
    "a huge message in parts": (frame(TEXT, b"x" * 700_000, fin=False) + frame(CONTINUED, b"x" * 700_000), 1009),
    "a size that no message has": (b"\x81\xff" + b"\x7f" + b"\xff" * 7, 1009),
    "a message in very many parts": (frame(TEXT, b"", fin=False) + frame(CONTINUED, b"", fin=False) * 5000, 1008),
    "very many messages": (frame(TEXT, b"{}") * 2000, 1008),
    "very many pings": (frame(PING) * 5000, 1008),
    "a message that never ends": (frame(TEXT, b'{"type"', fin=False), 1008),
    "a head that never ends": (b"\x81", 1008),
}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("hasty"), limits={"request_body_s": 0.3}) as service:
        yield service


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), HOSTILE.values(), ids=HOSTILE)
def test_a_client_that_breaks_the_protocol_is_closed_with_its_code(hasty: Service, sent: bytes, code: int) -> None:
    task_id = hasty.submit()
    before = read_everything(hasty)
    _, frames = exchange_frames(hasty, f"/v1/tasks/{task_id}/stream", sent)
    assert close_of(frames)[0] == code
    assert read_everything(hasty) == before
    eventually_sync(lambda: hasty.open_streams == 0)


def test_the_door_also_answers_as_plain_http(service: Service, ended_task: str) -> None:
    for path in (f"/tasks/{ended_task}", f"/api/tasks/{ended_task}"):
        assert service.get(path) == service.task(ended_task)
        with service.client.stream("GET", f"{path}/stream") as response:
            assert list(frames_of(response)) == service.frames(ended_task)


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_a_task_is_submitted_with_a_description_at_the_short_address(service: Service, prefix: str) -> None:
    made = service.client.post(f"{prefix}/tasks", json={"description": "Add 1 and 2"})
    assert made.status_code == 202
    task_id = made.json()["task_id"]
    assert service.frames_until_waiting(task_id)
    with open_socket(service, f"{prefix}/tasks/{task_id}/stream") as connection:
        messages_until(connection, "plan.proposed")
        send(connection, type="approve", id=1)
        messages, code, _ = messages_of(connection)
    assert (code, messages[-1]["data"]) == (1000, "[DONE]")
    assert service.get(f"{prefix}/tasks/{task_id}")["status"] == "completed"
    for body, field in (
        ({"description": "x", "prompt": "x"}, "description"),
        ({"description": 1}, "description"),
        ({"description": " "}, "description"),
        ({"prompt": " "}, "prompt"),
        ({}, "description"),
        ({"description": "x", "colour": 1}, "colour"),
        ({"description": "x", "tools": ["nothing"]}, "tools[0]"),
    ):
        refused = service.client.post(f"{prefix}/tasks", json=body)
        assert (refused.status_code, [fault["field"] for fault in refused.json()["errors"]]) == (422, [field])


def test_a_client_that_is_no_browser_is_told_of_a_foreign_host_as_by_http(service: Service, ended_task: str) -> None:
    with pytest.raises(InvalidStatus, match="403"), open_socket(service, ended_task, origin="http://evil.example"):
        pass
