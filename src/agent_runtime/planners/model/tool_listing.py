"""The catalogue as a language model reads it, within a budget.

What servers say of their tools is data. Each tool is a line without invisible characters (`signature.py`), shortened,
between fences whose name is a hash of the text, so that no description can contain it. `show_tools` gives the whole
schemas, for a correction.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from weakref import ref

from agent_runtime.domain.caching import SizedCache
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.usage import BYTES_PER_TOKEN
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.planners.model.cleaning import clean
from agent_runtime.planners.model.relevance import Relevance, split_words
from agent_runtime.planners.model.signature import list_argument_names, write_short_signature, write_signature
from agent_runtime.text.escaping import json_line

_DESCRIPTION = 1000
_SHORT = 200
_SHOWN_BYTES = 8000
_LONGEST_NAME = 200
_SCHEMA = 6000
_OUTPUT_SCHEMA = 2000
_DEEPEST = 12
_WIDEST = 100
_FULL_SHARE = 0.75
"""The share of the budget for full entries, if not all tools fit with one."""

_SILENT = frozenset({"$schema", "$id", "$comment", "examples", "title"})
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""The keywords whose members are named by the author of a schema, so that a name is never a keyword."""

_OBJECT_BYTES = 100
_FULL: SizedCache[str] = SizedCache(16 * 1024 * 1024)
_BRIEF: SizedCache[str] = SizedCache(4 * 1024 * 1024)
_WORDS: SizedCache[tuple[str, ...]] = SizedCache(16 * 1024 * 1024)


class ListedTool:
    """A listed tool. Two are equal if everything that is shown of them is equal, since listings are cached by it.

    It does not keep the tool alive: the cache must not hold definitions that servers have changed.
    """

    __slots__ = ("_tool", "identity")

    def __init__(self, tool: Tool) -> None:
        self._tool = ref(tool)
        self.identity = (tool.server, tool.pin, tool.effect, tool.idempotent)

    @property
    def tool(self) -> Tool:
        """The tool. Whoever has it listed must hold it."""
        tool = self._tool()
        assert tool is not None  # noqa: S101 - a list that is kept is only compared
        return tool

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ListedTool) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


@dataclass(frozen=True, slots=True)
class ShownTools:
    """A catalogue as text, and the keys of the tools that are shown in full."""

    text: str
    full: frozenset[str]


def list_tools(
    tools: Sequence[Tool], question: str, first: Iterable[str], limit_tokens: int, *, notes: bool = True
) -> ShownTools:
    """Return the tools in their order, as far as `limit_tokens` allows. `notes`: with lines on their arguments.

    If they are too many, those whose keys are in `first` come first, then the most relevant to the question: whole
    signatures, then one line each with the names of the arguments, then the number of those left out.
    """
    listed = tuple(ListedTool(tool) for tool in tools)
    limit = limit_tokens * BYTES_PER_TOKEN
    whole = _list_in_full(listed, limit, notes)
    if whole is not None:
        return whole
    wanted = frozenset(first)
    ranked = [listed[index] for index in _build_index(listed).order(question)]
    ranked.sort(key=lambda one: one.tool.key not in wanted)
    return _list_within(ranked, limit, notes=notes)


def show_tools(tools: Iterable[Tool]) -> str:
    """Return these tools with their whole schemas between fences, as far as `_SHOWN_BYTES` allow; at least one."""
    lines: list[str] = []
    used = 0
    for tool in tools:
        line = _write_full(tool)
        used += _measure(line)
        if lines and used > _SHOWN_BYTES:
            break
        lines.append(line)
    return _fence(lines)


def rank_tools(tools: Sequence[Tool], question: str) -> list[Tool]:
    """Return the tools, the most relevant to the question first, otherwise those that only read."""
    ordered = sorted(tools, key=lambda tool: tool.effect != "read")
    return [ordered[index] for index in _build_index(tuple(map(ListedTool, ordered))).order(question)]


def find_nearest(tools: Sequence[Tool], name: str, count: int) -> list[Tool]:
    """Return the `count` tools whose names, with those of their servers, are most like this one."""
    names = Relevance([split_words(f"{tool.server} {tool.name}") for tool in tools])
    return [tools[index] for index in names.order(name)[:count]]


@lru_cache(maxsize=4)
def _list_in_full(listed: tuple[ListedTool, ...], limit: int, notes: bool) -> ShownTools | None:  # noqa: FBT001 - the key of a cache
    """Return all tools in full; None if that exceeds `limit` bytes."""
    entries = _FullEntries(notes=notes)
    if not all(entries.add(one, limit) for one in listed):
        return None
    return ShownTools(_fence(entries.lines), frozenset(one.tool.key for one in listed))


def _list_within(ranked: Sequence[ListedTool], limit: int, *, notes: bool) -> ShownTools:
    entries = _FullEntries(notes=notes)
    full: list[ListedTool] = []
    rest: list[ListedTool] = []
    for one in ranked:
        (full if entries.add(one, limit * _FULL_SHARE) else rest).append(one)
    used = entries.size
    brief: list[str] = []
    for one in rest:
        size = _measure(_get_brief_entry(one))
        if used + size > limit:
            break
        brief.append(_get_brief_entry(one))
        used += size
    lines = entries.lines + brief
    if len(brief) < len(rest):
        lines.append(f"({len(rest) - len(brief)} more tools were left out)")
    return ShownTools(_fence(lines), frozenset(one.tool.key for one in full))


