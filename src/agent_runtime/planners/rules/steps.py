"""The steps of a plan in the making, and the result of each."""

from collections.abc import Sequence
from itertools import count

from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.references import references_in
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.values import JsonObject
from agent_runtime.planners.rules.memory import Memory, StepResult
from agent_runtime.planners.rules.refusals import make_refusal
from agent_runtime.planners.rules.tools import Toolbox, list_properties

_TITLE = 120


class Steps:
    """The steps so far, at most `max_steps`, each after the one before it, and the memory of their results.

    `all` are the steps so far. `condition` is that of all further steps.
    """

    def __init__(self, tools: Sequence[Tool], max_steps: int) -> None:
        self.toolbox = Toolbox(tools)
        self.memory = Memory()
        self.condition: str | None = None
        self._max_steps = max_steps
        self.all: tuple[ToolStep | AgentStep, ...] = ()

    def add(self, name: str, arguments: JsonObject, title: str) -> str:
        """Add a step after all others and return its id. Raises: PlanningError where there are too many."""
        tool = self.toolbox.find(name, self.memory.part)
        if len(self.all) >= self._max_steps:
            raise self.make_refusal(
                f"would be step {len(self.all) + 1}, over the limit of {self._max_steps} (max_steps)"
            )
        before = self.all[-1].id if self.all else None
        implied = {reference.step for reference in references_in(arguments)}
        taken = {step.id for step in self.all}
        step = ToolStep(
            kind="tool",
            id=next(name for number in count(len(self.all) + 1) if (name := f"s{number}") not in taken),
            title=title if len(title) <= _TITLE else title[: _TITLE - 4] + " ...",
            server=tool.server,
            tool=tool.name,
            arguments=arguments,
            depends_on=(before,) if before and before not in implied else (),
            when=self.condition,
        )
        self.all = (*self.all, step)
        return step.id

    def make(
        self,
        kind: str,
        role: str,
        arguments: JsonObject,
        title: str,
        *,
        number: str = "",
        many: str = "",
        files: str = "",
        longest: str = "",
        lists: str | None = None,
    ) -> StepResult:
        """Add a step and remember its result.

        `number`, `many`, `files` and `longest` are paths in its output; all but the first are ignored if the tool's
        output lacks them.
        """
        step = self.add(role, arguments, title)
        output = list_properties(self.toolbox.find(role, self.memory.part).definition.outputSchema)
        return self.memory.remember(
            StepResult(
                kind,
                text=f"${{{step}.text}}",
                number=f"${{{step}.output.{number}}}" if number else None,
                many=f"${{{step}.output.{many}}}" if many in output else None,
                files=f"{step}.output.{files}" if files in output else None,
                longest=f"{step}.output.{longest}" if longest in output else None,
                lists=lists,
            )
        )

    def make_refusal(self, why: str) -> PlanningError:
        """Return the error for the part being read, with the reason."""
        return make_refusal(self.memory.part, why)
