"""A task: the state that its journal folds to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from agent_runtime.domain.contract import Contract, Limits
from agent_runtime.domain.errors import JournalChangedError
from agent_runtime.domain.events import ANONYMOUS, POLICY, ModelCall, Objection
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.rerun import Rerun
from agent_runtime.domain.status import TERMINAL, TaskStatus
from agent_runtime.domain.tools import StoredResult, ToolDefinition, tool_key
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject


class StepStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    ASKING = "awaiting_approval"
    UNKNOWN = "outcome_unknown"


@dataclass(frozen=True, slots=True)
class Call:
    """The latest call of a step. `result` is None while it is open.

    `waited`: the attempt after which the task last waited for the end of an outage; 0 if it did not. `sent_at`: when
    its intent was written, right before it was sent.
    """

    call_id: str
    epoch: int
    server: str
    tool: str
    arguments: JsonObject
    arguments_digest: str
    attempt: int
    timeout_s: float = 0.0
    result: StoredResult | None = None
    waited: int = 0
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AskedCall:
    """A concrete call that a person was asked to approve. `granted`: it was approved, with these arguments."""

    call_id: str
    server: str
    tool: str
    arguments: JsonObject
    arguments_digest: str
    reason: str
    granted: bool = False


@dataclass(frozen=True, slots=True)
class EditedArguments:
    """The arguments that a person put in place of those of the plan or the model. `editor`: the name of the person."""

    arguments: JsonObject
    arguments_digest: str
    editor: str


@dataclass(frozen=True, slots=True)
class AskedInput:
    """A question of a server to the user during its call (MCP elicitation)."""

    question_id: str
    call_id: str
    server: str
    tool: str
    message: str
    requested_schema: JsonObject


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of a model: its items, the calls it proposes, and the replies to them so far, in order.

    `answer` is its text if it proposes no calls. `objection`: why it is no result. `edited`: the arguments with which a
    person had calls sent, by their place in `calls`.
    """

    items: tuple[JsonObject, ...]
    calls: tuple[ModelCall, ...]
    answer: StoredResult | None
    replies: tuple[StoredResult, ...] = ()
    objection: Objection | None = None
    edited: Mapping[int, JsonObject] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PendingCall:
    """The next call of an agent step: number `index` (from 0) of turn `turn` (from 1)."""

    turn: int
    index: int
    call: ModelCall


@dataclass(frozen=True, slots=True)
class StepState:
    """The progress of a step, with its latest call and, if it needs one, the approval of that call.

    `edited`: the arguments of its current call, if a person changed them. They also count for repetitions.

    For an agent step, `call` is the call that is not yet settled, `turns` are the model's answers, and `sent` are the
    tools called for them (`server/tool`), without repetitions. `decided`: the ids of the calls and questions that a
    person decided. `question`: what the server of the open call asks. `asked_at`: when a person was last asked for a
    decision. `note`: what a reader of the result should know.
    """

    status: StepStatus = StepStatus.PENDING
    asked: AskedCall | None = None
    edited: EditedArguments | None = None
    call: Call | None = None
    turns: tuple[Turn, ...] = ()
    sent: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()
    question: AskedInput | None = None
    asked_at: datetime | None = None
    result: StoredResult | None = None
    note: str | None = None
    code: str | None = None
    message: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in {StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.FAILED}

    @property
    def pending(self) -> PendingCall | None:
        """The next call that the model proposes. Its calls are made one after the other."""
        turn = self.turns[-1] if self.turns else None
        if turn is None or len(turn.replies) == len(turn.calls):
            return None
        return PendingCall(len(self.turns), len(turn.replies), turn.calls[len(turn.replies)])

    @property
    def open_call(self) -> Call | None:
        return self.call if self.status is StepStatus.RUNNING and self.call and self.call.result is None else None


