"""The read timeout of connections to HTTP servers."""

from agent_runtime.config import LimitSettings
from agent_runtime.domain.tools import HttpServer

_SPARE_S = 30.0


def find_longest_read_s(server: HttpServer, limits: LimitSettings) -> float:
    """Return a read timeout longer than any call of the entry may take: it ends dead connections, never a call."""
    said = [policy.timeout_s for policy in server.tools.values() if policy.timeout_s is not None]
    return max([server.client_session_timeout_seconds, *said]) + limits.cancel_grace_s + _SPARE_S
