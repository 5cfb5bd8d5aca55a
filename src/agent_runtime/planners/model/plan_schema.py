"""The JSON Schema of a plan, to which endpoints hold the answer of a model.

It uses only what every endpoint understands: no `$ref`, no formats, no limits on lengths. `preapproved` is not in it,
because only a person may ask for fewer questions, by editing the plan.
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

from agent_runtime.domain.tools import Tool
from agent_runtime.domain.values import JsonObject
from agent_runtime.planners.model.argument_schema import close_object, fit_arguments, name_choices
from agent_runtime.planners.model.tool_listing import ListedTool

MOST_TOOLS = 64
MOST_BYTES = 60_000
"""The most tools, and the largest schema, with one kind of step for each tool."""


def build_plan_schema(tools: Sequence[Tool], *, agent_steps: bool, extras: bool = True) -> JsonObject:
    """Return the schema of a plan with these tools.

    There is one kind of step for each tool, with its names fixed and its arguments as its own schema has them; where
    that would be too large, the schema for any tools. `extras`: with the fields that most plans need not have. Without
    them the steps are s1, s2 and so on in their order, and an answer is either steps or the reason why there are none.
    """
    exact = _build_exact(tuple(map(ListedTool, tools)), agent_steps, extras) if 0 < len(tools) <= MOST_TOOLS else None
    return exact or build_general_schema(agent_steps=agent_steps, extras=extras)


@lru_cache(maxsize=4)
def build_general_schema(*, agent_steps: bool, extras: bool = True) -> JsonObject:
    """Return the schema of a plan with any tools. `arguments` is a free object, so strict mode is impossible."""
    named = {"server": _make_text_schema("From the catalogue"), "tool": _make_text_schema("From the catalogue")}
    step = _make_tool_step(named, {"type": "object", "additionalProperties": True}, extras=extras)
    kinds = [step, _make_agent_step([_make_allowed_tool(named, extras=extras)], extras=extras)]
    return _make_plan(kinds if agent_steps else [step], extras=extras)


@lru_cache(maxsize=4)
def _build_exact(listed: tuple[ListedTool, ...], agent_steps: bool, extras: bool) -> JsonObject | None:  # noqa: FBT001 - the key of a cache
    tools = [one.tool for one in listed]
    kinds = [_make_exact_step(tool, extras=extras) for tool in tools]
    if agent_steps:
        kinds.append(_make_agent_step(list(_make_allowed_tools(tools, extras=extras)), extras=extras))
    schema = _make_plan(kinds, extras=extras)
    return schema if len(json.dumps(schema)) <= MOST_BYTES else None


def _make_exact_step(tool: Tool, *, extras: bool) -> JsonObject:
    named = {"server": name_choices([tool.server]), "tool": name_choices([tool.name])}
    return _make_tool_step(named, fit_arguments(tool.definition.arguments_schema, references=True), extras=extras)


def _make_allowed_tools(tools: Sequence[Tool], *, extras: bool) -> Iterator[JsonObject]:
    """Yield one schema for each server, with the names of its tools."""
    for server, own in groupby(sorted(tools, key=lambda tool: tool.server), key=lambda tool: tool.server):
        named = {"server": name_choices([server]), "tool": name_choices([tool.name for tool in own])}
        yield _make_allowed_tool(named, extras=extras)


def _make_tool_step(named: JsonObject, arguments: JsonObject, *, extras: bool) -> JsonObject:
    if not extras:
        return _make_object_schema({"title": _TITLE, **named, "arguments": arguments}, {})
    return _make_object_schema(
        {"id": _ID, "title": _TITLE, "kind": name_choices(["tool"]), **named, "arguments": arguments},
        {**_AFTER, "timeout_s": {"type": "number"}, "retries": {"type": "integer"}},
    )


def _make_allowed_tool(named: JsonObject, *, extras: bool) -> JsonObject:
    more: JsonObject = {"timeout_s": {"type": "number"}}
    return _make_object_schema(named, {"max_calls": {"type": "integer"}, **(more if extras else {})})


def _make_agent_step(allowed: list[JsonObject], *, extras: bool) -> JsonObject:
    work: JsonObject = {
        "instruction": _make_text_schema("All that the model of this step is told"),
        "tools": {"type": "array", "items": _choose(allowed)},
    }
    if not extras:
        return _make_object_schema({"title": _TITLE, **work}, {})
    return _make_object_schema(
        {"id": _ID, "title": _TITLE, "kind": name_choices(["agent"]), **work},
        {**_AFTER, "max_turns": {"type": "integer"}},
    )


def _make_plan(kinds: list[JsonObject], *, extras: bool) -> JsonObject:
    steps: JsonObject = {"type": "array", "items": _choose(kinds)}
    cannot = _make_text_schema("Only where no plan is possible: the reason")
    if not extras:
        return {"anyOf": [_make_object_schema({"steps": steps}, {}), _make_object_schema({"cannot": cannot}, {})]}
    named = {"goal": _make_text_schema("What the plan reaches"), "cannot": cannot, "steps": steps}
    return close_object(named, ["steps"])


def _choose(options: list[JsonObject]) -> JsonObject:
    return options[0] if len(options) == 1 else {"anyOf": options}


def _make_text_schema(description: str) -> JsonObject:
    return {"type": "string", "description": description}


def _make_object_schema(required: JsonObject, optional: JsonObject) -> JsonObject:
    return close_object({**required, **optional}, required)


_ID = _make_text_schema("s1, s2, ...")
_TITLE = _make_text_schema("What the step does, for a person")
_AFTER: JsonObject = {
    "reasoning": _make_text_schema("Why the step is needed, in one sentence, for the person who approves"),
    "depends_on": {"type": "array", "items": {"type": "string"}},
    "when": _make_text_schema("A condition; leave it out if the step always runs"),
}
