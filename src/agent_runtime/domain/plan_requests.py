"""Values of one exchange with a planner: the request and the answer."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from agent_runtime.domain.errors import Fault
from agent_runtime.domain.events import PlanRevisionFailed, TaskFailed
from agent_runtime.domain.model_requests import ignore_text
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.usage import Usage

KeepAttempt = Callable[[PlanningAttempt], Awaitable[None]]
"""Keeps an attempt of a planner with the task."""


async def drop_attempt(_: PlanningAttempt) -> None:
    """Keep nothing of an attempt."""


def _no_faults(_: Plan) -> Sequence[Fault]:
    return ()


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """The input of a planner: the prompt, the tools it may use and the largest number of steps.

    For a revision, `previous` is the plan to replace and `feedback` everything said about it and earlier ones, in
    order. `faults` judges a plan by the contract. `agent_steps` says whether a plan may contain agent steps.
    `max_tokens` limits the tokens spent in all; None is no limit. `on_text` receives the answer as it is written.
    `keep` is awaited for each attempt of a model, once its outcome is known.
    """

    prompt: str
    tools: Sequence[Tool]
    max_steps: int
    feedback: tuple[str, ...] = ()
    previous: Plan | None = None
    faults: Callable[[Plan], Sequence[Fault]] = _no_faults
    agent_steps: bool = False
    max_tokens: int | None = None
    on_text: Callable[[str], None] = ignore_text
    keep: KeepAttempt = drop_attempt


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """A plan, and the tokens that were spent on it."""

    plan: Plan
    usage: Usage = field(default_factory=Usage)


def fail_planning(task: Task, code: str, message: str, usage: Usage = Usage()) -> TaskFailed | PlanRevisionFailed:  # noqa: B008 - a frozen value
    """Return the event of a task that cannot be planned: it fails, unless it keeps the plan that a person sent back."""
    if task.plan_digest is None:
        return TaskFailed(code=code, message=message, usage=usage)
    return PlanRevisionFailed(
        revision=task.plan_revision, digest=task.plan_digest, code=code, message=message, usage=usage
    )
