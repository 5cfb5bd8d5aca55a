"""A plan: a directed acyclic graph of steps, as data."""

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from agent_runtime.domain.conditions import MOST_CHARACTERS, condition_references
from agent_runtime.domain.references import references_in
from agent_runtime.domain.values import Identifier, JsonObject, JsonValue, Value


class _Step(Value):
    """`when`: a condition on earlier outputs; where it does not hold, the step is skipped."""

    id: Identifier
    title: str = Field(default="", max_length=500)
    depends_on: tuple[str, ...] = ()
    when: str | None = Field(default=None, min_length=1, max_length=MOST_CHARACTERS)

    @property
    def templates(self) -> JsonValue:
        """Where references may stand, beside the condition."""
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[str]:
        """The ids of the steps that must end before this one: those named and those referred to."""
        referred = (*references_in(self.templates), *condition_references(self.when))
        return frozenset(self.depends_on) | {reference.step for reference in referred}


class ToolStep(_Step):
    """One concrete tool call. Arguments are literals or references to the outputs of earlier steps.

    `timeout_s` in seconds (null: the registry's); `retries` only for a tool that the operator called idempotent.
    `preapproved`: the call is not asked for once more where its arguments come from outside; see `asking.py`.
    """

    kind: Literal["tool"]
    server: str
    tool: str
    arguments: JsonObject = Field(default_factory=dict)
    timeout_s: PositiveFloat | None = None
    retries: NonNegativeInt = Field(default=0, le=10)
    preapproved: bool = False

    @property
    def templates(self) -> JsonValue:
        return self.arguments


class AllowedTool(Value):
    """A tool that an agent step may call, and how often."""

    server: str
    tool: str
    max_calls: PositiveInt = 1


class AgentStep(_Step):
    """Work for the ExecutorAgent, with only the tools it lists; `tools: []` is a pure text step."""

    kind: Literal["agent"]
    instruction: str = Field(min_length=1)
    tools: tuple[AllowedTool, ...] = ()
    preapproved: bool = False

    @property
    def templates(self) -> JsonValue:
        return self.instruction


Step = Annotated[ToolStep | AgentStep, Field(discriminator="kind")]


class Plan(Value):
    """What is proposed to a person: a goal and the steps that reach it."""

    goal: str = Field(default="", max_length=65536)
    steps: tuple[Step, ...] = Field(min_length=1)


def cycle_in(steps: Iterable[ToolStep | AgentStep]) -> list[str] | None:
    """The ids along a cycle of dependencies, or None where there is none."""
    try:
        TopologicalSorter({step.id: step.needs for step in steps}).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return None


def tool_names(step: ToolStep | AgentStep) -> Iterator[tuple[str, str]]:
    """The (server, tool) pairs that a step may call."""
    if isinstance(step, ToolStep):
        yield step.server, step.tool
    else:
        yield from ((allowed.server, allowed.tool) for allowed in step.tools)


def unreferenced(plan: Plan) -> list[str]:
    """The ids of the steps whose output no other step takes up: what the plan is *for*, in its own order."""
    taken = {reference.step for step in plan.steps for reference in references_in(step.templates)}
    return [step.id for step in plan.steps if step.id not in taken]