@dataclass(frozen=True, slots=True)
class Approval:
    """A recorded decision about a plan or a step. `edited_digest`: the digest of the arguments that were edited."""

    actor: str
    at: datetime
    decision: str
    digest: str | None = None
    step_id: str | None = None
    comment: str | None = None
    edited_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The server, model or planner that a task waits for: the latest `task.waiting`, until its outage is over.

    `since` is the time at which attempt number 1 failed; `same_exits` counts the latest attempts that failed alike.
    `tried`: a call was repeated since, and its outcome is not known yet, or was the same outage.
    """

    kind: Literal["server", "model", "planner"]
    name: str
    reason: str
    attempt: int
    since: datetime
    next_try_at: datetime
    gives_up_at: datetime
    exit_mark: str | None = None
    same_exits: int = 0
    tried: bool = False


@dataclass(frozen=True, slots=True)
class TaskError:
    code: str
    message: str
    step_id: str | None = None


@dataclass(frozen=True, slots=True)
class RevisionFailure:
    """The reason why no other plan could be made from the newest feedback."""

    feedback: str
    code: str
    message: str


JOURNAL_BYTES = 32 * 1024 * 1024
"""The default limit of a task's journal, in bytes (G11). A journal is read as a whole and kept in memory."""


@dataclass(frozen=True, slots=True)
class JournalChange:
    """The evidence that a stored journal was tampered with: the number of the record, and the reason."""

    record: int
    reason: str


@dataclass(frozen=True, slots=True)
class Task:
    """The state of one task: the fold of `evolve` over its journal, and nothing else. `version` is the last `seq`.

    `journal_change` is set if the stored journal was tampered with. The status is then `needs_attention`, the other
    fields hold what could be folded, and the task can only be deleted.

    `authors`: everybody who shaped the task, the submitter first: who edited a plan, gave feedback to a planner or a
    model, or stated the result of a call. `feedback`: the feedback on earlier plans, in order, without that from which
    no plan could be made. `feedback_by`: who gave the newest, until a plan is made from it.

    About the current plan: `identities` are the facts about its servers, by id. `planned_at`: when it was proposed,
    edited or repinned, or could not be revised. `revision_failure`: why it could not, or None. `has_begun`: a step was
    started. `approved_by`: who approved it, or None. `approval_names_digest`: the approver named the plan's digest.
    """

    task_id: str
    version: int = 0
    epoch: int = 0
    runner: str | None = None
    status: TaskStatus = TaskStatus.PENDING
    prompt: str = ""
    authors: tuple[str, ...] = ()
    approval: str = "manual"
    tools: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_key: str | None = None
    request_digest: str | None = None
    rerun: Rerun | None = None
    thread: str | None = None
    contract: Contract | None = None
    definitions: Mapping[str, ToolDefinition] = field(default_factory=dict)
    identities: Mapping[str, JsonObject] = field(default_factory=dict)
    plan_revision: int = 0
    plan_digest: str | None = None
    planned_at: datetime | None = None
    feedback: tuple[str, ...] = ()
    feedback_by: str | None = None
    revision_failure: RevisionFailure | None = None
    steps: Mapping[str, StepState] = field(default_factory=dict)
    has_begun: bool = False
    approvals: tuple[Approval, ...] = ()
    approved_by: str | None = None
    approval_names_digest: bool = True
    cancel_requested: bool = False
    waiting: Waiting | None = None
    journal_change: JournalChange | None = None
    result: str | None = None
    error: TaskError | None = None
    tool_calls: int = 0
    call_seconds: float = 0.0
    journal_bytes: int = 0
    usage: Usage = field(default_factory=Usage)
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def is_for_person(self) -> bool:
        """Return whether a person approved the current plan or will; otherwise the operator's policy did."""
        return self.approved_by != POLICY

    @property
    def times_sent_back(self) -> int:
        """The number of times that a person asked for another plan than the current one."""
        return sum(one.decision == "revise" and one.digest == self.plan_digest for one in self.approvals)

    @property
    def submitter(self) -> str:
        return self.authors[0] if self.authors else ANONYMOUS

    def plan_step(self, step_id: str) -> ToolStep | AgentStep:
        """Return the step of the current plan with this id. Raises: KeyError."""
        for step in self.contract.steps if self.contract else ():
            if step.id == step_id:
                return step
        raise KeyError(step_id)

    def unmet_needs(self, step: ToolStep | AgentStep) -> list[str]:
        """Return the ids, sorted, of the needed steps that have not completed."""
        return sorted(name for name in step.needs if self.steps[name].status is not StepStatus.COMPLETED)

    @property
    def results(self) -> dict[str, StoredResult]:
        """The stored results of the steps that have completed, by step id."""
        return {name: step.result for name, step in self.steps.items() if step.result is not None}

    @property
    def servers(self) -> frozenset[str]:
        """The ids of the servers that the plan names; none without a plan."""
        return self.contract.server_ids if self.contract else frozenset()

    @property
    def open_calls(self) -> dict[str, Call]:
        """The calls that have no result, by step id."""
        return {name: step.open_call for name, step in self.steps.items() if step.open_call}

    @property
    def asks_person(self) -> bool:
        """Return whether a step waits for a person."""
        asking = {StepStatus.UNKNOWN, StepStatus.ASKING}
        return any(step.status in asking or step.question for step in self.steps.values())

    @property
    def questions(self) -> dict[str, AskedInput]:
        """The open questions of servers, by step id."""
        return {name: step.question for name, step in self.steps.items() if step.question}

    @property
    def unknown_steps(self) -> tuple[str, ...]:
        return tuple(name for name, step in self.steps.items() if step.status is StepStatus.UNKNOWN)


