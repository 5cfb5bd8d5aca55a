"""The next commands of a task: a pure function of its journal, so that every runner decides the same at any time."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain

from agent_runtime.domain import events as ev
from agent_runtime.domain.budget import exceeded_budget, exceeded_by_asking, has_budget, may_ask_model
from agent_runtime.domain.call_rules import condition_outcome
from agent_runtime.domain.plan import AgentStep, ToolStep, find_unreferenced_steps
from agent_runtime.domain.references import text_of
from agent_runtime.domain.status import WAITING, TaskStatus
from agent_runtime.domain.task import Call, StepState, StepStatus, Task, may_outlast, may_repeat, must_rest
from agent_runtime.domain.tools import StoredResult

RESULT_CHARACTERS = 262_144
"""The maximum length of a task's result, in characters. The journal keeps the whole result of each step."""

NOTHING_CALLED = "The model called none of the tools that this step lists: its result is its own words alone."


@dataclass(frozen=True, slots=True)
class ProposePlan:
    """Ask the planner for a plan."""


@dataclass(frozen=True, slots=True)
class CallTool:
    """Send the next call of this step: a new one, or a repetition that the operator allows."""

    step: ToolStep | AgentStep


@dataclass(frozen=True, slots=True)
class AskModel:
    """Ask the model for the next turn of this step."""

    step: AgentStep


@dataclass(frozen=True, slots=True)
class WriteEvents:
    """Append events that already follow from the journal."""

    events: tuple[ev.Event, ...]


@dataclass(frozen=True, slots=True)
class OutlastOutage:
    """Have the task wait, and then repeat the latest call of this step: by this result its server is down."""

    step: ToolStep | AgentStep
    server: str
    result: StoredResult


Command = ProposePlan | CallTool | AskModel | OutlastOutage | WriteEvents


def next_commands(task: Task, in_flight: AbstractSet[str] = frozenset()) -> tuple[Command, ...]:
    """Return the commands that may be carried out now; none while a person is asked, after the end, or after tampering.

    Open calls come first, then steps that have begun, then steps that may begin, each in plan order.

    `in_flight`: the ids of the steps whose call the asking run is making, or holds until a slot is free. An open call
    of any other step will never get its answer. The commands are valid for this state only: ask again after each one.
    """
    return tuple(_commands(task, in_flight))


def next_command(task: Task, in_flight: AbstractSet[str] = frozenset()) -> Command | None:
    """Return the first of `next_commands`, or None, without evaluating the conditions of later steps."""
    return next(_commands(task, in_flight), None)


def _commands(task: Task, in_flight: AbstractSet[str]) -> Iterator[Command]:
    if task.terminal or task.journal_change:
        return
    if task.cancel_requested:
        if not in_flight:
            yield _cancel(task)
    elif task.status is TaskStatus.PENDING:
        yield ProposePlan()
    elif task.status is TaskStatus.NEEDS_ATTENTION:
        yield from _lost_questions(task, in_flight)
    elif task.status not in WAITING:
        nothing = True
        for command in chain(_continue_steps(task, in_flight), _start_steps(task, in_flight)):
            nothing = False
            yield command
        if nothing and not in_flight:
            yield WriteEvents((_end(task),))


def _lost_questions(task: Task, in_flight: AbstractSet[str]) -> Iterator[WriteEvents]:
    """Yield the withdrawal of questions whose call is lost, since an answer would reach nobody."""
    reason = "the service stopped, or lost the call, before it was answered"
    lost = {name: asked for name, asked in task.questions.items() if name not in in_flight}
    if lost:
        yield WriteEvents(
            tuple(
                ev.InputWithdrawn(step_id=name, question_id=asked.question_id, reason=reason)
                for name, asked in lost.items()
            )
        )


def _end(task: Task) -> ev.Event:
    for step_id, state in task.steps.items():
        if state.status is StepStatus.FAILED:
            message = state.message or f"Step {step_id!r} failed."
            return ev.TaskFailed(code=state.code or "step_failed", message=message, step_id=step_id)
    return ev.TaskCompleted(result=result_of(task))


def _cancel(task: Task) -> WriteEvents:
    # In one append: between the two a task would neither run nor wait for a person.
    reason = "the task was cancelled before the answer came"
    lost = task.open_calls
    unknown = tuple(name for name in task.steps if name in lost or name in task.unknown_steps)
    return WriteEvents(
        (
            *(ev.StepOutcomeUnknown(step_id=name, call_id=call.call_id, reason=reason) for name, call in lost.items()),
            ev.TaskCancelled(unknown_steps=unknown),
        )
    )


