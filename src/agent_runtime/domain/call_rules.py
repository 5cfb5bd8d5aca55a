"""The rules that every call is held to, whoever proposes it; pure, and each with a name for the journal (G4, G5, G7).

A proposal is judged against the journal alone: the approved contract, what has run, and what a model has asked for.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from pydantic_core import from_json

from agent_runtime.domain.asking import reason_to_ask
from agent_runtime.domain.budget import exceeded_budget
from agent_runtime.domain.conditions import evaluate_condition
from agent_runtime.domain.contract import MOST_DEPTH, argument_faults
from agent_runtime.domain.deny import find_denial
from agent_runtime.domain.errors import ConditionFailedError, ReferenceFailedError
from agent_runtime.domain.events import StepFailed, StepSkipped
from agent_runtime.domain.plan import AgentStep, ToolStep, tool_keys
from agent_runtime.domain.references import ARGUMENT_BYTES, resolve
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.stricter import TightenedContract
from agent_runtime.domain.task import JOURNAL_BYTES, PendingCall, StepState, StepStatus, Task, may_repeat
from agent_runtime.domain.tools import Denial, tool_key
from agent_runtime.domain.values import JsonObject, as_digested, digest, is_deeper_than


class CallRefusedError(Exception):
    """A rule forbids a call; it is not sent. `rule` names it in the journal.

    `cancelled`, `expired`, `ended`, `not_approved`: the task stands so. `not_in_plan`: no such step, or a tool that
    it does not list. `not_current`: its turn has not come, or a person is asked about it. `used_up`: it was made as
    often as it may be. `budget_exceeded`, `journal_full`: the task may do no more. `reference_failed`,
    `invalid_arguments`: they cannot be had, or the tool's schema is against them. `arguments_differ`: they are not
    those that were approved, or that the model gave. `denied`: the operator's word is against the call, whoever
    approved it.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Proposal:
    """A call that somebody wants made for a step.

    `arguments` null: those of the plan, or those that the model gave. `pending` is the call of a model's answer that
    the proposal is, null where it is none.
    """

    step_id: str
    server: str
    tool: str
    arguments: JsonObject | None = None
    pending: PendingCall | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Sizes in bytes: results above `stored_result` were cut, and nothing new is done beyond the others."""

    stored_result: int
    arguments: int = ARGUMENT_BYTES
    journal: int = JOURNAL_BYTES


def describe_full_journal(task: Task, limit: int) -> str:
    """Say that the journal of the task is too long for anything new."""
    return f"the journal of the task has {task.journal_bytes} bytes, over the limit of {limit} (limits.journal_bytes)."


@dataclass(frozen=True, slots=True)
class PermittedCall:
    """A call that may be sent now, once. `reason` is why a person must see it first; null where nobody must.

    `longest_s` is what it may take in all while it reports progress, in seconds.
    """

    step: ToolStep | AgentStep
    arguments: JsonObject
    arguments_digest: str
    attempt: int
    timeout_s: float | None
    longest_s: float
    reason: str | None = None


def next_proposal(task: Task, step: ToolStep | AgentStep) -> Proposal:
    """The call that a step itself wants next: its own, or the next that its model asks for."""
    if isinstance(step, ToolStep):
        return Proposal(step.id, step.server, step.tool)
    pending = task.steps[step.id].pending
    name = pending.call.name if pending else ""
    allowed = step.functions.get(name)
    server, tool = (allowed.server, allowed.tool) if allowed else ("", name)
    return Proposal(step.id, server, tool, pending=pending)


def judge(
    task: Task,
    proposal: Proposal,
    in_flight: AbstractSet[str],
    denials: Iterable[Denial],
    bounds: Bounds,
    *,
    now: TightenedContract | None = None,
) -> PermittedCall:
    """What may be sent for a proposal.

    `in_flight` are the steps whose calls are under way, `denials` what the operator denies now of the server, and
    `bounds` are the sizes that hold. `now` is the contract where the operator has become stricter since.
    Raises: CallRefusedError naming the first rule that is against it.
    """
    _check_task(task)
    if task.journal_bytes > bounds.journal:
        raise CallRefusedError("journal_full", describe_full_journal(task, bounds.journal))
    if now is not None:
        task = replace(task, contract=now.contract)
    step = _find_step(task, proposal)
    state = task.steps[step.id]
    _check_turn(task, step, state, in_flight)
    if isinstance(step, AgentStep):
        _check_uses(step, state, proposal)
    over = exceeded_budget(task)
    if over is not None:
        raise CallRefusedError("budget_exceeded", f"the budget of {over.limit:g} {over.budget} is used up.")
    arguments: JsonObject = as_digested(_arguments(task, step, state, bounds))
    arguments_digest = _digest(arguments)
    if proposal.arguments is not None and _digest(proposal.arguments) != arguments_digest:
        raise CallRefusedError("arguments_differ", "its arguments are not those that were approved for this step.")
    key = tool_key(proposal.server, proposal.tool)
    faults = list(argument_faults(arguments, task.definitions[key].arguments_schema, "arguments", resolved=True))
    if faults:
        raise CallRefusedError("invalid_arguments", "; ".join(map(str, faults)))
    told = find_denial(denials, proposal.tool, arguments)
    if told is None and now is not None and key in now.disabled:
        told = f"{key} has been disabled in the tool registry."
    if told is not None:
        raise CallRefusedError("denied", told)
    timeout_s = _timeout(task, step, key)
    return PermittedCall(
        step,
        arguments,
        arguments_digest,
        attempt=state.call.attempt + 1 if state.call else 1,
        timeout_s=timeout_s,
        longest_s=task.contract.policy[key].longest_s(timeout_s) if task.contract else 0,
        reason=_reason_to_ask(task, step, state, key, arguments_digest, now.asks.get(key) if now else None),
    )


_STANDS = {TaskStatus.CANCELLED: "cancelled", TaskStatus.EXPIRED: "expired"}


def _check_task(task: Task) -> None:
    if task.cancel_requested and not task.terminal:
        raise CallRefusedError("cancelled", "the task is being cancelled.")
    if task.terminal:
        raise CallRefusedError(_STANDS.get(task.status, "ended"), f"the task is {task.status}.")
    if task.status is not TaskStatus.EXECUTING:
        rule = "not_current" if task.status is TaskStatus.NEEDS_ATTENTION else "not_approved"
        raise CallRefusedError(rule, f"the task is {task.status}.")


def _find_step(task: Task, proposal: Proposal) -> ToolStep | AgentStep:
    try:
        step = task.plan_step(proposal.step_id)
    except KeyError:
        raise CallRefusedError("not_in_plan", f"the approved plan has no step {proposal.step_id!r}.") from None
    key = tool_key(proposal.server, proposal.tool)
    pinned = task.contract is not None and key in task.contract.pins and key in task.definitions
    if not pinned or key not in tool_keys(step):
        named = key if proposal.server else proposal.tool
        raise CallRefusedError("not_in_plan", f"{named!r} is not a tool that step {step.id!r} of the plan may call.")
    return step


def _check_turn(task: Task, step: ToolStep | AgentStep, state: StepState, in_flight: AbstractSet[str]) -> None:
    if state.has_ended or state.status is StepStatus.UNKNOWN:
        raise CallRefusedError("used_up", f"step {step.id!r} is {state.status}.")
    if step.id in in_flight or (state.call is not None and not may_repeat(task, step.id)):
        raise CallRefusedError("used_up", f"the call of step {step.id!r} was made, and it may not be made again.")
    if state.status is StepStatus.ASKING:
        raise CallRefusedError("not_current", f"a person is asked about the call of step {step.id!r}.")
    missing = task.unmet_needs(step)
    if missing:
        raise CallRefusedError("not_current", f"step {step.id!r} needs {', '.join(missing)} first.")
    if condition_outcome(task, step):
        raise CallRefusedError("not_current", f"the condition of step {step.id!r} does not hold.")


def condition_outcome(task: Task, step: ToolStep | AgentStep) -> StepSkipped | StepFailed | None:
    """What the condition of a step says against it: it does not hold, or it cannot be told. Null where it holds."""
    try:
        if step.when is None or evaluate_condition(step.when, task.results):
            return None
    except ConditionFailedError as error:
        return StepFailed(step_id=step.id, code=error.code, message=str(error))
    return StepSkipped(step_id=step.id, reason=f"its condition does not hold: {step.when}")


def _check_uses(step: AgentStep, state: StepState, proposal: Proposal) -> None:
    pending = state.pending
    if pending is None or (proposal.pending is not None and proposal.pending != pending):
        raise CallRefusedError("used_up", f"the model of step {step.id!r} asks for no such call now.")
    allowed = step.functions.get(pending.call.name)
    if allowed is None or (allowed.server, allowed.tool) != (proposal.server, proposal.tool):
        raise CallRefusedError("not_current", f"the model of step {step.id!r} asks for {pending.call.name!r} now.")
    if state.call is None and state.sent.count(allowed.key) >= allowed.max_calls:
        raise CallRefusedError(
            "used_up", f"{allowed.key!r} was called {allowed.max_calls} times, as often as it may be."
        )


def _arguments(task: Task, step: ToolStep | AgentStep, state: StepState, bounds: Bounds) -> JsonObject:
    """Return the concrete arguments of the call that is next."""
    if isinstance(step, ToolStep):
        try:
            resolved: JsonObject = resolve(
                step.arguments, task.results, bounds.stored_result, argument_bytes=bounds.arguments
            )
        except ReferenceFailedError as error:
            raise CallRefusedError("reference_failed", str(error)) from error
        return resolved
    text = state.pending.call.arguments if state.pending else ""
    if (size := len(text.encode("utf-8", "replace"))) > bounds.arguments:
        message = f"the arguments have {size} bytes, over the limit of {bounds.arguments} (limits.argument_bytes)."
        raise CallRefusedError("invalid_arguments", message)
    return parse_model_arguments(text)


def parse_model_arguments(text: str) -> JsonObject:
    """The arguments that a model gave, read. Raises: CallRefusedError where they are no JSON object."""
    try:
        arguments = from_json(text.encode("utf-8", "replace") or b"{}", allow_inf_nan=False)
    except ValueError as error:
        raise CallRefusedError("invalid_arguments", f"the arguments are no JSON: {error}.") from error
    if not isinstance(arguments, dict):
        raise CallRefusedError("invalid_arguments", "the arguments must be a JSON object.")
    if is_deeper_than(arguments, MOST_DEPTH):
        raise CallRefusedError("invalid_arguments", f"the arguments are nested more than {MOST_DEPTH} deep.")
    return arguments


def _digest(arguments: JsonObject) -> str:
    try:
        return digest(arguments)
    except ValueError as error:
        raise CallRefusedError("invalid_arguments", f"an argument cannot be carried exactly: {error}.") from error


def _timeout(task: Task, step: ToolStep | AgentStep, key: str) -> float | None:
    """Return how long the call may take, in seconds: as the step says, and no longer than the operator now allows."""
    planned = step.timeout_s if isinstance(step, ToolStep) else _tool_timeout(step, key)
    most = task.contract.policy[key].timeout_s if task.contract else None
    return min(filter(None, (planned, most)), default=None)


def _tool_timeout(step: AgentStep, key: str) -> float | None:
    return next((allowed.timeout_s for allowed in step.tools if allowed.key == key), None)


def _reason_to_ask(
    task: Task,
    step: ToolStep | AgentStep,
    state: StepState,
    key: str,
    arguments_digest: str,
    raised: str | None,
) -> str | None:
    """Why a person must see the call first; null where nobody must, or somebody has approved it."""
    reason = reason_to_ask(task.contract, step, key, by_person=task.is_for_person) if task.contract else None
    asked, reason = state.asked, raised or reason
    if asked is None and reason and state.call:
        raise CallRefusedError("used_up", f"its call was made, and is not made again unasked: {reason}.")
    if asked is None:
        return reason
    if not asked.granted or asked.arguments_digest != arguments_digest:
        raise CallRefusedError("arguments_differ", "its arguments are no longer those that were approved.")
    return None
