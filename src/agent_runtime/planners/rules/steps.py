"""The steps of a plan in the making, and the result of each."""

from collections.abc import Sequence

from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.references import references_in
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.values import JsonObject
from agent_runtime.planners.rules.memory import Memory, StepResult
from agent_runtime.planners.rules.refusals import make_refusal
from agent_runtime.planners.rules.tools import Toolbox, list_properties

_TITLE = 120


def escape(text: str) -> str:
    """Return literal text as a template, with anything that looks like a reference escaped."""
    return text.replace("${", "$${")


class Steps:
    """The steps so far, at most `max_steps`, each after the one before it, and the memory of their results."""

    def __init__(self, tools: Sequence[Tool], max_steps: int) -> None:
        self.toolbox = Toolbox(tools)
        self.memory = Memory()
        self._max_steps = max_steps
        self._steps: list[ToolStep] = []

    @property
    def all(self) -> tuple[ToolStep, ...]:
        return tuple(self._steps)

    def add(self, name: str, arguments: JsonObject, title: str) -> str:
        """Add a step after all others and return its id. Raises: PlanningError where there are too many."""
        tool = self.toolbox.find(name, self.memory.part)
        if len(self._steps) >= self._max_steps:
            raise self.make_refusal(
                f"would be step {len(self._steps) + 1}, over the limit of {self._max_steps} (max_steps)"
            )
        before = self._steps[-1].id if self._steps else None
        implied = {reference.step for reference in references_in(arguments)}
        self._steps.append(
            ToolStep(
                kind="tool",
                id=f"s{len(self._steps) + 1}",
                title=title if len(title) <= _TITLE else title[: _TITLE - 4] + " ...",
                server=tool.server,
                tool=tool.name,
                arguments=arguments,
                depends_on=(before,) if before and before not in implied else (),
            )
        )
        return self._steps[-1].id

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
        lists: str | None = None,
    ) -> StepResult:
        """Add a step and remember its result.

        `number`, `many` and `files` are paths in its output; the last two are ignored if the tool's output lacks them.
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
                lists=lists,
            )
        )

    def make_refusal(self, why: str) -> PlanningError:
        """Return the error for the part being read, with the reason."""
        return make_refusal(self.memory.part, why)
