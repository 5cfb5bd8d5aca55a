"""Reads a language model's answer as a plan: which slips are corrected, and which are faults.

Each rule is applied only where the answer can mean one thing. No rule chooses a tool, an argument or an order.
References and conditions are never rewritten. What no rule covers is left to the validator.

* *one plan*: the same plan may come several times; several plans that differ are a fault;
* *wrapped*: `{"plan": {...}}` is the plan inside, also where a string holds it; `{"plan": [...]}` and a bare list of
  steps are the steps;
* *not for a model to say*: `preapproved` is dropped from every step, whatever its value;
* *remarks*: fields that only comment (`REMARKS`) are dropped; every other unknown field is a fault. The `reasoning` of
  a step is kept if it is text, as much of it as a plan may hold;
* *nothing said*: optional fields that are `null` are dropped, and so are fields of the other kind of step that are
  `null` or empty, and a blank `when`, title or reasoning;
* *kind*: a step with a `tool` is a tool step, one with an `instruction` an agent step;
* *arguments*: `args`, `parameters`, `params` or `input` are the arguments if nothing else is; a string that is a JSON
  object is that object, also within them where the tool takes an object and no text;
* *numbered*: the id `1` (or `"1"`) is `s1`, in `id` and `depends_on`; if no step has an id, they are `s1`, `s2`, and so
  on;
* *one dependency*: `depends_on: "s1"` is `["s1"]`;
* *qualified*: the tool `files.read` or `files/read` is the tool `read` of the server `files`, if there is that tool and
  the step names that server or none;
* *only one*: a tool without a server belongs to the one server that has a tool of this name;
* *goal*: a plan with a missing or blank goal gets the prompt as its goal.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import ValidationError

from agent_runtime.domain.errors import Fault, InvalidPlanError
from agent_runtime.domain.plan import FREE_FIELDS, LONGEST_REASONING, AgentStep, AllowedTool, Plan, ToolStep
from agent_runtime.domain.tools import Tool, tool_key
from agent_runtime.domain.values import JsonObject, JsonValue, has_more_parts
from agent_runtime.planners.model.argument_schema import read_json_texts
from agent_runtime.planners.model.json_answer import JsonPiece, NoJsonError, find_pieces, read_object
from agent_runtime.text.escaping import cut, is_blank

REMARKS = frozenset(
    {"comment", "description", "explanation", "note", "notes", "output", "purpose", "rationale", "reason", "reasoning"}
    | {"expected_output", "thought", "thoughts", "why"}
)
"""Fields that small models add as comments; they change nothing about the work."""

_FOR_PEOPLE = frozenset({"preapproved"})
"""Fields of a step that only a person sets."""

_MAY_BE_LEFT_OUT = frozenset({"title", "when", "reasoning"})

_PLAN_FIELDS = frozenset(Plan.model_fields)
_TOOL_FIELDS = frozenset(ToolStep.model_fields)
_AGENT_FIELDS = frozenset(AgentStep.model_fields)
_ARGUMENTS = ("args", "parameters", "params", "input")
_LONGEST_GOAL = 65_536
_MOST_PARTS = 10_000
_SEVERAL = 'The answer holds several plans that differ: write one JSON object with "steps", and nothing else.'


class Declined(Exception):  # noqa: N818 - an answer, not a failure
    """The model says that it cannot plan this. The text is its reason."""


class Names:
    """The tools that exist, by name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self.tools = {tool.key: tool for tool in tools}
        self._servers: dict[str, list[str]] = defaultdict(list)
        for key in sorted(self.tools):
            server, _, name = key.partition("/")
            self._servers[name].append(server)

    def settle(self, server: JsonValue, tool: str) -> tuple[JsonValue, str]:
        """Return the server and tool that are meant (rules *qualified* and *only one*); unchanged if
        that is ambiguous.
        """
        if isinstance(server, str) and tool_key(server, tool) in self.tools:
            return server, tool
        unsaid = server is None or server == ""
        meant = {(only, tool) for only in self._servers.get(tool, ())} if unsaid else set()
        for separator in (".", "/"):
            prefix, _, name = tool.partition(separator)
            if (unsaid or server == prefix) and tool_key(prefix, name) in self.tools:
                meant.add((prefix, name))
        if len(meant) == 1:
            return meant.pop()
        return server, tool