def expect_unchanged(task: Task) -> None:
    """Check that the journal was not tampered with. Raises: JournalChangedError."""
    change = task.journal_change
    if change is not None:
        raise JournalChangedError(
            f"The journal of task {task.task_id} was changed at record {change.record}: {change.reason} Nothing is "
            "done with the task any more; it can only be deleted.",
            task.status,
        )


MOST_ATTEMPTS = 3
"""How often an idempotent call of unknown outcome may be sent, unless the step allows more retries (G2)."""


LONGEST_PAUSE_S = 5.0
"""The longest pause before a repetition within one run. A server that asks for more is left alone by the whole task."""


def may_repeat(task: Task, step_id: str) -> bool:
    """Return whether the latest call of a running step may be repeated.

    Only calls of idempotent tools may: after an error `retries` times, and after an unknown outcome until the call was
    sent `MOST_ATTEMPTS` or `retries + 1` times, whichever is more. A call of any tool may as often if it never left.
    After a wait for the end of an outage, the count begins again.
    """
    call, step = task.steps[step_id].call, task.plan_step(step_id)
    if call is None or not _is_harmless(task, call):
        return False
    retries = step.retries if isinstance(step, ToolStep) else 0
    tries = call.attempt - call.waited
    if call.result is None or call.result.unsent:
        return tries < max(MOST_ATTEMPTS, retries + 1)
    return call.result.is_error and tries <= retries


def may_outlast(task: Task, call: Call) -> bool:
    """Return whether the latest call of a running step may be repeated after a wait for the end of an outage.

    It must have met one, as far as the journal knows: it has no result, or one that says so.
    """
    met_outage = call.result is None or call.result.retry_after_s is not None
    return met_outage and _is_harmless(task, call)


def must_rest(task: Task, call: Call) -> bool:
    """Return whether a call is not to be repeated before the task has waited: its server asks for that, or the outage
    has lasted longer than one run.
    """
    asked_s = call.result.retry_after_s if call.result else None
    if asked_s is None or call.waited == call.attempt:
        return False
    return asked_s > LONGEST_PAUSE_S or task.waiting is not None


def _is_harmless(task: Task, call: Call) -> bool:
    """Return whether a repetition cannot do anything twice: the call never left, or its tool is idempotent."""
    if call.result is not None and call.result.unsent:
        return True
    return task.contract is not None and task.contract.policy[tool_key(call.server, call.tool)].idempotent
