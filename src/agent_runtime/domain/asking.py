"""Decide which concrete calls need a person's approval although the plan was approved.

A plan shows where a value will come from, not the value itself. A person sees it before it is sent in two cases:

* It comes from outside (a web page, a mail, the output of a tool that nobody vouches for) and goes into a call that is
  not read-only: its author could control what is done.
* It comes from another server, a file or a model and goes into a call that reaches beyond this machine: it would leak.

The same holds if a model chooses the arguments of such a call. A literal in the plan needs no second approval.

A plan can include the approval of its calls: by `preapproved` of a step, or for all steps by the operator's
`approval.covers_data`. That takes effect only if a person approves the plan, not if the operator's policy does. Every
call of a tool with `approval: call` needs approval in any case.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Literal, Protocol

from agent_runtime.domain.plan import AgentStep, Plan, ToolStep, tool_keys
from agent_runtime.domain.references import references_in
from agent_runtime.domain.rerun import PinnedRerun
from agent_runtime.domain.tools import Effect, Tool

_MODEL = "a model"
_OUTSIDE = "the world outside"
"""The source of a reused result that came from beyond this machine, whatever its tool is called now."""
_NO_TOOLS = frozenset({_MODEL, _OUTSIDE})


class ToolTraits(Protocol):
    """The properties of a tool, from the catalogue or from a contract."""

    @property
    def effect(self) -> Effect: ...

    @property
    def open_world(self) -> bool | None: ...

    @property
    def approval(self) -> Literal["plan", "call"]: ...

    @property
    def vouched(self) -> bool | None: ...


class ApprovalTerms(Protocol):
    """The part of a contract that decides which calls need approval."""

    @property
    def form(self) -> int: ...

    @property
    def asks(self) -> Mapping[str, str]: ...

    @property
    def policy(self) -> Mapping[str, ToolTraits]: ...

    @property
    def covers_data(self) -> bool: ...


def reasons_to_ask(plan: Plan, tools: Mapping[str, Tool], reused: PinnedRerun | None = None) -> dict[str, str]:
    """Return why steps need approval of their concrete calls, by step id, unless these are approved with the plan.

    Steps that need none are left out. `tools`: by `server/tool`. `reused`: the results taken over from an earlier task.
    """
    results = reused.results if reused else {}
    held = _trace_sources(plan, {name for name, result in results.items() if result.open_world})
    reasons = {step.id: "; ".join(_reasons(step, tools, held)) for step in plan.steps}
    return {step_id: reason for step_id, reason in reasons.items() if reason}


def reason_to_ask(contract: ApprovalTerms, step: ToolStep | AgentStep, key: str, *, by_person: bool) -> str | None:
    """Return why this step's call of the tool `key` (`server/tool`) needs approval, or None.

    `by_person`: a person approved the plan or will; otherwise the operator's policy did. For contracts of form 1
    `preapproved` counts in both cases, as it did when they were approved.
    """
    judged = contract.policy[key]
    if judged.approval == "call":
        return _every_call(key)
    approved_with_plan = step.preapproved or contract.covers_data
    if approved_with_plan and (by_person or contract.form == 1):
        return None
    return contract.asks.get(step.id) if isinstance(step, ToolStep) else _reason_of_agent(key, judged)


def reasons_of_step(contract: ApprovalTerms, step: ToolStep | AgentStep, *, by_person: bool) -> str | None:
    """Return why calls of this step need approval, for all its tools, or None."""
    reasons = [reason_to_ask(contract, step, key, by_person=by_person) for key in tool_keys(step)]
    return "; ".join(filter(None, reasons)) or None


def reasons_covered(contract: ApprovalTerms, step: ToolStep | AgentStep) -> str | None:
    """Return why calls of this step would need approval if the approval of the plan did not cover them.

    None if there is no reason, or if they need approval in any case.
    """
    covered = [
        reason_to_ask(contract, step, key, by_person=False)
        for key in tool_keys(step)
        if reason_to_ask(contract, step, key, by_person=True) is None
    ]
    return "; ".join(filter(None, covered)) or None


def _reasons(
    step: ToolStep | AgentStep, tools: Mapping[str, Tool], held: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    if isinstance(step, AgentStep):
        yield from filter(None, (_reason_of_agent(key, tools[key]) for key in tool_keys(step)))
        return
    tool = tools[step.key]
    if tool.approval == "call":
        yield _every_call(tool.key)
    elif not tool.vouched:
        given = {name: held[name] for name in sorted({reference.step for reference in references_in(step.arguments)})}
        let_in = _describe_sources(
            given, lambda key: key == _OUTSIDE or (key not in _NO_TOOLS and tools[key].open_world)
        )
        if let_in and tool.effect is not Effect.READ:
            yield f"its arguments contain data from outside, from {let_in}"
        let_out = _describe_sources(given, lambda key: key in _NO_TOOLS or not _is_its_own(tools[key], tool))
        if let_out and tool.open_world:
            yield f"{tool.key} reaches beyond this machine, and its arguments contain the output of {let_out}"


def _is_its_own(source: Tool, tool: Tool) -> bool:
    """Return whether the source is the same server and reaches outside: sending its output back leaks nothing."""
    return source.server == tool.server and source.open_world


def _reason_of_agent(key: str, judged: ToolTraits) -> str | None:
    if judged.approval == "call":
        return _every_call(key)
    if judged.effect is not Effect.READ:
        return f"a model chooses the arguments of {key}, whose effect is {judged.effect}"
    if judged.open_world and not judged.vouched:
        return f"a model chooses the arguments of {key}, which reaches beyond this machine"
    return None


def _every_call(key: str) -> str:
    return f"the operator requires approval of every call of {key}"


def _trace_sources(plan: Plan, outside: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return, by step id, the sources of the step's output: keys of tools, its own first, and possibly a model.

    `outside` are the steps whose reused results came from beyond this machine.
    """
    steps = {step.id: step for step in plan.steps}
    held: dict[str, tuple[str, ...]] = {}
    for name in TopologicalSorter({step.id: step.needs for step in plan.steps}).static_order():
        step = steps[name]
        own = [*tool_keys(step), *([] if isinstance(step, ToolStep) else [_MODEL])]
        own += [_OUTSIDE] if name in outside else []
        taken = [key for source in {ref.step: None for ref in references_in(step.templates)} for key in held[source]]
        held[name] = tuple(dict.fromkeys([*own, *taken]))
    return held


def _describe_sources(given: Mapping[str, tuple[str, ...]], counts: Callable[[str], bool]) -> str:
    """Return the steps with a source that counts, each with its first such source, as text."""
    found = {name: next(filter(counts, keys), None) for name, keys in given.items()}
    return ", ".join(f"{name} ({key})" for name, key in found.items() if key is not None)
