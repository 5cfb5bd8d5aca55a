"""The edge alone: its checks of hosts, origins and bodies, and the headers of every answer."""

import json
from typing import Any

import pytest
from fastapi import APIRouter, WebSocket
from starlette.types import Message, Receive, Scope, Send

from agent_runtime.api.callers import AnonymousAuthenticator
from agent_runtime.api.edge import Edge
from agent_runtime.api.key_holders import KeyAuthenticator
from agent_runtime.api.keys import ApiKey, KeyRing, new_key
from agent_runtime.api.scopes import RouteScopes, requires
from agent_runtime.api.tickets import Tickets
from agent_runtime.config import AuthSettings, LimitSettings, ServerSettings
from agent_runtime.processes.peers import LocalPeers


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/broken":
        raise RuntimeError("a bug")
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if scope["path"] == "/breaks-late":
        raise RuntimeError("a late bug")
    await send({"type": "http.response.body", "body": scope["method"].encode()})


def edge(server: ServerSettings | None = None) -> Edge:
    anonymous = AnonymousAuthenticator(LocalPeers(), Tickets(b"secret", 60))
    return Edge(app, server or ServerSettings(), LimitSettings(body_bytes=100), RouteScopes(()), anonymous)


class Answer:
    def __init__(self, messages: list[Message]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body = b"".join(message["body"] for message in messages[1:])

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = json.loads(self.body)
        return problem


async def ask(
    method: str = "GET",
    path: str = "/",
    *,
    host: str | None = "localhost",
    server: ServerSettings | None = None,
    **headers: str,
) -> Answer:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    raw += [] if host is None else [(b"host", host.encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": raw}
    await edge(server=server)(scope, receive, send)
    return Answer(sent)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:65535"])
async def test_our_own_host_is_answered_with_or_without_a_port(host: str) -> None:
    assert (await ask(host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "localhost.evil.example",
        "localhost:x",
        "localhost:8000:1",
        "evil@localhost",
        "::1",
        ":80",
    ],
)
async def test_a_foreign_host_is_misdirected(host: str | None) -> None:
    answer = await ask(host=host)
    assert answer.status == 421
    assert "server.allowed_hosts" in answer.problem["detail"]


async def test_hosts_can_be_added_or_all_allowed() -> None:
    assert (await ask(host="runtime.test", server=ServerSettings(allowed_hosts=("runtime.test",)))).status == 200
    assert (await ask(host="10.1.2.3:80", server=ServerSettings(allowed_hosts=("*",)))).status == 200
    assert (await ask(host=None, server=ServerSettings(allowed_hosts=("*",)))).status == 421


async def test_the_host_that_is_listened_on_is_ours() -> None:
    assert (await ask(host="10.1.2.3:80", server=ServerSettings(host="10.1.2.3"))).status == 200
    assert (await ask(host="0.0.0.0", server=ServerSettings(host="0.0.0.0"))).status == 421  # noqa: S104 - refused
    assert (await ask(host="[fd00::1]:80", server=ServerSettings(host="fd00::1"))).status == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://localhost:9999", "file://", "localhost:8000"]
)
async def test_a_foreign_origin_is_forbidden(method: str, origin: str) -> None:
    answer = await ask(method, host="localhost:8000", origin=origin)
    assert answer.status == 403
    assert "server.allowed_origins" in answer.problem["detail"]


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://localhost:8000", "https://cellery.test"])
async def test_our_own_origin_and_allowed_ones_are_let_through(origin: str) -> None:
    server = ServerSettings(allowed_origins=("https://cellery.test/",))
    assert (await ask(host="localhost:8000", origin=origin, server=server)).status == 200


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json"])
async def test_a_body_that_is_not_json_is_refused(kind: str) -> None:
    assert (await ask("POST", content_length="2", content_type=kind)).status == 415
    assert (await ask("PUT", transfer_encoding="chunked", content_type=kind)).status == 415


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON ; charset=utf-8"])
async def test_a_json_body_is_let_through(kind: str) -> None:
    assert (await ask("POST", content_length="2", content_type=kind)).status == 200


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", '"utf-8"', ""])
async def test_json_in_utf_8_is_let_through_however_that_is_said(charset: str) -> None:
    kind = f"application/json; profile=x; Charset={charset}"
    assert (await ask("POST", content_length="2", content_type=kind)).status == 200


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", '"iso-8859-1"', "us-ascii", "utf-8-sig"])
async def test_json_in_another_charset_is_refused_which_says_so(charset: str) -> None:
    answer = await ask("POST", content_length="2", content_type=f"application/json;charset={charset}")
    assert answer.status == 415
    assert "UTF-8" in answer.problem["detail"]
    assert answer.problem["type"].endswith(":not_utf8")


async def test_a_post_without_a_body_needs_no_content_type() -> None:
    assert (await ask("POST")).status == 200
    assert (await ask("POST", content_length="0", content_type="text/plain")).status == 200


async def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    assert (await ask("POST", content_length="101", content_type="application/json")).status == 413
    assert (await ask("POST", content_length="100", content_type="application/json")).status == 200


async def test_every_answer_has_an_id_and_is_neither_sniffed_nor_stored() -> None:
    for answer in (await ask(), await ask(host="evil.example"), await ask(path="/broken")):
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


async def test_the_callers_request_id_is_kept_if_it_is_harmless() -> None:
    assert (await ask(x_request_id="trace-1")).headers["x-request-id"] == "trace-1"
    assert (await ask(x_request_id="a b")).headers["x-request-id"].startswith("req_")
    assert (await ask(x_request_id="x" * 65)).headers["x-request-id"].startswith("req_")


async def test_a_bug_is_a_plain_500_with_the_request_id_and_no_word_of_the_code() -> None:
    answer = await ask(path="/broken")
    assert answer.status == 500
    assert answer.problem["request_id"] == answer.headers["x-request-id"]
    assert answer.problem["request_id"] in answer.problem["detail"]
    assert b"a bug" not in answer.body


async def test_a_bug_after_the_answer_began_breaks_the_connection() -> None:
    with pytest.raises(RuntimeError, match="late"):
        await ask(path="/breaks-late")


async def test_head_is_answered_as_get() -> None:
    assert (await ask("HEAD")).body == b"GET"


# WebSockets


@requires("read")
async def follow(websocket: WebSocket) -> None:
    """An endpoint that declares its scope."""


async def forget(websocket: WebSocket) -> None:
    """An endpoint that does not."""


def websocket_routes() -> RouteScopes:
    router = APIRouter()
    router.add_api_websocket_route("/follow", follow)
    router.add_api_websocket_route("/forgotten", forget)
    router.add_api_websocket_route("/broken", follow)
    return RouteScopes(router.routes)


class Handshake:
    """The result of a handshake at the edge: the scope that the app received, or the messages sent instead."""

    def __init__(self) -> None:
        self.scope: Scope | None = None
        self.sent: list[Message] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the shape of an app
        self.scope = scope
        if scope["path"] == "/broken":
            raise RuntimeError("a bug")
        await send({"type": "websocket.accept"})


async def shake(
    key: ApiKey,
    *headers: tuple[str, str],
    path: str = "/follow",
    host: str = "localhost",
    extensions: tuple[str, ...] = (),
) -> Handshake:
    hand = Handshake()
    keys = KeyAuthenticator(KeyRing(AuthSettings(keys=(key.line,))), Tickets(b"secret", 60))
    tried = Edge(hand.app, ServerSettings(), LimitSettings(), websocket_routes(), keys)
    scope = {
        "type": "websocket",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in headers)],
        "extensions": {name: {} for name in extensions},
    }

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        hand.sent.append(message)

    await tried(scope, receive, send)
    return hand


