"""What a task asks for next: a pure function of its journal, so that any runner, at any time, decides the same."""

from collections.abc import Iterator
from dataclasses import dataclass

from agent_runtime.domain import events as ev
from agent_runtime.domain.plan import AgentStep, ToolStep, dependencies, unreferenced
from agent_runtime.domain.references import as_text
from agent_runtime.domain.task import WAITING, StepState, StepStatus, Task, TaskStatus, may_repeat
from agent_runtime.domain.tools import StoredResult

RESULT_CHARACTERS = 262_144
"""The longest result of a task, in characters; each step's own result stays whole in the journal."""


@dataclass(frozen=True, slots=True)
class ProposePlan:
    """Ask the planner."""


@dataclass(frozen=True, slots=True)
class CallTool:
    """Send the call of this step: its first, or one more where the operator allows a repetition."""

    step: ToolStep


@dataclass(frozen=True, slots=True)
class Record:
    """Write down what already follows from the journal."""

    events: tuple[ev.Event, ...]


Command = ProposePlan | CallTool | Record


def next_commands(task: Task) -> tuple[Command, ...]:
    """What may be done now, in the order of the plan; nothing while a person is asked or after the end.

    To be asked only while no call of the task is in flight: an open call is one whose answer will not come.
    """
    if task.terminal:
        return ()
    if task.cancel_requested:
        return (_cancel(task),)
    if task.status is TaskStatus.PENDING:
        return (ProposePlan(),)
    if task.status in WAITING:
        return ()
    begun = tuple(_unfinished(task))
    if begun:
        return begun
    ready = tuple(_ready(task))
    if ready:
        return ready
    return (Record((ev.TaskCompleted(result=result_of(task)),)),)


def _cancel(task: Task) -> Record:
    # In one append: a task left between the two would neither run nor be asked about.
    reason = "the task was cancelled before the answer came"
    lost = {name: step.open_call for name, step in task.steps.items() if step.open_call}
    unknown = tuple(name for name in task.steps if name in lost or name in task.unknown_steps)
    return Record(
        (
            *(ev.StepOutcomeUnknown(step_id=name, call_id=call.call_id, reason=reason) for name, call in lost.items()),
            ev.TaskCancelled(unknown_steps=unknown),
        )
    )


def _unfinished(task: Task) -> Iterator[Command]:
    """What the steps that have begun ask for."""
    for step in task.contract.steps if task.contract else ():
        state = task.steps[step.id]
        if state.status is StepStatus.FAILED:
            message = state.message or f"Step {step.id!r} failed."
            yield Record((ev.TaskFailed(code=state.code or "step_failed", message=message, step_id=step.id),))
        elif state.status is StepStatus.RUNNING and isinstance(step, ToolStep):
            yield _continued(task, step, state)


def _continued(task: Task, step: ToolStep, state: StepState) -> Command:
    call = state.call
    if call is None:
        return CallTool(step)
    if call.result is not None and not call.result.is_error:
        return Record((ev.StepCompleted(step_id=step.id),))
    if may_repeat(task, step.id) and exceeded_budget(task) is None:
        return CallTool(step)
    if call.result is None:
        reason = "the service stopped, or lost the call, before the answer came"
        return Record((ev.StepOutcomeUnknown(step_id=step.id, call_id=call.call_id, reason=reason),))
    message = f"{step.server}.{step.tool} failed: {call.result.text or 'it gave no reason'}"
    return Record((ev.StepFailed(step_id=step.id, code="tool_error", message=message),))


def _ready(task: Task) -> Iterator[Command]:
    """What the steps that could begin ask for."""
    for step in task.contract.steps if task.contract else ():
        needs = dependencies(step)
        if task.steps[step.id].status is not StepStatus.PENDING or not all(task.steps[n].has_ended for n in needs):
            continue
        skipped = sorted(name for name in needs if task.steps[name].status is StepStatus.SKIPPED)
        over = exceeded_budget(task)
        if skipped:
            reason = f"it needs {', '.join(skipped)}, which was skipped"
            yield Record((ev.StepSkipped(step_id=step.id, reason=reason),))
        elif isinstance(step, AgentStep):
            message = "An agent step needs a language model, and none is configured."
            yield Record((ev.StepFailed(step_id=step.id, code="no_model", message=message),))
        elif over:
            used = f"The budget of {over.limit:g} {over.budget} is used up ({over.used:g})"
            message = f"{used}; step {step.id!r} did not start."
            yield Record((over, ev.TaskFailed(code="budget_exceeded", message=message, step_id=step.id)))
        else:
            yield CallTool(step)


def exceeded_budget(task: Task) -> ev.BudgetExceeded | None:
    """The budget that leaves no room for one more call, or None."""
    budget = task.limits.budget
    if budget.tool_calls is not None and task.tool_calls >= budget.tool_calls:
        return ev.BudgetExceeded(budget="tool_calls", limit=budget.tool_calls, used=task.tool_calls)
    if budget.seconds is not None and task.call_seconds >= budget.seconds:
        return ev.BudgetExceeded(budget="seconds", limit=budget.seconds, used=round(task.call_seconds, 3))
    return None


def result_of(task: Task) -> str:
    """What the plan was for: the texts of the steps that no other step takes up, in the order of the plan."""
    if task.contract is None:
        return ""
    results = task.results
    texts = [_shown(results[name]) for name in unreferenced(task.contract.plan) if name in results]
    return "\n".join(text for text in texts if text)[:RESULT_CHARACTERS]


def _shown(result: StoredResult) -> str:
    return result.text or ("" if result.output is None else as_text(result.output))
