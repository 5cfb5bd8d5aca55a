"""Errors as the caller sees them: `application/problem+json` (RFC 9457), one table from error to status."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NotRequired
from urllib.parse import quote

import structlog
from pydantic_core import to_json
from starlette.responses import Response
from typing_extensions import TypedDict

from agent_runtime.api.faults import MOST_FAULTS
from agent_runtime.domain import errors as err
from agent_runtime.domain.errors import AgentRuntimeError, Fault
from agent_runtime.text.escaping import cut

log = structlog.get_logger()

RETRY_AFTER_S = 2
"""Seconds after which a caller may try again if the service was full or its disk failed."""

_LONGEST_DETAIL = 4000
_LONGEST_INSTANCE = 300


class TooManyStreamsError(AgentRuntimeError):
    """`limits.stream_clients` streams are open already."""

    code = "too_many_streams"


class BadRequestError(AgentRuntimeError):
    """The request cannot be parsed: its JSON, or its `Last-Event-ID`."""

    code = "bad_request"


class BodyTooLargeError(AgentRuntimeError):
    """The body of the request is over `limits.body_bytes`."""

    code = "body_too_large"


STATUS_OF: Mapping[type[AgentRuntimeError], int] = {
    err.InvalidInputError: 422,
    err.ScopeMissingError: 403,
    err.TaskNotFoundError: 404,
    err.ImageNotFoundError: 404,
    err.StateNotFoundError: 404,
    err.StateChangedError: 412,
    err.StateTooLargeError: 413,
    err.CallNotFoundError: 404,
    err.QuestionNotFoundError: 404,
    err.DecisionRefusedError: 409,
    err.DigestRequiredError: 428,
    err.DigestMismatchError: 409,
    err.EditOutdatedError: 412,
    err.RequestKeyReusedError: 422,
    err.RegistryFaultyError: 409,
    err.StoreUnavailableError: 503,
    TooManyStreamsError: 503,
    BadRequestError: 400,
    BodyTooLargeError: 413,
}
"""The HTTP status of each error class and its subclasses. Any other error is a bug: 500."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why the edge refuses a request. `code` is None for an unexpected error."""

    status: int
    code: str | None
    detail: str
    headers: Mapping[str, str] | None = None


class FieldError(TypedDict):
    """One fault of the input: its place (`plan.steps[0].arguments.path`), and what to do about it."""

    field: str
    message: str


class Problem(TypedDict):
    """A problem (RFC 9457). `detail` says what to do; `errors` lists every fault of the input."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: NotRequired[str]
    errors: NotRequired[list[FieldError]]
    task_status: NotRequired[str]


def problem(
    scope: Mapping[str, Any],
    status: int,
    detail: str,
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return the response to a refused request. `more` are further members, such as `errors`."""
    body = {
        "type": f"urn:agent-runtime:problem:{code}" if code else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": cut(detail, _LONGEST_DETAIL),
        "instance": quote(scope.get("path", "")[:_LONGEST_INSTANCE], safe="/:@!$&'()*+,;=~-._"),
        "request_id": scope.get("request_id", ""),
        **more,
    }
    return Response(to_json(body), status, headers, media_type="application/problem+json")


def status_of(error: AgentRuntimeError) -> int:
    """Return the HTTP status of one of our errors. Raises: the error itself if the caller did not cause it."""
    status = find_status(error)
    if status is None:
        raise error
    return status


def find_status(error: AgentRuntimeError) -> int | None:
    """Return the HTTP status of one of our errors; None if the caller did not cause it."""
    return next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), None)


def problem_of(scope: Mapping[str, Any], error: AgentRuntimeError) -> Response:
    """Return the response to one of our errors. Raises: the error itself if the caller did not cause it."""
    status = status_of(error)
    more: dict[str, Any] = {}
    if isinstance(error, err.InvalidInputError | err.RegistryFaultyError):
        more["errors"] = [field_error(fault) for fault in error.faults[:MOST_FAULTS]]
    if isinstance(error, err.DecisionRefusedError):
        more["task_status"] = str(error.status)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    if isinstance(error, err.ScopeMissingError):
        headers = missing_scope(error.scope)
    detail = f"{error} {_WHERE_TASKS_ARE}" if isinstance(error, err.TaskNotFoundError) else str(error)
    return problem(scope, status, detail, code=error.code, headers=headers, **more)


def missing_scope(scope: str) -> dict[str, str]:
    """Return the header that names the missing scope (RFC 6750, section 3.1)."""
    return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}


def field_error(fault: Fault) -> FieldError:
    return {"field": fault.field, "message": cut(fault.message, _LONGEST_DETAIL)}


_WHERE_TASKS_ARE = "GET /v1/tasks (or `agent-runtime tasks`) lists the existing tasks."
