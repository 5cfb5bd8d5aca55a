"""The tools of the MCP server: the schemas that clients see, and the arguments that are taken."""

import asyncio

import pytest
from mcp.shared.exceptions import MCPError

from agent_runtime.api.bodies import Body
from agent_runtime.api.mcp_server import tools
from agent_runtime.api.mcp_server.definitions import TOOLS
from agent_runtime.api.mcp_server.server import unless_gone
from agent_runtime.domain.caller import SCOPES

ARGUMENTS: dict[str, type[Body]] = {
    "submit_task": tools.Submit,
    "get_task": tools.TaskArguments,
    "wait_for_task": tools.WaitArguments,
    "list_tasks": tools.ListArguments,
    "list_tools": tools.ListToolsArguments,
    "cancel_task": tools.CancelArguments,
}


@pytest.mark.parametrize("name", TOOLS)
def test_the_schema_of_a_tool_names_the_arguments_that_it_takes(name: str) -> None:
    shown, fields = TOOLS[name].tool.input_schema, ARGUMENTS[name].model_fields
    assert set(shown["properties"]) == set(fields) - {"approval"}
    required = {field for field, known in fields.items() if known.is_required()}
    assert set(shown["required"]) == required


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_needs_a_scope_and_changes_nothing_without_more_than_read(name: str) -> None:
    definition = TOOLS[name]
    assert definition.scopes
    assert set(definition.scopes) <= set(SCOPES)
    assert definition.tool.annotations is not None
    assert definition.tool.annotations.read_only_hint == (definition.scopes == ("read",))


async def test_the_work_of_a_client_that_is_gone_is_cancelled() -> None:
    gone, ended = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        gone.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    with pytest.raises(MCPError, match="connection of the call was closed"):
        await unless_gone(gone, work)
    assert ended.is_set()


async def test_work_is_returned_and_its_errors_are_raised_as_they_are() -> None:
    async def work() -> str:
        return "done"

    async def fail() -> str:
        raise MCPError(-32602, "no")

    assert await unless_gone(asyncio.Event(), work) == "done"
    with pytest.raises(MCPError, match="no"):
        await unless_gone(asyncio.Event(), fail)
