"""Every error that the clients raise on purpose.

ClientError
|- ServiceUnreachableError   there is no answer: the service is away, or the connection was lost
`- ApiError                  the service refused the request (problem+json)
   |- KeyRefusedError        401: the key is missing or not valid
   |- ForbiddenError         403: the key does not have the scope, or the caller may not call
   |- NotFoundError          404: no such task, call or question
   |- ConflictError          409, 412, 428: the task is not as the request expects; read it again
   |- InvalidRequestError    400, 413, 415, 422: the request is wrong; `errors` names every fault
   `- UnavailableError       429, 502, 503, 504: try again after `retry_after` seconds
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

_PROBLEM = "urn:agent-runtime:problem:"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault of a request: its place (`plan.steps[0].retries`), and what to do about it."""

    field: str
    message: str


class ClientError(Exception):
    """The base of all errors of the clients. `str(error)` can be shown to users."""


class ServiceUnreachableError(ClientError):
    """The service does not answer; the message contains its URL. What a request did is unknown."""


class ApiError(ClientError):
    """The service refused the request. The fields are those of the problem document, or empty if there was none."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        errors: tuple[FieldError, ...] = (),
        task_status: str | None = None,
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        lines = [f"  {fault.field}: {fault.message}" for fault in errors]
        super().__init__("\n".join(["The request was refused:", *lines]) if lines else detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.errors = errors
        self.task_status = task_status
        self.request_id = request_id
        self.retry_after = retry_after


class KeyRefusedError(ApiError):
    """The key is missing or not valid (401)."""


class ForbiddenError(ApiError):
    """The key does not have the scope, or the caller may not call at all (403)."""


class NotFoundError(ApiError):
    """There is no such task, call or question (404)."""


class ConflictError(ApiError):
    """The task is not as the request expects (409, 412, 428): read it again. `task_status` is its status, if known."""


class InvalidRequestError(ApiError):
    """The request is wrong (400, 413, 415, 422). `errors` names every fault."""


class UnavailableError(ApiError):
    """The service cannot accept the request now (429, 502, 503, 504). Try again after `retry_after` seconds."""


_KIND_OF: Mapping[int, type[ApiError]] = {
    HTTPStatus.UNAUTHORIZED: KeyRefusedError,
    HTTPStatus.FORBIDDEN: ForbiddenError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
    HTTPStatus.PRECONDITION_FAILED: ConflictError,
    HTTPStatus.PRECONDITION_REQUIRED: ConflictError,
    HTTPStatus.BAD_REQUEST: InvalidRequestError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: InvalidRequestError,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: InvalidRequestError,
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidRequestError,
    HTTPStatus.TOO_MANY_REQUESTS: UnavailableError,
    HTTPStatus.BAD_GATEWAY: UnavailableError,
    HTTPStatus.SERVICE_UNAVAILABLE: UnavailableError,
    HTTPStatus.GATEWAY_TIMEOUT: UnavailableError,
}


def read_error(url: str, status: int, retry_after: str | None, body: bytes) -> ApiError:
    """Return the error that an answer of status 300 or more stands for. Any body is accepted."""
    kind = _KIND_OF.get(status, ApiError)
    try:
        problem = json.loads(body)
        return kind(
            status,
            str(problem["detail"]),
            code=_code_of(problem),
            errors=tuple(FieldError(str(one["field"]), str(one["message"])) for one in problem.get("errors", ())),
            task_status=problem.get("task_status"),
            request_id=str(problem.get("request_id", "")),
            retry_after=_read_seconds(retry_after),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        text = f"{url} answered with status {status} and gave no reason; is it an Agent Runtime?"
        return kind(status, text, retry_after=_read_seconds(retry_after))


def _code_of(problem: Mapping[str, Any]) -> str:
    kind = str(problem.get("type", ""))
    return kind.removeprefix(_PROBLEM) if kind.startswith(_PROBLEM) else ""


def _read_seconds(text: str | None) -> float | None:
    """Return the seconds of a `Retry-After`; None if it is missing or a date."""
    return float(text) if text is not None and text.isdecimal() and text.isascii() else None
