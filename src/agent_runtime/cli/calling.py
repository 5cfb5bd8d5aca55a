"""The commands `call` and `tools show`: one tool, by hand."""

import argparse
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from agent_runtime.cli import output
from agent_runtime.cli.explaining import command_words
from agent_runtime.cli.running import carry_through
from agent_runtime.cli.service import Service, connect
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
        step = {"id": "s1", "kind": "tool", "server": tool["server"], "tool": tool["tool"], "arguments": arguments}
        plan = {"goal": f"Call {name}", "steps": [{**step, "title": tool["title"] or f"Call {name}"}]}
        return carry_through(options, service.client, f"Call {name}", plan)


def _find_tool(service: Service, name: str) -> Tool:
    """Return the tool of this name, `SERVER.TOOL`. Raises: InvalidInputError naming similar ones."""
    if service.here:  # a service that has just started has asked no server yet
        for server in service.client.list_servers():
            if server["enabled"] and name.startswith(f"{server['id']}."):
                service.client.refresh_tools(server["id"])
    tools = {f"{tool['server']}.{tool['tool']}": tool for tool in service.client.list_tools()}
    tool = tools.get(name)
    if tool is None:
        near = get_close_matches(name, tools, n=3, cutoff=0.5)
        away = [
            f"{one['id']} is unavailable: {one['detail']}"
            for one in service.client.list_servers()
            if not one["connected"] and name.startswith(f"{one['id']}.")
        ]
        hint = f"did you mean {' or '.join(near)}?" if near else "`agent-runtime tools` lists them."
        raise InvalidInputError([Fault("SERVER.TOOL", f"There is no tool {name!r}: {away[0] if away else hint}")])
    if tool["status"] != "available":
        raise InvalidInputError([Fault("SERVER.TOOL", f"{name} cannot be used: {tool['detail']}")])
    return tool


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
                value = json.loads(text) if raw else _read_value(text, _find_types(schema, name))
            except ValueError as error:
                faults.append(Fault(name, f"{text!r} is not JSON: {error}."))
                continue
            arguments[name] = _escape_all(value)
    if faults:
        raise InvalidInputError(faults)
    return arguments


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


def _find_types(schema: Mapping[str, Any], name: str) -> set[str]:
    """Return the types that the schema of a tool names for an argument; an empty set if it names none."""
    properties = schema.get("properties")
    wanted = properties.get(name) if isinstance(properties, Mapping) else None
    return set(_types_in(wanted, schema, depth=5))


def _types_in(wanted: Any, schema: Mapping[str, Any], depth: int) -> Iterator[str]:
    if not isinstance(wanted, Mapping) or not depth:
        return
    named = wanted.get("type")
    yield from [named] if isinstance(named, str) else named if isinstance(named, list) else []
    for value in wanted.get("enum", [wanted["const"]] if "const" in wanted else []):
        yield from ["string"] if isinstance(value, str) else []
    for keyword in ("anyOf", "oneOf", "allOf"):
        for part in wanted.get(keyword, ()):
            yield from _types_in(part, schema, depth - 1)
    kind, _, of = str(wanted.get("$ref", "")).removeprefix("#/").partition("/")
    if of:
        yield from _types_in(schema.get(kind, {}).get(of), schema, depth - 1)


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
    """Print what a tool does, its arguments, and a command that calls it."""
    with connect(options) as service:
        tool = _find_tool(service, options.tool)
    if options.json:
        output.document(tool)
        return 0
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
    words = [*command_words(), "call", name, *_example(schema)]
    output.say(f"Call it: {shlex.join(words)}")
    return 0


def _describe_arguments(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for name, wanted in _properties(schema).items():
        types = " or ".join(dict.fromkeys(_types_in(wanted, schema, depth=5))) or "any"
        told = [str(wanted["description"])] if wanted.get("description") else []
        told += [f"one of {json.dumps(wanted['enum'], ensure_ascii=False)}"] if "enum" in wanted else []
        told += [f"default {json.dumps(wanted['default'], ensure_ascii=False)}"] if "default" in wanted else []
        needed = "yes" if name in schema.get("required", ()) else "no"
        yield one_line(name), types, needed, escape_hidden("; ".join(told), keep="\n")


def _properties(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = schema.get("properties")
    items = found.items() if isinstance(found, Mapping) else ()
    return {str(name): wanted if isinstance(wanted, Mapping) else {} for name, wanted in items}


def _example(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the arguments that are needed, with a word in capitals where a value belongs."""
    for name in _properties(schema):
        if name in schema.get("required", ()):
            is_json = not {"array", "object"}.isdisjoint(_find_types(schema, name))
            yield f"{one_line(name)}:=JSON" if is_json else f"{one_line(name)}={one_line(name).upper()}"
