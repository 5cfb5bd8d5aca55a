"""Authentication over the wire: callers without a valid key or ticket can do nothing (G12, G13, G14)."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import Route

from agent_runtime.api.app import ROUTERS
from agent_runtime.api.keys import new_key
from agent_runtime.api.scopes import scopes_of
from callers import KeyedService, serve_with_keys
from command_line import Folder
from serving import Service, connect, frames_of, journal_of, read_everything, read_to_end, sums
from waiting import eventually_sync

CELLERY = "https://cellery.test"
ALL = ("submit", "approve", "read", "admin")


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedService]:
    with serve_with_keys(tmp_path_factory.mktemp("keyed"), server={"allowed_origins": [CELLERY]}) as shared_service:
        yield shared_service


@pytest.fixture
def own(tmp_path: Path) -> Iterator[KeyedService]:
    with serve_with_keys(tmp_path) as own:
        yield own


CALLS = [
    ("POST", "/v1/tasks", "submit"),
    ("GET", "/v1/tasks", "read"),
    ("GET", "/v1/tasks/ID", "read"),
    ("DELETE", "/v1/tasks/ID", "admin"),
    ("POST", "/v1/tools/refresh", "submit"),
    ("POST", "/v1/tools/reload", "admin"),
    ("POST", "/v1/tasks/ID/approve", "approve"),
    ("POST", "/v1/tasks/ID/reject", "approve"),
    ("POST", "/v1/tasks/ID/revise", "approve or submit"),
    ("PUT", "/v1/tasks/ID/plan", "submit"),
    ("POST", "/v1/tasks/ID/calls/c/approve", "approve"),
    ("POST", "/v1/tasks/ID/calls/c/deny", "approve"),
    ("POST", "/v1/tasks/ID/resolve", "approve"),
    ("POST", "/v1/tasks/ID/cancel", "approve or submit"),
    ("POST", "/v1/tasks/ID/preview", "read"),
    ("GET", "/v1/tasks/ID/plan/revisions", "read"),
    ("GET", "/v1/tasks/ID/plan/diff", "read"),
    ("GET", "/v1/tasks/ID/planning", "read"),
    ("GET", "/v1/tasks/ID/images/DIGEST", "read"),
    ("GET", "/v1/tasks/ID/conversations", "read"),
    ("GET", "/v1/state/AGENT/THREAD", "read"),
    ("PUT", "/v1/state/AGENT/THREAD", "submit"),
    ("DELETE", "/v1/state/AGENT/THREAD", "submit"),
    ("POST", "/v1/tasks/ID/stream-ticket", "read"),
    ("GET", "/v1/tasks/ID/stream", "read"),
    ("GET", "/v1/tasks/ID/events", "read"),
    ("GET", "/v1/tools", "read"),
    ("GET", "/v1/tools/status", "read"),
    ("GET", "/v1/models/status", "read"),
    ("GET", "/v1/status", "read"),
    ("GET", "/v1/me", "submit or read or approve"),
    ("POST", "/api/v1/runs", "submit"),
    ("GET", "/api/v1/runs/ID", "read"),
    ("POST", "/v1/tasks/ID/rerun", "submit"),
    ("POST", "/v1/tasks/ID/answers/q", "approve"),
    ("GET", "/v1/tasks/ID/audit", "read"),
    ("GET", "/v1/events/stream", "read"),
    ("POST", "/tasks", "submit"),
    ("GET", "/tasks/ID", "read"),
    ("GET", "/tasks/ID/stream", "read"),
    ("POST", "/api/tasks", "submit"),
    ("GET", "/api/tasks/ID", "read"),
    ("GET", "/api/tasks/ID/stream", "read"),
    ("GET", "/metrics", "read"),
    ("POST", "/mcp", "read or submit or approve"),
    ("GET", "/mcp", "read or submit or approve"),
    ("DELETE", "/mcp", "read or submit or approve"),
    ("POST", "/agui", "submit or approve"),
    ("POST", "/agui/connect", "read"),
    ("GET", "/copilotkit/info", "read or submit or approve"),
    ("POST", "/copilotkit", "read or submit or approve"),
    ("POST", "/copilotkit/agent/default/run", "submit or approve"),
    ("POST", "/copilotkit/agent/default/connect", "read"),
    ("POST", "/copilotkit/agent/default/stop/ID", "submit or approve"),
    ("GET", "/nothing", "read"),
]


def test_no_route_is_left_out_of_the_table() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, Route)]
    left_out = [
        (method, route.path)
        for route in routes
        if scopes_of(route.endpoint)
        for method in (route.methods or set()) - {"HEAD"}
        if not any(method == each and route.path_regex.match(path) for each, path, _ in CALLS)
    ]
    assert left_out == []


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_without_a_valid_key_of_the_scope_nothing_is_answered_and_nothing_changes(
    shared_service: KeyedService, method: str, path: str, scope: str
) -> None:
    path = path.replace("ID", shared_service.service.submit())
    needed = scope.split(" or ")
    before = read_everything(shared_service.service)
    body: dict[str, Any] = {"json": {}} if method in {"POST", "PUT"} else {}
    for key in (None, "ar_" + "0" * 48, shared_service.keys[needed[0]][:-1], "two words"):
        response = shared_service.call(method, path, key, **body)
        assert response.status_code == 401, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["www-authenticate"].startswith("Bearer ")
        assert "Authorization: Bearer" in response.json()["detail"]
    for other in sorted({*ALL} - {*needed, "admin"}):
        response = shared_service.call(method, path, other, **body)
        assert response.status_code == 403, response.text
        assert {f"'{one}'" in response.json()["detail"] for one in needed} == {True}
        assert 'error="insufficient_scope"' in response.headers["www-authenticate"]
    assert read_everything(shared_service.service) == before


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/healthz",
        "/api/v1/health",
        "/readyz",
        "/",
        "/docs",
        "/openapi.json",
        "/console/style.css",
        "/client.js",
    ],
)
def test_health_and_the_pages_are_open(shared_service: KeyedService, path: str) -> None:
    assert shared_service.call("GET", path).status_code == 200
    assert shared_service.call("HEAD", path).status_code == 200


def test_who_submitted_and_who_decided_are_in_the_journal_by_the_names_of_their_keys(
    shared_service: KeyedService,
) -> None:
    task = shared_service.call("POST", "/v1/tasks", "submit", json={"prompt": "Add", "plan": sums(1)}).json()
    path = f"/v1/tasks/{task['task_id']}"
    assert shared_service.call("POST", f"{path}/approve", "submit").status_code == 403
    assert shared_service.call("POST", f"{path}/approve", "approve").status_code == 202
    done = shared_service.service.wait_for_end(task["task_id"])
    assert done["status"] == "completed"
    assert [approval["who"] for approval in done["approvals"]] == ["approve"]
    submitted, *_ = journal_of(shared_service.service, task["task_id"])
    assert (submitted["data"]["actor"], submitted["data"]["via"]) == ("submit", "key")
    (approval,) = shared_service.call("GET", f"{path}/audit", "read").json()["approvals"]
    assert (approval["actor"], approval["tenant"], approval["via"]) == ("approve", "default", "key")


@pytest.mark.parametrize(("verb", "kind"), [("reject", "plan.rejected"), ("cancel", "task.cancel_requested")])
def test_who_ended_a_task_is_in_its_journal(shared_service: KeyedService, verb: str, kind: str) -> None:
    task_id = shared_service.service.submit()
    assert shared_service.call("POST", f"/v1/tasks/{task_id}/{verb}", "approve").status_code == 202
    actors = [event["data"]["actor"] for event in journal_of(shared_service.service, task_id) if event["type"] == kind]
    assert actors == ["approve"]


def test_whoever_submits_may_cancel(shared_service: KeyedService) -> None:
    assert (
        shared_service.call("POST", f"/v1/tasks/{shared_service.service.submit()}/cancel", "submit").status_code == 202
    )


def test_a_key_whose_line_is_removed_is_refused_from_then_on(own: KeyedService) -> None:
    assert own.call("GET", "/v1/tasks", "read").status_code == 200
    lines = own.file.read_text().splitlines()
    own.file.write_text("\n".join(line for line in lines if not line.startswith("read ")))
    assert own.call("GET", "/v1/tasks", "read").status_code == 401
    assert own.call("GET", "/v1/tasks", "admin").status_code == 200


def test_a_caller_without_a_key_is_refused_before_the_body_is_sent(shared_service: KeyedService) -> None:
    head = b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n"
    for more in (b"\r\n", b"Expect: 100-continue\r\n\r\n"):
        with connect(shared_service.service) as connection:
            connection.sendall(head + more)
            assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


# Tickets


def ticket_of(keyed: KeyedService, task_id: str, key: str = "read") -> Any:
    response = keyed.call("POST", f"/v1/tasks/{task_id}/stream-ticket", key)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_ticket_opens_the_stream_of_its_task_as_often_as_needed_and_nothing_else(
    shared_service: KeyedService,
) -> None:
    task_id, other = shared_service.service.complete_task(), shared_service.service.submit()
    made = ticket_of(shared_service, task_id)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", made["expires_at"])
    for _ in range(2):
        frames = list(frames_of(shared_service.call("GET", made["url"])))
        assert frames[-1][2] == "[DONE]"
    last = frames[-2][1]
    rest = list(frames_of(shared_service.call("GET", f"{made['url']}&after={last}")))
    assert [data for _, _, data in rest] == ["[DONE]"]
    for method, path in (
        ("GET", f"/v1/tasks/{other}/stream"),
        ("GET", f"/v1/tasks/{task_id}"),
        ("GET", f"/v1/tasks/{task_id}/events"),
        ("POST", f"/v1/tasks/{task_id}/stream"),
        ("POST", f"/v1/tasks/{task_id}/approve"),
    ):
        assert shared_service.call(method, f"{path}?ticket={made['ticket']}").status_code == 401


def test_a_ticket_survives_a_restart_and_dies_with_its_key(own: KeyedService) -> None:
    task_id = own.service.complete_task()
    url = ticket_of(own, task_id)["url"]
    own.service.restart()
    assert own.call("GET", url).status_code == 200
    own.file.write_text("\n".join(line for line in own.file.read_text().splitlines() if not line.startswith("read ")))
    assert own.call("GET", url).status_code == 401


def test_an_expired_ticket_says_how_to_get_another(tmp_path: Path) -> None:
    with serve_with_keys(tmp_path, auth={"stream_ticket_s": 0.001}) as own:
        url = ticket_of(own, own.service.complete_task())["url"]
        eventually_sync(lambda: own.call("GET", url).status_code != 200)
        response = own.call("GET", url)
        assert response.status_code == 401
        assert "stream-ticket" in response.json()["detail"]


def test_where_no_key_is_asked_for_tickets_work_all_the_same(service: Service) -> None:
    task_id = service.complete_task()
    made = service.client.post(f"/v1/tasks/{task_id}/stream-ticket").json()
    assert next(frames_of(service.client.get(made["url"])))[0] == "task.submitted"
    assert service.client.post("/v1/tasks/task_none/stream-ticket").status_code == 404


@pytest.mark.slow
def test_neither_a_key_nor_a_ticket_is_ever_logged_shown_or_stored(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    key, made = new_key("me", ["submit", "approve", "read"])
    (folder.path / "config.yaml").write_text(f"auth: {{keys: [{made.line}]}}\nlog: {{level: debug}}\n")
    folder.env["AGENT_RUNTIME_API_KEY"] = key
    said = []
    with folder.serve() as serving:
        done = folder("run", "Add 15 and 27", "--yes", "--log-level", "debug")
        assert done.returncode == 0, done.stderr
        task_id = folder.json("tasks")["tasks"][0]["task_id"]
        with httpx2.Client(base_url=serving.url, headers={"Authorization": f"Bearer {key}"}) as client:
            ticket = client.post(f"/v1/tasks/{task_id}/stream-ticket").json()
            said += [client.get(f"/v1/tasks/{task_id}/events").text, client.delete(f"/v1/tasks/{task_id}").text]
        for path in (ticket["url"], f"/v1/tasks?ticket={ticket['ticket']}", f"/v1/tasks/{task_id}/stream?ticket=x"):
            said.append(httpx2.get(f"{serving.url}{path}").text)
        said.append(httpx2.get(f"{serving.url}/v1/tasks", headers={"Authorization": "Bearer ar_wrong"}).text)
    assert "caller_refused" in serving.log
    said += [serving.log, done.stdout, done.stderr]
    said += [path.read_bytes().decode("latin-1") for path in (tmp_path / "data").rglob("*") if path.is_file()]
    for secret in (key, key[3:], ticket["ticket"], ticket["ticket"].rpartition(".")[2], "ar_wrong"):
        assert not any(secret in text for text in said)


# Pages of other origins


def test_a_page_of_a_listed_origin_may_call_and_read_the_answers(shared_service: KeyedService) -> None:
    asks = {
        "Origin": CELLERY,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = shared_service.call("OPTIONS", "/v1/tasks", headers=asks)
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    real = shared_service.call(
        "POST", "/v1/tasks", "submit", json={"prompt": "x", "plan": sums(1)}, headers={"Origin": CELLERY}
    )
    assert real.status_code == 202
    refused = shared_service.call("POST", "/v1/tasks", json={}, headers={"Origin": CELLERY})
    assert refused.status_code == 401
    for response in (preflight, real, refused):
        assert response.headers["access-control-allow-origin"] == CELLERY
        assert "Origin" in response.headers["vary"]
        assert "access-control-allow-credentials" not in response.headers
    assert "X-Request-ID" in real.headers["access-control-expose-headers"]


def test_a_page_of_another_origin_gets_no_cors_answer(shared_service: KeyedService, service: Service) -> None:
    for origin in ("https://evil.test", f"{CELLERY}.evil.test", "null"):
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        response = shared_service.call("OPTIONS", "/v1/tasks", headers=asks)
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers
    assert "access-control-allow-origin" not in shared_service.call("GET", "/healthz").headers
    asks = {"Origin": CELLERY, "Access-Control-Request-Method": "POST"}
    assert service.client.options("/v1/tasks", headers=asks).status_code == 403
    assert service.client.options("/v1/tasks", headers={**asks, "Origin": service.url}).status_code == 405


def test_every_answer_has_its_security_headers(shared_service: KeyedService) -> None:
    for path in ("/healthz", "/v1/tasks", "/nothing", "/docs"):
        headers = shared_service.call("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


# Deadlines


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    limits = {"request_head_s": 0.3, "request_body_s": 0.3, "head_bytes": 4096}
    service = Service(tmp_path_factory.mktemp("hasty"), limits=limits)
    with service:
        yield service


HEAD = b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
CHUNKED = HEAD.replace(b"Content-Length: 50", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"G", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nHost: local", b"HTTP/1.1 408 "),
        (HEAD, b"HTTP/1.1 408 "),
        (HEAD + b'{"prompt"', b"HTTP/1.1 408 "),
        (CHUNKED + b"5\r\n{", b"HTTP/1.1 408 "),
        (HEAD.replace(b"localhost", b"evil.test"), b"HTTP/1.1 421 "),
        (HEAD.replace(b"tasks", b"nothing"), b"HTTP/1.1 404 "),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 5000, b"HTTP/1.1 431 "),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400 "),
    ],
)
def test_a_request_that_does_not_end_is_ended(hasty: Service, sent: bytes, status: bytes) -> None:
    before = read_everything(hasty)
    with connect(hasty) as connection:
        connection.sendall(sent)
        answer = read_to_end(connection)
    assert answer.startswith(status)
    assert answer.count(b"HTTP/1.1") == bool(status)
    if status:
        assert b"application/problem+json" in answer
        assert b"x-request-id: req_" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == int(status.split()[1])
    assert read_everything(hasty) == before


@pytest.mark.parametrize("start", [b"", HEAD, HEAD.replace(b"localhost", b"evil.test")])
def test_dripping_wins_no_time(hasty: Service, start: bytes) -> None:
    with connect(hasty) as connection:
        connection.sendall(start)
        connection.settimeout(0.02)
        began = time.monotonic()
        while time.monotonic() - began < 10:
            try:
                connection.sendall(b"\n" if not start else b"x")
                if connection.recv(65536) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - began < 5


def test_a_slow_request_after_a_whole_one_is_ended_too(hasty: Service) -> None:
    with connect(hasty) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea")
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 408 ") == 1


@pytest.mark.parametrize("begun", [b"GET /hea", HEAD])
def test_the_time_that_an_answer_takes_is_not_the_clients(hasty: Service, begun: bytes) -> None:
    task_id = hasty.submit()
    with connect(hasty) as following, connect(hasty) as late:
        following.sendall(f"GET /v1/tasks/{task_id}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() + begun)
        assert following.recv(65536).startswith(b"HTTP/1.1 200 ")
        late.sendall(HEAD)
        assert b" 408 " in read_to_end(late)  # the deadline has passed
        hasty.approve(task_id)
        rest = read_to_end(following)
    assert b"data: [DONE]" in rest
    assert rest.count(b"HTTP/1.1 408 ") == 1


def test_a_stream_ends_with_its_connection_whatever_else_was_asked_on_it(hasty: Service) -> None:
    task_id = hasty.submit()
    with connect(hasty) as connection:
        stream = f"GET /v1/tasks/{task_id}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        connection.sendall(stream + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        eventually_sync(lambda: hasty.open_streams == 1)  # counted a moment after the head of its response was sent
    eventually_sync(lambda: not hasty.open_streams)


# Starting, and the command line


@pytest.mark.sqlite  # PostgreSQL needs the word about callers
def test_off_loopback_with_no_word_about_callers_it_is_locked_and_says_what_to_set(tmp_path: Path) -> None:
    service = Service(tmp_path, server={"host": "0.0.0.0"})  # noqa: S104 - nobody is let in
    service.start()
    try:
        for path in ("/health", "/healthz", "/readyz", "/docs", "/", "/openapi.json"):
            assert service.client.get(path).status_code == 200, path
        paths = service.client.get("/openapi.json").json()["paths"]
        calls = [(method, path) for path, operations in paths.items() for method in operations]
        closed = [(method, path.replace("{", "").replace("}", "")) for method, path in calls if path.startswith("/v1")]
        assert closed
        for method, path in [*closed, ("get", "/metrics")]:
            refused = service.client.request(method, path, headers={"Authorization": "Bearer ar_guess"})
            assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (401, "locked"), path
            assert "AGENT_RUNTIME_AUTH__MODE" in refused.json()["detail"]
    finally:
        service.stop()


def test_a_service_whose_keys_are_still_to_come_is_locked_until_they_do(tmp_path: Path) -> None:
    service = Service(tmp_path, auth={"keys_file": tmp_path / "keys"})
    service.start()
    try:
        refused = service.client.get("/v1/tasks")
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (401, "locked")
        assert "agent-runtime keys new" in refused.json()["detail"]
        text, key = new_key("x", ["read"])
        (tmp_path / "keys").write_text(key.line)
        assert service.client.get("/v1/tasks", headers={"Authorization": f"Bearer {text}"}).status_code == 200
    finally:
        service.stop()


@pytest.mark.slow
def test_the_log_of_a_locked_service_says_what_to_set(tmp_path: Path) -> None:
    with Folder(tmp_path).serve("serve", "--host", "0.0.0.0") as serving:  # noqa: S104 - nobody is let in
        assert "AGENT_RUNTIME_AUTH__MODE" in serving.log


@pytest.mark.slow
def test_a_key_made_on_the_command_line_opens_the_service_to_the_command_line(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    made = folder("keys", "new", "me", "--scopes", "submit,approve,read")
    assert made.returncode == 0, made.stderr
    key, line = made.stdout.splitlines()
    assert made.stdout.count(key) == 1
    (folder.path / "keys").write_text(line)
    (folder.path / "config.yaml").write_text("auth: {keys_file: keys}")
    with folder.serve():
        refused = folder("tasks")
        assert refused.returncode == 1
        assert "AGENT_RUNTIME_API_KEY" in refused.stderr
        (folder.path / "key").write_text(f"{key}\n")
        task_id = _propose_task(folder, "--key-file", "key")
        folder.env["AGENT_RUNTIME_API_KEY"] = key
        approved = folder.json("approve", task_id)
        assert [approval["who"] for approval in approved["approvals"]] == ["me"]
        watched = folder("watch", task_id)
        assert (watched.returncode, watched.stdout) == (0, "42\n")
        assert "no meaning" not in watched.stderr
        folder.env["AGENT_RUNTIME_API_KEY"] = "two words"
        assert folder("tasks").returncode == 2
    del folder.env["AGENT_RUNTIME_API_KEY"]
    here = folder("run", "Add 1 and 2", "--yes")
    assert (here.returncode, here.stdout) == (0, "3\n"), here.stderr


def _propose_task(folder: Folder, *words: str) -> str:
    done = folder("run", "Add 15 and 27", *words)
    assert done.returncode == 3, done.stderr
    assert "--key-file key" in done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("words", "what"),
    [(["anonymous", "--scopes", "read"], "another name"), (["x", "--scopes", "write"], "no scope 'write'")],
)
def test_a_bad_key_is_not_made(tmp_path: Path, words: list[str], what: str) -> None:
    done = Folder(tmp_path)("keys", "new", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert what in done.stderr


def test_a_new_key_as_json(tmp_path: Path) -> None:
    made = Folder(tmp_path).json("keys", "new", "x", "--scopes", "read,submit")
    assert made["scopes"] == ["submit", "read"]
    assert made["line"].startswith("x sha256:")
    assert made["line"].endswith(" submit read")
