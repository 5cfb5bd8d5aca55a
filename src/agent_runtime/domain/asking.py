"""Which steps ask a person for the concrete call, although the plan was approved.

A plan shows where a value will come from, not what it will be. In two cases a person sees the value before it is sent:

* It comes from the world outside (a page, a mail, whatever a server says that nobody vouches for), and goes into a call
  that is more than a look: whoever wrote it would say what is done.
* It comes from another server, a file or a model, and goes into a call that reaches beyond this machine: it would
  leave.

So too where a model chooses the arguments of such a call. A literal in the plan never asks: it was approved.

A plan can say that calls are approved with it: a step by `preapproved`, the operator for all steps by
`approval.covers_data`. That is for a person to approve: it counts for nothing where the operator's policy approved the
plan. Every call of a tool with `approval: call` is asked for all the same.
"""

from collections.abc import Callable, Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Literal, Protocol

from agent_runtime.domain.plan import AgentStep, Plan, ToolStep, tool_keys
from agent_runtime.domain.references import references_in
from agent_runtime.domain.tools import Effect, Tool

_MODEL = "a model"


class ToolTraits(Protocol):
    """What is held to be true of a tool: by the catalogue, or by the contract."""

    @property
    def effect(self) -> Effect: ...

    @property
    def open_world(self) -> bool | None: ...

    @property
    def approval(self) -> Literal["plan", "call"]: ...

    @property
    def vouched(self) -> bool | None: ...


class ApprovalTerms(Protocol):
    """The part of a contract that says what is asked for."""

    @property
    def form(self) -> int: ...

    @property
    def asks(self) -> Mapping[str, str]: ...

    @property
    def policy(self) -> Mapping[str, ToolTraits]: ...

    @property
    def covers_data(self) -> bool: ...


def reasons_to_ask(plan: Plan, tools: Mapping[str, Tool]) -> dict[str, str]:
    """Return why steps ask for their concrete calls, by step id, unless these are approved with the plan.

    Steps that have no reason to ask are not in it. `tools`: by key.
    """
    held = _trace_sources(plan)
    reasons = {step.id: "; ".join(_reasons(step, tools, held)) for step in plan.steps}
    return {step_id: reason for step_id, reason in reasons.items() if reason}


def reason_to_ask(contract: ApprovalTerms, step: ToolStep | AgentStep, key: str, *, by_person: bool) -> str | None:
    """Return why this step asks for its call of this tool (`server/tool`); None where it does not.

    `by_person`: a person approved the plan, or is to approve it; else the operator's policy did. Contracts of form 1
    were approved when `preapproved` counted in either case.
    """
    judged = contract.policy[key]
    if judged.approval == "call":
        return _every_call(key)
    approved_with_plan = step.preapproved or contract.covers_data
    if approved_with_plan and (by_person or contract.form == 1):
        return None
    return contract.asks.get(step.id) if isinstance(step, ToolStep) else _reason_of_agent(key, judged)


def reasons_of_step(contract: ApprovalTerms, step: ToolStep | AgentStep, *, by_person: bool) -> str | None:
    """Return why this step asks for its calls, of whichever tool; None where it asks for none."""
    reasons = [reason_to_ask(contract, step, key, by_person=by_person) for key in tool_keys(step)]
    return "; ".join(filter(None, reasons)) or None


def reasons_covered(contract: ApprovalTerms, step: ToolStep | AgentStep) -> str | None:
    """Return why this step would ask, if a person who approves the plan did not approve its calls too.

    None where there is no reason, or it asks all the same.
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
        let_in = _describe_sources(given, lambda key: key != _MODEL and tools[key].open_world)
        if let_in and tool.effect is not Effect.READ:
            yield f"its arguments hold what came from outside with {let_in}"
        let_out = _describe_sources(given, lambda key: key == _MODEL or not _is_its_own(tools[key], tool))
        if let_out and tool.open_world:
            yield f"{tool.key} reaches beyond this machine, and its arguments hold what {let_out} gave"


def _is_its_own(source: Tool, tool: Tool) -> bool:
    """Return whether a server itself got from outside what one of its tools gave: back there it says nothing new."""
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
    return f"the operator wants every call of {key} to be approved"


def _trace_sources(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return whose words the output of each step may hold: the keys of tools, its own first, and perhaps a model's."""
    steps = {step.id: step for step in plan.steps}
    held: dict[str, tuple[str, ...]] = {}
    for name in TopologicalSorter({step.id: step.needs for step in plan.steps}).static_order():
        step = steps[name]
        own = tool_keys(step) if isinstance(step, ToolStep) else [*tool_keys(step), _MODEL]
        taken = [key for source in {ref.step: None for ref in references_in(step.templates)} for key in held[source]]
        held[name] = tuple(dict.fromkeys([*own, *taken]))
    return held


def _describe_sources(given: Mapping[str, tuple[str, ...]], counts: Callable[[str], bool]) -> str:
    """Return the steps of which something counts, each with the first that does."""
    found = {name: next(filter(counts, keys), None) for name, keys in given.items()}
    return ", ".join(f"{name} ({key})" for name, key in found.items() if key is not None)
