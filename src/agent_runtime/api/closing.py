"""The codes with which a WebSocket is closed, and their reasons (RFC 6455, section 7.4).

A refusal has the code 4000 + its HTTP status, such as 4401. The reason is the code of the problem, and what to do.
"""

from http import HTTPStatus

ENDED = 1000
"""The client has all frames of a task that has ended."""

UNSUPPORTED = 1003
"""The client sent a binary message."""

VIOLATED = 1008
"""The client sends more, or more slowly, than the limits allow."""

TOO_LARGE = 1009
FAILED = 1011

STOPPING = 1012
"""The service stops. The client connects again, and resumes."""

BUSY = 1013
"""The service cannot serve the client now. It tries again later."""

_APPLICATION = 4000
_LONGEST_REASON = 123

STOPS = "The service stops: connect again, and resume after the last id."


def close_code(status: int) -> int:
    """Return the close code of a refusal with this HTTP status."""
    return {
        HTTPStatus.SERVICE_UNAVAILABLE: BUSY,
        HTTPStatus.INTERNAL_SERVER_ERROR: FAILED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TOO_LARGE,
    }.get(HTTPStatus(status), _APPLICATION + status)


def close_reason(code: str | None, detail: str) -> str:
    """Return the reason of a close frame, which has at most 123 bytes."""
    text = f"{code}: {detail}" if code else detail
    return text.encode()[:_LONGEST_REASON].decode(errors="ignore")
