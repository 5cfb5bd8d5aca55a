"""The shapes of responses about tasks. `views` fills them, and /openapi.json documents them."""

from collections.abc import Mapping
from typing import Literal

from typing_extensions import TypedDict

from agent_runtime.domain.rerun import RerunFrom
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus
from agent_runtime.domain.tools import Effect
from agent_runtime.domain.values import JsonObject, JsonValue


class TaskLinks(TypedDict):
    self: str
    approve: str
    reject: str
    cancel: str
    stream: str
    events: str


class TaskCreated(TypedDict):
    task_id: str
    status: TaskStatus
    links: TaskLinks


class StreamTicket(TypedDict):
    """A ticket that opens the stream of one task without a key, until `expires_at`. `url` contains the ticket."""

    ticket: str
    expires_at: str
    url: str


class ErrorView(TypedDict):
    code: str
    message: str
    step_id: str | None


class TouchView(TypedDict):
    """An object that a step would touch, named by an argument of the plan.

    `resolved` is false while the value contains a reference. `argument` and `value` are `null` if a model chooses them.
    """

    server: str
    tool: str
    argument: str | None
    value: str | None
    resolved: bool


class PreviewView(TypedDict):
    """The effect of a step according to the contract.

    `sentence` describes the step for people. `likely_effect` is `effect`, or `write` where the file that the step would
    replace does not exist now; `effect_text` is a short text on it, with the claim of a server that is not trusted.
    `asks` is the reason why a person must approve its call separately, or `null`. `covers` is the reason that would
    apply if the approval of the plan did not include the call.
    """

    sentence: str
    effect: Effect
    likely_effect: Effect
    effect_text: str
    idempotent: bool
    touches: list[TouchView]
    waits_on: tuple[str, ...]
    asks: str | None
    covers: str | None


class StepPreviewView(PreviewView):
    step_id: str


class PlanPreview(TypedDict):
    """The effect of the current plan, step by step.

    `as_of` is the time at which the files of the plan were looked at, which the sentences and likely effects mention;
    `null` if none was.
    """

    task_id: str
    plan_revision: int
    plan_digest: str | None
    as_of: str | None
    steps: list[StepPreviewView]


class StepView(TypedDict):
    """One step of the plan. `server` and `tool` are `null` for an agent step; `output` is the start of its text."""

    id: str
    title: str
    kind: str
    server: str | None
    tool: str | None
    status: StepStatus
    started_at: str | None
    ended_at: str | None
    attempts: int
    output: str | None
    note: str | None
    error: ErrorView | None
    preview: PreviewView


class ApprovalView(TypedDict):
    """A decision of a person or of the operator's policy. `digest` is that of what was shown.

    `edited_digest` is that of the arguments with which a call was approved instead, or `null`.
    """

    who: str
    when: str
    digest: str | None
    decision: str
    comment: str | None
    step_id: str | None
    edited_digest: str | None


class AttentionView(TypedDict):
    """A question that a person must answer before the task continues.

    `outcome_unknown`: answer with `POST .../resolve`. `call_approval`: answer with
    `POST .../calls/{call_id}/approve` or `.../deny`; an approved call is sent with exactly these arguments, or with
    those that the approval edits. `edited_by` is who edited these already, or `null`. `input_schema` is that of the
    tool, as the plan pins it, for a form.
    `effect` and `idempotent` are those that the plan was approved with; `hints` are the server's own claims (MCP
    annotations), which nothing relies on.
    `asked_at` is when a person was asked. `sent_at` and `attempt` are those of a call of unknown outcome: `null` and 0
    before a call is sent. No answer to such a call was received; `reason` says what was seen instead.
    `needed_by` lists the unfinished steps that need this one, directly or indirectly; skipping the step or denying its
    call skips them too.
    """

    kind: Literal["outcome_unknown", "call_approval"]
    step_id: str
    call_id: str
    server: str
    tool: str
    arguments: JsonObject
    arguments_digest: str
    edited_by: str | None
    input_schema: JsonObject
    effect: Effect
    idempotent: bool
    hints: dict[str, bool]
    asked_at: str | None
    sent_at: str | None
    attempt: int
    reason: str
    needed_by: list[str]
    actions: tuple[str, ...]


class WaitingView(TypedDict):
    """A server, a model or a planner that cannot be reached now.

    `reason` is the error of the last attempt, which was number `attempt` since `since`. The next attempt is at
    `next_try_at`, or is running. The task fails if an attempt fails after `gives_up_at`.
    """

    kind: Literal["server", "model", "planner"]
    name: str
    reason: str
    attempt: int
    since: str
    next_try_at: str
    gives_up_at: str


