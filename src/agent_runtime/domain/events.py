"""What can happen to a task. A task *is* its events: every type here is a fact, named `noun.past`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import Field

from agent_runtime.domain.contract import Contract, Limits
from agent_runtime.domain.tools import StoredResult, ToolDefinition
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject, JsonValue, Value

ANONYMOUS = "anonymous"
"""The actor of a decision where the service does not ask who calls."""

POLICY = "policy"
"""The actor of an approval that the operator's policy gave."""


def _is_none(value: object) -> bool:
    return value is None


def _is_zero(number: float) -> bool:
    return not number


def _is_true(value: object) -> bool:
    return value is True


def _is_empty(value: Collection[object]) -> bool:
    return not value


def _is_nothing(usage: Usage) -> bool:
    return not usage.tokens


Resolution = Literal["done", "retry", "skip", "fail"]


class Event(Value):
    """A fact about a task. `type` is its name in the journal, on the stream and in the API."""

    @property
    def type(self) -> str:
        return TYPE_OF[type(self)]


class TaskSubmitted(Event):
    """Somebody asked for something. `tools` are the servers that the planner may use; null: all."""

    prompt: str
    approval: Literal["manual", "auto"] = "manual"
    tools: tuple[str, ...] | None = None
    limits: Limits = Limits()
    metadata: Mapping[str, str] = {}
    actor: str = ANONYMOUS
    request_key: str | None = None
    request_digest: str | None = None


class TaskClaimed(Event):
    """A runner took the task. Every later write of that run carries the epoch."""

    runner: str
    epoch: int


class PlanProposed(Event):
    """A plan was made. `definitions` are those that were pinned, by `server/tool`; `planner` says who made it.

    `identities` are the facts behind the digests of its servers, by id. `usage` is what a model took to make it.
    """

    revision: int
    digest: str
    contract: Contract
    definitions: Mapping[str, ToolDefinition]
    identities: Mapping[str, JsonObject] = Field(default={}, exclude_if=_is_empty)
    planner: str
    usage: Usage = Field(default=Usage(), exclude_if=_is_nothing)


class PlanApproved(Event):
    """Somebody let the plan run. `scopes` are those of the approver; none where the journal does not know them.

    `names_digest`: the approver said which plan they had read, by its digest.
    """

    revision: int
    digest: str
    actor: str = ANONYMOUS
    comment: str | None = None
    scopes: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    names_digest: bool = Field(default=True, exclude_if=_is_true)


class PlanRejected(Event):
    revision: int
    digest: str
    actor: str = ANONYMOUS
    reason: str | None = None


class PlanRevisionRequested(Event):
    """Somebody wants another plan than this one, and says what should be different."""

    feedback: str
    revision: int
    digest: str
    actor: str = ANONYMOUS


class PlanEdited(Event):
    """Somebody wrote the next revision by hand. `definitions` and `identities` as in `PlanProposed`."""

    revision: int
    digest: str
    contract: Contract
    definitions: Mapping[str, ToolDefinition]
    identities: Mapping[str, JsonObject] = Field(default={}, exclude_if=_is_empty)
    actor: str = ANONYMOUS


class PlanRepinned(Event):
    """What the plan was made for has changed, so it is the next revision: the same steps, with the pins of today.

    Earlier approvals of it are void. `differences` say what has changed, in the operator's words; all else as in
    `PlanProposed`.
    """

    revision: int
    digest: str
    contract: Contract
    definitions: Mapping[str, ToolDefinition]
    identities: Mapping[str, JsonObject] = Field(default={}, exclude_if=_is_empty)
    differences: tuple[str, ...] = ()


class StepStarted(Event):
    step_id: str
    title: str


class ModelCall(Value):
    """A call that a model proposes, in its own words: the function's name and the text of the arguments.

    `call_id` is the model's name for it, unique within one answer.
    """

    call_id: str
    name: str
    arguments: str


class ModelAnswered(Event):
    """A model answered for an agent step: its turn number `turn`, from 1. Written before any of its calls is sent.

    `items` is the answer as the model gave it, to be shown to it again; `calls` are the calls in it, in order;
    `answer` is its text where it proposes none, which ends the step. A recorded turn is never asked for again.
    """

    step_id: str
    turn: int
    items: tuple[JsonObject, ...]
    calls: tuple[ModelCall, ...] = ()
    answer: StoredResult | None = None
    usage: Usage = Usage()
    duration_ms: float = 0.0


class ToolCalled(Event):
    """The intent to call, written before the call is sent (G2). `attempt` counts from 1 for each approved use.

    `timeout_s` is what it may take, in seconds; so much of the budget is reserved while it is open. Of an agent step
    it is call number `index`, from 0, of the model's turn `turn`.
    """

    step_id: str
    call_id: str
    server: str
    tool: str
    arguments: JsonObject
    arguments_digest: str
    attempt: int
    timeout_s: float = 0.0
    turn: int | None = Field(default=None, exclude_if=_is_none)
    index: int | None = Field(default=None, exclude_if=_is_none)


class ToolReturned(Event):
    """What a call gave, an error of the tool included. With an old epoch it is evidence and changes nothing."""

    step_id: str
    call_id: str
    result: StoredResult
    duration_ms: float


