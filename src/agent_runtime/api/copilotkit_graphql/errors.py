"""Errors as the clients of CopilotKit read them: the code says what went wrong, `visibility` where it is shown."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from agent_runtime.api.agui_input import RunRefusedError
from agent_runtime.api.faults import MOST_FAULTS
from agent_runtime.api.problems import find_status
from agent_runtime.domain.errors import AgentRuntimeError, InvalidInputError

_CODES: Mapping[int, tuple[str, str, str]] = {
    403: ("AUTHENTICATION_ERROR", "banner", "critical"),
    404: ("NOT_FOUND", "toast", "warning"),
    503: ("NETWORK_ERROR", "banner", "critical"),
}
_MISUSE = ("MISUSE", "toast", "warning")
_UNKNOWN = ("UNKNOWN", "toast", "critical")


class CopilotError(Exception):
    """An error of an operation, with the extensions that graphql-core puts into the answer."""

    def __init__(
        self,
        message: str,
        code: str,
        status: int,
        visibility: str,
        severity: str,
        original: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.extensions: dict[str, Any] = {
            "name": "CopilotError",
            "code": code,
            "statusCode": status,
            "visibility": visibility,
            "severity": severity,
            "troubleshootingUrl": None,
            "originalError": {"message": message, **original},
        }


def make_error(error: AgentRuntimeError) -> CopilotError:
    """Return one of our errors as CopilotKit has it. `originalError` has our code, and no stack."""
    status = 409 if isinstance(error, RunRefusedError) else find_status(error) or 500
    code, visibility, severity = _CODES.get(status, _MISUSE if status < 500 else _UNKNOWN)  # noqa: PLR2004 - of HTTP
    more: dict[str, Any] = {"code": error.code}
    if isinstance(error, InvalidInputError):
        more["errors"] = [{"field": one.field, "message": one.message} for one in error.faults[:MOST_FAULTS]]
    return CopilotError(str(error), code, status, visibility, severity, more)


def make_unexpected(request_id: str) -> CopilotError:
    """Return the error that stands for a failure of the service, which is logged."""
    message = f"The service failed unexpectedly. The error is logged with the request id {request_id}."
    return CopilotError(message, "UNKNOWN", 500, "toast", "critical")


def make_unknown_agent(name: str, known: str) -> CopilotError:
    """Return the error for an agent that is not here."""
    message = f"Agent {name!r} was not found. The agent of this service is {known!r}."
    return CopilotError(message, "AGENT_NOT_FOUND", 500, "banner", "critical")
