"""Request bodies and queries. Unknown fields are refused by name, and no value is converted silently."""

import re
from collections.abc import Mapping
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
from agent_runtime.domain.events import AnswerAction, Resolution
from agent_runtime.domain.feed import NEWEST
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.rerun import RerunFrom
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.values import JsonValue

ReadPlan = TypeVar("ReadPlan", bound=Plan)

Comment = Annotated[str, StringConstraints(max_length=4096)]
ShortText = Annotated[str, StringConstraints(max_length=256)]


def _plain_digits(value: object) -> object:
    """Return a number of a query, or None for text that only pydantic would accept as a number: `1_0`, `+1`."""
    return value if not isinstance(value, str) or _DIGITS.fullmatch(value) else None


def _never_null(schema: dict[str, Any]) -> None:
    """Describe an optional query parameter as text only: if it is sent, it is never `null`."""
    (kind,) = (option for option in schema.pop("anyOf") if option.get("type") != "null")
    schema.update(kind)


_DIGITS = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_QueryNumber = Annotated[int, BeforeValidator(_plain_digits)]


_INSTRUCTION: dict[str, Any] = {"minLength": 1, "pattern": r"\S", "maxLength": 64 * 1024}
"""The JSON Schema of an instruction. The service itself counts bytes, and ignores hidden characters."""

_REVISION: dict[str, Any] = {"minimum": 1, "maximum": 2**53 - 1}
"""A possible revision number. For one that does not exist, the answer lists those that do."""

FEED_CURSOR: dict[str, Any] = {"pattern": r"^[1-9][0-9]{0,17}\.(0|[1-9][0-9]{0,17})$"}
FRAME_ID: dict[str, Any] = {"pattern": r"^[0-9]{1,15}(\.[012])?$"}


MOST_THREAD_CHARACTERS = 200
"""The longest name of a thread."""


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def _read(cls, value: object, *, strict: bool) -> Self:
        try:
            return cls.model_validate(value, strict=strict)
        except ValidationError as error:
            raise InvalidInputError(faults_of(error.errors(include_url=False, include_input=False))) from error


class Body(_Input):
    """The JSON body of a request."""

    @classmethod
    def read(cls, value: JsonValue) -> Self:
        """Return the validated body. Raises: InvalidInputError with every fault."""
        return cls._read(value, strict=True)


class QueryParameters(_Input):
    """The parameters in the query of a request."""

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """Return the validated parameters. Raises: InvalidInputError with every fault."""
        return cls._read(dict(given), strict=False)


class PlanBody(Plan, Body):
    """An edited plan. A `preview` in a step is ignored: the service computes it."""

    @classmethod
    def read(cls, value: JsonValue) -> Self:
        """Return the validated body. Raises: InvalidPlanError with every fault."""
        return _read_plan(cls, value)


class TaskRequest(Body):
    """A new task. With a ready-made `plan` no planner runs."""

    # Only described here: the domain checks the prompt.
    prompt: str = Field(json_schema_extra=_INSTRUCTION)
    plan: Annotated[Plan | None, SkipValidation] = Field(
        default=None, description="A ready-made plan. It is checked at once, and the answer lists every fault."
    )
    approval: Literal["manual", "auto"] = Field(
        default="manual", description="`auto` works only if the operator's policy allows it (approval.auto_effects)."
    )
    tools: list[ShortText] | None = Field(
        default=None, max_length=1000, description="The ids of the servers that the planner may use; null: all."
    )
    max_steps: int = Field(default=Limits().max_steps, ge=1, le=MOST_STEPS)
    metadata: dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], Comment] = Field(
        default_factory=dict, max_length=64, description="Your own labels: at most 64, keys up to 64 characters."
    )
    thread: str | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_THREAD_CHARACTERS,
        description="The conversation of a front end that the task belongs to; null: none.",
    )
    budget: Budget = Budget()

    @classmethod
    def read(cls, value: JsonValue) -> Self:
        """Return the validated body. Raises: InvalidInputError or InvalidPlanError with every fault."""
        body = super().read(value)
        return body if body.plan is None else body.model_copy(update={"plan": _read_plan(Plan, body.plan)})


class RerunRequest(Body):
    """The way to run a finished task again. `failed_step` reuses the results of its completed steps."""

    start: RerunFrom = Field(default="start", alias="from")
    approval: Literal["manual", "auto"] = Field(
        default="manual", description="As for a new task; a plan that may repeat a call needs a person in any case."
    )


class ApproveRequest(Body):
    """An approval. `plan_digest` names the plan that you read; it may be omitted for revision 1 only."""

    plan_digest: ShortText | None = None
    comment: Comment | None = None


class RejectRequest(Body):
    reason: Comment | None = None


