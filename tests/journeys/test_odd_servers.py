"""Servers that do not follow MCP, from the catalogue to the end of a task."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import InvalidPlanError
from agent_runtime.domain.events import ToolCalled
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.tools import StdioServer
from harness import House, submit_plan, until_settled
from odd_servers import GOOD, Script
from pools import HOSTILE_SERVER
from shifty import plan_of, submit_and_approve
from waiting import eventually

READ = {"*": {"effect": "read", "open_world": False}}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def serve(house: House, script: Script, later: Any = None, **entry: Any) -> None:
    """Write the server of this script into the registry."""
    server = script.over_stdio(house.folder, script={} if later is None else {"later": {"first": {"tools": later}}})
    assert isinstance(server, StdioServer)
    house.write_registry(config=server.config.model_dump(mode="json"), **{"tools": READ, **entry})


async def test_a_tool_that_cannot_be_used_is_shown_with_its_fault(house: House) -> None:
    serve(house, Script.of_tools({"name": "fat", "description": "x" * 70_000}, {"name": "odd", "inputSchema": 5}))
    async with house.open() as runtime:
        await runtime.registry.ready(["ledger"], 20)
        assert "ledger/good" in runtime.registry.tools()
        unusable = runtime.registry.unusable()
        with pytest.raises(InvalidPlanError, match=r"Tool 'fat' of server 'ledger' cannot be used: .*over 65536"):
            await submit_plan(runtime, plan_of("ledger.fat"))
    assert "over 65536" in unusable["ledger/fat"]
    assert "inputSchema" in unusable["ledger/odd"]


async def test_a_tool_whose_definition_differs_by_itself_cannot_be_approved(house: House) -> None:
    config = {"command": sys.executable, "args": ["-S", "-E", str(HOSTILE_SERVER), "shifty"]}
    house.write_registry(config=config, tools=READ, scope="shared")
    async with house.open() as runtime:
        await eventually(lambda: "ledger/echo" in runtime.registry.unusable())
        assert "description was 'version" in runtime.registry.unusable()["ledger/echo"]
        assert "ledger/echo" not in runtime.registry.tools()


async def test_a_shared_server_that_says_that_its_tools_changed_is_asked_again(house: House) -> None:
    serve(house, Script(), later=[GOOD, {"name": "more"}], scope="shared")
    async with house.open() as runtime:
        await eventually(lambda: "ledger/more" in runtime.registry.tools())


@pytest.mark.parametrize(("idempotent", "calls"), [(False, 1), (True, 2)])
async def test_an_unreadable_answer_fails_the_step_and_is_asked_for_again_only_where_idempotent(
    house: House, *, idempotent: bool, calls: int
) -> None:
    tools = {"*": {**READ["*"], "idempotent": idempotent}}
    serve(house, Script.of_result("null"), tools=tools)
    plan = plan_of("ledger.good")
    steps = tuple(step.model_copy(update={"retries": 1 if idempotent else 0}) for step in plan.steps)
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, plan.model_copy(update={"steps": steps}))
        task = await until_settled(runtime, task.task_id)
        records = await runtime.tasks.records(task.task_id, ANYBODY)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert task.error.code == "result_unreadable"
    assert sum(isinstance(one.event, ToolCalled) for one in records) == calls


QUERY = {"type": "object", "properties": {"text": {"type": "string", "default": None}, "limit": {"type": "integer"}}}
NODE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/N"}}},
}
ONE_OF_TWO = [{"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in "ab"]
SCHEMAS: dict[str, tuple[Any, dict[str, Any]]] = {
    "flag": ({"type": "object", "properties": {"x": True}}, {"x": 1}),
    "union": ({"anyOf": ONE_OF_TWO}, {"kind": "a"}),
    "short_type": ({"type": "object", "properties": {"n": {"type": "int"}}}, {"n": 1}),
    "query": (
        {"$defs": {"Q": QUERY}, "type": "object", "properties": {"q": {"$ref": "#/$defs/Q"}}, "required": ["q"]},
        {"q": {"limit": 3}},
    ),
    "tree": (
        {"$defs": {"N": NODE}, "type": "object", "properties": {"root": {"$ref": "#/$defs/N"}}},
        {"root": {"name": "a", "children": [{"name": "b", "children": []}]}},
    ),
}
"""Schemas that other clients are known to reject or to break on, each with arguments that it allows."""

UNUSABLE: dict[str, tuple[Any, str]] = {
    "text": ({"type": "string"}, "the arguments of a call are an object"),
    "nested": ({"type": "object", "properties": {"coin": {"type": "string"}, "required": ["coin"]}}, "coin"),
}


async def test_schemas_that_other_clients_break_on_are_used_and_the_unusable_take_no_others_away(house: House) -> None:
    listed = {name: schema for name, (schema, _) in {**SCHEMAS, **UNUSABLE}.items()}
    no_type = {"name": "promises", "inputSchema": {"type": "object"}, "outputSchema": {"$id": "result.v1"}}
    fine = '{"jsonrpc":"2.0","id":$ID,"result":{"content":[{"type":"text","text":"fine"}]}}'
    answers = dict.fromkeys(["promises", *SCHEMAS], fine)
    tools = [GOOD, no_type, *({"name": name, "inputSchema": schema} for name, schema in listed.items())]
    script = Script(pages={"first": {"tools": tools}}, answers=answers)
    steps = [
        {"id": name, "kind": "tool", "server": "ledger", "tool": name, "arguments": arguments}
        for name, arguments in {"promises": {}, **{name: given for name, (_, given) in SCHEMAS.items()}}.items()
    ]
    serve(house, script)
    async with house.open() as runtime:
        await runtime.registry.ready(["ledger"], 20)
        unusable = runtime.registry.unusable()
        plan = Plan.model_validate({"goal": "all of them", "steps": steps})
        task = await submit_and_approve(runtime, plan)
        task = await until_settled(runtime, task.task_id)
    assert task.status is TaskStatus.COMPLETED, task.error
    assert unusable.keys() == {f"ledger/{name}" for name in UNUSABLE}
    for name, (_, why) in UNUSABLE.items():
        assert why in unusable[f"ledger/{name}"]


LINKS = [
    {"type": "resource_link", "name": "Terms", "uri": "x://terms"},
    {"type": "resource_link", "uri": 7},
    {"type": "application/json", "data": {"a": 1}},
    {"type": "text", "text": "beside them"},
]


async def test_blocks_that_other_clients_break_on_leave_what_can_be_read(house: House) -> None:
    serve(house, Script.of_result(json.dumps({"content": LINKS})))
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, plan_of("ledger.good"))
        task = await until_settled(runtime, task.task_id)
    assert task.status is TaskStatus.COMPLETED
    (result,) = task.results.values()
    for kept in ("x://terms", '"uri":7', '"a":1', "beside them"):
        assert kept in result.text
