"""The commands `call` and `tools show`: one tool, by hand."""

import argparse
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from agent_runtime.cli import output
from agent_runtime.cli.argument_schemas import describe_type, find_types, get_properties, write_sample
from agent_runtime.cli.explaining import command_words
from agent_runtime.cli.running import carry_through, name_faults
from agent_runtime.cli.service import Service, connect
from agent_runtime.cli.spinner import show_wait
from agent_runtime.client import Tool
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.domain.references import escape
from agent_runtime.domain.schema_reading import read_schema
from agent_runtime.domain.values import JsonObject
from agent_runtime.text.escaping import escape_hidden, one_line

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
"""The types of JSON Schema that are not text, and their Python types."""


def call(options: argparse.Namespace) -> int:
    """Run a plan with one call of a tool, which is shown and approved like any other."""
    with connect(options, creates=True) as service:
        tool = _find_tool(service, options.tool)
        arguments = read_arguments(options.arguments, tool["input_schema"] or {})
        name = f"{tool['server']}.{tool['tool']}"
        for unknown in find_unknown(arguments, tool["input_schema"] or {}):
            output.say(f"{name} names no argument {unknown!r}; `agent-runtime tools show {name}` lists those it has.")
        step = {"id": "s1", "kind": "tool", "server": tool["server"], "tool": tool["tool"], "arguments": arguments}
        plan = {"goal": f"Call {name}", "steps": [{**step, "title": tool["title"] or f"Call {name}"}]}
        with name_faults("plan.steps[0].arguments.", ""):
            return carry_through(options, service.client, f"Call {name}", plan)


def _find_tool(service: Service, name: str) -> Tool:
    """Return the tool of this name, `SERVER.TOOL`. Raises: InvalidInputError naming similar ones."""
    tools = {f"{tool['server']}.{tool['tool']}": tool for tool in _list_tools(service, name.partition(".")[0])}
    tool = tools.get(name)
    if tool is None:
        raise InvalidInputError(
            [Fault("SERVER.TOOL", f"There is no tool {name!r}: {_say_instead(service, name, tools)}")]
        )
    if tool["status"] != "available":
        raise InvalidInputError([Fault("SERVER.TOOL", f"{name} cannot be used: {tool['detail']}")])
    return tool


def _list_tools(service: Service, server_id: str) -> Sequence[Tool]:
    """Return the tools of a server, and what else is known; ask all servers where none has this id."""
    if service.here:  # a service that has just started has asked no server yet
        enabled = {server["id"]: server["enabled"] for server in service.client.list_servers()}
        if enabled.get(server_id, True):
            with show_wait("Asking for the tools"):
                service.client.refresh_tools(server_id if server_id in enabled else None)
    return service.client.list_tools()


def _say_instead(service: Service, name: str, tools: Mapping[str, Tool]) -> str:
    """Return what to write in place of a name that no tool has, or why its server has no tools."""
    server_id, _, tool = name.partition(".")
    servers = {one["id"]: one for one in service.client.list_servers()}
    server = servers.get(server_id)
    if server is None:
        near = [one for one in tools if one.partition(".")[2] == (tool or name)]
        near = near or [f"{one}.{tool}" for one in get_close_matches(server_id, servers, n=1) if tool]
        return _ask_if(near) or f"write SERVER.TOOL. The servers are {', '.join(sorted(servers))}."
    if not server["connected"]:
        return f"{server_id} is unavailable: {server['detail']}"
    own = {one.removeprefix(f"{server_id}."): one for one in tools if one.startswith(f"{server_id}.")}
    near = [own[one] for one in get_close_matches(tool, own)]
    return _ask_if(near) or f"`agent-runtime tools show {server_id}` lists the tools of {server_id}."


def _ask_if(names: Sequence[str]) -> str:
    return f"did you mean {' or '.join(names)}?" if names else ""


