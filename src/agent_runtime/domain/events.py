"""The events of a task. A task *is* its events: every type is a fact, named `noun.past`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field

from agent_runtime.domain.contract import Contract, Limits
from agent_runtime.domain.event_base import EVENTS as EVENTS  # noqa: PLC0414 - for all others it belongs here
from agent_runtime.domain.event_base import Event as Event  # noqa: PLC0414 - likewise
from agent_runtime.domain.event_base import EventRecord as EventRecord  # noqa: PLC0414 - likewise
from agent_runtime.domain.event_base import make_record as make_record  # noqa: PLC0414 - likewise
from agent_runtime.domain.event_base import restore_record as restore_record  # noqa: PLC0414 - likewise
from agent_runtime.domain.omissions import is_empty, is_none, is_nothing, is_true, is_zero
from agent_runtime.domain.rerun import Rerun
from agent_runtime.domain.signature import SignedEvent
from agent_runtime.domain.status import TERMINAL, TaskStatus
from agent_runtime.domain.tools import StoredResult, ToolDefinition
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject, JsonValue, Value

ANONYMOUS = "anonymous"
"""The actor of decisions if the service does not authenticate callers."""

POLICY = "policy"
"""The actor of approvals by the operator's policy."""


Resolution = Literal["done", "retry", "skip", "fail"]
AnswerAction = Literal["accept", "decline", "cancel"]
Objection = Literal["call_as_text", "only_thoughts"]

_S, _OPEN = TaskStatus, frozenset(TaskStatus) - TERMINAL


class TaskSubmitted(Event, SignedEvent, type="task.submitted"):
    """A task was submitted. `tools`: the servers that the planner may use; None: all.

    `rerun`: what the task takes over from a finished one that it runs again; None for every other task. `thread`: the
    conversation of a front end that the task belongs to, if any.
    """

    prompt: str
    approval: Literal["manual", "auto"] = "manual"
    tools: tuple[str, ...] | None = None
    limits: Limits = Limits()
    metadata: Mapping[str, str] = {}
    actor: str = ANONYMOUS
    request_key: str | None = None
    request_digest: str | None = None
    rerun: Rerun | None = Field(default=None, exclude_if=is_none)
    thread: str | None = Field(default=None, exclude_if=is_none)


class TaskClaimed(Event, type="task.claimed", follows=_OPEN):
    """A runner claimed the task. Every later write of the run carries the epoch."""

    runner: str
    epoch: int


class PlanProposed(Event, type="plan.proposed", follows={_S.PENDING}):
    """A plan was proposed. `definitions`: the pinned ones, by `server/tool`. `planner`: the planner that made it.

    `identities`: the facts behind the digests of the servers, by id. `usage`: the model's tokens for this plan.
    """

    revision: int
    digest: str
    contract: Contract
    definitions: Mapping[str, ToolDefinition]
    identities: Mapping[str, JsonObject] = Field(default={}, exclude_if=is_empty)
    planner: str
    usage: Usage = Field(default=Usage(), exclude_if=is_nothing)


class PlanApproved(Event, SignedEvent, type="plan.approved", follows={_S.AWAITING_APPROVAL}):
    """The plan was approved. `scopes`: those of the approver; empty in journals of earlier versions.

    `names_digest`: the approver named the digest of the plan.
    """

    revision: int
    digest: str
    actor: str = ANONYMOUS
    comment: str | None = None
    scopes: tuple[str, ...] = Field(default=(), exclude_if=is_empty)
    names_digest: bool = Field(default=True, exclude_if=is_true)


class PlanRejected(Event, SignedEvent, type="plan.rejected", follows={_S.AWAITING_APPROVAL}, ends_task=True):
    revision: int
    digest: str
    actor: str = ANONYMOUS
    reason: str | None = None


class PlanRevisionRequested(Event, SignedEvent, type="plan.revision_requested", follows={_S.AWAITING_APPROVAL}):
    """A person asked for another plan; `feedback` says what should be different."""

    feedback: str
    revision: int
    digest: str
    actor: str = ANONYMOUS


class PlanRevisionFailed(Event, type="plan.revision_failed", follows={_S.PENDING}, writer="run"):
    """No other plan could be made from the feedback, so the plan before it awaits approval again.

    `usage`: the model's tokens for planning that failed.
    """

    revision: int
    digest: str
    code: str
    message: str
    usage: Usage = Field(default=Usage(), exclude_if=is_nothing)


