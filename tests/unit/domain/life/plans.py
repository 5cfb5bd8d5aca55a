"""The plans of the tasks, and the properties of their tools, defined once for the planner and the judge."""

from collections.abc import Callable
from functools import cache

from hypothesis import strategies as st

from agent_runtime.domain.contract import Budget, Contract, Limits, PinnedModel
from agent_runtime.domain.drafting import draw_up
from agent_runtime.domain.plan import AgentStep, AllowedTool, Plan, ToolStep
from agent_runtime.domain.tools import Effect, Tool, ToolDefinition

IDEMPOTENT = frozenset({"look", "page", "put"})
"""Tools that the operator declared idempotent."""

OUTSIDE = frozenset({"page"})
"""Tools that reach the outside world: their output is untrusted, and their arguments leave."""

CHANGING = frozenset({"put", "write", "sign"})
"""Tools that are not read-only."""

ALWAYS_ASKED = frozenset({"sign"})
"""Tools whose every call needs approval."""

MODEL = PinnedModel(entry="openai", endpoints=("http://model",), model="m")

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
"""The input schema of every tool: `n`, and any other properties."""

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
"""The agent steps, each with its tools and how often it may call them."""

TRUSTED = frozenset({"trusted", "signer"})
"""Agent steps that are preapproved. That has no effect on tools whose every call needs approval."""

Shape = tuple[str, int, int, str]
"""A step: its tool or agent, its number of retries or further turns, the distance to the earlier step that it uses, and
how it uses that step (`LINKS`).
"""

LINKS = ("free", "free", "after", "value", "preapproved", "text", "when", "rarely")
"""The ways in which a step uses an earlier one.

`free`: not at all. `after`: it only follows it. `value`: it takes its value. `preapproved`: the same, and it is
preapproved. `text`: it quotes its text. `when`, `rarely`: it has a condition on it, which holds for some values or for
hardly any.
"""

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
    for link in ("value", "text", "preapproved")
]
"""Plans in which data flows from outside into a change, or from here or from a model to the outside."""

SHAPES = _ANY | st.sampled_from(_FLOWS)

BUDGETS = st.builds(
    Budget,
    tool_calls=st.sampled_from([None, None, 1, 3, 6]),
    seconds=st.sampled_from([None, None, 0.0025]),
    tokens=st.sampled_from([None, None, None, 40]),
)

DraftContract = Callable[[int], Contract]
"""Returns the contract of a revision."""


@cache
def draft_contract(shapes: tuple[Shape, ...], budget: Budget, covers: bool, revision: int) -> Contract:  # noqa: FBT001 - as a cache takes it
    """Return the contract of a revision. Ids of steps contain the revision, so that each call shows its origin."""
    steps = tuple(_step(shape, n, revision) for n, shape in enumerate(shapes))
    return draw_up(Plan(goal="g", steps=steps), Limits(budget=budget), CATALOGUE, model=MODEL, covers_data=covers)


def _step(shape: Shape, n: int, revision: int) -> ToolStep | AgentStep:
    name, more, back, link = shape
    other = f"r{revision}s{n - back}" if n >= back else None
    taken, quoted = f"${{{other}.output.n}}", f"It said ${{{other}.text}}, of course."
    values = {"value": taken, "preapproved": taken, "text": quoted} if other else {}
    conditions = {"when": f"${{{other}.output.n}} > 3", "rarely": f"${{{other}.output.n}} > 8"} if other else {}
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
        preapproved=link == "preapproved",
    )


def repin(contract: Contract) -> Contract:
    """Return the same plan for another server of the same name."""
    servers = {server: f"{identity}+" for server, identity in contract.servers.items()} or {"f": "i"}
    return Contract.model_validate(contract.model_dump() | {"servers": servers})