class JournalChangedView(TypedDict):
    """The stored journal of the task was changed. The task no longer runs and can only be deleted.

    `record` is the number of the first event that does not match, and `reason` describes the mismatch.
    """

    kind: Literal["journal_changed"]
    record: int
    reason: str
    actions: tuple[str, ...]


class InputView(TypedDict):
    """A question that a server asks the user while its call is open. Answer with `POST .../answers/{question_id}`.

    `message` and `schema` come from the server. `schema` is a JSON Schema of an object with simple fields, for a form.
    `asked_at` is when the server asked, and `sent_at` when its call was sent.
    """

    kind: Literal["input"]
    step_id: str
    call_id: str
    question_id: str
    server: str
    tool: str
    message: str
    schema: JsonObject
    asked_at: str | None
    sent_at: str | None
    needed_by: list[str]
    actions: tuple[str, ...]


AnyAttentionView = AttentionView | InputView | JournalChangedView


class UsageView(TypedDict):
    input_tokens: int
    output_tokens: int
    tool_calls: int


class RepeatedCallView(TypedDict):
    """Calls of the earlier task that the plan may make again. `step_id` is the step that made them.

    `unknown` is true if the outcome of at least one of them is unknown.
    """

    step_id: str
    server: str
    tool: str
    count: int
    unknown: bool
    idempotent: bool


RerunView = TypedDict(
    "RerunView",
    {
        "task_id": str,
        "head": str,
        "from": RerunFrom,
        "reused": list[str],
        "repeats": list[RepeatedCallView],
    },
)
"""The finished task that this one runs again, and the last hash of its journal.

`reused` lists the steps whose results are taken from it.
"""


class RevisionFailedView(TypedDict):
    """The reason why no other plan could be made from the newest `feedback`, so that the plan before awaits approval.

    `code` and `message` are those of the failure.
    """

    feedback: str
    code: str
    message: str


class TaskView(TypedDict):
    """The current state of a task. `plan` is readable text; `plan_digest` is the digest of `plan_object`.

    `plan_notes` are the last lines of `plan`: the results and calls that a rerun reuses and repeats, and warnings about
    names that look alike. `revision_failed` is `null` unless the plan was sent back and no other could be made.

    `result` is a text to show: the result of a completed task, the error of a failed task, the running steps of an
    executing task, the open questions of a task that needs attention, or why no other plan could be made.
    """

    task_id: str
    prompt: str
    status: TaskStatus
    terminal: bool
    plan: str | None
    plan_notes: list[str]
    result: str | None
    plan_object: JsonObject | None
    plan_revision: int
    plan_digest: str | None
    revision_failed: RevisionFailedView | None
    steps: list[StepView]
    approvals: list[ApprovalView]
    attention: list[AnyAttentionView]
    waiting_for: WaitingView | None
    cancel_requested: bool
    error: ErrorView | None
    rerun_of: RerunView | None
    metadata: Mapping[str, str]
    thread: str | None
    usage: UsageView
    created_at: str | None
    updated_at: str | None


class RevisionView(TypedDict):
    """A revision of the plan. `feedback` is the feedback on the previous revision that this one answers."""

    revision: int
    digest: str
    at: str
    by: str
    feedback: str | None
    plan_object: JsonObject


class RevisionsView(TypedDict):
    revisions: list[RevisionView]


DifferenceView = TypedDict("DifferenceView", {"from": JsonValue, "to": JsonValue})
"""The values of a field before and after, `null` where the field did not exist."""


SentencesView = TypedDict("SentencesView", {"from": str | None, "to": str | None})


class ChangeView(TypedDict):
    """A change in a step, or in the plan as a whole if `step_id` is `null`.

    `sentence` has the sentences that describe the step before and after, `null` where there is no such step.
    """

    step_id: str | None
    change: str
    fields: dict[str, DifferenceView]
    sentence: SentencesView


DiffView = TypedDict("DiffView", {"from": int, "to": int, "text": str, "changes": list[ChangeView]})
"""The differences between two revisions. `text` is like a unified diff."""


class SummaryView(TypedDict):
    task_id: str
    status: TaskStatus
    terminal: bool
    prompt: str
    plan_revision: int
    cancel_requested: bool
    metadata: Mapping[str, str]
    thread: str | None
    created_at: str | None
    updated_at: str | None


class PageView(TypedDict):
    tasks: list[SummaryView]
    next_cursor: str | None


class Approved(TypedDict):
    message: str
    task_id: str
    status: TaskStatus
    plan_revision: int
    plan_digest: str | None


class EventView(TypedDict):
    """One event of the journal. `epoch` is that of the run that wrote it, or `null` for a decision of a caller."""

    seq: int
    task_id: str
    type: str
    at: str
    epoch: int | None
    data: JsonObject


class EventsView(TypedDict):
    """A page of the journal. `next_after` is the value of `after` for the next page, or `null` at the end."""

    events: list[EventView]
    next_after: int | None
