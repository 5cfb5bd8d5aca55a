"""What the steps of a plan would do, as far as its contract says; nothing is guessed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent_runtime.domain.asking import reasons_covered, reasons_of_step
from agent_runtime.domain.contract import Contract
from agent_runtime.domain.plan import AgentStep, ToolStep, tool_keys, tool_names
from agent_runtime.domain.references import references_in, strings
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import Effect
from agent_runtime.domain.values import JsonObject, JsonValue

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


def previews(task: Task) -> list[StepPreview]:
    """Every step of the current plan, in its order; none where there is no plan."""
    contract = task.contract
    return [_preview(contract, task, step) for step in contract.steps] if contract else []


def _preview(contract: Contract, task: Task, step: ToolStep | AgentStep) -> StepPreview:
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
    definition = task.definitions.get(step.key)
    schema = definition.inputSchema if definition else {}
    for path, text in strings(step.arguments):
        if _names_something(path, schema):
            place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
            resolved = next(references_in(text), None) is None
            yield Touch(step.server, step.tool, place, text, resolved)


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
