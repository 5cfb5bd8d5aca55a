"""What a person may decide about a task."""

from agent_runtime.domain.events import Resolution
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.values import JsonValue, Value


class Approve(Value):
    """Let the current plan run. `digest` names the plan that was read; see `approval.require_digest`."""

    digest: str | None = None
    comment: str | None = None


class Reject(Value):
    """Refuse the current plan; the task ends."""

    reason: str | None = None


class Revise(Value):
    """Have the task planned again, with what should be different; the next revision awaits approval."""

    feedback: str


class Edit(Value):
    """Put this plan in place of the one that awaits approval, as its next revision.

    `digests` name the plan that was edited; None: it was not said.
    """

    plan: Plan
    digests: frozenset[str] | None


class Cancel(Value):
    """End the task: at once where no call is open, else as soon as the open calls are settled (G7)."""

    reason: str | None = None


class Resolve(Value):
    """Say what became of a call of unknown outcome (G2).

    `done`: it took effect, and `output` is what it gave. `retry`: it did not, or may happen again. `skip`: go on
    without the step and all that needs it. `fail`: the step has failed. `call_id` may be left out where the step is
    named.
    """

    step_id: str
    call_id: str | None = None
    resolution: Resolution
    output: JsonValue = None
    comment: str | None = None


class ApproveCall(Value):
    """Let one call be sent with exactly the arguments that were shown; `arguments_digest` names them."""

    call_id: str
    arguments_digest: str
    comment: str | None = None


class DenyCall(Value):
    """Refuse one call: its step fails, and so does what needs it. A model that proposed it is told, and goes on."""

    call_id: str
    arguments_digest: str
    comment: str | None = None


Decision = Approve | Reject | Revise | Edit | Cancel | Resolve | ApproveCall | DenyCall
