"""Each door that takes a body refuses hostile ones with its own error, and changes nothing (G13).

The WebSocket's messages and frames are in test_api_websocket.py, the MCP door's in test_mcp_door.py.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from serving import Service, connect, read_everything, read_to_end

PATHS = ("/v1/tasks", "/tasks", "/api/tasks", "/api/v1/runs", "/agui", "/agui/connect")
LIMIT = 20_000

SENT: dict[str, tuple[bytes, str, int]] = {
    "cut off": (b'{"prompt": "x', "application/json", 400),
    "followed by more": (b'{"prompt": "x"} {}', "application/json", 400),
    "not UTF-8": (b'{"prompt": "\xff"}', "application/json", 400),
    "UTF-16": ('{"prompt": "x"}'.encode("utf-16"), "application/json", 400),
    "half a character": (rb'{"prompt": "\ud800"}', "application/json", 400),
    "a field twice": (b'{"prompt": "x", "prompt": "y"}', "application/json", 400),
    "nested without end": (b'{"prompt": ' + b"[" * 9000, "application/json", 400),
    "a number of many digits": (b'{"prompt": ' + b"9" * 9000 + b"}", "application/json", 400),
    "not a number": (b'{"prompt": "x", "max_steps": NaN}', "application/json", 400),
    "a list": (b"[]", "application/json", 422),
    "null": (b"null", "application/json", 422),
    "nothing": (b"", "application/json", 422),
    "a prompt of no characters": (b'{"prompt": "\\u200b"}', "application/json", 422),
    "a foreign field": (b'{"prompt": "x", "__proto__": {}}', "application/json", 422),
    "huge": (b'{"prompt": "' + b"x" * LIMIT + b'"}', "application/json", 413),
    "a form": (b"prompt=x", "application/x-www-form-urlencoded", 415),
    "XML": (b"<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]><x>&y;</x>", "text/xml", 415),
    "JSON in another charset": (b'{"prompt": "x"}', "application/json; charset=utf-16", 415),
}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    limits = {"request_body_s": 0.5, "body_bytes": LIMIT}
    folder: Path = tmp_path_factory.mktemp("hasty")
    with Service(folder, limits=limits) as service:
        yield service


@pytest.mark.parametrize("path", PATHS)
def test_a_hostile_body_is_a_problem_and_creates_nothing(hasty: Service, path: str) -> None:
    before = read_everything(hasty)
    for what, (body, kind, status) in SENT.items():
        response = hasty.client.post(path, content=body, headers={"Content-Type": kind})
        problem = response.json()
        assert (response.status_code, problem["status"]) == (status, status), (what, problem)
        assert response.headers["content-type"] == "application/problem+json", what
        assert problem["instance"] == path
        assert problem["detail"], what
        assert ("errors" in problem) == (status == 422), what
        assert len(response.content) < 2000, what
    assert read_everything(hasty) == before


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_longer_than_it_may_be_or_never_ends_is_cut_off(hasty: Service, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    before = read_everything(hasty)
    for sent, status in (
        (b"Content-Length: 99999999999\r\n\r\n", 413),
        (b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (LIMIT // 0x1000 + 1), 413),
        (b'Content-Length: 15\r\n\r\n{"prompt"', 408),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\n{ \r\n", 408),
    ):
        with connect(hasty) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was read
                connection.sendall(head + sent)
            received = read_to_end(connection)
        assert received.startswith(f"HTTP/1.1 {status} ".encode()), (sent[:40], received[:200])
        assert json.loads(received.partition(b"\r\n\r\n")[2])["status"] == status
    assert read_everything(hasty) == before
