"""A language model that means no good: what it may answer for an agent step."""

from collections.abc import Callable, Mapping

from agent_runtime.domain import events as ev
from agent_runtime.domain.plan import AgentStep
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.usage import Usage

Wanted = list[tuple[str, str]]
"""Calls in a model's own words: a function's name and the text of the arguments."""


def _each(step: AgentStep, turn: int) -> Wanted:
    return [(name, f'{{"n": {turn}}}') for name in step.functions]


def _again(step: AgentStep, turn: int) -> Wanted:
    """The same call twice, which are two calls."""
    return 2 * _each(step, turn)[:1]


def _many(step: AgentStep, _: int) -> Wanted:
    """More than the step allows."""
    return [(name, f'{{"n": {n}}}') for name in [*step.functions][-1:] for n in range(4)]


def _strange(step: AgentStep, turn: int) -> Wanted:
    """Tools that the step does not list, and names that nobody knows, before one that it may call."""
    others = [name for name in ("f__write", "f__look", "f__put") if name not in step.functions]
    return [(others[0], '{"n": 1}'), ("rm", "{}"), ("f/write", "{}"), *_each(step, turn)[:1]]


def _malformed(step: AgentStep, turn: int) -> Wanted:
    """Arguments that are no JSON, no object or not what the tool takes, before some that are."""
    texts = ['{"n": 1', "[1]", '{"n": "one"}', '{"n": 1, "n": true}', '{"n": 1, "n": 2}']
    return [(name, text) for name in [*step.functions][:1] for text in texts[turn % 2 :: 2]] + _each(step, turn)


def _nothing(step: AgentStep, _: int) -> Wanted:
    """No arguments at all, and one that looks like a reference."""
    return [(name, text) for name in step.functions for text in ("", '{"value": "${r1s0.text}"}')][:2]


ANSWERS: Mapping[str, Callable[[AgentStep, int], Wanted]] = {
    "each": _each,
    "again": _again,
    "many": _many,
    "strange": _strange,
    "malformed": _malformed,
    "nothing": _nothing,
}


def answer(step: AgentStep, turn: int, how: str) -> ev.ModelAnswered:
    """The answer to a question: calls where `how` has any for this step, else a text, which ends the step."""
    wanted = ANSWERS[how](step, turn) if how in ANSWERS else []
    return ev.ModelAnswered(
        step_id=step.id,
        turn=turn,
        items=({"turn": turn},),
        calls=tuple(ev.ModelCall(call_id=f"m{n}", name=name, arguments=text) for n, (name, text) in enumerate(wanted)),
        answer=None if wanted else StoredResult(text=f"{how} after {turn}"),
        usage=Usage(10, 5),
        duration_ms=0.5,
    )
