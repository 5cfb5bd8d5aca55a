"""A plan: a directed acyclic graph of steps, as data."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool

from agent_runtime.domain.conditions import MOST_CHARACTERS, condition_references
from agent_runtime.domain.omissions import is_empty
from agent_runtime.domain.references import references_in
from agent_runtime.domain.tools import tool_key
from agent_runtime.domain.values import Identifier, JsonObject, JsonValue, Value, digest

FREE_FIELDS = frozenset({"arguments"})
"""The fields of a plan that may hold any JSON."""

Seconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
"""A duration in seconds. Strict: text and booleans are not converted to numbers."""

MOST_RETRIES = 10
"""The most retries of a step."""

LONGEST_REASONING = 2000
"""The most characters of the reasoning of a step."""

_NO_FUNCTION_NAME = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_FUNCTION_NAME = 64


class _Step(Value):
    """The common fields of steps. `when`: a condition on earlier outputs; if it does not hold, the step is skipped.

    `reasoning`: why the planner wants the step, for its reader. Nothing depends on it.
    """

    id: Identifier
    title: str = Field(default="", max_length=500)
    reasoning: str = Field(default="", max_length=LONGEST_REASONING, exclude_if=is_empty)
    depends_on: tuple[str, ...] = ()
    when: str | None = Field(default=None, min_length=1, max_length=MOST_CHARACTERS)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with these fields changed, without the cached properties of the original."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("needs", "functions"):
            copied.__dict__.pop(name, None)
        return copied

    @property
    def templates(self) -> JsonValue:
        """The part of the step, besides the condition, that may contain references."""
        raise NotImplementedError

    @cached_property
    def needs(self) -> frozenset[str]:
        """The ids of the steps that must end before this one: those in `depends_on` and those in references.

        Cached: a run needs it after every event, and the arguments may be large.
        """
        referred = (*references_in(self.templates), *condition_references(self.when))
        return frozenset(self.depends_on) | {reference.step for reference in referred}


class ToolStep(_Step):
    """One tool call. Arguments are literals or references to the outputs of earlier steps.

    `timeout_s`: in seconds; None means that of the registry. `retries`: only for a tool that the operator called
    idempotent. `preapproved`: the approval of the plan covers the call even if its arguments come from outside; see
    `asking.py`.
    """

    kind: Literal["tool"]
    server: str
    tool: str
    arguments: JsonObject = Field(default_factory=dict)
    timeout_s: Seconds | None = None
    retries: int = Field(default=0, strict=True, ge=0, le=MOST_RETRIES)
    preapproved: StrictBool = False

    @property
    def key(self) -> str:
        """`server/tool`, the key in pins and policies."""
        return tool_key(self.server, self.tool)

    @property
    def templates(self) -> JsonValue:
        return self.arguments


class AllowedTool(Value):
    """A tool that an agent step may call at most `max_calls` times, each with `timeout_s` (None: the registry's)."""

    server: str
    tool: str
    max_calls: int = Field(default=1, strict=True, gt=0, le=100)
    timeout_s: Seconds | None = None

    @property
    def key(self) -> str:
        """`server/tool`, the key in pins and policies."""
        return tool_key(self.server, self.tool)


class AgentStep(_Step):
    """Work for the ExecutorAgent, with only the listed tools; `tools: []` is a pure text step.

    The model is asked at most `max_turns` times. `preapproved`: the approval of the plan covers its calls; see
    `asking.py`.
    """

    kind: Literal["agent"]
    instruction: str = Field(min_length=1, max_length=65536)
    tools: tuple[AllowedTool, ...] = Field(default=(), max_length=50)
    max_turns: int = Field(default=10, strict=True, gt=0, le=100)
    preapproved: StrictBool = False

    @property
    def templates(self) -> JsonValue:
        return self.instruction

    @cached_property
    def functions(self) -> dict[str, AllowedTool]:
        """The tools by their function names for the model: at most 64 letters, digits, `_` and `-`.

        The names depend only on the step, so that a recorded answer keeps its meaning.
        """
        named: dict[str, AllowedTool] = {}
        for allowed in self.tools:
            name = _NO_FUNCTION_NAME.sub("_", f"{allowed.server}__{allowed.tool}")
            if name in named or len(name) > _LONGEST_FUNCTION_NAME:
                name = f"{name[:55]}_{digest(allowed.key)[-8:]}"
            named[name] = allowed
        return named


Step = Annotated[ToolStep | AgentStep, Field(discriminator="kind")]


class Plan(Value):
    """A proposal to a person: a goal and the steps that reach it."""

    goal: str = Field(default="", max_length=65536)
    steps: tuple[Step, ...] = Field(min_length=1)


def find_cycle(steps: Iterable[ToolStep | AgentStep]) -> list[str] | None:
    """Return the ids along a cycle of dependencies, or None."""
    try:
        TopologicalSorter({step.id: step.needs for step in steps}).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return None


def tool_names(step: ToolStep | AgentStep) -> Iterator[tuple[str, str]]:
    """Yield the (server, tool) pairs that a step may call."""
    if isinstance(step, ToolStep):
        yield step.server, step.tool
    else:
        yield from ((allowed.server, allowed.tool) for allowed in step.tools)


def tool_keys(step: ToolStep | AgentStep) -> list[str]:
    """Return the tools that a step may call, as `server/tool`."""
    return [step.key] if isinstance(step, ToolStep) else [allowed.key for allowed in step.tools]


def find_unreferenced_steps(plan: Plan) -> list[str]:
    """Return the ids of the steps whose output no other step uses, in plan order: they form the plan's result."""
    taken = {reference.step for step in plan.steps for reference in references_in(step.templates)}
    return [step.id for step in plan.steps if step.id not in taken]
