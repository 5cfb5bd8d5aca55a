"""The parts common to all built-in servers: turning a function into a tool, answers and refusals.

Every tool refuses unknown arguments, declares its output, and answers with text for people *and* structured output. A
refusal is an error result that says what to do instead.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema

from agent_runtime import __version__
from agent_runtime.builtin.refusals import Refusal
from agent_runtime.telemetry import keep_logging


class Output(BaseModel):
    """The base of every declared output of a tool."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _make_hints(*, reads: bool = False, destroys: bool = False, repeats: bool = False) -> ToolAnnotations:
    return ToolAnnotations(
        read_only_hint=reads, destructive_hint=destroys, idempotent_hint=repeats, open_world_hint=False
    )


READS = _make_hints(reads=True, repeats=True)
"""Changes nothing."""
ADDS = _make_hints()
"""Adds something on every call; loses nothing."""
ENSURES = _make_hints(repeats=True)
"""Makes something so and loses nothing; a second call changes nothing."""
REPLACES = _make_hints(destroys=True, repeats=True)
"""May overwrite; a second call changes nothing more."""
REMOVES = _make_hints(destroys=True)
"""Loses something; a second call may lose something else."""


def reply(text: str, output: Output) -> CallToolResult:
    """Return an answer with the text for people and the output for programs."""
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=output.model_dump(mode="json")
    )


class _Strict(ArgModelBase):
    model_config = ConfigDict(extra="forbid", strict=True)


class _PlainSchema(GenerateJsonSchema):
    """Schemas without a title for every field, which would only repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the signature is pydantic's
        return False


class BuiltinTool(Tool):
    """A tool that validates its arguments strictly, and whose refusals reach the caller unchanged.

    The function runs in a worker thread, so that no call blocks the event loop, unless it is `inline`: pure, and done
    in microseconds. A call that has begun is awaited even if it is cancelled.
    """

    inline: bool = False

    async def run(
        self,
        arguments: dict[str, Any],
        context: Context[Any, Any],  # noqa: ARG002 - the signature is the SDK's
        convert_result: bool = False,  # noqa: ARG002, FBT001, FBT002 - likewise
    ) -> CallToolResult:
        try:
            values = dict(self.fn_metadata.arg_model.model_validate(arguments))
        except ValidationError as error:
            return _make_error_result(" ".join(_find_argument_faults(error, self)))
        call = partial(self.fn, **values)
        try:
            result: CallToolResult = call() if self.inline else await anyio.to_thread.run_sync(call)
        except Refusal as refusal:
            return _make_error_result(str(refusal))
        except Exception as error:  # the edge of the server: unforeseen errors are logged and not shown
            raise UnexpectedToolError(f"The tool {self.name} failed unexpectedly; see the log.") from error
        return result


def _make_error_result(message: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=message)], is_error=True)


def _find_argument_faults(error: ValidationError, tool: Tool) -> Iterable[str]:
    known = ", ".join(tool.parameters.get("properties", {})) or "none"
    said: dict[str, str] = {}  # one sentence for each argument; of a union's errors the last, which is the widest
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            said[name] = f"{tool.name} has no argument {name!r}; it has: {known}."
        elif fault["type"] == "missing":
            said[name] = f"{tool.name} needs the argument {name!r}."
        else:
            said[name] = f"{name}: {fault['msg']}."
    return said.values()


_described: dict[Callable[..., CallToolResult], Tool] = {}


def make_tool(
    function: Callable[..., CallToolResult], hints: ToolAnnotations, *, name: str | None = None, inline: bool = False
) -> Tool:
    """Return a tool for a function: its docstring is the description, its return type `Annotated[CallToolResult,
    Output]`. The models and schemas of a function, or of a method of any object, are made once in a process.
    """
    written = getattr(function, "__func__", function)
    if written not in _described:
        _described[written] = _describe(function, name)
    return _described[written].model_copy(update={"fn": function, "annotations": hints, "inline": inline})


def _describe(function: Callable[..., CallToolResult], name: str | None) -> Tool:
    tool = BuiltinTool.from_function(function, name=name)
    output = tool.fn_metadata.output_model
    arguments = create_model(f"{tool.name}_arguments", __base__=(_Strict, tool.fn_metadata.arg_model))
    schema = arguments.model_json_schema(schema_generator=_PlainSchema)
    output_schema = TypeAdapter(output).json_schema(schema_generator=_PlainSchema)
    for described in (schema, output_schema, *output_schema.get("$defs", {}).values()):
        described.pop("title", None)
    metadata = FuncMetadata(arg_model=arguments, output_model=output, output_schema=output_schema)
    description = " ".join(tool.description.split())
    return tool.model_copy(update={"fn_metadata": metadata, "parameters": schema, "description": description})


def make_server(
    name: str,
    instructions: str,
    tools: Sequence[Tool],
    lifespan: Callable[[MCPServer[Any]], AbstractAsyncContextManager[Any]] | None = None,
) -> MCPServer[Any]:
    """Return a server with exactly these tools."""
    with keep_logging():
        return MCPServer(
            name=name, instructions=instructions, version=__version__, tools=list(tools), lifespan=lifespan
        )
