"""The plans that lives are made of, and what is so of their tools: known here once, for the planner and the judge."""

from collections.abc import Callable
from functools import cache

from hypothesis import strategies as st

from agent_runtime.domain.contract import Budget, Contract, Limits, PinnedModel
from agent_runtime.domain.drafting import draw_up
from agent_runtime.domain.plan import AgentStep, AllowedTool, Plan, ToolStep
from agent_runtime.domain.tools import Effect, Tool, ToolDefinition

IDEMPOTENT = frozenset({"look", "page", "put"})
"""Tools that the operator called idempotent."""

OUTSIDE = frozenset({"page"})
"""Tools that let the outside world in, and reach it."""

CHANGING = frozenset({"put", "write", "sign"})
"""Tools that do more than look."""

ALWAYS_ASKED = frozenset({"sign"})
"""Tools of which the operator wants to see every call."""

MODEL = PinnedModel(entry="openai", endpoints=("http://model",), model="m")

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
"""What every tool takes: `n`, and anything else."""

CATALOGUE = {
    f"f/{name}": Tool(
        server="f",
        definition=ToolDefinition(name=name, inputSchema=SCHEMA),
        pin="p",
        identity="i",
        effect=Effect.WRITE if name in CHANGING else Effect.READ,
        idempotent=name in IDEMPOTENT,
        open_world=name in OUTSIDE,
        approval="call" if name in ALWAYS_ASKED else "plan",
        timeout_s=0.002,
    )
    for name in ("look", "page", "put", "write", "sign")
}

AGENTS: dict[str, dict[str, int]] = {
    "writer": {"write": 2, "look": 1},
    "trusted": {"put": 1, "write": 1},
    "reader": {"look": 1, "page": 2},
    "signer": {"sign": 1, "put": 1},
    "teller": {},
}
"""Agent steps: how often each may call which tools."""

TRUSTED = frozenset({"trusted", "signer"})
"""Agent steps whose calls were approved beforehand; of a tool that always asks, that is not heard."""

Shape = tuple[str, int, int, str]
"""A step: its tool or agent, how often it goes on after the first time, how far back the step is that it looks at, and
what it wants of that one.
"""

LINKS = ("free", "free", "after", "takes", "trusts", "quotes", "when", "barred")
"""`trusts`: takes it, and is approved beforehand."""

_ANY = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "look", "page", "put", "sign", *AGENTS, "writer"]),
        st.integers(0, 4),
        st.integers(1, 2),
        st.sampled_from(LINKS),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
_FLOWS: list[tuple[Shape, ...]] = [
    ((source, 1, 1, "free"), (target, 0, 1, link))
    for source, target in (("page", "write"), ("look", "page"), ("teller", "page"))
    for link in ("takes", "quotes", "trusts")
]
"""What comes from outside and changes something, and what is here or a model's and goes outside."""

SHAPES = _ANY | st.sampled_from(_FLOWS)

BUDGETS = st.builds(
    Budget,
    tool_calls=st.sampled_from([None, None, 1, 3, 6]),
    seconds=st.sampled_from([None, None, 0.0025]),
    tokens=st.sampled_from([None, None, None, 40]),
)

Plans = Callable[[int], Contract]
"""The plan of each revision."""


@cache
def plan(shapes: tuple[Shape, ...], budget: Budget, covers: bool, revision: int) -> Contract:  # noqa: FBT001 - as a cache takes it
    """The contract of a revision. Its steps have ids of their own, so that a call shows where it came from."""
    steps = tuple(_step(shape, n, revision) for n, shape in enumerate(shapes))
    return draw_up(Plan(goal="g", steps=steps), Limits(budget=budget), CATALOGUE, model=MODEL, covers_data=covers)


def _step(shape: Shape, n: int, revision: int) -> ToolStep | AgentStep:
    name, more, back, link = shape
    other = f"r{revision}s{n - back}" if n >= back else None
    taken, quoted = f"${{{other}.output.n}}", f"It said ${{{other}.text}}, of course."
    values = {"takes": taken, "trusts": taken, "quotes": quoted} if other else {}
    conditions = {"when": f"${{{other}.output.n}} > 3", "barred": f"${{{other}.output.n}} > 8"} if other else {}
    parts = {
        "id": f"r{revision}s{n}",
        "depends_on": (other,) if other and link == "after" else (),
        "when": conditions.get(link),
    }
    if name in AGENTS:
        return AgentStep(
            **parts,
            kind="agent",
            instruction=values.get(link, "Do it."),
            tools=tuple(AllowedTool(server="f", tool=tool, max_calls=most) for tool, most in AGENTS[name].items()),
            max_turns=more + 1,
            preapproved=name in TRUSTED,
        )
    return ToolStep(
        **parts,
        kind="tool",
        server="f",
        tool=name,
        arguments={"n": n, **({"value": values[link]} if link in values else {})},
        retries=more if name in IDEMPOTENT else 0,
        preapproved=link == "trusts",
    )


def repinned(contract: Contract) -> Contract:
    """The same plan for another server of the same name."""
    servers = {server: f"{identity}+" for server, identity in contract.servers.items()} or {"f": "i"}
    return Contract.model_validate(contract.model_dump() | {"servers": servers})
