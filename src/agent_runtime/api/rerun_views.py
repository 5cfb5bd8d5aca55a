"""The views of a rerun of a finished task: the results that it reuses, and the calls that it may repeat."""

from agent_runtime.api.shapes import RerunView
from agent_runtime.domain.rerun import MadeCalls, find_repeated_calls
from agent_runtime.domain.task import Task
from agent_runtime.text.escaping import clear_name, exact_line

_LONGEST_NAME = 200


def rerun_view(task: Task) -> RerunView | None:
    """Return the finished task and the steps that a rerun reuses; None if the task is not a rerun."""
    if task.rerun is None:
        return None
    return {
        "task_id": task.rerun.task_id,
        "head": task.rerun.head,
        "from": task.rerun.start,
        "reused": _reused_steps(task),
        "repeats": [
            {
                "step_id": made.step_id,
                "server": made.server,
                "tool": made.tool,
                "count": made.count,
                "unknown": made.unknown,
                "idempotent": _is_idempotent(task, made),
            }
            for made in _repeats(task)
        ],
    }


def rerun_lines(task: Task) -> list[str]:
    """Return the lines below a plan about reused results and repeated calls."""
    lines: list[str] = []
    if task.rerun and (reused := _reused_steps(task)):
        taken = f"result of step {reused[0]} is" if len(reused) == 1 else f"results of steps {', '.join(reused)} are"
        lines.append(f"The {taken} taken from task {task.rerun.task_id}; these calls are not made again.")
    if task.rerun and (repeats := [_describe(task, made) for made in _repeats(task)]):
        lines.append(f"Calls that task {task.rerun.task_id} has made may be made again: {'; '.join(repeats)}.")
    return lines


def _reused_steps(task: Task) -> list[str]:
    pinned = task.contract.rerun.results if task.contract and task.contract.rerun else {}
    return [step.id for step in task.contract.steps if step.id in pinned] if task.contract else []


def _repeats(task: Task) -> list[MadeCalls]:
    if task.contract is None:
        return []
    return list(find_repeated_calls(task.rerun, task.contract.rerun, task.contract.plan))


def _is_idempotent(task: Task, made: MadeCalls) -> bool:
    return task.contract is not None and task.contract.policy[made.key].idempotent


def _describe(task: Task, made: MadeCalls) -> str:
    times = "once" if made.count == 1 else f"{made.count} times"
    facts = [times, *(["with an unknown outcome"] if made.unknown else [])]
    facts += ["harmless to repeat"] if _is_idempotent(task, made) else []
    return f"{exact_line(f'{made.server}.{clear_name(made.tool)}', _LONGEST_NAME)} ({', '.join(facts)})"
