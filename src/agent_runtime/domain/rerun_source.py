"""The parts of a finished task that a rerun of it can reuse."""

from collections.abc import Iterable

from agent_runtime.domain.errors import DecisionRefusedError, RerunTooLargeError
from agent_runtime.domain.events import EventRecord, ToolCalled, ToolReturned
from agent_runtime.domain.plan import tool_keys
from agent_runtime.domain.rerun import REUSED_BYTES, MadeCalls, Rerun, RerunFrom, ReusedResult, digest_step
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task


def describe_source(task: Task, head: str, records: Iterable[EventRecord], start: RerunFrom) -> Rerun:
    """Return the parts of this task for a rerun. `records`: its journal; `head`: the hash of the last record.

    `start`: `failed_step` reuses the results of the completed steps. Raises: DecisionRefusedError if the task has not
    ended, or if `start` is `failed_step` and the task did not fail or has no plan; RerunTooLargeError.
    """
    if not task.terminal:
        raise DecisionRefusedError(
            f"Task {task.task_id} is {task.status}: only a task that has ended can be run again.", task.status
        )
    if start == "failed_step" and (task.status is not TaskStatus.FAILED or not task.contract):
        raise DecisionRefusedError(
            f"Task {task.task_id} has no failed step to start from: it is {task.status}. Run it again from the start.",
            task.status,
        )
    return Rerun(
        task_id=task.task_id,
        head=head,
        start=start,
        results=_reusable_results(task) if start == "failed_step" else {},
        calls=_count_calls(task, records),
        authors=task.authors,
    )


def _reusable_results(task: Task) -> dict[str, ReusedResult]:
    found: dict[str, ReusedResult] = {}
    size = 0
    for step in task.contract.steps if task.contract else ():
        state = task.steps[step.id]
        if state.status is not StepStatus.COMPLETED or state.result is None:
            continue
        size += len(state.result.model_dump_json())
        if size > REUSED_BYTES:
            raise RerunTooLargeError(
                f"The results of the completed steps of task {task.task_id} have more than {REUSED_BYTES} bytes "
                "together, which is the limit. Run the task again from the start.",
                task.status,
            )
        found[step.id] = ReusedResult(
            step=digest_step(step), result=state.result, open_world=_came_from_outside(task, step.id, tool_keys(step))
        )
    return found


def _came_from_outside(task: Task, step_id: str, keys: Iterable[str]) -> bool:
    """Return whether the result of a step came from beyond this machine; True if the contract does not say."""
    policy = task.contract.policy if task.contract else {}
    pinned = task.contract.rerun.results.get(step_id) if task.contract and task.contract.rerun else None
    return any(policy[key].open_world is not False for key in keys) or (pinned is not None and pinned.open_world)


def _count_calls(task: Task, records: Iterable[EventRecord]) -> tuple[MadeCalls, ...]:
    """Return the calls that were sent, counted per step and tool, those of earlier tasks first."""
    made: dict[tuple[str, str, str], MadeCalls] = {}
    unanswered: dict[str, tuple[str, str, str]] = {}

    def add(calls: MadeCalls) -> None:
        place = calls.step_id, calls.server, calls.tool
        before = made.get(place)
        count, unknown = (before.count, before.unknown) if before else (0, False)
        made[place] = calls.model_copy(update={"count": count + calls.count, "unknown": unknown or calls.unknown})

    for earlier in task.rerun.calls if task.rerun else ():
        add(earlier)
    for record in records:
        match record.event:
            case ToolCalled() as called:
                add(MadeCalls(step_id=called.step_id, server=called.server, tool=called.tool, count=1, unknown=False))
                unanswered[called.call_id] = called.step_id, called.server, called.tool
            case ToolReturned() as returned:
                unanswered.pop(returned.call_id, None)
    for place in unanswered.values():
        made[place] = made[place].model_copy(update={"unknown": True})
    return tuple(made.values())