class ToolDenied(Event):
    """A call that was not sent because a rule forbids it (G5); `rule` names it.

    Where a model proposed it, `turn` and `index` say in which answer, and the refusal is what the model gets for it.
    """

    step_id: str
    server: str
    tool: str
    rule: str
    message: str
    turn: int | None = Field(default=None, exclude_if=_is_none)
    index: int | None = Field(default=None, exclude_if=_is_none)


class CallApprovalRequested(Event):
    """A call whose concrete arguments need a person (`reason` says why); it is sent once they were approved."""

    step_id: str
    call_id: str
    server: str
    tool: str
    arguments: JsonObject
    arguments_digest: str
    reason: str
    turn: int | None = Field(default=None, exclude_if=_is_none)
    index: int | None = Field(default=None, exclude_if=_is_none)


class CallApproved(Event):
    """Somebody let a concrete call be sent. `scopes` as in `PlanApproved`."""

    step_id: str
    call_id: str
    arguments_digest: str
    actor: str = ANONYMOUS
    comment: str | None = None
    scopes: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)


class CallDenied(Event):
    step_id: str
    call_id: str
    arguments_digest: str
    actor: str = ANONYMOUS
    comment: str | None = None


class StepCompleted(Event):
    step_id: str


class StepFailed(Event):
    """`usage` and `duration_ms` are what a model took for an answer that could not be used."""

    step_id: str
    code: str
    message: str
    usage: Usage = Field(default=Usage(), exclude_if=_is_nothing)
    duration_ms: float = Field(default=0.0, exclude_if=_is_zero)


class StepSkipped(Event):
    step_id: str
    reason: str


class StepOutcomeUnknown(Event):
    """A call was sent and its outcome is not known (G2): a person must say."""

    step_id: str
    call_id: str
    reason: str


class StepResolved(Event):
    """A person said what became of a call of unknown outcome. `output` counts only with `done`."""

    step_id: str
    call_id: str
    resolution: Resolution
    output: JsonValue = None
    actor: str = ANONYMOUS
    comment: str | None = None


class BudgetExceeded(Event):
    budget: str
    limit: float
    used: float


class TaskCancelRequested(Event):
    actor: str = ANONYMOUS
    reason: str | None = None


class TaskCompleted(Event):
    result: str


class TaskFailed(Event):
    """`usage` is what was spent on a plan that was not found."""

    code: str
    message: str
    step_id: str | None = None
    usage: Usage = Field(default=Usage(), exclude_if=_is_nothing)


class TaskCancelled(Event):
    """`unknown_steps` are the ids of the steps whose call was sent and may have taken effect."""

    unknown_steps: tuple[str, ...] = ()


class TaskExpired(Event):
    """Nobody approved this plan in time. Written by the service; the task has ended."""

    revision: int
    digest: str


EVENTS: dict[str, type[Event]] = {
    "task.submitted": TaskSubmitted,
    "task.claimed": TaskClaimed,
    "plan.proposed": PlanProposed,
    "plan.approved": PlanApproved,
    "plan.rejected": PlanRejected,
    "plan.revision_requested": PlanRevisionRequested,
    "plan.edited": PlanEdited,
    "plan.repinned": PlanRepinned,
    "step.started": StepStarted,
    "model.answered": ModelAnswered,
    "tool.called": ToolCalled,
    "tool.returned": ToolReturned,
    "tool.denied": ToolDenied,
    "call.approval_requested": CallApprovalRequested,
    "call.approved": CallApproved,
    "call.denied": CallDenied,
    "step.completed": StepCompleted,
    "step.failed": StepFailed,
    "step.skipped": StepSkipped,
    "step.outcome_unknown": StepOutcomeUnknown,
    "step.resolved": StepResolved,
    "budget.exceeded": BudgetExceeded,
    "task.cancel_requested": TaskCancelRequested,
    "task.completed": TaskCompleted,
    "task.failed": TaskFailed,
    "task.cancelled": TaskCancelled,
    "task.expired": TaskExpired,
}
"""Every event by its name. A name, once written to a journal, keeps its meaning for ever."""

TYPE_OF = {kind: name for name, kind in EVENTS.items()}


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event in its place: number `seq` (from 1, without gaps) of its task's journal, at a UTC time.

    `epoch` is that of the run that wrote it, null for a decision from outside. `data` is the event's JSON,
    encoded once: the same bytes go to the journal and to every stream.
    """

    task_id: str
    seq: int
    epoch: int | None
    at: datetime
    event: Event
    data: str

    @property
    def type(self) -> str:
        return self.event.type


def record(task_id: str, seq: int, epoch: int | None, at: datetime, event: Event) -> EventRecord:
    """Put a new event in its place, and encode it."""
    return EventRecord(task_id, seq, epoch, at, event, event.model_dump_json())


def restore(task_id: str, seq: int, epoch: int | None, at: datetime, kind: str, data: str) -> EventRecord:
    """An event read back from a journal. Raises: KeyError for a name that this version does not know."""
    return EventRecord(task_id, seq, epoch, at, EVENTS[kind].model_validate_json(data), data)
