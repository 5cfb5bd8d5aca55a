"""The possible answers of a hostile language model to an agent step."""

from collections.abc import Callable, Mapping

from agent_runtime.domain import events as ev
from agent_runtime.domain.plan import AgentStep
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.usage import Usage

ProposedCalls = list[tuple[str, str]]
"""Calls as a model writes them: function name and unparsed arguments."""


def _each(step: AgentStep, turn: int) -> ProposedCalls:
    return [(name, f'{{"n": {turn}}}') for name in step.functions]


def _again(step: AgentStep, turn: int) -> ProposedCalls:
    """Propose the same call twice, which counts as two calls."""
    return 2 * _each(step, turn)[:1]


def _many(step: AgentStep, _: int) -> ProposedCalls:
    """Propose more calls than the step allows."""
    return [(name, f'{{"n": {n}}}') for name in [*step.functions][-1:] for n in range(4)]


def _strange(step: AgentStep, turn: int) -> ProposedCalls:
    """Propose unlisted tools and unknown names before a permitted call."""
    others = [name for name in ("f__write", "f__look", "f__put") if name not in step.functions]
    return [(others[0], '{"n": 1}'), ("rm", "{}"), ("f/write", "{}"), *_each(step, turn)[:1]]


def _malformed_arguments(step: AgentStep, turn: int) -> ProposedCalls:
    """Propose arguments that are not JSON, not an object or not valid for the tool, before valid ones."""
    texts = ['{"n": 1', "[1]", '{"n": "one"}', '{"n": 1, "n": true}', '{"n": 1, "n": 2}']
    return [(name, text) for name in [*step.functions][:1] for text in texts[turn % 2 :: 2]] + _each(step, turn)


def _empty_arguments(step: AgentStep, _: int) -> ProposedCalls:
    """Propose a call with empty arguments, and one whose argument looks like a reference."""
    return [(name, text) for name in step.functions for text in ("", '{"value": "${r1s0.text}"}')][:2]


ANSWERS: Mapping[str, Callable[[AgentStep, int], ProposedCalls]] = {
    "each": _each,
    "again": _again,
    "many": _many,
    "strange": _strange,
    "malformed": _malformed_arguments,
    "nothing": _empty_arguments,
}


def make_answer(step: AgentStep, turn: int, kind: str) -> ev.ModelAnswered:
    """Return an answer of the given kind: its calls for this step, or without any a text, which ends the step."""
    calls = ANSWERS[kind](step, turn) if kind in ANSWERS else []
    return ev.ModelAnswered(
        step_id=step.id,
        turn=turn,
        items=({"turn": turn},),
        calls=tuple(ev.ModelCall(call_id=f"m{n}", name=name, arguments=text) for n, (name, text) in enumerate(calls)),
        answer=None if calls else StoredResult(text=f"{kind} after {turn}"),
        usage=Usage(10, 5),
        duration_ms=0.5,
    )
