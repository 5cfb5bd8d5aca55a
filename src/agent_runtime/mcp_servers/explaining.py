"""Explains errors of the SDK and of the system for people, and recognises outages."""

import re
from datetime import UTC, datetime

import httpx2
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED
from pydantic import ValidationError

from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.retry_after import parse_retry_after
from agent_runtime.mcp_servers.reading import UnreadableAnswerError

NO_CONNECTION = "cannot connect"
BROKEN_CONNECTION = "the connection broke"
REDIRECT = "it redirects to"
COMPRESSED = "the answer is compressed"
"""The beginnings of our own messages about HTTP requests without a usable answer."""

_OUR_WORDS = (BROKEN_CONNECTION, REDIRECT, COMPRESSED)
OUTAGES = frozenset({408, 429, 502, 503, 504})
"""The HTTP statuses of a server, or of a proxy before it, that cannot answer now."""

_OUTAGE = re.compile(rf"HTTP (?:{'|'.join(map(str, sorted(OUTAGES)))})\b")
_NO_OUTAGE = re.compile(
    r"certificate.verify.failed|unsupported protocol|proxy that \w+ names: 40[137]\b", re.IGNORECASE
)


def find_first(error: BaseException) -> BaseException:
    """Return the first error of a group, however deep."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def may_pass(error: BaseException) -> bool:
    """Return whether an error of the SDK is an outage of a remote server, instead of its permanent answer."""
    error = find_first(error)
    match error:
        case ServerUnavailableError():
            return error.may_pass
        case MCPError(code=code) if code == CONNECTION_CLOSED:
            broken = error.message.startswith((NO_CONNECTION, BROKEN_CONNECTION, "Connection closed"))
            return broken and not _NO_OUTAGE.search(error.message)
        case MCPError() | ConnectionError():
            return _OUTAGE.search(str(error)) is not None
        case httpx2.TransportError():
            return not _NO_OUTAGE.search(str(error))
    return False


RETRY_AFTER = "agent-runtime/retry-after-s"
"""The field in the data of an error that holds the seconds of a `Retry-After` header."""


def read_retry_after(answer: httpx2.Response) -> float:
    """Return for how many seconds an answer asks to leave its server alone; 0 if it names no time."""
    return parse_retry_after(answer.headers.get("retry-after"), datetime.now(UTC)) or 0.0


def find_retry_after(error: BaseException) -> float:
    """Return for how many seconds the server of an error has asked to be left alone."""
    error = find_first(error)
    data = error.error.data if isinstance(error, MCPError) else None
    seconds = data.get(RETRY_AFTER) if isinstance(data, dict) else getattr(error, "retry_after_s", None)
    return seconds if isinstance(seconds, float) else 0.0


def explain(error: BaseException) -> str:
    """Explain an error of the SDK for people, however deep it is in groups."""
    error = find_first(error)
    match error:
        case ServerUnavailableError():
            return error.reason
        case MCPError(code=code) if code == CONNECTION_CLOSED and error.message == "Connection closed":
            return "the connection was closed"
        case MCPError(code=code) if code == CONNECTION_CLOSED and error.message.startswith(NO_CONNECTION):
            return f"it cannot be reached ({error.message})"
        case MCPError(code=code) if code == CONNECTION_CLOSED and error.message.startswith(_OUR_WORDS):
            return error.message
        case MCPError() if error.message.startswith("HTTP "):
            return f"it answered with {error.message}"
        case MCPError():
            return f"it answered with error {error.code}: {error.message}"
        case FileNotFoundError() | PermissionError():
            return f"it cannot be started: {error}"
        case UnreadableAnswerError():
            return f"its answer cannot be read: {error}"
        case ValidationError():
            return "its answer does not follow MCP"
    return str(error) or type(error).__name__
