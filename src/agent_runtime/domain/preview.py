"""Preview the steps of a plan: their effects as far as the contract determines them. Nothing is guessed."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent_runtime.domain.asking import reasons_covered, reasons_of_step
from agent_runtime.domain.contract import Contract
from agent_runtime.domain.effects import worst_effect
from agent_runtime.domain.plan import AgentStep, ToolStep, tool_keys, tool_names
from agent_runtime.domain.present_files import PresentFiles
from agent_runtime.domain.references import references_in, strings
from agent_runtime.domain.sentences import StepInWords, describe_steps
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
"""Names of properties whose values name an external thing, such as a path or an address."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_FORMATS = frozenset({"uri", "uri-reference", "iri", "iri-reference", "uri-template"})


@dataclass(frozen=True, slots=True)
class Touch:
    """A thing that a call names: the server, the argument and its value in the plan.

    `resolved` is False if the value still contains a reference. `argument` and `value` are None if a model will choose.
    """

    server: str
    tool: str
    argument: str | None = None
    value: str | None = None
    resolved: bool = True


@dataclass(frozen=True, slots=True)
class StepPreview:
    """The preview of one step: the effect of its tool (the worst of several), what it touches, and what it waits for.

    `asks`: why its calls need approval, or None. `covers`: why they would need it if the approval of the plan did not
    cover them, or None. `words`: the step in words.
    """

    step_id: str
    effect: Effect
    idempotent: bool
    touches: tuple[Touch, ...]
    waits_on: tuple[str, ...]
    asks: str | None
    covers: str | None
    words: StepInWords


def preview_steps(task: Task, files: PresentFiles | None = None) -> list[StepPreview]:
    """Return the preview of every step of the current plan, in order; empty without a plan.

    `files`: what the paths of the plan name now, as far as it is known.
    """
    contract = task.contract
    if contract is None:
        return []
    words = describe_steps(contract, task.identities, task.definitions, files)
    return [_preview_step(contract, task, step, told) for step, told in zip(contract.steps, words, strict=True)]


def _preview_step(contract: Contract, task: Task, step: ToolStep | AgentStep, words: StepInWords) -> StepPreview:
    policies = [contract.policy[key] for key in tool_keys(step)]
    needs = step.needs
    return StepPreview(
        step_id=step.id,
        effect=worst_effect({policy.effect for policy in policies}),
        idempotent=all(policy.idempotent for policy in policies),
        touches=tuple(_touches(task, step)),
        waits_on=tuple(other.id for other in contract.steps if other.id in needs),
        asks=reasons_of_step(contract, step, by_person=task.is_for_person),
        covers=reasons_covered(contract, step) if task.is_for_person else None,
        words=words,
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
    """Yield the strings in the arguments of a tool that name an external thing, each with its path."""
    definition = task.definitions.get(key)
    schema = definition.arguments_schema if definition else {}
    return ((path, text) for path, text in strings(arguments) if _names_something(path, schema))


def notes_on_names(task: Task, shown: Iterable[StepPreview], call: Call | AskedCall | None = None) -> list[str]:
    """Return a note for the approver for each group of names that look the same.

    Compares the names of tools and arguments in the plan and the things that `shown`, its previews, name. With a call,
    its names are compared too, and only groups that contain one of them are returned.
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
    """Yield every key of an object, at any depth."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(item)
    if isinstance(value, dict):
        yield from value


def _note(names: Iterable[str]) -> str:
    shown = " and ".join(exact_line(json.dumps(name, ensure_ascii=False), _LONGEST_NAME) for name in names)
    return f"Look closely: {shown} differ only in invisible characters."


def _names_something(path: tuple[str | int, ...], schema: JsonObject) -> bool:
    """Return whether the string at this path names an external thing, by its property's name or its schema's format."""
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
