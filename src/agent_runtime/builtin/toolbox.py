"""The parts common to all built-in servers: turning a function into a tool, answers and refusals.

Every tool refuses unknown arguments, declares its output, and answers with text for people *and* structured output. A
refusal is an error result that says what to do instead. Definitions and results have the fields of MCP, without its
library, which takes half a second to import: `serving.py` brings it where a server is served to other programs.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from inspect import getdoc, signature
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema

from agent_runtime.builtin.refusals import Refusal
from agent_runtime.domain.values import JsonObject

log = logging.getLogger(__name__)  # as the libraries do: a server alone on standard streams writes to stderr


class Output(BaseModel):
    """The base of every declared output of a tool."""

    model_config = ConfigDict(frozen=True, extra="forbid")


OutputT_co = TypeVar("OutputT_co", bound=Output, covariant=True)


@dataclass(frozen=True, slots=True)
class Answer(Generic[OutputT_co]):
    """The answer of a tool: the text for people and the output for programs."""

    text: str
    output: OutputT_co


def _make_hints(*, reads: bool = False, destroys: bool = False, repeats: bool = False) -> JsonObject:
    return {"readOnlyHint": reads, "destructiveHint": destroys, "idempotentHint": repeats, "openWorldHint": False}


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


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _PlainSchema(GenerateJsonSchema):
    """Schemas without a title for every field, which would only repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the signature is pydantic's
        return False


@dataclass(frozen=True, slots=True)
class BuiltinTool:
    """A tool that validates its arguments strictly. `definition` has the fields of MCP.

    The function runs in a worker thread, so that no call blocks the event loop, unless it is `inline`: pure, and done
    in microseconds.
    """

    definition: JsonObject
    arguments: type[BaseModel]
    function: Callable[..., Answer[Output]]
    inline: bool = False

    @property
    def name(self) -> str:
        name: str = self.definition["name"]
        return name

    async def run(self, arguments: JsonObject) -> JsonObject:
        """Call the function, and return the result with the fields of MCP."""
        try:
            values = dict(self.arguments.model_validate(arguments))
        except ValidationError as error:
            return _make_error_result(" ".join(_find_argument_faults(error, self)))
        call = partial(self.function, **values)
        try:
            answer = call() if self.inline else await anyio.to_thread.run_sync(call)
        except Refusal as refusal:
            return _make_error_result(str(refusal))
        except Exception:  # the edge of the server: unforeseen errors are logged and not shown
            log.exception("The tool %s failed.", self.name)
            return _make_error_result(f"The tool {self.name} failed unexpectedly; see the log.")
        return {**_make_content(answer.text), "structuredContent": answer.output.model_dump(mode="json")}


def _make_content(text: str) -> JsonObject:
    return {"content": [{"type": "text", "text": text}]}


def _make_error_result(message: str) -> JsonObject:
    return {**_make_content(message), "isError": True}


def _find_argument_faults(error: ValidationError, tool: BuiltinTool) -> Iterable[str]:
    known = ", ".join(tool.definition["inputSchema"].get("properties", {})) or "none"
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


def make_tool(
    function: Callable[..., Answer[Output]], hints: JsonObject, *, name: str | None = None, inline: bool = False
) -> BuiltinTool:
    """Return a tool for a function: its docstring is the description, its return type `Answer[Output]`."""
    arguments, definition = _describe(getattr(function, "__func__", function), name)
    return BuiltinTool({**definition, "annotations": hints}, arguments, function, inline)


@cache
def _describe(function: Callable[..., Any], name: str | None) -> tuple[type[BaseModel], JsonObject]:
    """Return the model of the arguments, and the definition without hints. Once for a function, or for a method of any
    object.
    """
    name = name or function.__name__
    hints = get_type_hints(function, include_extras=True)
    (output,) = get_args(hints.pop("return"))
    given = signature(function).parameters
    fields: dict[str, Any] = {
        each: (hint, ... if given[each].default is given[each].empty else given[each].default)
        for each, hint in hints.items()
    }
    arguments = create_model(f"{name}_arguments", __base__=_Arguments, **fields)
    schema = arguments.model_json_schema(schema_generator=_PlainSchema)
    output_schema = TypeAdapter(output).json_schema(schema_generator=_PlainSchema)
    for described in (schema, output_schema, *output_schema.get("$defs", {}).values()):
        described.pop("title", None)
    description = " ".join((getdoc(function) or "").split())
    return arguments, {
        "name": name,
        "description": description,
        "inputSchema": schema,
        "outputSchema": output_schema,
    }


def _close_nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Toolbox:
    """A built-in server: its tools by name. `close` releases what they hold open; the next call opens it again."""

    name: str
    instructions: str
    tools: Mapping[str, BuiltinTool]
    close: Callable[[], None] = _close_nothing

    def list_tools(self) -> Sequence[JsonObject]:
        """Return the definitions of the tools, with the fields of MCP."""
        return [tool.definition for tool in self.tools.values()]

    async def call(self, tool: str, arguments: JsonObject) -> JsonObject:
        """Call a tool, and return its result with the fields of MCP. Errors are results too."""
        if tool not in self.tools:
            return _make_error_result(f"There is no tool {tool!r}; there are: {', '.join(self.tools)}.")
        return await self.tools[tool].run(arguments)

    def serve(self) -> None:
        """Serve the tools over MCP on standard streams until they close."""
        from agent_runtime.builtin.serving import serve  # noqa: PLC0415 - brings the library of MCP

        serve(self)


def make_toolbox(
    name: str, instructions: str, tools: Iterable[BuiltinTool], close: Callable[[], None] = _close_nothing
) -> Toolbox:
    """Return a server with exactly these tools."""
    return Toolbox(name, instructions, {tool.name: tool for tool in tools}, close)
