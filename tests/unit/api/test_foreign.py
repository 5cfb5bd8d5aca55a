"""The rules of the edge under an ASGI server that is not ours (G13, G14)."""

from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from agent_runtime.api.auth import choose_authenticator
from agent_runtime.api.foreign import CloseUnread, ExpectBody, ForeignServerAuthenticator
from agent_runtime.api.problems import Refusal
from agent_runtime.api.tickets import Tickets
from agent_runtime.config import AuthSettings, Settings
from agent_runtime.domain.caller import Caller
from serving import Anyone

LOCAL, REMOTE = ("127.0.0.1", 8000), ("192.0.2.7", 8000)


async def outcome(mode: Any = None, *headers: bytes, **more: Any) -> str:
    """Return the code of the refusal, or the name of the caller."""
    settings = Settings(auth=AuthSettings(mode=mode))
    tried = ForeignServerAuthenticator(choose_authenticator(settings, Tickets(b"secret", 60), Anyone()), settings)
    scope = {"path": "/v1/tasks", "headers": [(name, b"x") for name in headers], "client": LOCAL, "server": LOCAL}
    try:
        found = await tried.authenticate(scope | more)
    finally:
        await tried.close()
    if isinstance(found, Refusal):
        return str(found.code)
    assert isinstance(found, Caller)
    return found.name


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
async def test_who_arrives_at_loopback_needs_no_key(host: str) -> None:
    assert await outcome(server=(host, 8000)) == "anonymous"


@pytest.mark.parametrize("server", [REMOTE, ("10.0.0.1", 80), ("fe80::1", 80), ("runtime.internal", 80), None])
async def test_who_arrives_at_another_address_needs_keys_or_a_word_of_the_operator(server: Any) -> None:
    assert await outcome(server=server) == "locked"
    assert await outcome("anonymous", server=server) == ("anonymous" if server else "caller_unseen")


@pytest.mark.parametrize("mode", [None, "anonymous"])
@pytest.mark.parametrize("name", [b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-anything"])
async def test_a_forwarded_request_without_a_key_is_refused(mode: str | None, name: bytes) -> None:
    assert await outcome(mode, name) == "caller_forwarded"
    assert await outcome(mode, name, server=REMOTE) == "caller_forwarded"


@pytest.mark.parametrize("ends", [{"client": None}, {"client": ("127.0.0.1", 0)}, {"server": ("/run/app.sock", None)}])
async def test_who_cannot_be_seen_is_refused(ends: dict[str, Any]) -> None:
    assert await outcome("anonymous", **ends) == "caller_unseen"


# Bodies


async def answer(headers: dict[str, str], *bodies: bytes, reads: bool = True) -> tuple[list[Message], bytes]:
    """Return what is sent for a request whose body comes in these pieces, and the body that the app has read."""
    read = b""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal read
        assert scope["type"] == "http"
        while reads:
            message = await receive()
            read += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})

    coming = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    coming[-1]["more_body"] = False
    sent: list[Message] = []

    async def receive() -> Message:
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "path": "/", "root_path": ""}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await CloseUnread(ExpectBody(app))({**scope, "headers": raw}, receive, send)
    return sent, read


@pytest.mark.parametrize("headers", [{"content-length": "9"}, {"transfer-encoding": "chunked"}])
async def test_a_body_that_was_announced_and_did_not_arrive_is_400_and_the_end_of_the_connection(
    headers: dict[str, str],
) -> None:
    sent, _ = await answer(headers, b"")
    assert sent[0]["status"] == 400
    assert (b"connection", b"close") in sent[0]["headers"]


@pytest.mark.parametrize("headers", [{"content-length": "4"}, {"transfer-encoding": "chunked"}])
async def test_a_body_that_arrives_is_read_and_the_connection_stays(headers: dict[str, str]) -> None:
    for bodies in ((b"body",), (b"bo", b"dy"), (b"", b"body", b"")):
        sent, read = await answer(headers, *bodies)
        assert (sent[0]["status"], sent[0]["headers"], read) == (200, [], b"body")


async def test_a_request_that_is_answered_before_its_body_arrives_ends_the_connection() -> None:
    sent, _ = await answer({"content-length": "90"}, b"part", b"rest", reads=False)
    assert sent[0]["headers"] == [(b"connection", b"close")]


@pytest.mark.parametrize("headers", [{}, {"content-length": "0"}])
async def test_a_request_that_announces_no_body_has_none(headers: dict[str, str]) -> None:
    sent, read = await answer(headers, b"")
    assert (sent[0]["status"], sent[0]["headers"], read) == (200, [], b"")