REFUSED = [
    (401, "key_missing", []),
    (401, "key_invalid", [("authorization", "Bearer ar_x")]),
    (403, "scope_missing", [("authorization", "Bearer SUBMIT")]),
    (403, "foreign_origin", [("authorization", "Bearer KEY"), ("origin", "http://evil.example")]),
    (421, "foreign_host", [("authorization", "Bearer KEY")]),
    (400, "repeated_header", [("authorization", "Bearer KEY"), ("authorization", "Bearer KEY")]),
]


@pytest.mark.parametrize("extensions", [(), ("websocket.http.response",)])
@pytest.mark.parametrize(("status", "code", "headers"), REFUSED)
async def test_a_handshake_passes_the_same_checks_as_a_request(
    status: int, code: str, headers: list[tuple[str, str]], extensions: tuple[str, ...]
) -> None:
    text, key = new_key("ann", ["submit"] if code == "scope_missing" else ["read"])
    shown = [(name, value.replace("SUBMIT", text).replace("KEY", text)) for name, value in headers]
    host = "evil.example" if code == "foreign_host" else "localhost"
    hand = await shake(key, *shown, host=host, extensions=extensions)
    assert hand.scope is None
    first = hand.sent[0]
    if code in {"key_missing", "key_invalid", "scope_missing"}:
        closing = hand.sent[1]
        assert (first["type"], closing["type"], closing["code"]) == (
            "websocket.accept",
            "websocket.close",
            4000 + status,
        )
        assert closing["reason"].startswith(f"{code}: ")
        assert len(closing["reason"].encode()) <= 123
        return
    if not extensions:
        assert hand.sent == [{"type": "websocket.close", "code": 4000 + status, "reason": code}]
        return
    assert (first["type"], first["status"]) == ("websocket.http.response.start", status)
    assert (b"x-content-type-options", b"nosniff") in first["headers"]
    assert json.loads(hand.sent[1]["body"])["type"].endswith(f":{code}")


async def test_a_route_of_a_websocket_finds_its_caller_in_the_scope() -> None:
    text, key = new_key("ann", ["read"])
    hand = await shake(key, ("authorization", f"Bearer {text}"))
    assert hand.scope is not None
    assert hand.scope["caller"] == key.caller()
    assert [message["type"] for message in hand.sent] == ["websocket.accept"]


async def test_a_route_that_forgets_to_say_its_scope_needs_admin() -> None:
    text, key = new_key("ann", ["submit", "approve", "read"])
    hand = await shake(key, ("authorization", f"Bearer {text}"), path="/forgotten")
    assert hand.sent[1]["code"] == 4403
    text, key = new_key("root", ["admin"])
    hand = await shake(key, ("authorization", f"Bearer {text}"), path="/forgotten")
    assert [message["type"] for message in hand.sent] == ["websocket.accept"]


async def test_a_path_without_a_websocket_is_told_by_the_close_code() -> None:
    text, key = new_key("root", ["admin"])
    hand = await shake(key, ("authorization", f"Bearer {text}"), path="/v1/tasks")
    assert hand.scope is None
    assert (hand.sent[0]["type"], hand.sent[1]["code"]) == ("websocket.accept", 4404)


async def test_a_bug_before_a_handshake_is_accepted_closes_it() -> None:
    text, key = new_key("ann", ["read"])
    hand = await shake(key, ("authorization", f"Bearer {text}"), path="/broken")
    assert hand.sent == [{"type": "websocket.close", "code": 1011, "reason": ""}]


async def test_a_scope_of_another_kind_reaches_nobody() -> None:
    async def never_called(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match="'webtransport'"):
        await edge()({"type": "webtransport", "path": "/", "headers": []}, never_called, never_called)
