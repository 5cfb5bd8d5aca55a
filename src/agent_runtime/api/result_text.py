"""One text that describes a task now."""

import json
from collections.abc import Sequence

from agent_runtime.api.shapes import AnyAttentionView
from agent_runtime.domain.events import PlanRevisionFailed, StepResolved
from agent_runtime.domain.outages import describe_wait
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import RevisionFailure, StepStatus, Task
from agent_runtime.text.escaping import one_line

RESOLUTIONS = ("done", "retry", "skip", "fail")
ANSWERS = ("accept", "decline", "cancel")

_LONGEST_REASON = 500


def make_result_text(task: Task, attention: Sequence[AnyAttentionView]) -> str | None:
    """Return one text that describes the task now, for clients that show a single text.

    The result of a completed task, the error of a failed task, the running steps, the servers or models that a task
    waits for, the open questions with the calls that answer them, or why no other plan could be made. None in any
    other case.
    """
    if task.waiting is not None:
        return "\n".join(filter(None, [one_line(describe_wait(task.waiting), _LONGEST_REASON), _list_running(task)]))
    if task.status is TaskStatus.EXECUTING:
        return _list_running(task)
    if task.status is TaskStatus.NEEDS_ATTENTION:
        return "\n".join(_ask(task, view) for view in attention) or None
    if task.revision_failure is not None:
        return describe_failed_revision(task.revision_failure)
    return task.result if task.error is None else task.error.message


def describe_failed_revision(failure: RevisionFailure) -> str:
    """Say that the plan is the one before the feedback, and why."""
    why = one_line(failure.message, _LONGEST_REASON)
    return f"No other plan could be made from {json.dumps(one_line(failure.feedback, 200), ensure_ascii=False)}: {why}"


def describe_kept_plan(event: PlanRevisionFailed) -> str:
    """Say which revision of the plan stays, because no other could be made, and why."""
    return f"No other plan could be made, so revision {event.revision} stays: {event.message}"


def describe_resolution(event: StepResolved) -> str:
    """Say what stands in place of the result of a call whose outcome is unknown."""
    return f"A person resolved this call as {event.resolution!r}."


def _list_running(task: Task) -> str | None:
    steps = task.contract.steps if task.contract else ()
    running = [
        f"Step {number} of {len(steps)} is running: {one_line(step.title, 200)}"
        for number, step in enumerate(steps, 1)
        if task.steps[step.id].status is StepStatus.RUNNING
    ]
    return "\n".join(running) or None


def _ask(task: Task, view: AnyAttentionView) -> str:
    here = f"/v1/tasks/{task.task_id}"
    if view["kind"] == "journal_changed":
        what = f"The journal was changed at record {view['record']}: {one_line(view['reason'], _LONGEST_REASON)}"
        return f"{what} The task no longer runs; DELETE {here} removes it."
    if view["kind"] == "input":
        what = f"{view['server']} asks in step {view['step_id']}: {one_line(view['message'], _LONGEST_REASON)}"
        return f"{what} Answer with POST {here}/answers/{view['question_id']} ({', '.join(ANSWERS)})."
    what = f"Step {view['step_id']} asks a person: {one_line(view['reason'], _LONGEST_REASON)}"
    if view["kind"] == "outcome_unknown":
        return f"{what} Resolve it with POST {here}/resolve ({', '.join(RESOLUTIONS)})."
    return f"{what} Answer with POST {here}/calls/{view['call_id']}/approve or .../deny."
