"""Errors of the SDK and of the system, in words for people."""

from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED
from pydantic import ValidationError

from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.mcp_servers.reading import UnreadableAnswerError


def explain(error: BaseException) -> str:
    """Return an error of the SDK, however deep in groups, in words for people."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case ServerUnavailableError():
            return error.reason
        case MCPError(code=code) if code == CONNECTION_CLOSED and error.message == "Connection closed":
            return "the connection was closed"
        case MCPError() if error.message.startswith("HTTP "):
            return f"it answered with {error.message}"
        case MCPError():
            return f"it answered with error {error.code}: {error.message}"
        case FileNotFoundError() | PermissionError():
            return f"it cannot be started: {error}"
        case UnreadableAnswerError():
            return f"its answer cannot be read: {error}"
        case ValidationError():
            return "its answer is not as MCP has it"
    return str(error) or type(error).__name__
