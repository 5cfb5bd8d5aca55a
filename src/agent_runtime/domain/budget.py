"""The budget of a task: reserved when a call begins, settled when it has ended."""

from collections.abc import Set as AbstractSet
from math import inf

from agent_runtime.domain.events import BudgetExceeded
from agent_runtime.domain.task import Task


def exceeded_budget(task: Task) -> BudgetExceeded | None:
    """The budget that leaves no room for one more call, or None."""
    budget = task.limits.budget
    if budget.tool_calls is not None and task.tool_calls >= budget.tool_calls:
        return BudgetExceeded(budget="tool_calls", limit=budget.tool_calls, used=task.tool_calls)
    if budget.seconds is not None and task.call_seconds >= budget.seconds:
        return BudgetExceeded(budget="seconds", limit=budget.seconds, used=round(task.call_seconds, 3))
    return None


def seconds_left(task: Task, in_flight: AbstractSet[str]) -> float:
    """What of the budget of seconds is neither used nor reserved by calls in flight; infinite without a budget."""
    budget = task.limits.budget.seconds
    if budget is None:
        return inf
    reserved = sum(call.timeout_s for step_id, call in task.open_calls.items() if step_id in in_flight)
    return budget - task.call_seconds - reserved


def has_budget(task: Task, in_flight: AbstractSet[str]) -> bool:
    """Whether one more call may begin now; else it waits for what calls in flight have reserved."""
    return exceeded_budget(task) is None and seconds_left(task, in_flight) > 0
