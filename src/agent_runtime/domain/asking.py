"""Which steps ask a person for the concrete call, although the plan was approved.

A plan shows where a value will come from, not what it will be. Where it comes from the world outside (a page, a mail,
whatever a server says that nobody vouches for) and goes into a call that is more than a look, the person sees the
value before it goes there. So too where a model chooses the arguments of such a call.

A step can say that its calls are approved with the plan (`preapproved`). That is for a person to approve: it counts for
nothing where the operator's policy approved the plan.
"""

from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Literal, Protocol

from agent_runtime.domain.plan import AgentStep, Plan, ToolStep, tool_keys
from agent_runtime.domain.references import references_in
from agent_runtime.domain.tools import Effect, Tool


class Judged(Protocol):
    """What is held to be true of a tool: by the catalogue, or by the contract."""

    @property
    def effect(self) -> Effect: ...

    @property
    def approval(self) -> Literal["plan", "call"]: ...


class Asking(Protocol):
    """The part of a contract that says what is asked for."""

    @property
    def form(self) -> int: ...

    @property
    def asks(self) -> Mapping[str, str]: ...

    @property
    def policy(self) -> Mapping[str, Judged]: ...


def reasons_to_ask(plan: Plan, tools: Mapping[str, Tool]) -> dict[str, str]:
    """Return why steps ask for their concrete calls, by step id, unless these are approved with the plan.

    Steps that have no reason to ask are not in it. `tools`: by key.
    """
    return dict(_reasons(plan, tools))


def reason_to_ask(contract: Asking, step: ToolStep | AgentStep, key: str, *, by_person: bool) -> str | None:
    """Return why this step asks for its call of this tool (`server/tool`); None where it does not.

    `by_person`: a person approved the plan, or is to approve it; else the operator's policy did. Contracts of form 1
    were approved when `preapproved` counted in either case.
    """
    judged = contract.policy[key]
    if judged.approval == "call":
        return _every_call(key)
    if step.preapproved and (by_person or contract.form == 1):
        return None
    return contract.asks.get(step.id) if isinstance(step, ToolStep) else _reason_of_agent(key, judged)


def reasons_of_step(contract: Asking, step: ToolStep | AgentStep, *, by_person: bool) -> str | None:
    """Return why this step asks for its calls, of whichever tool; None where it asks for none."""
    reasons = [reason_to_ask(contract, step, key, by_person=by_person) for key in tool_keys(step)]
    return "; ".join(filter(None, reasons)) or None


def _reasons(plan: Plan, tools: Mapping[str, Tool]) -> Iterator[tuple[str, str]]:
    outside = _from_outside(plan, tools)
    for step in plan.steps:
        if isinstance(step, AgentStep):
            reasons = [_reason_of_agent(key, tools[key]) for key in tool_keys(step)]
            if said := "; ".join(reason for reason in reasons if reason):
                yield step.id, said
            continue
        tool = tools[step.key]
        sources = sorted({reference.step for reference in references_in(step.arguments)} & outside.keys())
        if tool.approval == "call":
            yield step.id, _every_call(tool.key)
        elif sources and tool.effect is not Effect.READ and not tool.vouched:
            origins = ", ".join(f"{name} ({outside[name]})" for name in sources)
            yield step.id, f"its arguments hold what came from outside with {origins}"


def _reason_of_agent(key: str, judged: Judged) -> str | None:
    if judged.approval == "call":
        return _every_call(key)
    if judged.effect is Effect.READ:
        return None
    return f"a model chooses the arguments of {key}, whose effect is {judged.effect}"


def _every_call(key: str) -> str:
    return f"the operator wants every call of {key} to be approved"


def _from_outside(plan: Plan, tools: Mapping[str, Tool]) -> dict[str, str]:
    """The steps whose output holds something from outside, each with the tool that let it in."""
    steps = {step.id: step for step in plan.steps}
    outside: dict[str, str] = {}
    for name in TopologicalSorter({step.id: step.needs for step in plan.steps}).static_order():
        step = steps[name]
        let_in = [key for key in tool_keys(step) if tools[key].open_world]
        passed_on = [outside[ref.step] for ref in references_in(step.templates) if ref.step in outside]
        if let_in or passed_on:
            outside[name] = (let_in or passed_on)[0]
    return outside
