"""The MCP server on a running service, for any transport. It asks its clients in the way of their protocol era."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ElicitResult,
    InputRequiredResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
)

from agent_runtime import __version__
from agent_runtime.api.mcp_server.asking import Context, ask, can_ask, is_modern, make_report, read_patience
from agent_runtime.api.mcp_server.definitions import INSTRUCTIONS, NAME, TITLE, TOOLS
from agent_runtime.api.mcp_server.resources import TaskResources
from agent_runtime.api.mcp_server.tools import Call, Client, TaskTools
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.caller import Caller

Returned = TypeVar("Returned")

Identify = Callable[[Any], tuple[Caller, str, asyncio.Event]]
"""Returns the caller of an HTTP request, the URL at which it reaches the service, and an event that says it is gone."""

Authenticate = Callable[[Any], Awaitable[Caller]]
"""Returns the caller of an HTTP request as of now."""


def create_server(
    runtime: Runtime, whole_journals: asyncio.Semaphore, identify: Identify, authenticate: Authenticate
) -> Server[Any]:
    """Return the MCP server of a running service."""
    tools, resources = TaskTools(runtime), TaskResources(runtime, whole_journals)

    def caller_of(context: Context) -> Caller:
        return identify(context.request)[0]

    async def list_tools(_: Context, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[definition.tool for definition in TOOLS.values()])

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult | InputRequiredResult:
        caller, address, gone = identify(context.request)
        client = Client(caller, address, can_ask(context))
        return await unless_gone(gone, lambda: _call_tool(tools, context, params, client, authenticate))

    async def list_resources(context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        return await resources.list(caller_of(context), params.cursor if params else None)

    async def list_templates(context: Context, _: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return resources.list_templates(caller_of(context))

    async def read_resource(context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        return await resources.read(caller_of(context), str(params.uri))

    return Server(
        NAME,
        version=__version__,
        title=TITLE,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )


async def _call_tool(
    tools: TaskTools, context: Context, params: CallToolRequestParams, client: Client, authenticate: Authenticate
) -> CallToolResult | InputRequiredResult:
    """Call a tool, and ask a client of the handshake era until the call has its result.

    After a question the caller is looked at again: a person may take minutes, in which a key can be revoked.
    """
    report = make_report(context)
    answers = {key: one for key, one in (params.input_responses or {}).items() if isinstance(one, ElicitResult)}
    call = Call(params.name, params.arguments or {}, answers, params.request_state)
    while True:
        result = await tools.call(call, client, report)
        if is_modern(context) or not isinstance(result, InputRequiredResult):
            return result
        state = result.request_state or ""
        answers = await ask(
            context,
            result.input_requests or {},
            partial(tools.wait_until_closed, client.caller, state),
            report,
            read_patience(result.meta),
        )
        call = Call(call.name, call.arguments, answers, state)
        client = replace(client, caller=await authenticate(context.request))


async def unless_gone(gone: asyncio.Event, work: Callable[[], Awaitable[Returned]]) -> Returned:
    """Return the result of the work, which is cancelled if the client goes: nobody would hear it. Raises: MCPError."""
    result: Returned | None = None
    failure: MCPError | None = None
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await gone.wait()
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            result = await work()
        except MCPError as error:  # kept from the group, which would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if result is None:
        raise MCPError(INTERNAL_ERROR, "The connection of the call was closed.")
    return result
