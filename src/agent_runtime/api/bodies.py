"""What callers send. Unknown fields are refused by name; nothing is converted in silence."""

import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from agent_runtime.api.faults import faults_of
from agent_runtime.api.problems import BadRequestError
from agent_runtime.domain.contract import MOST_STEPS, Budget, Limits
from agent_runtime.domain.errors import InvalidInputError, InvalidPlanError
from agent_runtime.domain.events import Resolution
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.values import JsonValue

ReadPlan = TypeVar("ReadPlan", bound=Plan)

Comment = Annotated[str, StringConstraints(max_length=4096)]
ShortText = Annotated[str, StringConstraints(max_length=256)]


def _plain_digits(value: object) -> object:
    """Return a number of a query as it is, and nothing for what a converter would only take for one: `1_0`, `+1`."""
    return value if not isinstance(value, str) or _DIGITS.fullmatch(value) else None


def _never_null(schema: dict[str, Any]) -> None:
    """Say of a part of a query that may be missing what it is where it is there: text, and never null."""
    (kind,) = (option for option in schema.pop("anyOf") if option.get("type") != "null")
    schema.update(kind)


_DIGITS = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_QueryNumber = Annotated[int, BeforeValidator(_plain_digits)]


_INSTRUCTION: dict[str, Any] = {"minLength": 1, "pattern": r"\S", "maxLength": 64 * 1024}
"""An instruction as JSON Schema can say it: the service counts bytes, and takes hidden characters for nothing."""

_REVISION: dict[str, Any] = {"minimum": 1, "maximum": 2**53 - 1}
"""A revision that may be there; for any other the answer says which are."""

FEED_CURSOR: dict[str, Any] = {"pattern": r"^[1-9][0-9]{0,17}\.(0|[1-9][0-9]{0,17})$"}
FRAME_ID: dict[str, Any] = {"pattern": r"^[0-9]{1,15}(\.[012])?$"}


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Body(_Input):
    """The JSON body of a request."""

    @classmethod
    def read(cls, value: JsonValue) -> Self:
        """Return the body as a checked value. Raises: InvalidInputError naming every fault."""
        try:
            return cls.model_validate(value, strict=True)
        except ValidationError as error:
            raise InvalidInputError(faults_of(error.errors(include_url=False, include_input=False))) from error


class PlanBody(Plan, Body):
    """A plan that was edited by hand. A `preview` in a step, which is ours, is passed over."""

    @classmethod
    def read(cls, value: JsonValue) -> Self:
        """Return the body as a checked value. Raises: InvalidPlanError naming every fault."""
        return _read_plan(cls, value)


class TaskRequest(Body):
    """What is to be done. With a ready-made `plan` no planner runs."""

    # An empty one is refused with the rest of what a prompt must be; here it is only said.
    prompt: str = Field(json_schema_extra=_INSTRUCTION)
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

    @classmethod
    def read(cls, value: JsonValue) -> Self:
        """Return the body as a checked value. Raises: InvalidInputError, InvalidPlanError naming every fault."""
        body = super().read(value)
        return body if body.plan is None else body.model_copy(update={"plan": _read_plan(Plan, body.plan)})


class ApproveRequest(Body):
    """Name the plan that you read by its `plan_digest`; only revision 1 may be approved without."""

    plan_digest: ShortText | None = None
    comment: Comment | None = None


class RejectRequest(Body):
    reason: Comment | None = None


class ReviseRequest(Body):
    """What should be different; the plan is made anew from the prompt and all feedback."""

    feedback: str = Field(json_schema_extra=_INSTRUCTION)


class CancelRequest(Body):
    reason: Comment | None = None


class ResolveRequest(Body):
    """What became of a call of unknown outcome. `output` is what it gave, with `done` only."""

    step_id: ShortText
    call_id: ShortText | None = None
    resolution: Resolution
    output: Any = None
    comment: Comment | None = None


class CallDecisionRequest(Body):
    """A decision about one concrete call. `arguments_digest` is that of the arguments that were read."""

    arguments_digest: ShortText
    comment: Comment | None = None


class DiffQuery(_Input):
    """Which revisions of the plan to compare."""

    from_: _QueryNumber = Field(
        alias="from", description="The number of the earlier revision.", json_schema_extra=_REVISION
    )
    to: _QueryNumber = Field(description="The number of the later one.", json_schema_extra=_REVISION)


class ListQuery(_Input):
    """Which tasks to list."""

    status: TaskStatus | None = Field(default=None, json_schema_extra=_never_null)
    limit: _QueryNumber = Field(default=50, ge=1, le=200)
    cursor: str | SkipJsonSchema[None] = Field(
        default=None, max_length=500, description="`next_cursor` of the page before."
    )


class ToolsQuery(_Input):
    """Which part of the catalogue to list."""

    limit: _QueryNumber = Field(default=500, ge=1, le=500)
    cursor: str | SkipJsonSchema[None] = Field(
        default=None, max_length=500, description="`next_cursor` of the page before."
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_refresh(cls, query: Any) -> Any:
        """Raise BadRequestError for what earlier versions took, saying what has taken its place."""
        if "refresh" in query:
            raise BadRequestError("GET changes nothing: ask every server again with POST /v1/tools/refresh.")
        return query


class StreamQuery(_Input):
    """Which frames to send. A `ticket`, in place of a key, was judged at the edge."""

    model_config = ConfigDict(extra="ignore")

    after: str | SkipJsonSchema[None] = Field(
        default=None, description="A frame id to go on after; `Last-Event-ID` beats it.", json_schema_extra=FRAME_ID
    )
    view: str | SkipJsonSchema[None] = Field(
        default=None, description="Only one kind of frames.", json_schema_extra={"enum": ["events", "log"]}
    )
    ticket: str | SkipJsonSchema[None] = Field(default=None, description="In place of a key; see `stream-ticket`.")


class FeedQuery(_Input):
    """Where the feed of all tasks begins."""

    model_config = ConfigDict(extra="ignore")

    after: str | SkipJsonSchema[None] = Field(
        default=None,
        description="The id of a frame to go on after; `Last-Event-ID` beats it.",
        json_schema_extra=FEED_CURSOR,
    )


class EventsQuery(_Input):
    """Which part of the journal to read."""

    after: _QueryNumber = Field(default=0, ge=0, le=2**53 - 1, description="Only events after this sequence number.")
    limit: _QueryNumber = Field(default=100, ge=1, le=1000)


def _read_plan(kind: type[ReadPlan], value: JsonValue) -> ReadPlan:
    """Return the ready-made plan of a body. A `preview` in a step, which is ours, is passed over.

    Raises: InvalidPlanError naming every fault.
    """
    try:
        return kind.model_validate(_without_previews(value))
    except ValidationError as error:
        raise InvalidPlanError(faults_of(error.errors(include_url=False, include_input=False), "plan")) from error


def _without_previews(value: JsonValue) -> JsonValue:
    steps = value.get("steps") if isinstance(value, dict) else None
    if not isinstance(steps, list):
        return value
    without = [
        {name: field for name, field in step.items() if name != "preview"} if isinstance(step, dict) else step
        for step in steps
    ]
    return {**value, "steps": without}