class PlanEdited(Event, SignedEvent, type="plan.edited", follows={_S.AWAITING_APPROVAL}):
    """A person wrote the next revision. `definitions` and `identities` as in `PlanProposed`."""

    revision: int
    digest: str
    contract: Contract
    definitions: Mapping[str, ToolDefinition]
    identities: Mapping[str, JsonObject] = Field(default={}, exclude_if=is_empty)
    actor: str = ANONYMOUS


class PlanRepinned(Event, type="plan.repinned", follows={_S.AWAITING_APPROVAL, _S.EXECUTING}):
    """Servers or tools changed, so the plan has a new revision: the same steps with current pins.

    Earlier approvals of it are void. `differences`: one sentence for each change. Other fields as in `PlanProposed`.
    """

    revision: int
    digest: str
    contract: Contract
    definitions: Mapping[str, ToolDefinition]
    identities: Mapping[str, JsonObject] = Field(default={}, exclude_if=is_empty)
    differences: tuple[str, ...] = ()


class TaskWaiting(Event, type="task.waiting", follows={_S.PENDING, _S.EXECUTING}, writer="run"):
    """Something that the task needs cannot be had now. The run ends; a later one tries again.

    That is at `next_try_at`. A failure after `gives_up_at` ends the task. `kind` and `name` say what is needed, and
    `reason` is the failure of try number `attempt` in a row. `exit_mark` says how a process ended, and `usage` is what
    a model took for an answer that broke off.
    """

    kind: Literal["server", "model", "planner"]
    name: str
    reason: str
    attempt: int
    next_try_at: datetime
    gives_up_at: datetime
    exit_mark: str | None = Field(default=None, exclude_if=is_none)
    usage: Usage = Field(default=Usage(), exclude_if=is_nothing)


class StepStarted(Event, type="step.started", follows={_S.EXECUTING}, writer="run"):
    step_id: str
    title: str


class ModelCall(Value):
    """A call that a model proposes: the function's name, and the arguments as unparsed text.

    `call_id`: given by the model, unique within one answer.
    """

    call_id: str
    name: str
    arguments: str


class ModelAnswered(Event, type="model.answered", follows=_OPEN, writer="run"):
    """A model answered for an agent step. `turn` counts from 1. Written before any call of the answer is sent.

    `items`: the answer unchanged, for the next request to the model. `calls`: the calls in it, in order. `answer`: its
    text without thoughts if it proposes no calls; it ends the step. `objection`: why it is no result; the model is told
    and asked once more. A recorded turn is never requested again.
    """

    step_id: str
    turn: int
    items: tuple[JsonObject, ...]
    calls: tuple[ModelCall, ...] = ()
    answer: StoredResult | None = None
    objection: Objection | None = Field(default=None, exclude_if=is_none)
    usage: Usage = Usage()
    duration_ms: float = 0.0


class ToolCalled(Event, type="tool.called", follows={_S.EXECUTING}, writer="run"):
    """The intent to call, written before the call is sent (G2). `attempt` counts from 1 for each approved use.

    `timeout_s`: in seconds; reserved from the budget while the call is open. For agent steps, `turn` (from 1) and
    `index` (from 0) identify the call in the model's answers.
    """

    step_id: str
    call_id: str
    server: str
    tool: str
    arguments: JsonObject
    arguments_digest: str
    attempt: int
    timeout_s: float = 0.0
    turn: int | None = Field(default=None, exclude_if=is_none)
    index: int | None = Field(default=None, exclude_if=is_none)


class ToolReturned(Event, type="tool.returned", follows=_OPEN, writer="run"):
    """The result of a call, possibly an error of the tool. From a superseded run it is evidence and changes nothing."""

    step_id: str
    call_id: str
    result: StoredResult
    duration_ms: float


class ToolDenied(Event, type="tool.denied", follows={_S.EXECUTING}, writer="run"):
    """A call was not sent because a rule forbids it (G5); `rule` is its name.

    If a model proposed the call, `turn` and `index` identify it, and the model receives the refusal as its result.
    """

    step_id: str
    server: str
    tool: str
    rule: str
    message: str
    turn: int | None = Field(default=None, exclude_if=is_none)
    index: int | None = Field(default=None, exclude_if=is_none)


class CallApprovalRequested(
    Event, type="call.approval_requested", follows={_S.EXECUTING, _S.NEEDS_ATTENTION}, writer="run"
):
    """A call needs a person's approval of its concrete arguments. `reason`: why. It is sent after the approval."""

    step_id: str
    call_id: str
    server: str
    tool: str
    arguments: JsonObject
    arguments_digest: str
    reason: str
    turn: int | None = Field(default=None, exclude_if=is_none)
    index: int | None = Field(default=None, exclude_if=is_none)


