"""The budget of a task: reserved when a call begins, settled when it ends."""

from collections.abc import Set as AbstractSet
from math import inf

from agent_runtime.domain.events import BudgetExceeded
from agent_runtime.domain.plan import AgentStep
from agent_runtime.domain.replacing import replace
from agent_runtime.domain.task import Task


def exceeded_budget(task: Task) -> BudgetExceeded | None:
    """Return the budget that allows no further call, or None."""
    limit = task.limits.budget.tool_calls
    if limit is not None and task.tool_calls >= limit:
        return BudgetExceeded(budget="tool_calls", limit=limit, used=task.tool_calls)
    return _exceeded_seconds(task)


def exceeded_by_asking(task: Task) -> BudgetExceeded | None:
    """Return the budget that allows no further request to a model, or None."""
    limit, used = task.limits.budget.tokens, task.usage.tokens
    if limit is not None and used >= limit:
        return BudgetExceeded(budget="tokens", limit=limit, used=used)
    return _exceeded_seconds(task)


def _exceeded_seconds(task: Task) -> BudgetExceeded | None:
    limit, used = task.limits.budget.seconds, task.call_seconds
    if limit is None or used < limit:
        return None
    return BudgetExceeded(budget="seconds", limit=limit, used=round(used, 3))


def tokens_left(task: Task) -> int | None:
    """Return the tokens that the next answer of a model may use; None without a token budget."""
    limit = task.limits.budget.tokens
    return None if limit is None else max(0, limit - task.usage.tokens)


def may_ask_model(task: Task, in_flight: AbstractSet[str]) -> bool:
    """Return whether a model may be asked now. An answer in progress reserves the whole budget; others wait for it."""
    if exceeded_by_asking(task) is not None or seconds_left(task, in_flight) <= 0:
        return False
    return task.limits.budget.tokens is None or not _steps_asking_model(task, in_flight)


def _steps_asking_model(task: Task, in_flight: AbstractSet[str]) -> list[str]:
    """Return the ids of the steps that wait for an answer of a model."""
    calls = task.open_calls
    return [name for name in in_flight if name not in calls and isinstance(task.plan_step(name), AgentStep)]


def seconds_left(task: Task, in_flight: AbstractSet[str]) -> float:
    """Return the seconds that are neither used nor reserved by calls in flight; infinite without such a budget."""
    budget = task.limits.budget.seconds
    if budget is None:
        return inf
    if _steps_asking_model(task, in_flight):
        return 0.0  # an answer in progress has reserved all of it
    reserved = sum(call.timeout_s for step_id, call in task.open_calls.items() if step_id in in_flight)
    return budget - task.call_seconds - reserved


def charge(task: Task, seconds: float) -> Task:
    """Return the task with seconds counted as used: those that calls in flight were given beyond their time-outs."""
    return replace(task, call_seconds=task.call_seconds + seconds) if seconds else task


def has_budget(task: Task, in_flight: AbstractSet[str]) -> bool:
    """Return whether one more call may begin now. If not, it may after calls in flight release what they reserved."""
    return exceeded_budget(task) is None and seconds_left(task, in_flight) > 0
