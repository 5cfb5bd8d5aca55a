"""The shapes of the service's answers, as dictionaries with known fields. See docs/reference/task.md.

They name the fields of `api/shapes.py`, without the libraries that the service needs; a test compares them. A newer
service may send more fields.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

TaskStatus = Literal[
    "pending",
    "awaiting_approval",
    "approved",
    "executing",
    "needs_attention",
    "completed",
    "failed",
    "rejected",
    "cancelled",
    "expired",
]
Json = Any
"""A value that JSON can carry."""


class TaskLinks(TypedDict):
    self: str
    approve: str
    reject: str
    cancel: str
    stream: str
    events: str


class TaskCreated(TypedDict):
    """A new task."""

    task_id: str
    status: TaskStatus
    links: TaskLinks


class Approved(TypedDict):
    """An approved plan. `plan_digest` is None without the scope `read`."""

    message: str
    task_id: str
    status: TaskStatus
    plan_revision: int
    plan_digest: str | None


class TaskError(TypedDict):
    code: str
    message: str
    step_id: str | None


class Touch(TypedDict):
    """An object that a step would touch. `argument` and `value` are None if a model chooses them."""

    server: str
    tool: str
    argument: str | None
    value: str | None
    resolved: bool


class Preview(TypedDict):
    """The effect of a step. `sentence` describes the step for people.

    `asks` is the reason why a person must approve its call separately, or None.
    """

    sentence: str
    effect: str
    likely_effect: str
    effect_text: str
    idempotent: bool
    touches: list[Touch]
    waits_on: list[str]
    asks: str | None
    covers: str | None


class Step(TypedDict):
    """A step of the plan. `server` and `tool` are None for an agent step; `output` is the start of its text."""

    id: str
    title: str
    kind: str
    server: str | None
    tool: str | None
    status: Literal["pending", "running", "completed", "failed", "skipped", "awaiting_approval", "outcome_unknown"]
    started_at: str | None
    ended_at: str | None
    attempts: int
    output: str | None
    note: str | None
    error: TaskError | None
    preview: Preview


class Approval(TypedDict):
    """A decision of a person or of the operator's policy."""

    who: str
    when: str
    digest: str | None
    decision: str
    comment: str | None
    step_id: str | None
    edited_digest: str | None


class CallQuestion(TypedDict):
    """A call that a person must decide on.

    Answer `call_approval` with `approve_call` or `deny_call`, and `outcome_unknown` with `resolve`. `hints` are the
    server's own claims. `sent_at` is None, and `attempt` 0, before the call is sent.
    """

    kind: Literal["outcome_unknown", "call_approval"]
    step_id: str
    call_id: str
    server: str
    tool: str
    arguments: dict[str, Json]
    arguments_digest: str
    edited_by: str | None
    input_schema: dict[str, Json]
    effect: str
    idempotent: bool
    hints: dict[str, bool]
    asked_at: str | None
    sent_at: str | None
    attempt: int
    reason: str
    needed_by: list[str]
    actions: list[str]


class InputQuestion(TypedDict):
    """A question that a server asks while its call is open. Answer with `answer`."""

    kind: Literal["input"]
    step_id: str
    call_id: str
    question_id: str
    server: str
    tool: str
    message: str
    schema: dict[str, Json]
    asked_at: str | None
    sent_at: str | None
    needed_by: list[str]
    actions: list[str]


class ChangedJournal(TypedDict):
    """The stored journal of the task was changed. The task no longer runs and can only be deleted."""

    kind: Literal["journal_changed"]
    record: int
    reason: str
    actions: list[str]


Question = CallQuestion | InputQuestion | ChangedJournal
"""A question to a person; `kind` says which it is."""


class Waiting(TypedDict):
    """A server, a model or a planner that cannot be reached now."""

    kind: Literal["server", "model", "planner"]
    name: str
    reason: str
    attempt: int
    since: str
    next_try_at: str
    gives_up_at: str