def read_arguments(words: Sequence[str], input_schema: JsonObject) -> dict[str, Any]:
    """Return the arguments of a call from `name=value`, typed by the tool's schema, and `name:=JSON`.

    The service judges them by the schema. Raises: InvalidInputError.
    """
    schema = read_schema(input_schema)
    arguments: dict[str, Any] = {}
    faults = []
    for word in words:
        name, equals, text = word.partition("=")
        raw = name.endswith(":")
        name = name.removesuffix(":")
        if not equals or not name:
            faults.append(Fault(word, 'Write name=value, or name:=JSON, as in count:=3 or names:=\'["a", "b"]\'.'))
        elif name in arguments:
            faults.append(Fault(name, "It is given twice."))
        else:
            try:
                value = json.loads(text) if raw else _read_value(text, find_types(schema, name))
            except ValueError as error:
                faults.append(Fault(name, f"{text!r} is not JSON: {error}."))
                continue
            if isinstance(value, str) and not raw and (example := _find_example(schema, name, value)):
                faults.append(Fault(name, f"{value!r} is not JSON of the right type: write {example}"))
                continue
            arguments[name] = _escape_all(value)
    if faults:
        raise InvalidInputError(faults)
    return arguments


def find_unknown(arguments: Mapping[str, Any], input_schema: JsonObject) -> list[str]:
    """Return the arguments that the schema of a tool does not name, if it names any. A server may ignore them."""
    known = get_properties(read_schema(input_schema))
    return [one_line(name) for name in arguments if known and name not in known]


def _find_example(schema: Mapping[str, Any], name: str, text: str) -> str | None:
    """Return how to write an argument that takes only a list or an object, where a text was given."""
    types = find_types(schema, name) - {"null"}
    if not types or not types <= {"array", "object"}:
        return None
    if describe_type(get_properties(schema)[name], schema).startswith("array of string"):
        return shlex.join([f"{name}:={json.dumps([text], ensure_ascii=False)}"])
    return shlex.join([write_sample(get_properties(schema)[name], schema, name)])


def _read_value(text: str, types: set[str]) -> Any:
    """Return the value that the text stands for: JSON of a type that the schema names, else the text itself."""
    if "string" in types and types <= {"string", "null"}:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, bool):
        return value if "boolean" in types or not types else text
    fits = not types or any(isinstance(value, _KINDS[name]) for name in types if name in _KINDS)
    return value if fits or "string" not in types else text


def _escape_all(value: Any) -> Any:
    """Return the value with texts that a plan would take for references to other steps escaped."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, list):
        return [_escape_all(part) for part in value]
    if isinstance(value, dict):
        return {key: _escape_all(part) for key, part in value.items()}
    return value


def show_tool(options: argparse.Namespace) -> int:
    """Print what a tool does, its arguments, and a command that calls it; for the id of a server, list its tools."""
    with connect(options) as service:
        tools = [tool for tool in _list_tools(service, options.tool) if tool["server"] == options.tool]
        tool = None if tools else _find_tool(service, options.tool)
    if options.json:
        output.document(tools or tool)
    elif tool is None:
        output.tool_table(tools)
    else:
        _print_tool(tool)
    return 0


def _print_tool(tool: Tool) -> None:
    name, schema = f"{tool['server']}.{tool['tool']}", read_schema(tool["input_schema"] or {})
    facts = [
        ("Tool", name),
        ("What it does", tool["description"] or ""),
        ("Effect", output.describe_effect(tool)),
        ("Approval", "of the plan" if tool["approval"] == "plan" else "of each call"),
    ]
    output.table("", ("", ""), facts)
    rows = list(_describe_arguments(schema))
    if rows:
        output.table("Arguments", ("Name", "Type", "Needed", "What it is"), rows)
    else:
        output.result("It takes no arguments.")
    properties, required = get_properties(schema), schema.get("required", ())
    needed = [write_sample(wanted, schema, one) for one, wanted in properties.items() if one in required]
    output.say(f"Call it: {shlex.join([*command_words(), 'call', name, *needed])}")


def _describe_arguments(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for name, wanted in get_properties(schema).items():
        told = [str(wanted["description"])] if wanted.get("description") else []
        told += [f"one of {json.dumps(wanted['enum'], ensure_ascii=False)}"] if "enum" in wanted else []
        told += [f"default {json.dumps(wanted['default'], ensure_ascii=False)}"] if "default" in wanted else []
        needed = "yes" if name in schema.get("required", ()) else "no"
        yield one_line(name), describe_type(wanted, schema), needed, escape_hidden("; ".join(told), keep="\n")
