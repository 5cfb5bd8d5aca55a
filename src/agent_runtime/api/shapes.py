"""The shapes of what callers get; `views` fills them, and /openapi.json documents them."""

from collections.abc import Mapping
from typing import Literal

from typing_extensions import TypedDict

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


class StatusView(TypedDict):
    """The service at a glance. `tasks`: how many there are in each status that occurs. `servers`: by id, the detail."""

    status: str
    version: str
    planner: str
    tasks: dict[str, int]
    servers: dict[str, str]


class StreamTicket(TypedDict):
    """Opens the stream of one task until `expires_at`, in place of a key. `url` has the ticket in it."""

    ticket: str
    expires_at: str
    url: str


class ErrorView(TypedDict):
    code: str
    message: str
    step_id: str | None


class TouchView(TypedDict):
    """What an argument names, as the plan has it; not `resolved` while a reference is in it. Null: a model chooses."""

    server: str
    tool: str
    argument: str | None
    value: str | None
    resolved: bool


class PreviewView(TypedDict):
    """What a step would do, as the contract has it. `asks`: why its concrete call would be asked for, or null.

    `covers`: why it would be, if whoever approves the plan did not approve the call with it.
    """

    effect: Effect
    idempotent: bool
    touches: list[TouchView]
    waits_on: tuple[str, ...]
    asks: str | None
    covers: str | None


class StepPreviewView(PreviewView):
    step_id: str


class PlanPreview(TypedDict):
    """What the current plan would do, step by step."""

    task_id: str
    plan_revision: int
    plan_digest: str | None
    steps: list[StepPreviewView]


class StepView(TypedDict):
    """One step of the plan. `server` and `tool` are null for an agent step; `output` is a preview of its text."""

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
    error: ErrorView | None
    preview: PreviewView


class ApprovalView(TypedDict):
    """A decision of a person, or of the operator's policy."""

    who: str
    when: str
    digest: str | None
    decision: str
    comment: str | None
    step_id: str | None


class AttentionView(TypedDict):
    """Something that a person must say before the task goes on.

    `outcome_unknown`: see `POST .../resolve`. `call_approval`: a call that is sent with exactly these arguments once
    `POST .../calls/{call_id}/approve` names their digest. `needed_by`: the unfinished steps that need this one,
    directly or not; to skip it, or to deny its call, skips them too.
    """

    kind: Literal["outcome_unknown", "call_approval"]
    step_id: str
    call_id: str
    server: str
    tool: str
    arguments: JsonObject
    arguments_digest: str
    reason: str
    needed_by: list[str]
    actions: tuple[str, ...]


class JournalChangedView(TypedDict):
    """What is stored of the task is not what was written: nothing is done with it, and it can only be deleted.

    `record` is the number of the first event where it shows, `reason` how.
    """

    kind: Literal["journal_changed"]
    record: int
    reason: str
    actions: tuple[str, ...]


class UsageView(TypedDict):
    input_tokens: int
    output_tokens: int
    tool_calls: int


class TaskView(TypedDict):
    """A task as it stands. `plan` is readable text; `plan_object` is what `plan_digest` is the digest of.

    `plan_notes` are its last lines: what to know of names in it that cannot be told apart by sight.

    `result` is a text to show: the result of a completed task, the error of a failed one, while executing the steps
    that run, and while `needs_attention` what is asked and where to answer.
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
    steps: list[StepView]
    approvals: list[ApprovalView]
    attention: list[AttentionView | JournalChangedView]
    cancel_requested: bool
    error: ErrorView | None
    metadata: Mapping[str, str]
    usage: UsageView
    created_at: str | None
    updated_at: str | None


class RevisionView(TypedDict):
    """A plan as it was proposed or edited. `feedback` is what was said of the plan before, where this answers it."""

    revision: int
    digest: str
    at: str
    by: str
    feedback: str | None
    plan_object: JsonObject


class RevisionsView(TypedDict):
    revisions: list[RevisionView]


DifferenceView = TypedDict("DifferenceView", {"from": JsonValue, "to": JsonValue})
"""A field before and after, null where it was not there."""


class ChangeView(TypedDict):
    """What differs in a step, or, where `step_id` is null, in the plan as a whole."""

    step_id: str | None
    change: str
    fields: dict[str, DifferenceView]


DiffView = TypedDict("DiffView", {"from": int, "to": int, "text": str, "changes": list[ChangeView]})
"""What differs between two revisions. `text` has lines in the manner of a unified diff."""


class SummaryView(TypedDict):
    task_id: str
    status: TaskStatus
    terminal: bool
    prompt: str
    plan_revision: int
    cancel_requested: bool
    metadata: Mapping[str, str]
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
    """One event of the journal. `epoch` is that of the run that wrote it, null for a decision from outside."""

    seq: int
    task_id: str
    type: str
    at: str
    epoch: int | None
    data: JsonObject


class EventsView(TypedDict):
    """A part of the journal. `next_after` is what to ask for next, null where this was the end for now."""

    events: list[EventView]
    next_after: int | None


class ToolView(TypedDict):
    """A tool of the catalogue. One that is not `available` has a `detail` saying why, and may lack the rest."""

    server: str
    tool: str
    title: str | None
    description: str | None
    input_schema: JsonObject | None
    output_schema: JsonObject | None
    effect: str | None
    idempotent: bool | None
    open_world: bool | None
    approval: str | None
    timeout_s: float | None
    pin: str | None
    status: str
    detail: str | None


class ToolsView(TypedDict):
    """One page of the catalogue. `next_cursor` is null on the last."""

    tools: list[ToolView]
    next_cursor: str | None


class ServerStatusView(TypedDict):
    id: str
    name: str
    type: str
    enabled: bool
    connected: bool
    detail: str


class ModelView(TypedDict):
    """A language model, as it was found when it was last asked. `output`: how it is held to a schema; null: not known.

    `circuit` is `open` while it is left alone because it failed too often. `last_error` is null after an answer.
    """

    endpoint: str
    model: str
    api: Literal["responses", "chat_completions"]
    circuit: Literal["closed", "half_open", "open"]
    output: Literal["json_schema", "json_object", "prompt"] | None
    last_error: str | None


class ModelsStatusView(TypedDict):
    """Who makes the plans, and the language model; null where none is configured."""

    planner: str
    model: ModelView | None
