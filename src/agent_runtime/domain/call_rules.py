"""The rules for every call, whoever proposes it. Pure; each rule has a name for the journal (G4, G5, G7).

A proposal is judged by the journal alone: the approved contract, the steps so far, and the answers of models.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from pydantic_core import from_json

from agent_runtime.domain.asking import reason_to_ask
from agent_runtime.domain.budget import exceeded_budget
from agent_runtime.domain.conditions import evaluate_condition
from agent_runtime.domain.deny import find_denial
from agent_runtime.domain.drafting import MOST_DEPTH, argument_faults
from agent_runtime.domain.errors import ConditionFailedError, Fault, ReferenceFailedError
from agent_runtime.domain.events import StepFailed, StepSkipped
from agent_runtime.domain.plan import AgentStep, ToolStep, tool_keys
from agent_runtime.domain.references import ARGUMENT_BYTES, as_text, resolve
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.stricter import TightenedContract
from agent_runtime.domain.task import JOURNAL_BYTES, PendingCall, StepState, StepStatus, Task, may_repeat
from agent_runtime.domain.tools import Denial, tool_key
from agent_runtime.domain.values import JsonObject, as_digested, digest, is_deeper_than


class CallRefusedError(Exception):
    """A rule forbids a call; it is not sent. `rule` is the name of the rule in the journal.

    It also has what the tool's schema says against the arguments, fault by fault.

    * `cancelled`, `expired`, `ended`, `not_approved`: the status of the task.
    * `not_in_plan`: there is no such step, or the step does not list the tool.
    * `not_current`: it is not this call's turn, or a person is being asked about it.
    * `used_up`: the call was already made as often as allowed.
    * `budget_exceeded`, `journal_full`: the task has reached a limit.
    * `reference_failed`: the arguments cannot be resolved. `invalid_arguments`: they do not match the tool's schema.
    * `arguments_differ`: the arguments are not those that were approved or that the model gave.
    * `denied`: the operator denies the call, whoever approved it.
    """

    def __init__(self, rule: str, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.rule = rule
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A call proposed for a step.

    `arguments`: None means those of the plan or those that the model gave. `pending`: the call in a model's answer, or
    None.
    """

    step_id: str
    server: str
    tool: str
    arguments: JsonObject | None = None
    pending: PendingCall | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits in bytes. Results above `stored_result` were cut; calls that would exceed the others are refused."""

    stored_result: int
    arguments: int = ARGUMENT_BYTES
    journal: int = JOURNAL_BYTES


def describe_full_journal(task: Task, limit: int) -> str:
    """Return the message for a journal that is too long for new calls."""
    return f"the journal of the task has {task.journal_bytes} bytes, over the limit of {limit} (limits.journal_bytes)."


@dataclass(frozen=True, slots=True)
class PermittedCall:
    """A call that may be sent now, once. `reason`: why a person must approve it first, or None.

    `longest_s`: the limit in seconds while it reports progress.
    """

    step: ToolStep | AgentStep
    arguments: JsonObject
    arguments_digest: str
    attempt: int
    timeout_s: float | None
    longest_s: float
    reason: str | None = None


def next_proposal(task: Task, step: ToolStep | AgentStep) -> Proposal:
    """Return the next call of a step: its own, or the next one that its model proposes."""
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
    """Check a proposal against all rules and return the permitted call.

    `in_flight`: the steps whose calls are in progress. `denials`: the operator's current denials for the server.
    `now`: the tightened contract, if the operator has become stricter since the approval.
    Raises: CallRefusedError naming the first rule that forbids the call.
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
        raise CallRefusedError("invalid_arguments", "; ".join(map(str, faults)), faults)
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
    """Return the event that ends a step whose condition does not hold or cannot be evaluated; None if it holds."""
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
    """Return the concrete arguments of the next call: those that a person put in place of the plan's or the model's."""
    if state.edited is not None:
        _check_size(as_text(state.edited.arguments), bounds)
        return state.edited.arguments
    if isinstance(step, ToolStep):
        try:
            resolved: JsonObject = resolve(
                step.arguments, task.results, bounds.stored_result, argument_bytes=bounds.arguments
            )
        except ReferenceFailedError as error:
            raise CallRefusedError("reference_failed", str(error)) from error
        return resolved
    text = state.pending.call.arguments if state.pending else ""
    _check_size(text, bounds)
    return parse_model_arguments(text)


def _check_size(text: str, bounds: Bounds) -> None:
    if (size := len(text.encode("utf-8", "replace"))) > bounds.arguments:
        message = f"the arguments have {size} bytes, over the limit of {bounds.arguments} (limits.argument_bytes)."
        raise CallRefusedError("invalid_arguments", message)


def parse_model_arguments(text: str) -> JsonObject:
    """Parse the arguments that a model gave. Raises: CallRefusedError if they are not a JSON object."""
    try:
        arguments = from_json(text.encode("utf-8", "replace") or b"{}", allow_inf_nan=False)
    except ValueError as error:
        raise CallRefusedError("invalid_arguments", f"the arguments are not JSON: {error}.") from error
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
    """Return the timeout of the call in seconds: that of the step, limited by the operator's current one."""
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
    """Return why a person must approve the call first; None if nobody must, or if it is approved."""
    reason = reason_to_ask(task.contract, step, key, by_person=task.is_for_person) if task.contract else None
    asked, reason = state.asked, raised or reason
    if asked is None and reason and state.call:
        raise CallRefusedError("used_up", f"its call was made, and is not repeated without approval: {reason}.")
    if asked is None:
        return reason
    if not asked.granted or asked.arguments_digest != arguments_digest:
        raise CallRefusedError("arguments_differ", "its arguments are no longer those that were approved.")
    return None
