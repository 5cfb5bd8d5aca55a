"""What callers send. Unknown fields are refused by name; nothing is converted in silence."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation, StringConstraints

from agent_runtime.domain.contract import MOST_STEPS, Budget, Limits
from agent_runtime.domain.events import Resolution
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus

Comment = Annotated[str, StringConstraints(max_length=4096)]
ShortText = Annotated[str, StringConstraints(max_length=256)]


def _plain_digits(value: object) -> object:
    """Return a number of a query as it is, and nothing for what a converter would only take for one: `1_0`, `+1`."""
    return value if not isinstance(value, str) or _DIGITS.fullmatch(value) else None


_DIGITS = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_QueryNumber = Annotated[int, BeforeValidator(_plain_digits)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskRequest(_Body):
    """What is to be done. With a ready-made `plan` no planner runs."""

    # An empty one is refused with the rest of what a prompt must be; here it is only said.
    prompt: str = Field(json_schema_extra={"minLength": 1})
    plan: Annotated[Plan | None, SkipValidation] = Field(
        default=None, description="A ready-made plan: judged at once, every fault named."
    )
    approval: Literal["manual", "auto"] = Field(
        default="manual", description="`auto` only where the operator's policy allows it (approval.auto_effects)."
    )
    tools: list[ShortText] | None = Field(
        default=None, max_length=1000, description="The ids of the servers that the planner may use; null: all."
    )
    max_steps: int = Field(default=Limits().max_steps, ge=1, le=MOST_STEPS)
    metadata: dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], Comment] = Field(
        default_factory=dict, max_length=64, description="Your own labels: at most 64, keys up to 64 characters."
    )
    budget: Budget = Budget()


class ApproveRequest(_Body):
    """Name the plan that you read by its `plan_digest`; only revision 1 may be approved without."""

    plan_digest: ShortText | None = None
    comment: Comment | None = None


class RejectRequest(_Body):
    reason: Comment | None = None


class ReviseRequest(_Body):
    """What should be different; the plan is made anew from the prompt and all feedback."""

    feedback: str


class CancelRequest(_Body):
    reason: Comment | None = None


class ResolveRequest(_Body):
    """What became of a call of unknown outcome. `output` is what it gave, with `done` only."""

    step_id: ShortText
    call_id: ShortText | None = None
    resolution: Resolution
    output: Any = None
    comment: Comment | None = None


class CallDecisionRequest(_Body):
    """A decision about one concrete call. `arguments_digest` is that of the arguments that were read."""

    arguments_digest: ShortText
    comment: Comment | None = None


class DiffQuery(_Body):
    """Which revisions of the plan to compare."""

    from_: _QueryNumber = Field(alias="from", description="The number of the earlier revision.")
    to: _QueryNumber = Field(description="The number of the later one.")


class ListQuery(_Body):
    """Which tasks to list."""

    status: TaskStatus | None = None
    limit: _QueryNumber = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=500, description="`next_cursor` of the page before.")


class ToolsQuery(_Body):
    """Which part of the catalogue to list."""

    refresh: str | None = Field(default=None, description="Refused: see POST /v1/tools/refresh.")
    limit: _QueryNumber = Field(default=500, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=500, description="`next_cursor` of the page before.")


class EventsQuery(_Body):
    """Which part of the journal to read."""

    after: _QueryNumber = Field(default=0, ge=0, le=2**53 - 1, description="Only events after this sequence number.")
    limit: _QueryNumber = Field(default=100, ge=1, le=1000)
