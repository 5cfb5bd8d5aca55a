"""The decisions that a person can make about a task."""

from agent_runtime.domain.events import AnswerAction, Resolution
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.values import JsonObject, JsonValue, Value


class Approve(Value):
    """Approve the current plan. `digest` names the plan that was read; see `approval.require_digest`."""

    digest: str | None = None
    comment: str | None = None


class Reject(Value):
    """Reject the current plan; the task ends."""

    reason: str | None = None


class Revise(Value):
    """Have the task planned again. `feedback` says what should be different. The next revision awaits approval."""

    feedback: str


class Edit(Value):
    """Replace the plan that awaits approval. The new plan is its next revision.

    `digests` name the plan that was edited; None if the caller did not say.
    """

    plan: Plan
    digests: frozenset[str] | None


class Cancel(Value):
    """Cancel the task: at once if no call is open, else as soon as the open calls are settled (G7)."""

    reason: str | None = None


class Resolve(Value):
    """Resolve a call of unknown outcome (G2).

    `done`: it took effect; `output` is its result. `retry`: it had no effect, or may safely be repeated.
    `skip`: continue without the step and the steps that need it. `fail`: the step failed.
    `call_id` is optional: `step_id` identifies the call.
    """

    step_id: str
    call_id: str | None = None
    resolution: Resolution
    output: JsonValue = None
    comment: str | None = None


class ApproveCall(Value):
    """Approve one call. `arguments_digest` identifies the arguments that were shown.

    It is sent with exactly these, or with `edited_arguments`, which needs the scope `submit` as well.
    """

    call_id: str
    arguments_digest: str
    edited_arguments: JsonObject | None = None
    comment: str | None = None


class DenyCall(Value):
    """Deny one call. A tool step fails; a model that proposed the call is told so and continues."""

    call_id: str
    arguments_digest: str
    comment: str | None = None


class Answer(Value):
    """Answer the question of a server with `content`, which fits its schema, decline to, or dismiss it (`cancel`)."""

    question_id: str
    action: AnswerAction
    content: JsonObject | None = None


Decision = Approve | Reject | Revise | Edit | Cancel | Resolve | ApproveCall | DenyCall | Answer
