"""What the steps of a plan would do, as far as its contract says; nothing is guessed."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent_runtime.domain.asking import reasons_covered, reasons_of_step
from agent_runtime.domain.contract import Contract
from agent_runtime.domain.plan import AgentStep, ToolStep, tool_keys, tool_names
from agent_runtime.domain.references import references_in, strings
from agent_runtime.domain.task import AskedCall, Call, Task
from agent_runtime.domain.tools import Effect, tool_key
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.text.escaping import exact_line, look_alikes

_LONGEST_NAME = 200

_NAMES = frozenset(
    {
        "path",
        "paths",
        "file",
        "files",
        "filename",
        "filenames",
        "filepath",
        "filepaths",
        "directory",
        "directories",
        "dir",
        "dirs",
        "folder",
        "folders",
        "url",
        "urls",
        "uri",
        "uris",
        "href",
        "source",
        "destination",
        "src",
        "dst",
        "target",
        "root",
        "cwd",
    }
)
"""What properties are called that name something outside: a path, an address."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_FORMATS = frozenset({"uri", "uri-reference", "iri", "iri-reference", "uri-template"})
_WORST = (Effect.UNKNOWN, Effect.DESTRUCTIVE, Effect.WRITE, Effect.READ)


@dataclass(frozen=True, slots=True)
class Touch:
    """Something that a call names: its server, and the argument that names it as the plan has it.

    `resolved` is false where a reference is still in it. `argument` and `value` are null where a model will choose.
    """

    server: str
    tool: str
    argument: str | None = None
    value: str | None = None
    resolved: bool = True


@dataclass(frozen=True, slots=True)
class StepPreview:
    """One step: the effect of its tool (of several the worst), what it touches, and which steps it waits for.

    `asks` is why the concrete call would be asked for, None where it would not. `covers` is why it would be, if a
    person who approves the plan did not approve the call with it.
    """

    step_id: str
    effect: Effect
    idempotent: bool
    touches: tuple[Touch, ...]
    waits_on: tuple[str, ...]
    asks: str | None
    covers: str | None


def preview_steps(task: Task) -> list[StepPreview]:
    """Every step of the current plan, in its order; none where there is no plan."""
    contract = task.contract
    return [_preview_step(contract, task, step) for step in contract.steps] if contract else []


def _preview_step(contract: Contract, task: Task, step: ToolStep | AgentStep) -> StepPreview:
    policies = [contract.policy[key] for key in tool_keys(step)]
    effects = {policy.effect for policy in policies} or {Effect.READ}
    needs = step.needs
    return StepPreview(
        step_id=step.id,
        effect=next(effect for effect in _WORST if effect in effects),
        idempotent=all(policy.idempotent for policy in policies),
        touches=tuple(_touches(task, step)),
        waits_on=tuple(other.id for other in contract.steps if other.id in needs),
        asks=reasons_of_step(contract, step, by_person=task.is_for_person),
        covers=reasons_covered(contract, step) if task.is_for_person else None,
    )


def _touches(task: Task, step: ToolStep | AgentStep) -> Iterator[Touch]:
    if isinstance(step, AgentStep):
        yield from (Touch(server, tool, resolved=False) for server, tool in tool_names(step))
        return
    for path, text in _things_named(task, step.key, step.arguments):
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
        resolved = next(references_in(text), None) is None
        yield Touch(step.server, step.tool, place, text, resolved)


def _things_named(task: Task, key: str, arguments: JsonObject) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the strings in the arguments of a tool that name something outside, each with its path."""
    definition = task.definitions.get(key)
    schema = definition.arguments_schema if definition else {}
    return ((path, text) for path, text in strings(arguments) if _names_something(path, schema))


def notes_on_names(task: Task, shown: Iterable[StepPreview], call: Call | AskedCall | None = None) -> list[str]:
    """Return what to tell an approver of names that cannot be told apart by sight.

    They are those in the plan, of which `shown` are the previews: its tools, arguments and what they name. With a call,
    only what is to be said of the names in it, which are compared with those of the plan.
    """
    in_plan = [*_names_in_plan(task.contract.steps if task.contract else (), shown)]
    in_call = {*_names_in_call(task, call)} if call else {*in_plan}
    alike = look_alikes([*in_plan, *in_call])
    return [_note(names) for names in alike if not in_call.isdisjoint(names)]


def _names_in_plan(steps: Iterable[ToolStep | AgentStep], shown: Iterable[StepPreview]) -> Iterator[str]:
    for step in steps:
        yield from (f"{server}.{tool}" for server, tool in tool_names(step))
        if isinstance(step, ToolStep):
            yield from _keys(step.arguments)
    for preview in shown:
        yield from (touch.value for touch in preview.touches if touch.value is not None)


def _names_in_call(task: Task, call: Call | AskedCall) -> Iterator[str]:
    yield f"{call.server}.{call.tool}"
    yield from _keys(call.arguments)
    yield from (text for _, text in _things_named(task, tool_key(call.server, call.tool), call.arguments))


def _keys(value: JsonValue) -> Iterator[str]:
    """Yield every name of a member, at any depth."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(item)
    if isinstance(value, dict):
        yield from value


def _note(names: Iterable[str]) -> str:
    shown = " and ".join(exact_line(json.dumps(name, ensure_ascii=False), _LONGEST_NAME) for name in names)
    return f"Look closely: {shown} differ only in characters that cannot be seen."


def _names_something(path: tuple[str | int, ...], schema: JsonObject) -> bool:
    """Whether the string at this path is what its property is called, or its schema says, for a thing outside."""
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    words = [word.lower() for word in _WORDS.findall(name)]
    if name.lower() in _NAMES or (words and words[-1] in _NAMES) or "".join(words[-2:]) in _NAMES:
        return True
    return _format_at(path, schema) in _FORMATS


def _format_at(path: tuple[str | int, ...], schema: JsonValue) -> JsonValue:
    for part in path:
        if not isinstance(schema, dict):
            return None
        if isinstance(part, int):
            schema = schema.get("items")
        else:
            properties = schema.get("properties")
            schema = properties.get(part) if isinstance(properties, dict) else None
    found = schema.get("format") if isinstance(schema, dict) else None
    return found if isinstance(found, str) else None
