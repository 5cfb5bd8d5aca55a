"""The service as an MCP server: the Python client hands work over, and a person decides, in both protocol eras."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import yaml
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequestFormParams, ElicitResult

from agent_runtime.api.mcp_server.definitions import TOOLS
from callers import KeyedService, serve_with_keys
from command_line import ledger_call
from mcp_clients import ERAS, call, make_person, mcp_client, refusal_of, text_of
from serving import PATIENCE_S, Service, sums
from slow_tools import slow_service
from waiting import eventually, eventually_sync

eras = pytest.mark.parametrize("era", ERAS)

FAILING = {
    "goal": "fail",
    "steps": [
        {"id": "s1", "kind": "tool", "server": "calculator", "tool": "evaluate", "arguments": {"expression": "1/0"}}
    ],
}
ADDING = {
    "goal": "add",
    "steps": [{"id": "s1", "kind": "tool", "server": "calculator", "tool": "add", "arguments": {"a": 2, "b": 3}}],
}
ASKING = {
    "id": "calculator",
    "type": "builtin",
    "config": {"server": "calculator"},
    "tools": {"add": {"approval": "call"}},
}
HEADERS = {"Accept": "application/json, text/event-stream"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


def submission(plan: Any = None, **more: Any) -> dict[str, Any]:
    return {"prompt": "Add up", "plan": plan or sums(2), **more}


@eras
async def test_a_person_approves_in_the_client_and_the_call_returns_the_result(service: Service, era: str) -> None:
    asked, person = make_person("approve", comment="fine")
    lines: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - the shape of a callback
        lines.append(message or "")

    async with mcp_client(service, era, person) as client:
        result = await client.call_tool("submit_task", submission(), progress_callback=hear)
    task = service.task(result.structured_content["task_id"])
    (question,) = asked
    assert f"plan digest {task['plan_digest']}" in question
    assert task["plan"] in question
    assert "Step 1: read" in question
    assert (task["status"], result.structured_content["result"]) == ("completed", "42")
    assert [(entry["decision"], entry["digest"], entry["comment"]) for entry in task["approvals"]] == [
        ("approve", task["plan_digest"], "fine")
    ]
    assert "Step s1 completed." in lines
    assert text_of(result).endswith("42")


@eras
async def test_a_prompt_is_planned_before_the_person_is_asked(service: Service, era: str) -> None:
    asked, person = make_person("approve")
    async with mcp_client(service, era, person) as client:
        done = await call(client, "submit_task", prompt="Add 15 and 27")
    assert done["status"] == "completed"
    assert done["result"].startswith("42")
    assert "Task: Add 15 and 27" in asked[0]


@eras
@pytest.mark.parametrize(
    ("action", "decision", "reason"),
    [("accept", "reject", "too much"), ("decline", None, "Declined in the MCP client.")],
)
async def test_a_person_who_says_no_ends_the_task(
    service: Service, era: str, action: str, decision: str | None, reason: str
) -> None:
    _, person = make_person(decision, action=action, comment=reason)
    async with mcp_client(service, era, person) as client:
        ended = await call(client, "submit_task", **submission())
    assert ended["status"] == "rejected"
    (said,) = service.task(ended["task_id"])["approvals"]
    assert (said["decision"], said["comment"]) == ("reject", reason)


@eras
@pytest.mark.parametrize(("action", "decision"), [("cancel", None), ("accept", None), ("accept", "yes")])
async def test_an_answer_that_decides_nothing_leaves_the_question_open(
    service: Service, era: str, action: str, decision: str | None
) -> None:
    asked, person = make_person(decision, action=action)
    async with mcp_client(service, era, person) as client:
        waiting = await call(client, "submit_task", **submission())
    assert waiting["status"] == "awaiting_approval"
    assert len(asked) == len(waiting["notes"]) == 1
    assert waiting["decide"]["page"] == f"{service.url}/#/tasks/{waiting['task_id']}"
    assert service.task(waiting["task_id"])["approvals"] == []


@eras
async def test_an_answer_with_a_field_that_the_form_has_not_decides_nothing(service: Service, era: str) -> None:
    async def person(_: ElicitRequestFormParams) -> ElicitResult:
        return ElicitResult(action="accept", content={"decision": "approve", "editedArgs": "{}"})

    async with mcp_client(service, era, person) as client:
        waiting = await call(client, "submit_task", **submission())
    assert (waiting["status"], "'editedArgs'" in waiting["notes"][0]) == ("awaiting_approval", True)


@pytest.mark.filterwarnings("ignore:The .root_path. parameter is deprecated")
def test_the_address_of_the_page_is_the_one_at_which_a_proxy_serves_it(tmp_path: Path) -> None:
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/call"}
    arguments = submission() | {"wait_s": 0}
    with Service(tmp_path, server={"root_path": "/tools", "allowed_hosts": ["runtime.example"]}) as service:
        for scheme, page in (
            ("https", "https://"),
            ("HTTPS, http", "https://"),
            ("javascript", "http://"),
            ("", "http://"),
        ):
            headers = {**HEADERS, "Host": "runtime.example", **({"X-Forwarded-Proto": scheme} if scheme else {})}
            opened = service.client.post("/mcp", json=INITIALIZE, headers=headers)
            headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
            body = {**listing, "params": {"name": "submit_task", "arguments": arguments}}
            said = service.client.post("/mcp", json=body, headers=headers).text
            (frame,) = [line.removeprefix("data: ") for line in said.splitlines() if line.startswith("data: {")]
            task = json.loads(frame)["result"]["structuredContent"]
            assert task["decide"]["page"] == f"{page}runtime.example/tools/#/tasks/{task['task_id']}"


@eras
async def test_a_client_without_elicitation_gets_the_address_and_waits_for_the_end(service: Service, era: str) -> None:
    async with mcp_client(service, era) as client:
        waiting = await call(client, "submit_task", **submission())
        task_id, digest = waiting["task_id"], waiting["plan_digest"]
        assert waiting["status"] == "awaiting_approval"
        assert waiting["decide"] == {
            "page": f"{service.url}/#/tasks/{task_id}",
            "command": f"agent-runtime approve {task_id} --digest {digest}",
        }
        assert (await call(client, "wait_for_task", task_id=task_id))["status"] == "awaiting_approval"
        async with anyio.create_task_group() as group:
            ended: list[Any] = []

            async def wait() -> None:
                ended.append(await call(client, "wait_for_task", task_id=task_id, until="ended"))

            group.start_soon(wait)
            await asyncio.to_thread(service.approve, task_id)
    assert (ended[0]["status"], ended[0]["result"], ended[0]["decide"]) == ("completed", "42", None)


@eras
async def test_a_task_that_fails_says_why(service: Service, era: str) -> None:
    _, person = make_person("approve")
    async with mcp_client(service, era, person) as client:
        failed = await call(client, "submit_task", **submission(FAILING))
    assert failed["status"] == "failed"
    assert failed["error"]["step_id"] == "s1"
    assert failed["result"] == failed["error"]["message"]


@eras
async def test_a_task_is_cancelled(service: Service, era: str) -> None:
    async with mcp_client(service, era) as client:
        task_id = (await call(client, "submit_task", **submission()))["task_id"]
        assert (await call(client, "cancel_task", task_id=task_id, reason="enough"))["status"] == "cancelled"
        assert (await call(client, "get_task", task_id=task_id))["terminal"]
        assert "cancelled" in await refusal_of(client, "cancel_task", task_id=task_id)


@eras
async def test_a_repeated_submission_makes_one_task(service: Service, era: str) -> None:
    async with mcp_client(service, era) as client:
        first = await call(client, "submit_task", **submission(idempotency_key=f"k-{era}"))
        again = await call(client, "submit_task", **submission(idempotency_key=f"k-{era}", wait_s=1))
        assert again["task_id"] == first["task_id"]
        said = await refusal_of(client, "submit_task", **submission(FAILING, idempotency_key=f"k-{era}"))
    assert "already used" in said


@eras
async def test_the_question_is_withdrawn_once_the_page_has_answered_it(service: Service, era: str) -> None:
    """Two doors race to approve: one wins, and the other is told."""

    async def person(params: ElicitRequestFormParams) -> ElicitResult:
        task_id = params.message.partition("of task ")[2].partition(" run?")[0]
        await asyncio.to_thread(service.approve, task_id)
        if era == "legacy":
            await anyio.sleep_forever()  # until the question is withdrawn
        return ElicitResult(action="accept", content={"decision": "approve"})

    async with mcp_client(service, era, person) as client:
        result = await call(client, "submit_task", **submission())
        ended = await call(client, "wait_for_task", task_id=result["task_id"])
    assert ended["status"] == "completed"
    assert len(service.task(result["task_id"])["approvals"]) == 1
    assert "came too late" in result["notes"][0]


@eras
async def test_a_call_is_approved_or_denied_in_the_client(tmp_path: Path, era: str) -> None:
    service = Service(tmp_path)
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [ASKING]}), encoding="utf-8")
    with service:
        for decision, status in (("approve", "completed"), ("deny", "failed")):
            asked: list[str] = []

            async def person(
                params: ElicitRequestFormParams, decision: str = decision, asked: list[str] = asked
            ) -> ElicitResult:
                asked.append(params.message)
                return ElicitResult(action="accept", content={"decision": decision if len(asked) > 1 else "approve"})

            async with mcp_client(service, era, person) as client:
                ended = await call(client, "submit_task", **submission(ADDING))
            assert ended["status"] == status
            about_the_plan, about_the_call = asked
            assert "a person is asked before the call" in about_the_plan
            assert about_the_call.startswith("May step s1 call calculator.add?")
            assert '"a": 2' in about_the_call


ASKING_SERVER = {
    "id": "asking",
    "type": "local_stdio",
    "config": {
        "command": sys.executable,
        "args": ["-S", "-E", str(Path(__file__).parents[1] / "servers" / "asking_server.py")],
    },
    "tools": {"*": {"effect": "read", "open_world": False, "timeout_s": 20}},
}


@eras
@pytest.mark.parametrize(
    ("action", "answer"), [("accept", {"name": "Ann", "count": 3}), ("decline", None), ("cancel", None)]
)
async def test_the_question_of_a_server_is_asked_in_the_client(
    tmp_path: Path, era: str, action: Any, answer: dict[str, Any] | None
) -> None:
    plan = {"goal": "ask", "steps": [{"id": "s1", "kind": "tool", "server": "asking", "tool": "form"}]}
    asked: list[ElicitRequestFormParams] = []

    async def person(params: ElicitRequestFormParams) -> ElicitResult:
        asked.append(params)
        if len(asked) == 1:
            return ElicitResult(action="accept", content={"decision": "approve"})
        return ElicitResult(action=action, content=answer)

    service = Service(tmp_path, limits={"cancel_grace_s": 0.1, "shutdown_s": 0.5})
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [ASKING_SERVER]}), encoding="utf-8")
    with service:
        service.refresh_tools()
        async with mcp_client(service, era, person) as client:
            ended = await call(client, "submit_task", **submission(plan))
    assert "Who are you?" in asked[1].message
    assert asked[1].requested_schema["required"] == ["name"]
    if action == "cancel":
        assert (ended["status"], ended["attention"][0]["kind"]) == ("needs_attention", "input")
        assert ended["decide"]["command"] == f"agent-runtime show {ended['task_id']}"
    else:
        assert json.loads(ended["result"]) == {"action": action, **({"content": answer} if answer else {})}


@pytest.mark.slow
@eras
async def test_a_call_of_unknown_outcome_is_resolved_in_the_client(tmp_path: Path, era: str) -> None:
    asked: list[str] = []

    async def person(params: ElicitRequestFormParams) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"decision": "approve" if len(asked) == 1 else "skip"})

    with slow_service(tmp_path, 30) as service:
        async with mcp_client(service, era, person) as client:
            ended = await call(client, "submit_task", **submission(ledger_call("count", timeout_s=0.2)))
    assert "The outcome of a call of step s1 to ledger.count is unknown." in asked[1]
    assert (ended["terminal"], [step["status"] for step in ended["steps"]]) == (True, ["skipped"])


# Tools, resources and malformed input


@eras
async def test_the_tools_say_what_they_do_and_none_approves(service: Service, era: str) -> None:
    async with mcp_client(service, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == list(TOOLS)
        assert not any("approve" in name or "decide" in name for name in tools)
        assert all(tool.output_schema and tool.annotations for tool in tools.values())
        reading = {name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint}
        assert reading == {"get_task", "wait_for_task", "list_tasks", "list_tools"}
        listed = await call(client, "list_tools", limit=1)
        assert (len(listed["tools"]), listed["next_cursor"] is not None) == (1, True)
        newest = service.submit()
        assert (await call(client, "list_tasks", limit=1))["tasks"][0]["task_id"] == newest
        waiting = await call(client, "list_tasks", status="awaiting_approval", limit=200)
        assert {task["status"] for task in waiting["tasks"]} == {"awaiting_approval"}


@eras
async def test_tasks_and_audits_are_resources(service: Service, era: str) -> None:
    task_id = service.complete_task()
    async with mcp_client(service, era) as client:
        listed = await client.list_resources()
        assert listed.resources[0].uri == f"task://{task_id}"
        templates = (await client.list_resource_templates()).resource_templates
        assert [template.uri_template for template in templates] == ["task://{task_id}", "audit://{task_id}"]
        (task,) = (await client.read_resource(f"task://{task_id}")).contents
        assert json.loads(task.text) == service.task(task_id)  # type: ignore[union-attr]
        (audit,) = (await client.read_resource(f"audit://{task_id}")).contents
        assert json.loads(audit.text) == service.get(f"/v1/tasks/{task_id}/audit")  # type: ignore[union-attr]
        for uri in ("task://none", "task://", "file:///etc/passwd", "audit://../x"):
            with pytest.raises(MCPError) as caught:
                await client.read_resource(uri)
            assert caught.value.error.code == -32602


@eras
async def test_wrong_arguments_are_named(service: Service, era: str) -> None:
    async with mcp_client(service, era) as client:
        for tool, arguments, said in (
            ("get_task", {"task_id": "none"}, "There is no task 'none'."),
            ("get_task", {}, "task_id: This field is required."),
            ("get_task", {"task_id": 5}, "task_id: It must be a string."),
            ("wait_for_task", {"task_id": "x", "wait_s": 1e9}, "wait_s: It must be at most 300."),
            ("wait_for_task", {"task_id": "x", "until": "never"}, "until: It must be"),
            ("submit_task", {"prompt": ""}, "prompt: "),
            ("submit_task", {"prompt": "x", "approval": "auto"}, "approval: It must be"),
            ("submit_task", {"prompt": "x", "plan": {"goal": "g", "steps": []}}, "plan.steps"),
            ("submit_task", {"prompt": "x", "idempotency_key": "a b"}, "idempotency_key: "),
            ("list_tasks", {"cursor": "odd"}, "cursor"),
            ("list_tasks", {"status": "odd"}, "status: It must be"),
        ):
            assert said in await refusal_of(client, tool, **arguments)
        with pytest.raises(MCPError) as caught:
            await client.call_tool("approve_task", {})
    assert caught.value.error.code == -32602
    assert "There is no tool 'approve_task'" in caught.value.error.message


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"\xff", 400, -32700),
        (b"[" * 100_000, 400, -32700),
        (b'{"id": 1, "id": 2}', 400, -32700),
        (b"", 400, None),
        (b"[]", 400, None),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', 400, None),
        (json.dumps({**INITIALIZE, "params": {}}).encode(), 200, -32602),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode(), 400, None),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "' + b"x" * 2_000_000 + b'"}', 413, None),
    ],
)
@pytest.mark.parametrize("version", [None, "2026-07-28", "1999-01-01"])
def test_malformed_messages_get_an_error_of_json_rpc(
    service: Service, version: str | None, body: bytes, status: int, code: int | None
) -> None:
    headers = {**HEADERS, "Content-Type": "application/json", **({"MCP-Protocol-Version": version} if version else {})}
    response = service.client.post("/mcp", content=body, headers=headers)
    assert response.status_code == status or (version and 400 <= response.status_code < 500), response.text
    kind, text = response.headers["content-type"], response.text
    if response.status_code == 413:
        return  # by the edge
    if kind.startswith("text/event-stream"):
        text = next(line for line in text.splitlines() if line.startswith("data: ")).removeprefix("data: ")
    error = json.loads(text)["error"]
    assert code is None or version or error["code"] == code


def test_a_request_state_that_is_not_ours_is_refused(service: Service) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    }
    task_id = service.submit()
    for state in ("", "{}", "[]", '{"task_id": 5, "asked": 0}', '{"task_id": "other", "asked": 1}', "[" * 1000):
        params = {
            "name": "wait_for_task",
            "arguments": {"task_id": task_id},
            "requestState": state,
            "inputResponses": {"plan:x": {"action": "accept", "content": {"decision": "approve"}}},
            "_meta": meta,
        }
        headers = {"Mcp-Method": "tools/call", "Mcp-Name": "wait_for_task", "MCP-Protocol-Version": "2026-07-28"}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        response = service.client.post("/mcp", json=body, headers={**HEADERS, **headers})
        assert response.json()["error"]["code"] == -32602, response.text
    assert service.task(task_id)["approvals"] == []


# Callers, sessions and restarts


CALLERS = {
    "reader": ("read",),
    "submitter": ("submit",),
    "agent": ("read", "submit"),
    "approver": ("read", "approve"),
    "both": ("read", "submit", "approve"),
}


@pytest.fixture(scope="module")
def keyed_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedService]:
    with serve_with_keys(tmp_path_factory.mktemp("keyed"), CALLERS) as keyed_service:
        yield keyed_service


@eras
async def test_each_tool_needs_its_scope(keyed_service: KeyedService, era: str) -> None:
    task_id = keyed_service.service.submit()
    arguments: dict[str, dict[str, Any]] = {
        "submit_task": submission(),
        "get_task": {"task_id": task_id},
        "wait_for_task": {"task_id": task_id, "wait_s": 0},
        "cancel_task": {"task_id": "none"},
    }
    for caller, scopes in CALLERS.items():
        async with mcp_client(keyed_service.service, era, key=keyed_service.keys[caller]) as client:
            for name, definition in TOOLS.items():
                result = await client.call_tool(name, arguments.get(name, {}))
                allowed = not set(definition.scopes).isdisjoint(scopes)
                refused = result.is_error and "does not have the scope" in text_of(result)
                assert refused == (not allowed), (caller, name, text_of(result))
            if "read" not in scopes:
                with pytest.raises(MCPError, match="does not have the scope 'read'"):
                    await client.read_resource(f"task://{task_id}")


@eras
async def test_a_caller_who_may_not_read_gets_only_the_id_and_the_status(keyed_service: KeyedService, era: str) -> None:
    _, person = make_person("approve")
    async with mcp_client(keyed_service.service, era, person, keyed_service.keys["submitter"]) as client:
        created = await call(client, "submit_task", **submission())
    assert set(created) == {"task_id", "status", "terminal", "decide", "notes"}
    assert created["status"] == "awaiting_approval"


@eras
async def test_only_a_caller_who_may_approve_is_asked(keyed_service: KeyedService, era: str) -> None:
    asked, person = make_person("approve")
    async with mcp_client(keyed_service.service, era, person, keyed_service.keys["agent"]) as client:
        waiting = await call(client, "submit_task", **submission())
    assert (waiting["status"], asked) == ("awaiting_approval", [])
    assert waiting["decide"]["page"]
    async with mcp_client(keyed_service.service, era, person, keyed_service.keys["approver"]) as client:
        ended = await call(client, "wait_for_task", task_id=waiting["task_id"])
    assert (ended["status"], len(asked)) == ("completed", 1)
    (approval,) = keyed_service.service.task(waiting["task_id"])["approvals"]
    assert approval["who"] == "approver"


async def test_nobody_approves_in_a_client_what_they_wrote(keyed_service: KeyedService) -> None:
    asked, person = make_person("approve")
    task_id = keyed_service.service.submit(prompt="Add 15 and 27")
    revised = keyed_service.call(
        "POST", f"/v1/tasks/{task_id}/revise", "approver", json={"feedback": "then add 1 and 2"}
    )
    assert revised.status_code == 202
    await eventually(lambda: keyed_service.service.task(task_id)["plan_revision"] == 2)
    async with mcp_client(keyed_service.service, "legacy", person, keyed_service.keys["approver"]) as client:
        waiting = await call(client, "wait_for_task", task_id=task_id)
    assert (waiting["status"], len(asked)) == ("awaiting_approval", 1)
    assert "Nobody approves what they wrote" in waiting["notes"][0]


@eras
async def test_a_key_that_loses_its_scope_while_a_person_is_asked_decides_nothing(tmp_path: Path, era: str) -> None:
    with serve_with_keys(tmp_path, {"both": ("read", "submit", "approve")}) as keyed_service:

        async def person(_: ElicitRequestFormParams) -> ElicitResult:
            text = keyed_service.file.read_text(encoding="utf-8")
            assert "submit approve read" in text
            keyed_service.file.write_text(text.replace("submit approve read", "read"), encoding="utf-8")
            return ElicitResult(action="accept", content={"decision": "approve"})

        async with mcp_client(keyed_service.service, era, person, keyed_service.keys["both"]) as client:
            await client.call_tool("submit_task", submission(wait_s=1))
        (task,) = keyed_service.service.get("/v1/tasks")["tasks"]
        assert task["status"] == "awaiting_approval"


async def test_an_answer_counts_only_for_the_plan_that_was_shown(service: Service) -> None:
    async def person(params: ElicitRequestFormParams) -> ElicitResult:
        task_id = params.message.partition("of task ")[2].partition(" run?")[0]
        task = service.task(task_id)
        edited = {"goal": "another", "steps": sums(3)["steps"]}
        headers = {"If-Match": f'"{task["plan_digest"]}"'}
        response = await asyncio.to_thread(
            service.client.put, f"/v1/tasks/{task_id}/plan", json=edited, headers=headers
        )
        assert response.status_code < 300, response.text
        return ElicitResult(action="accept", content={"decision": "approve"})

    async with mcp_client(service, "2026-07-28", person) as client:
        waiting = await call(client, "submit_task", **submission())
    assert (waiting["status"], waiting["plan_revision"]) == ("awaiting_approval", 2)
    assert "came too late" in waiting["notes"][0]


def test_the_edge_comes_first(keyed_service: KeyedService) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert keyed_service.call(method, "/mcp").status_code == 401
        assert keyed_service.call(method, "/mcp", "reader", headers={"Host": "evil.example"}).status_code == 421
        assert (
            keyed_service.call(method, "/mcp", "reader", headers={"Origin": "http://evil.example"}).status_code == 403
        )
    assert (
        keyed_service.call("POST", "/mcp", "reader", content=b"x", headers={"Content-Type": "text/plain"}).status_code
        == 415
    )
    assert keyed_service.call("HEAD", "/mcp", "reader").status_code == 405
    assert keyed_service.call("PUT", "/mcp", "reader").status_code in {403, 405}


def test_a_session_answers_only_the_caller_who_opened_it(keyed_service: KeyedService) -> None:
    opened = keyed_service.call("POST", "/mcp", "reader", json=INITIALIZE, headers=HEADERS)
    session = {**HEADERS, "Mcp-Session-Id": opened.headers["mcp-session-id"]}
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    assert keyed_service.call("POST", "/mcp", "agent", json=ping, headers=session).status_code == 404
    assert keyed_service.call("DELETE", "/mcp", "agent", headers=session).status_code == 404
    assert keyed_service.call("POST", "/mcp", "reader", json=ping, headers=session).status_code == 200
    assert keyed_service.call("DELETE", "/mcp", "reader", headers=session).status_code == 200
    assert keyed_service.call("POST", "/mcp", "reader", json=ping, headers=session).status_code == 404


@eras
async def test_a_client_that_goes_away_frees_its_call_and_the_task_goes_on(own_service: Service, era: str) -> None:
    seen = asyncio.Event()

    async def person(_: ElicitRequestFormParams) -> ElicitResult:
        seen.set()
        await anyio.sleep_forever()
        raise AssertionError

    task_id = own_service.submit()
    with anyio.CancelScope() as scope:
        async with mcp_client(own_service, era, person) as client, anyio.create_task_group() as group:

            async def leave() -> None:
                await seen.wait()
                scope.cancel()

            group.start_soon(leave)
            await call(client, "wait_for_task", task_id=task_id)
    await eventually(lambda: own_service.open_streams == 0)
    async with mcp_client(own_service, era, make_person("approve")[1]) as client:  # and comes back
        assert (await call(client, "wait_for_task", task_id=task_id))["status"] == "completed"


@eras
async def test_a_task_outlives_a_restart_of_the_service_while_a_client_waits(own_service: Service, era: str) -> None:
    async with mcp_client(own_service, era) as client:
        task_id = (await call(client, "submit_task", **submission()))["task_id"]
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                with suppress(MCPError, httpx2.HTTPError):  # the connection is lost with the service
                    await client.call_tool("wait_for_task", {"task_id": task_id, "until": "ended", "wait_s": 60})

            group.start_soon(wait)
            await eventually(lambda: own_service.open_streams > 0)
            await anyio.to_thread.run_sync(own_service.stop)
            group.cancel_scope.cancel()
    own_service.start()
    own_service.approve(task_id)
    async with mcp_client(own_service, era) as client:
        ended = await call(client, "wait_for_task", task_id=task_id, until="ended")
    assert (ended["status"], ended["result"]) == ("completed", "42")


def test_sessions_are_bounded_in_number_and_end_when_they_are_idle(tmp_path: Path) -> None:
    with Service(tmp_path, limits={"mcp_sessions": 2, "mcp_session_s": 1}) as service:
        answers = [service.client.post("/mcp", json=INITIALIZE, headers=HEADERS) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 503]
        session = {**HEADERS, "Mcp-Session-Id": answers[0].headers["mcp-session-id"]}
        service.client.delete("/mcp", headers=session)
        assert service.client.post("/mcp", json=INITIALIZE, headers=HEADERS).status_code == 200
        idle = {**HEADERS, "Mcp-Session-Id": answers[1].headers["mcp-session-id"]}
        eventually_sync(lambda: service.client.post("/mcp", json=INITIALIZE, headers=HEADERS).status_code == 200)
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        assert service.client.post("/mcp", json=listing, headers=idle).status_code == 404


async def test_a_question_that_nobody_answers_in_the_client_is_left_to_the_page(tmp_path: Path) -> None:
    withdrawn = asyncio.Event()

    async def person(_: ElicitRequestFormParams) -> ElicitResult:
        try:
            await anyio.sleep_forever()
        finally:
            withdrawn.set()
        raise AssertionError

    with Service(tmp_path, limits={"mcp_question_s": 0.5}) as service:
        async with mcp_client(service, "legacy", person) as client:
            waiting = await call(client, "submit_task", **submission())
            await withdrawn.wait()
        service.approve(waiting["task_id"])
        assert service.wait_for_end(waiting["task_id"])["status"] == "completed"
    assert waiting["decide"]["page"] == f"{service.url}/#/tasks/{waiting['task_id']}"


def test_the_service_stops_in_time_with_open_sessions(own_service: Service) -> None:
    opened = own_service.client.post("/mcp", json=INITIALIZE, headers=HEADERS)
    session = {**HEADERS, "Mcp-Session-Id": opened.headers["mcp-session-id"], "Accept": "text/event-stream"}
    with own_service.client.stream("GET", "/mcp", headers=session) as stream:
        assert stream.status_code == 200
        assert own_service.stop() < PATIENCE_S
