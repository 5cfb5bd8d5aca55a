"""Which steps ask a person for the concrete call, although the plan was approved.

A plan shows where a value will come from, not what it will be. Where it comes from the world outside (a page, a mail,
whatever a server says that nobody vouches for) and goes into a call that is more than a look, the person sees the
value before it goes there.
"""

from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter

from agent_runtime.domain.plan import Plan, ToolStep
from agent_runtime.domain.references import references_in
from agent_runtime.domain.tools import Effect, Tool, tool_key


def reasons_to_ask(plan: Plan, tools: Mapping[str, Tool]) -> dict[str, str]:
    """Why a step asks for its concrete call, by step id; steps that do not ask are not in it. `tools`: by key."""
    return dict(_reasons(plan, tools))


def _reasons(plan: Plan, tools: Mapping[str, Tool]) -> Iterator[tuple[str, str]]:
    outside = _from_outside(plan, tools)
    for step in plan.steps:
        if not isinstance(step, ToolStep):
            continue
        tool = tools[tool_key(step.server, step.tool)]
        sources = sorted({reference.step for reference in references_in(step.arguments)} & outside.keys())
        if tool.approval == "call":
            yield step.id, f"the operator wants every call of {tool.key} to be approved"
        elif sources and tool.effect is not Effect.READ and not (tool.vouched or step.preapproved):
            origins = ", ".join(f"{name} ({outside[name]})" for name in sources)
            yield step.id, f"its arguments hold what came from outside with {origins}"


def _from_outside(plan: Plan, tools: Mapping[str, Tool]) -> dict[str, str]:
    """The steps whose output holds something from outside, each with the tool that let it in."""
    steps = {step.id: step for step in plan.steps}
    outside: dict[str, str] = {}
    for name in TopologicalSorter({step.id: step.needs for step in plan.steps}).static_order():
        step = steps[name]
        tool = tools[tool_key(step.server, step.tool)] if isinstance(step, ToolStep) else None
        passed_on = [outside[ref.step] for ref in references_in(step.templates) if ref.step in outside]
        if tool is not None and tool.open_world:
            outside[name] = tool.key
        elif passed_on:
            outside[name] = passed_on[0]
    return outside