def read_plan(text: str, tools: Sequence[Tool], goal: str) -> Plan:
    """Return the plan in the text. `goal` is used if the plan names none.

    Raises: Declined where the model says that it cannot plan this, InvalidPlanError with every fault of form.
    """
    found = _find_plan(text)
    reason = found.pop("cannot", None)
    if reason and not found.get("steps"):
        raise Declined(str(reason))
    if reason:
        raise InvalidPlanError([Fault("cannot", "Give either the steps or the reason why there can be none, not both")])
    names = Names(tools)
    plan = _remove_fields(found, REMARKS - _PLAN_FIELDS)
    plan = {name: value for name, value in plan.items() if value is not None}
    if has_more_parts(plan, _MOST_PARTS, FREE_FIELDS):
        raise InvalidPlanError(
            [Fault("", f"The plan has more than {_MOST_PARTS} fields and entries; make it shorter.")]
        )
    if isinstance(plan.get("steps"), list):
        plan["steps"] = _read_steps(plan["steps"], names)
    if not plan.get("goal") or _is_blank(plan["goal"]):
        plan["goal"] = goal[:_LONGEST_GOAL]
    try:
        return Plan.model_validate(plan)
    except ValidationError as error:
        raise InvalidPlanError(list(_find_faults(error))) from error


def find_named_tools(text: str) -> list[tuple[str, str]]:
    """Return the (server, tool) pairs that the plan in the text names, in order; an empty list if it is unreadable
    or there are several.
    """
    try:
        steps = _find_plan(text).get("steps")
    except InvalidPlanError:
        return []
    found: list[tuple[str, str]] = []
    for step in steps if isinstance(steps, list) else []:
        allowed = step.get("tools") if isinstance(step, dict) else None
        for said in (step, *(allowed if isinstance(allowed, list) else ())):
            if isinstance(said, dict) and isinstance(said.get("tool"), str):
                server = said.get("server")
                found.append((server if isinstance(server, str) else "", said["tool"]))
    return found


def _find_plan(text: str) -> JsonObject:
    """Return the one object of the text that looks like a plan, unwrapped (rule *one plan*)."""
    plan: JsonObject | None = None
    try:
        for piece in find_pieces(text):
            found = _unwrap(piece.value)
            if plan is None:
                if piece.fault is not None and _looks_like_plan(piece):
                    raise InvalidPlanError([Fault("", f"In your answer {piece.fault}.")])
                plan = found
            elif _is_other_plan(piece, found, plan):
                raise InvalidPlanError([Fault("", _SEVERAL)])
    except NoJsonError as error:
        raise InvalidPlanError([Fault("", f"In your answer {error}.")]) from error
    if plan is None:
        raise InvalidPlanError(
            [Fault("", 'The answer holds no plan: write one JSON object with "steps", and nothing else.')]
        )
    return plan


def _is_other_plan(piece: JsonPiece, found: JsonObject | None, plan: JsonObject) -> bool:
    """Return whether a later piece, in which `found` is the plan if any, is meant as another plan than `plan`."""
    if piece.fault is not None:
        return '"steps"' in piece.text
    return found is not None and _spell(found) != _spell(plan)


def _spell(plan: JsonObject) -> str:
    return json.dumps(plan, sort_keys=True)


def _looks_like_plan(piece: JsonPiece) -> bool:
    """Return whether a broken piece was meant as the plan, so that nothing after it may be taken for one."""
    return any(name in piece.text for name in ("steps", "plan", "tool", "instruction"))


def _unwrap(value: JsonValue) -> JsonObject | None:
    """Return the value as a plan if it looks like one (rule *wrapped*), else None."""
    if isinstance(value, list):
        steps = bool(value) and all(isinstance(item, dict) and _looks_like_step(item) for item in value)
        return {"steps": value} if steps else None
    if not isinstance(value, dict):
        return None
    inner = value.get("plan")
    if isinstance(inner, str):
        inner = read_object(inner)
    rest = {name: item for name, item in value.items() if name != "plan"}
    if isinstance(inner, dict) and "steps" in inner and not rest.keys() - REMARKS:
        return dict(inner)
    if isinstance(inner, list) and "steps" not in value:
        return {**rest, "steps": inner}
    return dict(value) if "steps" in value or isinstance(value.get("cannot"), str) else None


def _looks_like_step(value: JsonObject) -> bool:
    return "tool" in value or "instruction" in value


def _read_steps(steps: Sequence[JsonValue], names: Names) -> list[JsonValue]:
    unnamed = all(isinstance(step, dict) and step.get("id") is None for step in steps)
    return [
        _read_step({**step, "id": f"s{number}"} if unnamed else step, names) if isinstance(step, dict) else step
        for number, step in enumerate(steps, 1)
    ]


