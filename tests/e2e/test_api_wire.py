"""Requests that offer another protocol, or announce a body that they do not send (G4, G13, G14)."""

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from agent_runtime.api.json_bodies import judge_body
from agent_runtime.api.problems import BadRequestError
from agent_runtime.config import Settings
from agent_runtime.domain.errors import InvalidInputError
from serving import Service, connect, read_everything, read_to_end

OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "websocket": (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
    ),
    "something": b"connection: keep-alive, upgrade\r\nupgrade: TLS/1.0, something\r\n",
}
ANOTHER_PLAN = {"plan_digest": "sha256:" + "0" * 64, "comment": "only the plan that I read"}


@pytest.mark.parametrize("packets", [1, 2])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_approval_of_another_plan_is_refused_whatever_protocol_is_offered(
    service: Service, offer: bytes, packets: int
) -> None:
    task_id = service.submit()
    before = read_everything(service)
    body = json.dumps(ANOTHER_PLAN).encode()
    answer = _exchange(service, f"/v1/tasks/{task_id}/approve", offer, body, packets)
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert read_everything(service) == before


@pytest.mark.parametrize("packets", [1, 2])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_body_is_never_the_next_request(service: Service, offer: bytes, packets: int) -> None:
    inner = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = _exchange(service, "/v1/tasks", offer, inner, packets)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_task_is_submitted_whatever_protocol_is_offered(service: Service, offer: bytes) -> None:
    answer = _exchange(service, "/v1/tasks", offer, b'{"prompt": "Add 1 and 2"}', 2)
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert service.frames_until_waiting(json.loads(answer.partition(b"\r\n\r\n")[2])["task_id"])


def _exchange(service: Service, path: str, offer: bytes, body: bytes, packets: int) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" % path.encode()
    head += b"Content-Type: application/json\r\n" + offer + b"Content-Length: %d\r\n\r\n" % len(body)
    with connect(service) as connection:
        if packets == 1:
            connection.sendall(head + body)
        else:
            connection.sendall(head)
            service.get("/healthz")  # the same loop serves both, so it has read the head by now
            connection.sendall(body)
        return read_to_end(connection)


@pytest.mark.parametrize("name", ["Host", "Authorization", "Origin", "Content-Type", "Idempotency-Key"])
def test_a_header_that_is_sent_twice_is_a_bad_request(service: Service, name: str) -> None:
    before = read_everything(service)
    fields = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": "15",
        "Connection": "close",
        "Authorization": "Bearer x",
        "Origin": "http://localhost",
        "Idempotency-Key": "x",
    }
    lines = [f"{field}: {value}" for field, value in [*fields.items(), (name.lower(), fields[name])]]
    with connect(service) as connection:
        connection.sendall("\r\n".join(["POST /v1/tasks HTTP/1.1", *lines, "", '{"prompt": "x"}']).encode())
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert name in json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]
    assert read_everything(service) == before


def test_trailers_change_nothing(service: Service) -> None:
    head = b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    body = b'e\r\n{"prompt":"x"}\r\n0\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n'
    with connect(service) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert service.frames_until_waiting(json.loads(answer.partition(b"\r\n\r\n")[2])["task_id"])


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_what_holds_nothing_is_answered_under_any_name(service: Service, path: str) -> None:
    for host in ("10.1.2.3:8000", "runtime.internal"):
        assert service.client.get(path, headers={"Host": host}).status_code == 200
        assert service.client.get(f"{path}/", headers={"Host": host}).status_code == 421
    assert service.client.get(path, headers={"Origin": "http://evil.example"}).status_code == 403


# A body that is announced, behind any ASGI server


def _request(headers: dict[str, str], *messages: Message) -> Request:
    coming = iter([*messages, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(coming)

    state = SimpleNamespace(runtime=SimpleNamespace(settings=Settings()), large_bodies=asyncio.Semaphore(1))
    app = SimpleNamespace(state=state)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "app": app, "path": "/", "method": "POST", "headers": raw}, receive)


def _body(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": False}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-length": "90"}, b""),
        ({"content-length": "90"}, b"{}"),
        ({"content-length": "1"}, b"{}"),
        ({"content-length": "+2"}, b"{}"),
        ({"content-length": ""}, b"{}"),
        ({"transfer-encoding": "chunked"}, b""),
        ({"content-length": "0", "transfer-encoding": "chunked"}, b""),
    ],
)
async def test_a_body_that_did_not_come_is_never_no_body(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(BadRequestError, match="announced"):
        await judge_body(_request(headers, _body(body)), lambda value: value)


@pytest.mark.parametrize(
    ("headers", "body", "value"),
    [
        ({}, b"", {}),
        ({"content-length": "0"}, b"", {}),
        ({"content-length": "7"}, b'{"a":1}', {"a": 1}),
        ({"transfer-encoding": "chunked"}, b'{"a":1}', {"a": 1}),
    ],
)
async def test_a_body_that_came_is_read(headers: dict[str, str], body: bytes, value: Any) -> None:
    assert await judge_body(_request(headers, _body(body)), lambda value: value) == value


@pytest.mark.parametrize(("size", "on_the_loop"), [(1000, True), (65_000, True), (70_000, False)])
async def test_a_large_body_is_judged_in_a_thread(size: int, on_the_loop: bool) -> None:  # noqa: FBT001
    request = _request({}, _body(json.dumps("x" * size).encode()))
    judge = await judge_body(request, lambda value: (len(value), threading.current_thread()))
    assert judge[0] == size
    assert (judge[1] is threading.current_thread()) is on_the_loop


@pytest.mark.parametrize(
    "value",
    [
        dict.fromkeys(map(str, range(30_000)), 1),
        {"plan": {"steps": [{}] * 30_000}},
        {"plan": {"steps": [{"depends_on": [1] * 15_000}, {"tools": [{}] * 15_000}]}},
    ],
)
async def test_a_body_with_more_parts_than_any_plan_is_not_gone_through(value: Any) -> None:
    judged: list[Any] = []
    with pytest.raises(InvalidInputError, match="more than 20000 fields and entries"):
        await judge_body(_request({}, _body(json.dumps(value).encode())), judged.append)
    assert judged == []


async def test_arguments_may_have_as_many_parts_as_they_like() -> None:
    plan = {"plan": {"steps": [{"arguments": {"numbers": [1] * 30_000}}]}}
    assert await judge_body(_request({}, _body(json.dumps(plan).encode())), lambda value: value) == plan