@lru_cache(maxsize=4)
def _build_index(listed: tuple[ListedTool, ...]) -> Relevance:
    return Relevance([_get_words(one) for one in listed])


def _get_words(one: ListedTool) -> tuple[str, ...]:
    found = _WORDS.get(one)
    if found is None:
        found = _find_words(one.tool)
        _WORDS.put(one, found, sum(map(len, found)) + _OBJECT_BYTES * len(found))
    return found


def _find_words(tool: Tool) -> tuple[str, ...]:
    name = (
        f"{tool.server} {tool.name} {tool.name} {tool.definition.title or ''}"  # a name says most, so it counts twice
    )
    described = (tool.definition.description or "")[:_DESCRIPTION]
    return tuple(split_words(f"{name} {described} {' '.join(list_argument_names(tool))}"))


class _FullEntries:
    """The full entries of a listing, in its order.

    A line on an argument is left out where the newest one of the same server on that name is equal.
    """

    def __init__(self, *, notes: bool) -> None:
        self._notes = notes
        self._said: dict[tuple[str, str], str] = {}
        self.lines: list[str] = []
        self.size = 0

    def add(self, one: ListedTool, limit: float) -> bool:
        """Add the entry of a tool unless all together would exceed `limit` bytes. Return whether it was added."""
        head, *notes = _get_full_entry(one, notes=self._notes).split("\n")
        said = [((one.tool.server, note.partition(":")[0]), note) for note in notes]
        entry = "\n".join((head, *(note for argument, note in said if self._said.get(argument) != note)))
        size = _measure(entry)
        if self.size + size > limit:
            return False
        self.lines.append(entry)
        self.size += size
        self._said.update(said)
        return True


def _get_full_entry(one: ListedTool, *, notes: bool) -> str:
    entry = _get_entry(_FULL, one, write_signature)
    return entry if notes else entry.partition("\n")[0]


def _get_brief_entry(one: ListedTool) -> str:
    return _get_entry(_BRIEF, one, write_short_signature)


def _get_entry(cache: SizedCache[str], one: ListedTool, write: Callable[[Tool], str]) -> str:
    entry = cache.get(one)
    if entry is None:
        entry = write(one.tool)
        cache.put(one, entry, len(entry) + _OBJECT_BYTES)
    return entry


def _write_full(tool: Tool) -> str:
    definition = tool.definition
    said = json_line(_describe(tool), compact=True)
    entry = f'{said[:-1]},"arguments_schema":{_write_schema(definition.arguments_schema, _SCHEMA)}'
    if definition.outputSchema is not None:
        entry += f',"output_schema":{_write_schema(definition.outputSchema, _OUTPUT_SCHEMA)}'
    return f"{entry}}}"


def _write_schema(schema: JsonObject, limit: int) -> str:
    whole = json_line(_compact(schema, _DEEPEST), compact=True)
    return whole if _measure(whole) <= limit else json_line(_outline(schema), compact=True)


def _describe(tool: Tool) -> JsonObject:
    described = tool.definition.description or tool.definition.title or ""
    return {
        "server": tool.server,
        "tool": tool.name[:_LONGEST_NAME],
        "description": clean(described, _DESCRIPTION),
        "effect": str(tool.effect),
        "idempotent": tool.idempotent,
    }


def _compact(value: JsonValue, depth: int, *, names: bool = False) -> JsonValue:
    """Return a schema without the keywords that say nothing about arguments. `names`: the members of this object are
    names.
    """
    if isinstance(value, str):
        return clean(value, _SHORT)
    if isinstance(value, list):
        return [_compact(item, depth - 1) for item in value[:_WIDEST]] if depth else []
    if not isinstance(value, dict):
        return value
    if not depth:
        return {}
    members = list(value.items())[:_WIDEST]
    return {
        clean(key, _LONGEST_NAME): _compact(item, depth - 1, names=not names and key in _BY_NAME)
        for key, item in members
        if names or key not in _SILENT
    }


def _outline(schema: JsonObject) -> JsonObject:
    """Return the names and types of the properties of a schema that is too long, and which are required."""
    properties = schema.get("properties")
    known = list(properties.items())[:_WIDEST] if isinstance(properties, dict) else []
    required = schema.get("required")
    return {
        "properties": {
            clean(name, 40): {"type": kind} if isinstance(kind := inner.get("type"), str) and len(kind) < 10 else {}  # noqa: PLR2004 - the longest is `integer`
            for name, inner in known
            if isinstance(inner, dict)
        },
        "required": [clean(str(name), 40) for name in required[:_WIDEST]] if isinstance(required, list) else [],
        "shortened": True,
    }


def _fence(lines: Sequence[str]) -> str:
    body = "\n".join(lines)
    name = f"tools-{hashlib.sha256(body.encode('utf-8', 'replace')).hexdigest()[:16]}"
    return f"<{name}>\n{body}\n</{name}>"


def _measure(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