class ReviseRequest(Body):
    """Feedback on the plan. The next plan is made from the prompt and all feedback so far."""

    feedback: str = Field(json_schema_extra=_INSTRUCTION)


class CancelRequest(Body):
    reason: Comment | None = None


class ResolveRequest(Body):
    """The decision about a call of unknown outcome. `output` is the result of the call, with `done` only."""

    step_id: ShortText
    call_id: ShortText | None = None
    resolution: Resolution
    output: Any = None
    comment: Comment | None = None


class CallDecisionRequest(Body):
    """A decision about one call. `arguments_digest` is the digest of the arguments that you read."""

    arguments_digest: ShortText
    comment: Comment | None = None


class ApproveCallRequest(CallDecisionRequest):
    """The approval of a call. With `edited_arguments` it is sent with those instead; that takes the scope `submit` too.

    They are judged like any call: 422 names each argument that does not fit. No reference is resolved in them.
    """

    edited_arguments: dict[str, Any] | None = None


class AnswerRequest(Body):
    """An answer to the question of a server. `content`, with `accept` only, fits the schema of the question.

    `decline` refuses to answer; `cancel` dismisses the question without a choice. The server learns which.
    """

    action: AnswerAction
    content: dict[str, Any] | None = None


class DiffQuery(QueryParameters):
    """The two revisions of the plan to compare."""

    from_: _QueryNumber = Field(
        alias="from", description="The number of the earlier revision.", json_schema_extra=_REVISION
    )
    to: _QueryNumber = Field(description="The number of the later one.", json_schema_extra=_REVISION)


class ListQuery(QueryParameters):
    """The part of the task list to return."""

    status: TaskStatus | None = Field(default=None, json_schema_extra=_never_null)
    limit: _QueryNumber = Field(default=50, ge=1, le=200)
    cursor: str | SkipJsonSchema[None] = Field(
        default=None, max_length=500, description="`next_cursor` of the page before."
    )
    thread: str | SkipJsonSchema[None] = Field(
        default=None,
        min_length=1,
        max_length=MOST_THREAD_CHARACTERS,
        description="Return only the tasks of this thread.",
    )
    q: str | SkipJsonSchema[None] = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Return only the tasks with all of these words in their id, prompt, thread or metadata, whatever "
        "their case.",
    )


class ToolsQuery(QueryParameters):
    """The part of the catalogue to return."""

    limit: _QueryNumber = Field(default=500, ge=1, le=500)
    cursor: str | SkipJsonSchema[None] = Field(
        default=None, max_length=500, description="`next_cursor` of the page before."
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_refresh(cls, query: Any) -> Any:
        """Refuse a parameter of earlier versions, and name its replacement. Raises: BadRequestError."""
        if "refresh" in query:
            raise BadRequestError("GET changes nothing: ask every server again with POST /v1/tools/refresh.")
        return query


class RefreshQuery(QueryParameters):
    """The servers to ask again."""

    server: ShortText | SkipJsonSchema[None] = Field(
        default=None, description="The id of the only server to ask; without it, all are asked."
    )


class StreamQuery(QueryParameters):
    """The frames to send. The edge has already checked the `ticket`, which replaces a key."""

    model_config = ConfigDict(extra="ignore")

    after: str | SkipJsonSchema[None] = Field(
        default=None,
        description="The id of a frame to resume after; `Last-Event-ID` takes precedence.",
        json_schema_extra=FRAME_ID,
    )
    view: str | SkipJsonSchema[None] = Field(
        default=None, description="Return only this kind of frame.", json_schema_extra={"enum": ["events", "log"]}
    )
    ticket: str | SkipJsonSchema[None] = Field(
        default=None, description="A ticket that replaces the key; see `stream-ticket`."
    )


class FeedQuery(QueryParameters):
    """The position at which the feed of all tasks begins."""

    model_config = ConfigDict(extra="ignore")

    after: str | SkipJsonSchema[None] = Field(
        default=None,
        description="The id of a frame to resume after, or `newest` for what comes from now on, which begins with a "
        "checkpoint; `Last-Event-ID` takes precedence.",
        json_schema_extra={"pattern": rf"{FEED_CURSOR['pattern']}|^{NEWEST}$"},
    )


class EventsQuery(QueryParameters):
    """The part of the journal to return."""

    after: _QueryNumber = Field(default=0, ge=0, le=2**53 - 1, description="Only events after this sequence number.")
    limit: _QueryNumber = Field(default=100, ge=1, le=1000)


def _read_plan(kind: type[ReadPlan], value: JsonValue) -> ReadPlan:
    """Return the ready-made plan of a body. A `preview` in a step is ignored: the service computes it.

    Raises: InvalidPlanError with every fault.
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