class CallApproved(Event, SignedEvent, type="call.approved", follows={_S.NEEDS_ATTENTION}):
    """A concrete call was approved. `scopes` as in `PlanApproved`. `arguments_digest` names what was shown.

    `edited_arguments`: what the approver had sent instead, with its digest; None: what was shown.
    """

    step_id: str
    call_id: str
    arguments_digest: str
    edited_arguments: JsonObject | None = Field(default=None, exclude_if=is_none)
    edited_digest: str | None = Field(default=None, exclude_if=is_none)
    actor: str = ANONYMOUS
    comment: str | None = None
    scopes: tuple[str, ...] = Field(default=(), exclude_if=is_empty)


class CallDenied(Event, SignedEvent, type="call.denied", follows={_S.NEEDS_ATTENTION}):
    step_id: str
    call_id: str
    arguments_digest: str
    actor: str = ANONYMOUS
    comment: str | None = None


class InputRequested(Event, type="input.requested", follows={_S.EXECUTING, _S.NEEDS_ATTENTION}, writer="run"):
    """A server asks the user something while its call is open. `requested_schema` describes the fields of an answer."""

    step_id: str
    call_id: str
    question_id: str
    server: str
    tool: str
    message: str
    requested_schema: JsonObject


class InputAnswered(Event, SignedEvent, type="input.answered", follows={_S.NEEDS_ATTENTION}):
    """A person answered the question of a server, declined it, or dismissed it (`cancel`).

    `content` is what the server gets, None unless it was answered.
    """

    step_id: str
    question_id: str
    action: AnswerAction
    content: JsonObject | None = None
    actor: str = ANONYMOUS


class InputWithdrawn(Event, type="input.withdrawn", follows={_S.NEEDS_ATTENTION}, writer="run"):
    """Nobody answered the question of a server, and nobody can any more; `reason` says why. The server is declined."""

    step_id: str
    question_id: str
    reason: str


class StepCompleted(Event, type="step.completed", follows={_S.EXECUTING}, writer="run"):
    """A step has its result. `note`: what a reader of the result should know."""

    step_id: str
    note: str | None = Field(default=None, exclude_if=is_none)


class StepFailed(Event, type="step.failed", follows={_S.EXECUTING}, writer="run"):
    """A step failed. `usage`, `duration_ms`: those of a model's answer that could not be used."""

    step_id: str
    code: str
    message: str
    usage: Usage = Field(default=Usage(), exclude_if=is_nothing)
    duration_ms: float = Field(default=0.0, exclude_if=is_zero)


class StepSkipped(Event, type="step.skipped", follows={_S.EXECUTING}, writer="run"):
    step_id: str
    reason: str


class StepOutcomeUnknown(
    Event, type="step.outcome_unknown", follows={_S.EXECUTING, _S.NEEDS_ATTENTION, _S.APPROVED}, writer="run"
):
    """A call was sent and its outcome is not known (G2). A person must resolve it."""

    step_id: str
    call_id: str
    reason: str


class StepResolved(Event, SignedEvent, type="step.resolved", follows={_S.NEEDS_ATTENTION}):
    """A person resolved a call of unknown outcome. `output` is used only with `done`."""

    step_id: str
    call_id: str
    resolution: Resolution
    output: JsonValue = None
    actor: str = ANONYMOUS
    comment: str | None = None


class BudgetExceeded(Event, type="budget.exceeded", follows={_S.EXECUTING}, writer="run"):
    budget: str
    limit: float
    used: float


class TaskCancelRequested(Event, SignedEvent, type="task.cancel_requested", follows=_OPEN):
    actor: str = ANONYMOUS
    reason: str | None = None


class TaskCompleted(Event, type="task.completed", follows={_S.EXECUTING}, writer="run", ends_task=True):
    result: str


class TaskFailed(
    Event, type="task.failed", follows={_S.PENDING, _S.AWAITING_APPROVAL, _S.EXECUTING}, writer="run", ends_task=True
):
    """The task failed. `usage`: the model's tokens for planning that failed."""

    code: str
    message: str
    step_id: str | None = None
    usage: Usage = Field(default=Usage(), exclude_if=is_nothing)


class TaskCancelled(Event, type="task.cancelled", follows=_OPEN, ends_task=True):
    """The task was cancelled. `unknown_steps`: the ids of the steps whose call was sent and may have had an effect."""

    unknown_steps: tuple[str, ...] = ()


class TaskExpired(Event, type="task.expired", follows={_S.AWAITING_APPROVAL}, ends_task=True):
    """Nobody approved the plan in time, which ends the task. Written by the service."""

    revision: int
    digest: str