class RepeatedCall(TypedDict):
    """Calls of the earlier task that the plan of a rerun may make again."""

    step_id: str
    server: str
    tool: str
    count: int
    unknown: bool
    idempotent: bool


Rerun = TypedDict(
    "Rerun",
    {
        "task_id": str,
        "head": str,
        "from": Literal["start", "failed_step"],
        "reused": list[str],
        "repeats": list[RepeatedCall],
    },
)
"""The finished task that this one runs again, and what it reuses and repeats."""


class Usage(TypedDict):
    input_tokens: int
    output_tokens: int
    tool_calls: int


class RevisionFailure(TypedDict):
    """The reason why no other plan could be made from the newest `feedback`."""

    feedback: str
    code: str
    message: str


class Task(TypedDict):
    """The current state of a task. `plan` is readable text; `plan_digest` names exactly `plan_object`."""

    task_id: str
    prompt: str
    status: TaskStatus
    terminal: bool
    plan: str | None
    plan_notes: list[str]
    result: str | None
    plan_object: dict[str, Json] | None
    plan_revision: int
    plan_digest: str | None
    revision_failed: RevisionFailure | None
    steps: list[Step]
    approvals: list[Approval]
    attention: list[Question]
    waiting_for: Waiting | None
    cancel_requested: bool
    error: TaskError | None
    rerun_of: Rerun | None
    metadata: Mapping[str, str]
    thread: str | None
    usage: Usage
    created_at: str | None
    updated_at: str | None


class TaskSummary(TypedDict):
    """A task in a list."""

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


class TaskPage(TypedDict):
    """A page of tasks, newest first. `next_cursor` gives the next page; it is None on the last."""

    tasks: list[TaskSummary]
    next_cursor: str | None


class Event(TypedDict):
    """One event of the journal."""

    seq: int
    task_id: str
    type: str
    at: str
    epoch: int | None
    data: dict[str, Json]


class EventPage(TypedDict):
    """A page of the journal. `next_after` is the `after` of the next page; it is None at the end."""

    events: list[Event]
    next_after: int | None


Difference = TypedDict("Difference", {"from": Json, "to": Json})


Sentences = TypedDict("Sentences", {"from": str | None, "to": str | None})


class Change(TypedDict):
    """A change in a step, or in the plan as a whole if `step_id` is None.

    `sentence` has the sentences that describe the step before and after; they are None where there is no such step.
    """

    step_id: str | None
    change: str
    fields: dict[str, Difference]
    sentence: Sentences


PlanDiff = TypedDict("PlanDiff", {"from": int, "to": int, "text": str, "changes": list[Change]})
"""The differences between two revisions of a plan. `text` is like a unified diff."""


class Tool(TypedDict):
    """A tool of the catalogue. `detail` says why a tool is not `available`; its other fields may then be None."""

    server: str
    tool: str
    title: str | None
    description: str | None
    input_schema: dict[str, Json] | None
    output_schema: dict[str, Json] | None
    effect: str | None
    idempotent: bool | None
    open_world: bool | None
    approval: str | None
    timeout_s: float | None
    pin: str | None
    status: str
    detail: str | None


class ToolPage(TypedDict):
    tools: list[Tool]
    next_cursor: str | None


class Server(TypedDict):
    """A server of the tool registry, and whether it could be reached. `stderr`: the end of what it wrote there."""

    id: str
    name: str
    type: str
    enabled: bool
    connected: bool
    circuit: Literal["closed", "half_open", "open"]
    spares: int
    detail: str
    stderr: str


class Model(TypedDict):
    """The state of a language model after its last request, as far as it is known."""

    endpoint: str
    model: str | None
    api: Literal["responses", "chat_completions"]
    circuit: Literal["closed", "half_open", "open"]
    output: Literal["json_schema", "json_object", "prompt"] | None
    last_error: str | None


class Models(TypedDict):
    """The planner and the language model. `revision_help`: what feedback on a plan it understands; None if any."""

    planner: str
    revision_help: str | None
    model: Model | None