def _continue_steps(task: Task, in_flight: AbstractSet[str]) -> Iterator[Command]:
    """Yield the commands of the steps that have begun: open calls first, since no task ends while one is open."""
    running = [
        (step, task.steps[step.id])
        for step in (task.contract.steps if task.contract else ())
        if task.steps[step.id].status is StepStatus.RUNNING and step.id not in in_flight
    ]
    for step, state in sorted(running, key=lambda pair: pair[1].call is None):
        if state.call is not None:
            yield from _follow_call(task, step, state.call, in_flight)
        elif isinstance(step, ToolStep):
            yield CallTool(step)
        else:
            yield from _follow_answer(task, step, state, in_flight)


def _follow_call(task: Task, step: ToolStep | AgentStep, call: Call, in_flight: AbstractSet[str]) -> Iterator[Command]:
    """Yield the command that follows from the latest call of a step."""
    if call.result is not None and not call.result.is_error:
        yield WriteEvents((ev.StepCompleted(step_id=step.id),))
    elif may_repeat(task, step.id) and not must_rest(task, call) and exceeded_budget(task) is None:
        if has_budget(task, in_flight):
            yield CallTool(step)
    elif call.result is not None and may_outlast(task, call) and exceeded_budget(task) is None:
        yield OutlastOutage(step, call.server, call.result)
    elif call.result is None:
        reason = "the service stopped, or lost the call, before the answer came"
        yield WriteEvents((ev.StepOutcomeUnknown(step_id=step.id, call_id=call.call_id, reason=reason),))
    else:
        yield WriteEvents((tool_error(step.id, call),))


def tool_error(step_id: str, call: Call) -> ev.StepFailed:
    """Return the failure of a step whose call got an error and is not repeated."""
    text = text_of(call.result) if call.result else ""
    code = "result_unreadable" if call.result and call.result.unreadable else "tool_error"
    message = f"{call.server}.{call.tool} failed: {text or 'it gave no reason'}"
    return ev.StepFailed(step_id=step_id, code=code, message=message)


def _follow_answer(task: Task, step: AgentStep, state: StepState, in_flight: AbstractSet[str]) -> Iterator[Command]:
    """Yield the command that follows from the latest answer of a model."""
    if state.pending is not None:
        yield from _check_budget(task, CallTool(step), in_flight)
    elif state.turns and state.turns[-1].answer is not None:
        note = NOTHING_CALLED if step.tools and not state.sent else None
        yield WriteEvents((ev.StepCompleted(step_id=step.id, note=note),))
    elif len(state.turns) >= step.max_turns:
        message = (
            f"The model was asked {step.max_turns} times, as often as the step allows (max_turns), and wants more."
        )
        yield WriteEvents((ev.StepFailed(step_id=step.id, code="max_turns", message=message),))
    else:
        yield from _check_budget(task, AskModel(step), in_flight)


def _check_budget(task: Task, command: CallTool | AskModel, in_flight: AbstractSet[str]) -> Iterator[Command]:
    """Yield the command if the budget allows it, nothing while calls in flight reserve the rest, else the failure."""
    asks = isinstance(command, AskModel)
    over = exceeded_by_asking(task) if asks else exceeded_budget(task)
    if over is None:
        if may_ask_model(task, in_flight) if asks else has_budget(task, in_flight):
            yield command
    elif not in_flight:
        step_id = command.step.id
        used = f"The budget of {over.limit:g} {over.budget} is used up ({over.used:g})"
        stopped = "did not start" if task.steps[step_id].status is StepStatus.PENDING else "did not go on"
        failed = ev.TaskFailed(code="budget_exceeded", message=f"{used}; step {step_id!r} {stopped}.", step_id=step_id)
        yield WriteEvents((over, failed))


def _start_steps(task: Task, in_flight: AbstractSet[str]) -> Iterator[Command]:
    """Yield the commands of the steps that may begin."""
    for step in task.contract.steps if task.contract else ():
        if task.steps[step.id].status is not StepStatus.PENDING or step.id in in_flight:
            continue
        if not all(task.steps[name].has_ended for name in step.needs):
            continue
        if missing := task.unmet_needs(step):
            reasons = ", ".join(f"{name}, which {_FATE[task.steps[name].status]}" for name in missing)
            yield WriteEvents((ev.StepSkipped(step_id=step.id, reason=f"it needs {reasons}"),))
        elif (outcome := condition_outcome(task, step)) is not None:
            yield WriteEvents((outcome,))
        else:
            yield from _check_budget(task, AskModel(step) if isinstance(step, AgentStep) else CallTool(step), in_flight)


_FATE = {StepStatus.SKIPPED: "was skipped", StepStatus.FAILED: "failed"}


def result_of(task: Task) -> str:
    """Return the result of the task: the texts of the steps whose output no other step uses, in plan order."""
    if task.contract is None:
        return ""
    results = task.results
    texts = [text_of(results[name]) for name in find_unreferenced_steps(task.contract.plan) if name in results]
    return "\n".join(text for text in texts if text)[:RESULT_CHARACTERS]
