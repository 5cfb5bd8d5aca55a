"""Every invalid request gets a 4xx that names its faults, and changes nothing (G13, G14)."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import Service, read_everything, sums

JSON = {"Content-Type": "application/json"}
STEP: dict[str, Any] = sums(1)["steps"][0]


def plan_with(**changes: Any) -> dict[str, Any]:
    return {"prompt": "x", "plan": {"goal": "x", "steps": [{**STEP, **changes}]}}


BAD_TASKS: list[tuple[Any, str]] = [
    ({}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": " \n\t"}, "prompt"),
    ({"prompt": "\u3164 \ufe0f\U000e0041"}, "prompt"),
    ({"prompt": "x" * 65537}, "prompt"),
    ({"prompt": "x", "promt": "y"}, "promt"),
    ({"prompt": "x", "max_steps": 0}, "max_steps"),
    ({"prompt": "x", "max_steps": 101}, "max_steps"),
    ({"prompt": "x", "max_steps": "5"}, "max_steps"),
    ({"prompt": "x", "max_steps": True}, "max_steps"),
    ({"prompt": "x", "approval": "never"}, "approval"),
    ({"prompt": "x", "approval": "auto"}, "approval"),
    ({"prompt": "x", "tools": "filesystem"}, "tools"),
    ({"prompt": "x", "tools": ["nothing"]}, "tools[0]"),
    ({"prompt": "x", "tools": ["unused"]}, "tools[0]"),
    ({"prompt": "x", "metadata": {"a": 1}}, "metadata.a"),
    ({"prompt": "x", "metadata": {"a": {"b": "c"}}}, "metadata.a"),
    ({"prompt": "x", "metadata": {str(n): "" for n in range(65)}}, "metadata"),
    ({"prompt": "x", "metadata": {"a": "x" * 5000}}, "metadata.a"),
    ({"prompt": "x", "budget": {"calls": 1}}, "budget.calls"),
    ({"prompt": "x", "budget": {"tool_calls": 0}}, "budget.tool_calls"),
    ({"prompt": "x", "budget": {"tool_calls": 2**60}}, "budget.tool_calls"),
    ({"prompt": "x", "plan": []}, "plan"),
    ({"prompt": "x", "plan": {"steps": []}}, "plan.steps"),
    ({"prompt": "x", "plan": {"steps": [{"kind": "dance"}]}}, "plan.steps[0].kind"),
    (plan_with(server="nobody"), "plan.steps[0].server"),
    (plan_with(tool="nothing"), "plan.steps[0].tool"),
    (plan_with(arguments={}), "plan.steps[0].arguments.expression"),
    (plan_with(arguments={"expression": 7}), "plan.steps[0].arguments.expression"),
    (plan_with(arguments={"expression": "${s9.text}"}), "plan.steps[0].arguments"),
    (plan_with(arguments={"expression": "${oops"}), "plan.steps[0].arguments.expression"),
    (plan_with(arguments={"expression": "1", "n": 2**60}), "plan.steps[0].arguments.n"),
    (plan_with(id="not an id"), "plan.steps[0].id"),
    (plan_with(surprise=1), "plan.steps[0].surprise"),
    (plan_with(timeout_s=1e9), "plan.steps[0].timeout_s"),
    ([], "body"),
    ("prompt", "body"),
    (None, "body"),
    (7, "body"),
]


@pytest.mark.parametrize(("body", "field"), BAD_TASKS)
def test_a_bad_task_is_refused_by_the_name_of_the_field_and_nothing_is_created(
    service: Service, body: Any, field: str
) -> None:
    before = read_everything(service)
    response = service.client.post("/v1/tasks", content=json.dumps(body), headers=JSON)
    assert response.status_code == 422, response.text
    problem = response.json()
    assert field in [error["field"] for error in problem["errors"]], problem
    assert all(error["message"] for error in problem["errors"])
    assert read_everything(service) == before


def test_every_fault_is_named_at_once(service: Service) -> None:
    body = {"prompt": 7, "max_steps": 0, "approval": "never", "surprise": 1}
    errors = service.client.post("/v1/tasks", json=body).json()["errors"]
    assert {error["field"] for error in errors} == set(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "x"',
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\x00"}',
        b'{"prompt": NaN}',
        b"\xef\xbb\xbf{}",
        b'{"prompt": "x"} x',
        b"{'prompt': 'x'}",
        b"[" * 100_000,
        b"9" * 10_000,
    ],
)
def test_broken_json_is_a_bad_request_that_says_where(service: Service, body: bytes) -> None:
    response = service.client.post("/v1/tasks", content=body, headers=JSON)
    assert response.status_code == 400
    assert "line 1" in response.json()["detail"]


def test_json_over_the_depth_limit_is_refused(service: Service) -> None:
    deep: Any = "x"
    for _ in range(70):
        deep = [deep]
    response = service.client.post("/v1/tasks", json={"prompt": "x", "metadata": deep})
    assert response.status_code == 400
    assert "limits.json_depth" in response.json()["detail"]


def test_marks_that_mean_something_elsewhere_are_only_text_here(service: Service) -> None:
    prompt = "a\x00b\x1b[31m</script>'; DROP TABLE tasks; -- \u2028 \U0001f600 ${s1.text} {{7*7}}"
    task_id = service.submit(prompt=prompt, metadata={"k\x00": "\x1b"})
    assert service.task(task_id)["prompt"] == prompt
    lines = [data for kind, _, data in service.frames_until_waiting(task_id) if kind == "message"]
    assert not any(ord(mark) < 0x20 for line in lines for mark in line)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"prompt": "ls", "prompt": "mkdir x"}', "'prompt'"),
        (b'{"prompt": "ls", "pro\\u006dpt": "mkdir x"}', "'prompt'"),
        (b'{"prompt": "ls", "metadata": {"a": "1", "b": [{}, {"c\\u202e": 1, "c\\u202e": 1}]}}', r"'c\u202e'"),
        (b'{"%s": 1, "%s": 2}' % (b"x" * 9000, b"x" * 9000), "'xxxx"),
    ],
)
def test_a_repeated_field_is_a_bad_request_that_names_it(service: Service, body: bytes, name: str) -> None:
    before = read_everything(service)
    response = service.client.post("/v1/tasks", content=body, headers=JSON)
    assert response.status_code == 400
    detail = response.json()["detail"]
    assert name in detail
    assert len(detail) < 300
    assert read_everything(service) == before


@pytest.mark.parametrize("prompt", [rb"\ud800", rb"\ud800x", rb"\ud83d\u0041", rb"\uDE00 \ud83d"])
def test_half_a_character_is_a_bad_request_that_says_what_to_do(service: Service, prompt: bytes) -> None:
    response = service.client.post("/v1/tasks", content=b'{"prompt": "%s"}' % prompt, headers=JSON)
    assert response.status_code == 400
    assert "surrogate" in response.json()["detail"]
    assert "send the character itself" in response.json()["detail"]


def test_both_halves_of_a_character_are_that_character(service: Service) -> None:
    body = rb'{"prompt": "\ud83d\ude00", "plan": %s}' % json.dumps(sums(1)).encode()
    response = service.client.post("/v1/tasks", content=body, headers=JSON)
    assert service.task(response.json()["task_id"])["prompt"] == "\U0001f600"


TOOL = {"server": "calculator", "tool": "evaluate"}
ONE_FAULT: list[tuple[dict[str, Any], str, str]] = [
    ({"retries": 99}, "retries", "It must be at most 10."),
    ({"retries": "many"}, "retries", "It must be a whole number."),
    ({"timeout_s": 0}, "timeout_s", "It must be greater than 0."),
    ({"kind": "dance"}, "kind", "It must be 'tool' or 'agent'."),
    ({"kind": None}, "kind", "It must be 'tool' or 'agent'."),
    ({"retries": "1"}, "retries", "It must be a whole number."),
    ({"retries": True}, "retries", "It must be a whole number."),
    ({"retries": 1.0}, "retries", "It must be a whole number."),
    ({"timeout_s": "5"}, "timeout_s", "It must be a number."),
    ({"timeout_s": True}, "timeout_s", "It must be a number."),
    ({"preapproved": 1}, "preapproved", "It must be true or false."),
    ({"preapproved": "true"}, "preapproved", "It must be true or false."),
    ({"title": 5}, "title", "It must be a string."),
    ({"when": True}, "when", "It must be a string."),
    ({"id": "1 2"}, "id", "It must start with a letter and hold at most 64 letters, digits, '_' and '-'."),
    ({"surprise": 1}, "surprise", "There is no such field; the fields are listed at /docs."),
    ({"depends_on": "s0"}, "depends_on", "It must be an array."),
    ({"server": 7}, "server", "It must be a string."),
    ({"arguments": []}, "arguments", "It must be a JSON object."),
    ({"title": "x" * 501}, "title", "It must be at most 500 characters long."),
    ({"kind": "agent", "tools": [{"server": "x"}]}, "tools[0].tool", "This field is required."),
    ({"kind": "agent", "tools": [TOOL | {"max_calls": "2"}]}, "tools[0].max_calls", "It must be a whole number."),
    ({"kind": "agent", "tools": [TOOL | {"max_calls": True}]}, "tools[0].max_calls", "It must be a whole number."),
    ({"kind": "agent", "tools": [TOOL | {"timeout_s": "2"}]}, "tools[0].timeout_s", "It must be a number."),
    ({"kind": "agent", "tools": [], "max_turns": "2"}, "max_turns", "It must be a whole number."),
    ({"kind": "agent", "tools": [], "max_turns": True}, "max_turns", "It must be a whole number."),
]


@pytest.mark.parametrize(("changes", "field", "message"), ONE_FAULT)
def test_one_fault_in_a_plan_is_one_error_in_our_own_words(
    service: Service, changes: dict[str, Any], field: str, message: str
) -> None:
    step = {**STEP, **changes}
    if step["kind"] == "agent":
        step = {"id": "s1", "kind": "agent", "instruction": "x", **changes}
    response = service.client.post("/v1/tasks", json={"prompt": "x", "plan": {"goal": "x", "steps": [step]}})
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": f"plan.steps[0].{field}", "message": message}]


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ([], "body", "It must be a JSON object."),
        ({"prompt": "x", "plan": 7}, "plan", "It must be a JSON object."),
        ({"prompt": "x", "plan": {"steps": 7}}, "plan.steps", "It must be an array."),
        ({"prompt": "x", "plan": {"steps": []}}, "plan.steps", "Its length must be at least 1, and is 0."),
        ({"prompt": "x", "plan": {"steps": [7]}}, "plan.steps[0]", "It must be a JSON object."),
        ({"prompt": "x", "metadata": {"": "x"}}, 'metadata[""]', "It must not be empty."),
        ({"prompt": "x", "approval": 7}, "approval", "It must be 'manual' or 'auto'."),
        ({"prompt": "x", "tools": "all"}, "tools", "It must be an array."),
        ({"prompt": "x", "max_steps": "5"}, "max_steps", "It must be a whole number."),
        ({"prompt": "x", "max_steps": True}, "max_steps", "It must be a whole number."),
        ({"prompt": "x", "max_steps": 5.0}, "max_steps", "It must be a whole number."),
        ({"prompt": "x", "metadata": {"a": True}}, "metadata.a", "It must be a string."),
        ({"prompt": "x", "budget": {"seconds": "5"}}, "budget.seconds", "It must be a number."),
        ({"prompt": "x", "budget": {"seconds": True}}, "budget.seconds", "It must be a number."),
        ({"prompt": "x", "budget": {"tool_calls": "5"}}, "budget.tool_calls", "It must be a whole number."),
        ({"prompt": "x", "budget": {"tokens": 5.0}}, "budget.tokens", "It must be a whole number."),
    ],
)
def test_what_is_expected_is_said_in_our_own_words(service: Service, body: Any, field: str, message: str) -> None:
    errors = service.client.post("/v1/tasks", json=body).json()["errors"]
    assert errors == [{"field": field, "message": message}]


@pytest.mark.parametrize("blank", [" \n", "\u3164", "\u200b\u2800", "\U000e0041"])
def test_no_text_that_is_approved_is_only_seemingly_empty(service: Service, blank: str) -> None:
    before = read_everything(service)
    steps = [{**STEP, "title": blank}, {"id": "s2", "kind": "agent", "instruction": blank}]
    body = {"prompt": "x", "plan": {"goal": blank, "steps": steps}}
    refused = service.client.post("/v1/tasks", json=body)
    assert refused.status_code == 422
    fields = {error["field"] for error in refused.json()["errors"]}
    assert fields >= {"plan.goal", "plan.steps[0].title", "plan.steps[1].instruction"}
    refused = service.client.post("/v1/tasks", json={"prompt": blank})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "prompt")
    assert read_everything(service) == before
    task = f"/v1/tasks/{service.submit()}"
    refused = service.client.post(f"{task}/revise", json={"feedback": blank})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "feedback")


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
@pytest.mark.parametrize("field", ["timeout_s", "budget.seconds"])
def test_a_number_that_no_number_can_hold_is_refused_by_name(service: Service, field: str, number: str) -> None:
    step, budget = (f', "timeout_s": {number}', "{}") if field == "timeout_s" else ("", f'{{"seconds": {number}}}')
    steps = f"[{json.dumps(STEP)[:-1]}{step}}}]"
    body = f'{{"prompt": "x", "plan": {{"steps": {steps}}}, "budget": {budget}}}'
    response = service.client.post("/v1/tasks", content=body, headers=JSON)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"].endswith(field)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/tasks", {"GET", "HEAD", "POST"}),
        ("/v1/tasks/task_1", {"DELETE", "GET", "HEAD"}),
        ("/v1/tasks/task_1/approve", {"POST"}),
        ("/healthz", {"GET", "HEAD"}),
    ],
)
def test_the_header_allow_names_every_method_that_is_possible(service: Service, path: str, methods: set[str]) -> None:
    response = service.client.request("OPTIONS", path)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == methods


def test_who_asks_for_an_unknown_task_is_told_where_the_tasks_are(service: Service) -> None:
    assert "GET /v1/tasks" in service.client.get("/v1/tasks/x").json()["detail"]


def test_the_description_says_that_a_prompt_is_not_empty(service: Service) -> None:
    described = service.get("/openapi.json")["components"]["schemas"]["TaskRequest"]
    assert described["properties"]["prompt"]["minLength"] == 1


def test_a_body_over_the_limit_is_too_large_however_it_is_sent(service: Service) -> None:
    large = b'{"prompt": "' + b"x" * 1_100_000 + b'"}'

    def pieces() -> Iterator[bytes]:
        yield from (large[start : start + 65536] for start in range(0, len(large), 65536))

    for body in (large, pieces()):
        response = service.client.post("/v1/tasks", content=body, headers=JSON)
        assert response.status_code == 413
        assert "limits.body_bytes" in response.json()["detail"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "caf\xe9"])
def test_a_bad_idempotency_key_is_refused(service: Service, key: str) -> None:
    response = service.client.post(
        "/v1/tasks", json={"prompt": "x"}, headers={b"Idempotency-Key": key.encode("latin-1")}
    )
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("approve", {"digest": "x"}, "digest"),
        ("approve", {"plan_digest": 7}, "plan_digest"),
        ("approve", {"comment": "x" * 5000}, "comment"),
        ("approve", [], "body"),
        ("reject", {"reason": 7}, "reason"),
        ("revise", {}, "feedback"),
        ("revise", {"feedback": " \n"}, "feedback"),
        ("revise", {"feedback": "\u2800\u200b"}, "feedback"),
        ("revise", {"feedback": 7}, "feedback"),
        ("revise", {"feedback": "x" * 70_000}, "feedback"),
        ("revise", {"feedback": "\0 is stored", "plan": {}}, "plan"),
        ("cancel", {"now": True}, "now"),
        ("resolve", {}, "step_id"),
        ("resolve", {"step_id": "s1", "resolution": "perhaps"}, "resolution"),
    ],
)
def test_a_bad_decision_is_refused_and_changes_nothing(service: Service, verb: str, body: Any, field: str) -> None:
    task_id = service.submit()
    before = read_everything(service)
    response = service.client.post(f"/v1/tasks/{task_id}/{verb}", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field
    assert read_everything(service) == before


@pytest.mark.parametrize("name", ["none", "%00", "a" * 5000, "..%2f..", "%ff", "task_1%0d%0aX: y", "'--", "ä"])
@pytest.mark.parametrize("call", ["GET {}", "DELETE {}", "POST {}/approve", "GET {}/stream", "GET {}/events"])
def test_an_unknown_task_is_not_found(service: Service, name: str, call: str) -> None:
    method, path = call.format(f"/v1/tasks/{name}").split(" ", 1)
    response = service.client.request(method, path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/tasks?limit=0", "limit"),
        ("/v1/tasks?limit=201", "limit"),
        ("/v1/tasks?limit=x", "limit"),
        ("/v1/tasks?limit=", "limit"),
        ("/v1/tasks?limit=5.0", "limit"),
        ("/v1/tasks?limit=1_0", "limit"),
        ("/v1/tasks?limit=%2B5", "limit"),
        ("/v1/tasks?limit=%205", "limit"),
        ("/v1/tasks?limit=%D9%A5", "limit"),
        ("/v1/tasks?status=asleep", "status"),
        ("/v1/tasks?cursor=%00", "cursor"),
        ("/v1/tasks?cursor=" + "x" * 600, "cursor"),
        ("/v1/tools?limit=1_0", "limit"),
    ],
)
def test_a_bad_query_is_refused_by_name(service: Service, path: str, field: str) -> None:
    response = service.client.get(path)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_a_bad_page_of_the_journal_is_refused_by_name(service: Service) -> None:
    response = service.client.get(f"/v1/tasks/{service.submit()}/events?after=-1&limit=1001")
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["after", "limit"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/tasks/", 404),
        ("PUT", "/v1/tasks", 405),
        ("POST", "/healthz", 405),
        ("OPTIONS", "/v1/tasks", 405),
    ],
)
def test_what_the_framework_refuses_is_a_problem_too(service: Service, method: str, path: str, status: int) -> None:
    response = service.client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"]
    assert ("allow" in response.headers) == (status == 405)


def test_foreign_hosts_and_origins_and_other_bodies_are_refused_and_change_nothing(service: Service) -> None:
    before = read_everything(service)
    body = json.dumps({"prompt": "x"})
    for headers, status in (
        ({**JSON, "Host": "evil.example"}, 421),
        ({**JSON, "Origin": "http://evil.example"}, 403),
        ({**JSON, "Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({}, 415),
    ):
        response = service.client.post("/v1/tasks", content=body, headers=headers)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert "access-control-allow-origin" not in response.headers
    assert service.client.get("/v1/tasks", headers={"Origin": "http://evil.example"}).status_code == 403
    assert read_everything(service) == before


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"GET /\xff\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_a_request_that_is_hardly_http_is_refused(service: Service, request_bytes: bytes) -> None:
    address = (service.client.base_url.host, service.client.base_url.port or 80)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(65536).startswith(b"HTTP/1.1 4")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
TASKS = st.fixed_dictionaries(
    {"prompt": st.text(max_size=10)},
    optional={
        "plan": JSON_VALUES | st.fixed_dictionaries({"steps": st.lists(JSON_VALUES, max_size=3)}),
        "approval": JSON_VALUES,
        "tools": st.lists(st.text(max_size=5), max_size=2) | JSON_VALUES,
        "max_steps": st.integers() | JSON_VALUES,
        "metadata": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3) | JSON_VALUES,
        "budget": st.fixed_dictionaries({}, optional={"seconds": st.floats(), "tool_calls": st.integers()}),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(TASKS, JSON_VALUES).map(json.dumps).map(str.encode) | st.binary(max_size=50))
def test_no_body_gives_an_error_of_ours(service: Service, body: bytes) -> None:
    for path in ("/v1/tasks", "/v1/tasks/task_none/approve"):
        response = service.client.post(path, content=body, headers=JSON)
        assert response.status_code in {202, 400, 404, 422}, response.text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=20), st.dictionaries(st.sampled_from(["limit", "cursor", "status", "after"]), st.text()))
def test_no_query_gives_an_error_of_ours(service: Service, name: str, query: dict[str, str]) -> None:
    name = quote(name.encode("utf-8", "replace"))
    query = {key: value.encode("utf-8", "replace").decode() for key, value in query.items()}
    for path in ("/v1/tasks", f"/v1/tasks/{name}/events", f"/{name}"):
        response = service.client.get(path, params=query)
        assert response.status_code < 500, response.text
