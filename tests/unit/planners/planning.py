"""Makes plans of the offline planner: with the real built-in tools, and with tools of other servers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent_runtime.builtin.servers import SERVERS, create
from agent_runtime.domain.plan import Plan, ToolStep
from agent_runtime.domain.plan_requests import PlanRequest
from agent_runtime.domain.tools import (
    BuiltinConfig,
    BuiltinServer,
    StdioConfig,
    StdioServer,
    Tool,
    ToolDefinition,
    describe_tool,
)
from agent_runtime.planners.rules.planner import RulePlanner
from unit.planners.corpus import Steps

FOUND: dict[str, list[Tool]] = {}
"""The definitions of the real built-in servers, by server; they are the same for every test."""


async def tools_of(name: str, folder: Path, server_id: str | None = None) -> list[Tool]:
    entry = BuiltinServer(id=server_id or name, type="builtin", config=BuiltinConfig.model_validate({"server": name}))
    server = create(entry.config, base_dir=folder, data_dir=folder)
    return [describe_tool(entry, ToolDefinition.model_validate(each)) for each in server.list_tools()]


async def all_tools(folder: Path = Path("unused")) -> list[Tool]:
    if not FOUND:
        for name in SERVERS:
            FOUND[name] = await tools_of(name, folder)
    return [tool for found in FOUND.values() for tool in found]


async def plan(prompt: str, tools: list[Tool], max_steps: int = 20) -> Plan:
    return (await RulePlanner().plan(PlanRequest(prompt, tools, max_steps))).plan


def _fill_timeouts(made: Plan) -> Plan:
    """Return the plan as a contract keeps it, with the time-outs of the registry."""
    filled = [
        step.model_copy(update={"timeout_s": 60.0}) if isinstance(step, ToolStep) else step for step in made.steps
    ]
    return made.model_copy(update={"steps": tuple(filled)})


async def revise(prompt: str, feedback: Sequence[str], tools: list[Tool], previous: Plan | None = None) -> Plan:
    """Return the plan after all this feedback, each about the plan before it. `previous`: the plan before the last."""
    made = await plan(prompt, tools)
    for number in range(1, len(feedback) + 1):
        base = previous if previous and number == len(feedback) else _fill_timeouts(made)
        request = PlanRequest(prompt, tools, 20, feedback=tuple(feedback[:number]), previous=base)
        made = (await RulePlanner().plan(request)).plan
    return made


def steps_of(made: Plan) -> Steps:
    """Return each step's tool, arguments, and condition if it has one."""
    return [
        (step.tool, step.arguments, *([step.when] if step.when else []))
        for step in made.steps
        if isinstance(step, ToolStep)
    ]


def schema(*properties: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {} for name in properties}, "required": list(properties)}


def foreign(server: str, tool: str, *arguments: str, **more: Any) -> Tool:
    """Describe a tool of a stdio server that is not ours."""
    entry = StdioServer(id=server, type="local_stdio", config=StdioConfig(command="x"))
    return describe_tool(entry, ToolDefinition(name=tool, inputSchema=schema(*arguments), **more))


FETCH = [foreign("web", "imageFetch", "url", annotations={"readOnlyHint": True})]
