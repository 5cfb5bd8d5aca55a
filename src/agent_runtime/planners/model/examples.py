"""Example requests with their plans, made with tools of the catalogue, since small models copy what they are shown.

Only names of tools and arguments that are plain words come into an example, and values of ours.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from agent_runtime.domain.plan import AgentStep, Plan, ToolStep
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.planners.model.argument_schema import fit_arguments
from agent_runtime.planners.model.tool_listing import rank_tools

_MOST_ARGUMENTS = 3
_MOST_LOOKED_AT = 20
_MOST_SINGLE = 2
_TEXTS = ("first", "second", "third")
"""The texts in the arguments: a different one for each example."""

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_VALUES: dict[str, JsonValue] = {"integer": 7, "number": 7, "boolean": True}


@dataclass(frozen=True, slots=True)
class Example:
    """A request and a good plan for it."""

    request: str
    plan: Plan


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A tool that is simple enough for an example: its required arguments, else its first one, and their types."""

    tool: Tool
    arguments: dict[str, str]

    @property
    def words(self) -> str:
        """The name of the tool in plain words."""
        return " ".join(re.split(r"[_-]+", _HUMP.sub("_", self.tool.name))).lower().strip()


def build_examples(tools: Sequence[Tool], question: str, *, agent_steps: bool, chains: bool) -> list[Example]:
    """Return up to two examples: one call, and two steps with a reference. None where no tool is simple enough.

    Their tools are the most relevant to the question. `chains`: a plan may have two steps.
    """
    found = islice(_find_candidates(rank_tools(tools, question)), _MOST_LOOKED_AT)
    first = next(found, None)
    if first is None:
        return []
    examples = [_make_single_call(first, _TEXTS[0])]
    if chains and agent_steps:
        examples.append(_make_summary(first))
    elif chains:
        taking_text = (other for other in found if "string" in other.arguments.values())
        examples += [_make_chain(first, other) for other in islice(taking_text, 1)]
    return examples


def build_single_calls(tools: Sequence[Tool], question: str) -> list[Example]:
    """Return up to two examples of one call, with the tools most relevant to the question, the most relevant last."""
    found = islice(_find_candidates(rank_tools(tools, question)), _MOST_SINGLE)
    return [_make_single_call(candidate, text) for candidate, text in zip(found, _TEXTS, strict=False)][::-1]


def takes_arguments(tool: Tool) -> bool:
    """Return whether a tool has any argument."""
    return bool(tool.definition.arguments_schema.get("properties", True))


def _make_single_call(candidate: _Candidate, text: str) -> Example:
    plan = Plan(goal=_name_goal(candidate), steps=(_make_step(candidate, "s1", text),))
    return Example(_write_request(candidate, text), plan)


def _make_summary(first: _Candidate) -> Example:
    instruction = "Summarise this in three bullets:\n${s1.text}"
    summary = AgentStep(id="s2", title="Summarise it", kind="agent", instruction=instruction)
    plan = Plan(goal=f"{_name_goal(first)} and summarise", steps=(_make_step(first, "s1", _TEXTS[1]), summary))
    return Example(f"{_write_request(first, _TEXTS[1])}. Summarise the result", plan)


def _make_chain(first: _Candidate, then: _Candidate) -> Example:
    """Return an example in which the second tool gets the text of the first as its last text."""
    taking = [name for name, kind in then.arguments.items() if kind == "string"][-1]
    values = {**_choose_values(then, _TEXTS[2]), taking: "${s1.text}"}
    last = _make_step(then, "s2", _TEXTS[2]).model_copy(update={"arguments": values})
    plan = Plan(goal=f"{_name_goal(first)} and {then.words}", steps=(_make_step(first, "s1", _TEXTS[1]), last))
    said = _list_values({name: value for name, value in values.items() if name != taking} | {taking: "the result"})
    return Example(f"{_write_request(first, _TEXTS[1])}. Then {then.words}: {said}", plan)


def _find_candidates(tools: Sequence[Tool]) -> Iterator[_Candidate]:
    for tool in tools:
        fitted = fit_arguments(tool.definition.arguments_schema, references=False)
        if tool.denied or not _PLAIN.fullmatch(tool.name) or fitted.get("type") != "object":
            continue
        names = fitted["required"] or list(fitted["properties"])[:1]
        given = {name: _find_type(fitted["properties"][name]) for name in names}
        if len(given) <= _MOST_ARGUMENTS and all(_PLAIN.fullmatch(name) and kind for name, kind in given.items()):
            yield _Candidate(tool, given)


def _find_type(fitted: JsonObject) -> str:
    kind = fitted.get("type")
    return kind if kind in {"string", "integer", "number", "boolean"} and "enum" not in fitted else ""


def _choose_values(candidate: _Candidate, text: str) -> JsonObject:
    return {name: _VALUES.get(kind, text) for name, kind in candidate.arguments.items()}


def _write_request(candidate: _Candidate, text: str) -> str:
    said = _list_values(_choose_values(candidate, text))
    return f"{_name_goal(candidate)}{f': {said}' if said else ''}"


def _list_values(values: JsonObject) -> str:
    return ", ".join(
        f"{name} {value if isinstance(value, str) else str(value).lower()}" for name, value in values.items()
    )


def _name_goal(candidate: _Candidate) -> str:
    return candidate.words[:1].upper() + candidate.words[1:]


def _make_step(candidate: _Candidate, step_id: str, text: str) -> ToolStep:
    return ToolStep(
        id=step_id,
        title=_name_goal(candidate),
        kind="tool",
        server=candidate.tool.server,
        tool=candidate.tool.name,
        arguments=_choose_values(candidate, text),
    )
