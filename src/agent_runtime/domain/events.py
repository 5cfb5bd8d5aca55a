"""What can happen to a task. A task *is* its events: every type here is a fact, named `noun.past`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import Field

from agent_runtime.domain.contract import Contract, Limits
from agent_runtime.domain.signature import SignedEvent
from agent_runtime.domain.status import TERMINAL, TaskStatus
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


Writer = Literal["run", "anyone"]
"""`run`: only the run that holds the newest claim. `anyone`: a decision from outside, the service itself, or a run."""

_S = TaskStatus
_OPEN = frozenset(TaskStatus) - TERMINAL

EVENTS: dict[str, type["Event"]] = {}
"""Every event by its name, in the order of this file. A name, once written to a journal, keeps its meaning for ever."""


class Event(Value):
    """A fact about a task. Each kind says in its class statement, and nowhere else, what is true of all its events.

    `type`: what it is called in the journal, on the stream and in the API.
    `follows`: the statuses of a task in which it may be written; `task.submitted` has none, because it comes first.
    `writer`: who may write it.
    `ends_task`: nothing comes after it (G7).
    """

    type: ClassVar[str]
    follows: ClassVar[frozenset[TaskStatus]]
    writer: ClassVar[Writer]
    ends_task: ClassVar[bool]

    def __init_subclass__(
        cls,
        *,
        type: str,  # noqa: A002 - the word of the journal and the API
        follows: Collection[TaskStatus] = (),
        writer: Writer = "anyone",
        ends_task: bool = False,
        **config: Any,
    ) -> None:
        super().__init_subclass__(**config)
        cls.type, cls.follows, cls.writer, cls.ends_task = type, frozenset(follows), writer, ends_task
        EVENTS[type] = cls


class TaskSubmitted(Event, SignedEvent, type="task.submitted"):
    """Somebody asked for something. `tools` are the servers that the planner may use; null: all."""

    prompt: str
    approval: Literal["manual", "auto"] = "manual"
    tools: tuple[str, ...] | None = None
    limits: Limits = Limits()
    metadata: Mapping[str, str] = {}
    actor: str = ANONYMOUS
    request_key: str | None = None
    request_digest: str | None = None


class TaskClaimed(Event, type="task.claimed", follows=_OPEN):
    """A runner took the task. Every later write of that run carries the epoch."""

    runner: str
    epoch: int


class PlanProposed(Event, type="plan.proposed", follows={_S.PENDING}):
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


class PlanApproved(Event, SignedEvent, type="plan.approved", follows={_S.AWAITING_APPROVAL}):
    """Somebody let the plan run. `scopes` are those of the approver; none where the journal does not know them.

    `names_digest`: the approver said which plan they had read, by its digest.
    """

    revision: int
    digest: str
    actor: str = ANONYMOUS
    comment: str | None = None
    scopes: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    names_digest: bool = Field(default=True, exclude_if=_is_true)


class PlanRejected(Event, SignedEvent, type="plan.rejected", follows={_S.AWAITING_APPROVAL}, ends_task=True):
    revision: int
    digest: str
    actor: str = ANONYMOUS
    reason: str | None = None


class PlanRevisionRequested(Event, SignedEvent, type="plan.revision_requested", follows={_S.AWAITING_APPROVAL}):
    """Somebody wants another plan than this one, and says what should be different."""

    feedback: str
    revision: int
    digest: str
    actor: str = ANONYMOUS


class PlanEdited(Event, SignedEvent, type="plan.edited", follows={_S.AWAITING_APPROVAL}):
    """Somebody wrote the next revision by hand. `definitions` and `identities` as in `PlanProposed`."""

    revision: int
    digest: str
    contract: Contract
    definitions: Mapping[str, ToolDefinition]
    identities: Mapping[str, JsonObject] = Field(default={}, exclude_if=_is_empty)
    actor: str = ANONYMOUS


class PlanRepinned(Event, type="plan.repinned", follows={_S.AWAITING_APPROVAL, _S.EXECUTING}):
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


class StepStarted(Event, type="step.started", follows={_S.EXECUTING}, writer="run"):
    step_id: str
    title: str


class ModelCall(Value):
    """A call that a model proposes, in its own words: the function's name and the text of the arguments.

    `call_id` is the model's name for it, unique within one answer.
    """

    call_id: str
    name: str
    arguments: str


class ModelAnswered(Event, type="model.answered", follows=_OPEN, writer="run"):
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


class ToolCalled(Event, type="tool.called", follows={_S.EXECUTING}, writer="run"):
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


class ToolReturned(Event, type="tool.returned", follows=_OPEN, writer="run"):
    """What a call gave, an error of the tool included. With an old epoch it is evidence and changes nothing."""

    step_id: str
    call_id: str
    result: StoredResult
    duration_ms: float


class ToolDenied(Event, type="tool.denied", follows={_S.EXECUTING}, writer="run"):
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


class CallApprovalRequested(
    Event, type="call.approval_requested", follows={_S.EXECUTING, _S.NEEDS_ATTENTION}, writer="run"
):
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


class CallApproved(Event, SignedEvent, type="call.approved", follows={_S.NEEDS_ATTENTION}):
    """Somebody let a concrete call be sent. `scopes` as in `PlanApproved`."""

    step_id: str
    call_id: str
    arguments_digest: str
    actor: str = ANONYMOUS
    comment: str | None = None
    scopes: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)


class CallDenied(Event, SignedEvent, type="call.denied", follows={_S.NEEDS_ATTENTION}):
    step_id: str
    call_id: str
    arguments_digest: str
    actor: str = ANONYMOUS
    comment: str | None = None


class StepCompleted(Event, type="step.completed", follows={_S.EXECUTING}, writer="run"):
    step_id: str


class StepFailed(Event, type="step.failed", follows={_S.EXECUTING}, writer="run"):
    """`usage` and `duration_ms` are what a model took for an answer that could not be used."""

    step_id: str
    code: str
    message: str
    usage: Usage = Field(default=Usage(), exclude_if=_is_nothing)
    duration_ms: float = Field(default=0.0, exclude_if=_is_zero)


class StepSkipped(Event, type="step.skipped", follows={_S.EXECUTING}, writer="run"):
    step_id: str
    reason: str


class StepOutcomeUnknown(
    Event, type="step.outcome_unknown", follows={_S.EXECUTING, _S.NEEDS_ATTENTION, _S.APPROVED}, writer="run"
):
    """A call was sent and its outcome is not known (G2): a person must say."""

    step_id: str
    call_id: str
    reason: str


class StepResolved(Event, SignedEvent, type="step.resolved", follows={_S.NEEDS_ATTENTION}):
    """A person said what became of a call of unknown outcome. `output` counts only with `done`."""

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
    """`usage` is what was spent on a plan that was not found."""

    code: str
    message: str
    step_id: str | None = None
    usage: Usage = Field(default=Usage(), exclude_if=_is_nothing)


class TaskCancelled(Event, type="task.cancelled", follows=_OPEN, ends_task=True):
    """`unknown_steps` are the ids of the steps whose call was sent and may have taken effect."""

    unknown_steps: tuple[str, ...] = ()


class TaskExpired(Event, type="task.expired", follows={_S.AWAITING_APPROVAL}, ends_task=True):
    """Nobody approved this plan in time. Written by the service; the task has ended."""

    revision: int
    digest: str


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


def make_record(task_id: str, seq: int, epoch: int | None, at: datetime, event: Event) -> EventRecord:
    """Put a new event in its place, and encode it."""
    return EventRecord(task_id, seq, epoch, at, event, event.model_dump_json())


def restore_record(task_id: str, seq: int, epoch: int | None, at: datetime, kind: str, data: str) -> EventRecord:
    """An event read back from a journal. Raises: KeyError for a name that this version does not know."""
    return EventRecord(task_id, seq, epoch, at, EVENTS[kind].model_validate_json(data), data)
