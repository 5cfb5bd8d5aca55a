"""A tool as one line, like the head of a function: its arguments with their types, its output, its effect.

    filesystem.write_file(path: text, content: text) -> {path, size, created} [destructive] Write a text file.
      path: Path of a file, relative to the root folder.

Everything but the words around it comes from a server. Names that are no plain words stand in quotes, as JSON, and what
is free text is cleaned and ends its line, so that it can be taken for nothing else.
"""

import re
from collections.abc import Iterator

from agent_runtime.domain.tools import Effect, Tool
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.planners.model.argument_schema import JSON_TEXT, fit_arguments, resolve_schema
from agent_runtime.planners.model.cleaning import clean
from agent_runtime.text.escaping import json_line

_DESCRIPTION = 210
_SHORT_DESCRIPTION = 100
_NOTE = 70
_MOST_NOTES = 30
_LONGEST_NAME = 200
_LONGEST_VALUE = 60
_LONGEST_OUTPUT = 300
_LONGEST_DEFAULT = 20
_MOST_CHOICES = 20
_MOST_NAMES = 100
_LARGEST_BOUND = 10**9

_PLAIN = re.compile(r"[A-Za-z0-9_$-]{1,64}")
_TEXT = "text"


def write_signature(tool: Tool) -> str:
    """Return the line of a tool, and below it one on each argument of which more is known than its type."""
    fitted = fit_arguments(tool.definition.arguments_schema, references=False)
    head = f"{_write_name(tool)}({_write_arguments(fitted, tool)}){_write_output(tool)}"
    return "\n".join((f"{head} {_write_rest(tool, _DESCRIPTION)}", *_write_notes(tool.definition.arguments_schema)))


def write_short_signature(tool: Tool) -> str:
    """Return the line of a tool with the names of its arguments only."""
    return f"{_write_name(tool)}({', '.join(list_argument_names(tool))}) {_write_rest(tool, _SHORT_DESCRIPTION)}"


def list_argument_names(tool: Tool) -> list[str]:
    """Return the names of the arguments of a tool, as they are written in its line."""
    properties = tool.definition.arguments_schema.get("properties")
    return [_quote(str(name)) for name in list(properties)[:_MOST_NAMES]] if isinstance(properties, dict) else []


def _write_name(tool: Tool) -> str:
    return f"{tool.server}.{_quote(tool.name)}"


def _quote(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else json_line(name[:_LONGEST_NAME])


def _write_arguments(fitted: JsonObject, tool: Tool) -> str:
    schema = tool.definition.arguments_schema
    if fitted.get("type") == "object":
        return _write_properties(fitted, resolve_schema(schema, schema).get("properties"))
    if fitted == JSON_TEXT:
        return ", ".join(list_argument_names(tool))
    return " | ".join(_write_type(option) for option in fitted["anyOf"] if option != JSON_TEXT and option["properties"])


def _write_properties(fitted: JsonObject, original: JsonValue = None) -> str:
    """Return the properties of an object with their types; with the defaults that its original schema gives."""
    required = fitted["required"]
    known = original if isinstance(original, dict) else {}
    return ", ".join(
        f"{_quote(name)}{'' if name in required else '?'}: {_write_type(item)}{_write_default(known.get(name))}"
        for name, item in fitted["properties"].items()
    )


def _write_default(schema: JsonValue) -> str:
    default = schema.get("default") if isinstance(schema, dict) else None
    shown = "" if default is None else json_line(default)
    return f" = {shown}" if 0 < len(shown) <= _LONGEST_DEFAULT else ""


def _write_type(fitted: JsonObject) -> str:
    """Return the type of a value in a few characters."""
    if fitted == JSON_TEXT:
        return "object"
    if "enum" in fitted:
        choices = [json_line(choice) for choice in fitted["enum"][:_MOST_CHOICES]]
        shown = [choice for choice in choices if len(choice) <= _LONGEST_VALUE]
        return " | ".join([*shown, *(["..."] if len(shown) < len(fitted["enum"]) else [])])
    if "anyOf" in fitted:
        return " | ".join(_write_type(option) for option in fitted["anyOf"])
    if fitted["type"] == "object":
        return f"{{{_write_properties(fitted)}}}"
    if fitted["type"] == "array":
        return f"[{_write_type(fitted['items'])}]"
    return _TEXT if fitted["type"] == "string" else str(fitted["type"])


def _write_output(tool: Tool) -> str:
    """Return the names in the structured output, which references may need."""
    schema = tool.definition.outputSchema
    fitted = {} if schema is None else fit_arguments(schema, references=False)
    if fitted.get("type") != "object" or not fitted["properties"]:
        return ""
    whole = _write_names(fitted)
    return f" -> {whole}" if len(whole) <= _LONGEST_OUTPUT else ""


def _write_names(fitted: JsonObject) -> str:
    """Return the names in a value; an empty text for a value without any."""
    if fitted.get("type") == "array":
        inner = _write_names(fitted["items"])
        return f"[{inner}]" if inner else ""
    if fitted.get("type") != "object":
        return ""
    named = ((_quote(name), _write_names(item)) for name, item in fitted["properties"].items())
    return f"{{{', '.join(f'{name}: {inner}' if inner else name for name, inner in named)}}}"


def _write_rest(tool: Tool, limit: int) -> str:
    return (
        f"[{_describe_effect(tool)}] {_describe(tool.definition.description or tool.definition.title, limit)}".rstrip()
    )


def _describe_effect(tool: Tool) -> str:
    """Return the effect, and whether the tool is idempotent where that is not what one expects of the effect."""
    reads = tool.effect is Effect.READ
    if tool.idempotent is reads:
        return str(tool.effect)
    return f"{tool.effect}, {'not ' if reads else ''}idempotent"


def _describe(text: JsonValue, limit: int) -> str:
    """Return a description within this many bytes, since some alphabets take several tokens for a character."""
    if not isinstance(text, str):
        return ""
    line = clean(text, limit)
    size = len(line.encode("utf-8", "replace"))
    return line if size <= limit else clean(text, max(8, limit * len(line) // size))


def _write_notes(schema: JsonObject) -> Iterator[str]:
    """Yield a line on each argument with a description, and on each required one with bounds, a format or a pattern."""
    whole = resolve_schema(schema, schema)
    properties, required = whole.get("properties"), whole.get("required")
    for name, said in list(properties.items())[:_MOST_NOTES] if isinstance(properties, dict) else ():
        known = resolve_schema(said, schema)
        text, facts = _describe(known.get("description"), _NOTE), ", ".join(_list_facts(known))
        if text or (facts and isinstance(required, list) and name in required):
            yield f"  {_quote(name)}: {text}{' ' if text and facts else ''}{f'({facts})' if facts else ''}"


def _list_facts(schema: JsonObject) -> Iterator[str]:
    low, high = _find_bound(schema.get("minimum")), _find_bound(schema.get("maximum"))
    if low and high:
        yield f"{low} to {high}"
    elif low or high:
        yield f"at least {low}" if low else f"at most {high}"
    for word in ("format", "pattern"):
        if isinstance(said := schema.get(word), str) and len(said) <= _LONGEST_VALUE:
            yield f"{word} {json_line(said)}"


def _find_bound(value: JsonValue) -> str:
    return f"{value:.12g}" if type(value) in (int, float) and 0 != abs(value) < _LARGEST_BOUND else ""