def _read_step(said: JsonObject, names: Names) -> JsonObject:
    step = dict(said)
    if step.get("kind") is None:
        step["kind"] = _infer_kind(step)
    step = _drop_fields(step)
    if "id" in step:
        step["id"] = _to_step_id(step["id"])
    if "depends_on" in step:
        needs = step["depends_on"]
        step["depends_on"] = [_to_step_id(name) for name in (needs if isinstance(needs, list) else [needs])]
    if step.get("kind") == "tool":
        _mend_tool_step(step, names)
    elif step.get("kind") == "agent" and isinstance(step.get("tools"), list):
        step["tools"] = [_read_allowed_tool(tool, names) for tool in step["tools"]]
    return step


def _infer_kind(step: JsonObject) -> JsonValue:
    if step.get("tool") and not step.get("instruction"):
        return "tool"
    return "agent" if step.get("instruction") and not step.get("tool") else None


def _drop_fields(step: JsonObject) -> JsonObject:
    """Return the step without the fields that *remarks* and *nothing said* drop."""
    own, other = (_AGENT_FIELDS, _TOOL_FIELDS) if step.get("kind") == "agent" else (_TOOL_FIELDS, _AGENT_FIELDS)
    foreign = other - own
    kept = _remove_fields(step, REMARKS | _FOR_PEOPLE)
    if isinstance(said := step.get("reasoning"), str):
        kept["reasoning"] = cut(said, LONGEST_REASONING)
    return {
        name: value
        for name, value in kept.items()
        if value is not None
        and not (name in foreign and not value)
        and not (name in _MAY_BE_LEFT_OUT and _is_blank(value))
    }


def _is_blank(value: JsonValue) -> bool:
    return isinstance(value, str) and is_blank(value)


def _to_step_id(name: JsonValue) -> JsonValue:
    if not isinstance(name, int | str):
        return name
    text = str(name)[:20]
    return f"s{text}" if text.isascii() and text.isdigit() else name


def _mend_tool_step(step: JsonObject, names: Names) -> None:
    spelled = [name for name in _ARGUMENTS if name in step]
    if len(spelled) == 1 and "arguments" not in step:
        step["arguments"] = step.pop(spelled[0])
    if isinstance(step.get("arguments"), str):
        read = read_object(step["arguments"])
        step["arguments"] = step["arguments"] if read is None else read
    if isinstance(step.get("tool"), str):
        server, step["tool"] = names.settle(step.get("server"), step["tool"])
        if server is not None:
            step["server"] = server
        tool = names.tools.get(tool_key(str(server), step["tool"]))
        if tool is not None and isinstance(step.get("arguments"), dict):
            step["arguments"] = read_json_texts(step["arguments"], tool)


def _read_allowed_tool(said: JsonValue, names: Names) -> JsonValue:
    tool = {"tool": said} if isinstance(said, str) else said
    if not isinstance(tool, dict) or not isinstance(tool.get("tool"), str):
        return said
    tool = {name: value for name, value in _remove_fields(tool, REMARKS).items() if value is not None}
    server, name = names.settle(tool.get("server"), tool["tool"])
    return {**tool, "tool": name} if server is None else {**tool, "server": server, "tool": name}


def _remove_fields(value: JsonObject, dropped: frozenset[str]) -> JsonObject:
    return {name: item for name, item in value.items() if name not in dropped}


def _find_faults(error: ValidationError) -> Iterator[Fault]:
    items = error.errors(include_url=False, include_input=False)
    inner = any(item["loc"][:1] == ("steps",) and len(item["loc"]) > 1 for item in items)
    for item in items:
        place = item["loc"]
        if inner and place == ("steps",):  # too few are left only because invalid ones were left out
            continue
        tagged = 2  # `steps`, its number, then its kind, which is not in the answer
        if place[:1] == ("steps",) and len(place) > tagged and place[tagged] in ("tool", "agent"):
            kind, place = str(place[tagged]), (*place[:tagged], *place[tagged + 1 :])
        else:
            kind = ""
        yield Fault(_format_place(place), _explain_fault(item["type"], item["msg"], kind, place))


_FIELDS: Mapping[str, Iterable[str]] = {
    "": Plan.model_fields,
    "tool": ToolStep.model_fields,
    "agent": AgentStep.model_fields,
}


def _explain_fault(fault: str, message: str, kind: str, place: Sequence[str | int]) -> str:
    if fault == "extra_forbidden":
        nested = "tools" in place and kind == "agent"
        fields = AllowedTool.model_fields if nested else _FIELDS[kind]
        return f"There is no such field; there are {', '.join(fields)}."
    if fault.startswith("union_tag"):
        return "The field kind must be 'tool' (with server, tool and arguments) or 'agent' (with instruction)."
    return "There must be at least one step." if fault == "too_short" else f"{message}."


def _format_place(place: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
