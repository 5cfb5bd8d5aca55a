"""Outages: the waits of a task for an unreachable server or model, and the time at which it gives up."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from agent_runtime.domain.commands import tool_error
from agent_runtime.domain.errors import AgentRuntimeError, ModelError, PlanningError, ServerUnavailableError
from agent_runtime.domain.events import Event, StepOutcomeUnknown, TaskWaiting, ToolDenied
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task, Waiting, may_outlast
from agent_runtime.domain.usage import Usage

MOST_SAME_EXITS = 3
"""A process that exits in the same way this many times in a row is broken, not temporarily down."""

_LONGEST_REASON = 2000


@dataclass(frozen=True, slots=True)
class OutageLimits:
    """The time limits for tasks that wait for unreachable servers and models, from the settings.

    A task waits from the first failure on: `approved_s` seconds if its plan is approved, and `planning_s` before that.
    0 disables waiting. `pause` returns the seconds after attempt number 1, 2, ...
    """

    approved_s: float
    planning_s: float
    pause: Callable[[int], float]

    def wait_for(
        self,
        task: Task,
        kind: Literal["server", "model", "planner"],
        name: str,
        error: AgentRuntimeError,
        now: datetime,
        *,
        exits: int = 1,
    ) -> TaskWaiting | None:
        """Return the event that the task waits after this failure; None if it should fail instead.

        `exits`: how often in a row its process has ended in the same way since the task last waited.
        """
        before = task.waiting
        bound_s = self.planning_s if task.status is TaskStatus.PENDING else self.approved_s
        gives_up_at = (before.since if before else now) + timedelta(seconds=bound_s)
        if (
            not error.may_pass
            or now >= gives_up_at
            or not all(may_outlast(task, call) for call in task.open_calls.values())
        ):
            return None
        mark = error.exit_mark
        if mark and exits + (before.same_exits if before and before.exit_mark == mark else 0) >= MOST_SAME_EXITS:
            return None
        attempt = before.attempt + 1 if before else 1
        pause_s = max(self.pause(attempt), error.retry_after_s)
        return TaskWaiting(
            kind=kind,
            name=name,
            reason=str(error)[:_LONGEST_REASON],
            attempt=attempt,
            next_try_at=now + timedelta(seconds=min(pause_s, (gives_up_at - now).total_seconds())),
            gives_up_at=gives_up_at,
            exit_mark=mark,
            usage=error.usage if isinstance(error, ModelError | PlanningError) else Usage(),
        )


def compute_pause_s(task: Task, now: datetime) -> float:
    """Return the seconds until the next try of a waiting task; 0 for other tasks."""
    if task.waiting is None:
        return 0.0
    return max(0.0, (task.waiting.next_try_at - now).total_seconds())


_NEEDED = {"server": "MCP server", "model": "the model", "planner": "the planner"}


def describe_wait(waits: TaskWaiting | Waiting) -> str:
    """Describe a wait: its cause, the next try and the reason, as one sentence."""
    at = f"{waits.next_try_at:%Y-%m-%d %H:%M:%S} UTC"
    what = f"{_NEEDED[waits.kind]} {waits.name}".rstrip()
    return f"Waiting for {what}, next try at {at} (attempt {waits.attempt} failed): {waits.reason}"


def explain_failure(task: Task, error: AgentRuntimeError, now: datetime) -> str:
    """Return why the task fails, with the number of tries and the time that it waited."""
    waited = task.waiting
    if waited is None:
        return str(error)
    seconds = (now - waited.since).total_seconds()
    return f"{error} It was tried {waited.attempt + 1} times in {seconds:.0f} s."


def end_call(task: Task, step_id: str, error: AgentRuntimeError, now: datetime) -> list[Event]:
    """Return the events that end a call which met an outage that the task waits for no longer.

    A person is asked about an open call, and the model of an agent step is told.
    """
    step, state = task.plan_step(step_id), task.steps[step_id]
    call, message = state.call, explain_failure(task, error, now)
    if call is None:
        return []
    if call.result is None:
        return [StepOutcomeUnknown(step_id=step_id, call_id=call.call_id, reason=message)]
    if isinstance(step, ToolStep) or state.pending is None:
        return [tool_error(step_id, call)]
    place = {"turn": state.pending.turn, "index": state.pending.index}
    rule, server, tool = ServerUnavailableError.code, call.server, call.tool
    return [ToolDenied(step_id=step_id, server=server, tool=tool, rule=rule, message=message, **place)]
