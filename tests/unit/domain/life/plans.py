"""The plans that lives are made of, and what is so of their tools: known here once, for the planner and the judge."""

from collections.abc import Callable
from functools import cache

from hypothesis import strategies as st

from agent_runtime.domain.contract import Budget, Contract, Limits, draw_up
from agent_runtime.domain.plan import Plan, ToolStep
from agent_runtime.domain.tools import Effect, Tool, ToolDefinition

IDEMPOTENT = frozenset({"look", "page", "put"})
"""Tools that the operator called idempotent."""

OUTSIDE = frozenset({"page"})
"""Tools that let the outside world in."""

CHANGING = frozenset({"put", "write", "sign"})
"""Tools that do more than look."""

ALWAYS_ASKED = frozenset({"sign"})
"""Tools of which the operator wants to see every call."""

CATALOGUE = {
    f"f/{name}": Tool(
        server="f",
        definition=ToolDefinition(name=name),
        pin="p",
        effect=Effect.WRITE if name in CHANGING else Effect.READ,
        idempotent=name in IDEMPOTENT,
        open_world=name in OUTSIDE,
        approval="call" if name in ALWAYS_ASKED else "plan",
        timeout_s=0.002,
    )
    for name in ("look", "page", "put", "write", "sign")
}

Shape = tuple[str, int, int, str]
"""A step: its tool, its retries, how far back the step is that it looks at, and what it wants of that one."""

LINKS = ("free", "free", "after", "takes", "quotes", "when", "barred")

SHAPES = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "look", "page", "put", "sign"]),
        st.integers(0, 4),
        st.integers(1, 2),
        st.sampled_from(LINKS),
    ),
    min_size=1,
    max_size=4,
).map(tuple)

BUDGETS = st.builds(
    Budget, tool_calls=st.sampled_from([None, None, 1, 3, 6]), seconds=st.sampled_from([None, None, 0.0025])
)

Plans = Callable[[int], Contract]
"""The plan of each revision."""


@cache
def plan(shapes: tuple[Shape, ...], budget: Budget, revision: int) -> Contract:
    """The contract of a revision. Its steps have ids of their own, so that a call shows where it came from."""
    steps = tuple(_step(shape, n, revision) for n, shape in enumerate(shapes))
    return draw_up(Plan(goal="g", steps=steps), Limits(budget=budget), CATALOGUE, agent_steps=False)


def _step(shape: Shape, n: int, revision: int) -> ToolStep:
    tool, retries, back, link = shape
    other = f"r{revision}s{n - back}" if n >= back else None
    arguments: dict[str, object] = {"n": n}
    if other and link == "takes":
        arguments["value"] = f"${{{other}.output.n}}"
    if other and link == "quotes":
        arguments["value"] = f"It said ${{{other}.text}}, of course."
    conditions = {"when": f"${{{other}.output.n}} > 3", "barred": f"${{{other}.output.n}} > 8"} if other else {}
    return ToolStep(
        id=f"r{revision}s{n}",
        kind="tool",
        server="f",
        tool=tool,
        arguments=arguments,
        retries=retries if tool in IDEMPOTENT else 0,
        depends_on=(other,) if other and link == "after" else (),
        when=conditions.get(link),
    )
