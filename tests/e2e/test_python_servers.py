"""Servers of type `python`: code of the operator's that runs in the process of the service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import BUILTINS, Service
from waiting import eventually_sync

FUNCTIONS = '''
import time
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
_calls = []


def calculator(operation: Literal["add", "divide"], a: float, b: float) -> float:
    """Add or divide two numbers."""
    if operation == "divide" and b == 0:
        raise ValueError("b must not be 0")
    return a + b if operation == "add" else a / b


def fail_twice() -> str:
    """Fail twice."""
    _calls.append(1)
    if len(_calls) < 3:
        raise OSError("not yet")
    return "at last"


async def block(until: str) -> str:
    """Block the thread of the server until there is a file."""
    HERE.joinpath("begun").touch()
    while not HERE.joinpath(until).exists():
        time.sleep(0.01)
    return "gone on"
'''
EXAMPLES = Path(__file__).parents[2] / "examples"
READS = {"effect": "read", "idempotent": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / f"code_{tmp_path.name}.py").write_text(FUNCTIONS, encoding="utf-8")
    (tmp_path / f"broken_{tmp_path.name}.py").write_text("raise OSError('no device')", encoding="utf-8")
    return tmp_path


@pytest.fixture
def service(folder: Path) -> Iterator[Service]:
    service = Service(folder, limits={"shutdown_s": 0.1})
    entries = [
        *BUILTINS,
        {"id": "code", "type": "python", "config": {"object": f"code_{folder.name}"}, "tools": {"*": READS}},
        {"id": "broken", "type": "python", "config": {"object": f"broken_{folder.name}:tools"}},
    ]
    (folder / "tool_registry.yaml").write_text(json.dumps({"tool_registry": entries}), encoding="utf-8")
    with service:
        yield service


def plan(tool: str, **arguments: Any) -> dict[str, Any]:
    step = {"id": "s1", "kind": "tool", "server": "code", "tool": tool, "arguments": arguments}
    return {"goal": "Try it", "steps": [step]}


def start(service: Service, tool: str, **arguments: Any) -> str:
    task_id = service.submit(plan=plan(tool, **arguments))
    service.approve(task_id)
    return task_id


def status_of(service: Service, server: str) -> Any:
    return next(one for one in service.get("/v1/tools/status") if one["id"] == server)


def test_annotated_functions_are_tools_and_a_module_that_fails_is_unavailable_alone(service: Service) -> None:
    done = service.wait_for_end(start(service, "calculator", operation="add", a=15, b=27))
    assert (done["status"], done["steps"][0]["output"]) == ("completed", "42.0")
    failed = service.wait_for_end(start(service, "calculator", operation="divide", a=1, b=0))
    assert "b must not be 0" in failed["error"]["message"]
    wrong = service.client.post("/v1/tasks", json={"prompt": "Try", "plan": plan("calculator", a="x", c=1)})
    assert wrong.status_code == 422
    places = {fault["field"].removeprefix("plan.steps[0].arguments.") for fault in wrong.json()["errors"]}
    assert places == {"operation", "a", "b", "c"}
    eventually_sync(lambda: "no device" in status_of(service, "broken")["detail"])
    assert f"broken_{service.settings.tool_registry.parent.name}.py:1" in status_of(service, "broken")["detail"]


@pytest.mark.slow
def test_a_function_that_blocks_holds_up_nobody_else(service: Service, folder: Path) -> None:
    task_id = start(service, "block", until="enough")
    eventually_sync((folder / "begun").exists)
    step = {"id": "s1", "kind": "tool", "server": "calculator", "tool": "add", "arguments": {"a": 1, "b": 2}}
    other = service.submit(plan={"goal": "Add", "steps": [step]})
    service.approve(other)
    assert service.wait_for_end(other)["status"] == "completed"
    assert service.task(task_id)["status"] == "executing"
    (folder / "enough").touch()
    assert service.wait_for_end(task_id)["steps"][0]["output"] == "gone on"


@pytest.mark.slow
def test_the_service_stops_without_a_function_that_does_not_return(service: Service, folder: Path) -> None:
    task_id = start(service, "block", until="late")
    eventually_sync((folder / "begun").exists)
    service.restart()
    (folder / "late").touch()
    done = service.wait_for_end(task_id)
    assert (done["status"], done["steps"][0]["attempts"]) == ("completed", 2)


@pytest.mark.slow
def test_a_function_that_fails_is_tried_again_if_the_operator_calls_it_idempotent(service: Service) -> None:
    run_id = service.client.post("/api/v1/runs", json={"prompt": "calculate 1 + 1"}).json()["run_id"]
    eventually_sync(lambda: service.get(f"/api/v1/runs/{run_id}")["approval"])
    tag = service.task(run_id)["plan_digest"]
    edit = service.client.put(f"/v1/tasks/{run_id}/plan", json=plan("fail_twice"), headers={"If-Match": f'"{tag}"'})
    assert edit.status_code == 200, edit.text
    assert edit.json()["plan_object"]["steps"][0]["retries"] == 2
    approval = service.get(f"/api/v1/runs/{run_id}")["approval"]
    service.client.post(approval["url"], json={"plan_digest": approval["plan_digest"]}).raise_for_status()
    assert service.wait_for_end(run_id)["status"] == "completed"
    results = [(step["attempt"], step["result"]) for step in service.get(f"/api/v1/runs/{run_id}")["steps"]]
    assert [(attempt, result["success"]) for attempt, result in results] == [(1, False), (2, False), (3, True)]
    assert "OSError: not yet" in results[0][1]["error"]
    assert results[2][1]["output"] == {"result": "at last"}


@pytest.mark.slow
def test_a_reload_runs_the_new_code_and_voids_the_plans_of_the_old_one(service: Service, folder: Path) -> None:
    waiting = service.submit(plan=plan("calculator", operation="add", a=15, b=27))
    file = folder / f"code_{folder.name}.py"
    file.write_text(FUNCTIONS.replace("return a + b if", "return a - b if"), encoding="utf-8")
    done = service.wait_for_end(start(service, "calculator", operation="add", a=1, b=2))
    assert done["steps"][0]["output"] == "3.0"
    assert service.client.post("/v1/tools/reload").json()["changed"] == ["code"]
    eventually_sync(lambda: status_of(service, "code")["connected"])
    digest = service.task(waiting)["plan_digest"]
    refused = service.client.post(f"/v1/tasks/{waiting}/approve", json={"plan_digest": digest})
    assert refused.status_code == 409
    assert "code: source was" in refused.json()["detail"]
    again = {"plan_digest": service.task(waiting)["plan_digest"]}
    assert service.client.post(f"/v1/tasks/{waiting}/approve", json=again).status_code == 202
    assert service.wait_for_end(waiting)["steps"][0]["output"] == "-12.0"


@pytest.mark.slow
def test_an_import_that_failed_succeeds_after_a_reload(service: Service, folder: Path) -> None:
    eventually_sync(lambda: "no device" in status_of(service, "broken")["detail"])
    mended = "def look() -> str:\n    return 'seen'\n\ntools = [look]\n"
    (folder / f"broken_{folder.name}.py").write_text(mended, encoding="utf-8")
    assert service.client.post("/v1/tools/reload").json()["changed"] == ["broken"]
    eventually_sync(lambda: status_of(service, "broken")["connected"])
    tools = {f"{tool['server']}.{tool['tool']}": tool["effect"] for tool in service.get("/v1/tools")["tools"]}
    assert tools["broken.look"] == "unknown"


@pytest.mark.slow
def test_the_example_of_python_tools_does_what_it_says(tmp_path: Path) -> None:
    service = Service(tmp_path, approval={"auto_effects": ["read", "write"]})
    known = {"open_world": False}
    tools = {"calculator": {**READS, **known}, "todo_store": {"effect": "write", **known}}
    config = {"object": "python_tools", "folder": str(EXAMPLES)}
    entry = {"id": "code", "type": "python", "config": config, "tools": tools}
    (tmp_path / "tool_registry.yaml").write_text(json.dumps({"tool_registry": [entry]}), encoding="utf-8")
    steps = [
        *plan("calculator", operation="multiply", a=6, b=7)["steps"],
        {**plan("todo_store", action="add", text="${s1.text}")["steps"][0], "id": "s2"},
        {**plan("todo_store", action="complete", todo_id="${s2.output.result.0.id}")["steps"][0], "id": "s3"},
        {**plan("todo_store", action="list")["steps"][0], "id": "s4", "depends_on": ["s3"]},
    ]
    with service:
        done = service.wait_for_end(service.submit(plan={"goal": "Try it", "steps": steps}, approval="auto"))
        assert done["status"] == "completed", done["error"]
        run = service.get(f"/api/v1/runs/{done['task_id']}")
        (todo,) = run["steps"][-1]["result"]["output"]["result"]
        assert (todo["text"], todo["done"]) == ("42.0", True)


SERVER = '''
from mcp.server import MCPServer
from mcp_types import ToolAnnotations

tools = MCPServer("own")


@tools.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
def look(name: str) -> str:
    """Look something up."""
    return f"seen {name}"
'''


@pytest.mark.slow
def test_a_server_of_the_mcp_package_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / f"own_{tmp_path.name}.py").write_text(SERVER, encoding="utf-8")
    config = {"object": f"own_{tmp_path.name}:tools", "folder": "own"}
    service = Service(tmp_path, approval={"auto_effects": ["read"]})
    entry = {"id": "code", "type": "python", "config": config, "trust": "annotations"}
    (tmp_path / "tool_registry.yaml").write_text(json.dumps({"tool_registry": [entry]}), encoding="utf-8")
    with service:
        task_id = service.submit(plan=plan("look", name="it"), approval="auto")
        assert service.wait_for_end(task_id)["steps"][0]["output"] == "seen it"
