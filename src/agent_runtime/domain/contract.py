"""The contract: a plan with its limits, the policies of its tools and the pins of their definitions.

A person approves its digest; after that, only what it contains may run (G4, G5, G6).
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from agent_runtime.domain.omissions import is_zero
from agent_runtime.domain.patience import CALL_S, TIMES_THE_TIMEOUT
from agent_runtime.domain.plan import MOST_RETRIES, Plan, Seconds, Step, tool_names
from agent_runtime.domain.rerun import PinnedRerun
from agent_runtime.domain.tools import Effect
from agent_runtime.domain.values import JsonObject, JsonValue, Value, digest

MOST_STEPS = 100
"""The maximum number of steps of a plan (G11)."""


_Count = Annotated[int, Field(strict=True, gt=0, lt=2**53)]


class Budget(Value):
    """The limits on what a task may use. None: no limit beyond the service's own."""

    tool_calls: _Count | None = None
    seconds: Seconds | None = None
    tokens: _Count | None = None


class Limits(Value):
    """The limits that a person approves together with the plan.

    `retries`: those of each tool step that asks for none itself, if its tool may be retried.
    """

    budget: Budget = Budget()
    max_steps: int = Field(default=20, strict=True, ge=1, le=MOST_STEPS)
    retries: int = Field(default=0, strict=True, ge=0, le=MOST_RETRIES, exclude_if=is_zero)


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(value: Mapping[str, object]) -> bool:
    return not value


def _is_false(value: object) -> bool:
    return value is False


def _is_1(value: int) -> bool:
    return value == 1


class PinnedPolicy(Value):
    """The properties of a tool when the plan was made.

    `vouched`: the operator declared that the approval of the plan is enough for its calls. In contracts of form 1
    `open_world`, `timeout_s` and `vouched` are None; form 2 introduced them.
    `max_timeout_s`: the limit in seconds for a call that reports progress; None: `TIMES_THE_TIMEOUT` times its timeout.
    """

    effect: Effect
    idempotent: bool
    open_world: bool | None = Field(default=None, exclude_if=_is_none)
    approval: Literal["plan", "call"]
    vouched: bool | None = Field(default=None, exclude_if=_is_none)
    timeout_s: PositiveFloat | None = Field(default=None, exclude_if=_is_none)
    max_timeout_s: PositiveFloat | None = Field(default=None, exclude_if=_is_none)

    def longest_s(self, timeout_s: float | None = None) -> float:
        """Return the limit, in seconds, for a call with the timeout `timeout_s` that reports progress."""
        patience_s = timeout_s or self.timeout_s or CALL_S
        return max(patience_s, self.max_timeout_s or TIMES_THE_TIMEOUT * patience_s)


class PinnedModel(Value):
    """The language model of agent steps: its entry in the settings, its endpoints in order, and its model name."""

    entry: str
    endpoints: tuple[str, ...]
    model: str


class Contract(Value):
    """A plan with everything that its approval covers.

    `policy`, `pins`: by `server/tool`, for the tools that the plan uses.
    `servers`: the digests of the identities of the plan's servers, by id. In form 1 each pin includes them instead.
    `model`: the model of the agent steps; None if there are none.
    `covers_data`: a person's approval of the plan covers the calls that would need approval because of their data.
    `rerun`: the results that the plan reuses, in a task that runs another one again.
    `asks`: why a step needs approval of its concrete call, by step id. It is derived, and not part of the digest.

    To add a field, give it a default that means the same as its absence, and `exclude_if` for that default. Journals
    and digests of older contracts then remain valid. See docs/decisions/0011-what-the-digest-covers.md.
    """

    form: Literal[1, 2] = Field(default=1, exclude_if=_is_1)
    goal: str
    steps: tuple[Step, ...]
    limits: Limits
    policy: Mapping[str, PinnedPolicy]
    pins: Mapping[str, str]
    servers: Mapping[str, str] = Field(default={}, exclude_if=_is_empty)
    model: PinnedModel | None = Field(default=None, exclude_if=_is_none)
    covers_data: bool = Field(default=False, exclude_if=_is_false)
    rerun: PinnedRerun | None = Field(default=None, exclude_if=_is_none)
    asks: Mapping[str, str] = {}

    @cached_property
    def digest(self) -> str:
        return digest(self.as_digested())

    def as_digested(self) -> JsonObject:
        """Return the JSON from which the digest is computed.

        Fields of steps that were added later are left out if they have their default, so that older plans keep their
        digests.
        """
        whole = self.model_dump(mode="json", exclude={"asks"})
        for step in whole["steps"]:
            for name, silent in _LATER[step["kind"]].items():
                if step[name] == silent:
                    del step[name]
        return whole

    @property
    def plan(self) -> Plan:
        return Plan(goal=self.goal, steps=self.steps)

    @property
    def server_ids(self) -> frozenset[str]:
        """The ids of the servers that the plan names. No other server is leased for it."""
        return frozenset(server for step in self.steps for server, _ in tool_names(step))


_LATER: Mapping[str, Mapping[str, JsonValue]] = {"tool": {"when": None, "preapproved": False}, "agent": {"when": None}}
