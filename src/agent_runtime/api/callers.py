"""Callers where no keys are asked for (G14): any process but one that the service started (decision 17)."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from starlette.types import Scope

from agent_runtime.api.problems import Refusal
from agent_runtime.api.tickets import Tickets
from agent_runtime.domain.caller import ANYBODY, Caller
from agent_runtime.services.ports import PeerCheck, PeerRefusal, SocketName

log = structlog.get_logger()

_THREADS = 2
"""Threads of its own: however many connections are opened, other work does not wait for their callers to be found."""

_DETAILS: Mapping[str, str] = {
    "started_by_service": "The service started the process that calls, so it may not use the service without a key.",
    "gone": "The caller closed its end of the connection before the service saw who it is. Keep it open until the "
    "answer has arrived.",
    "unseen": "The service cannot see which process calls, and it may be one that the service started. Configure keys "
    "(auth.mode: keys) and show one; `agent-runtime doctor` says what the service can see.",
}


@dataclass(slots=True)
class CallerConnection:
    """A connection, from its opening to its end. Once its caller was judged, that holds for all of its requests."""

    client: SocketName | None
    server: SocketName | None
    judged: bool = False
    refusal: Refusal | None = None


class AnonymousAuthenticator:
    """Lets everybody in but the processes that the service started. Judges once for each connection, off the loop."""

    asks_for_keys = False

    def __init__(self, peers: PeerCheck, tickets: Tickets) -> None:
        self._peers = peers
        self._tickets = tickets
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="callers")

    async def authenticate(self, scope: Scope) -> Caller | Refusal:
        """See `Authenticator.authenticate`. Where the app is called without a socket, everybody is let in."""
        connection: CallerConnection | None = scope.get("state", {}).get("caller")
        if connection is None:
            return ANYBODY
        if not connection.judged:
            refused = await asyncio.get_running_loop().run_in_executor(self._threads, self._judge, connection)
            if refused is not None:
                log.warning("caller_refused", reason=refused.reason, pid=refused.pid, error=refused.error)
                connection.refusal = Refusal(403, f"caller_{refused.reason}", _DETAILS[refused.reason])
            connection.judged = True
        return connection.refusal or ANYBODY

    def issue_ticket(self, scope: Scope, task_id: str) -> tuple[str, int]:  # noqa: ARG002 - everybody gets the same
        """See `Authenticator.issue_ticket`. It proves nothing, and nobody looks at it."""
        return self._tickets.issue(task_id, None)

    async def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _judge(self, connection: CallerConnection) -> PeerRefusal | None:
        if connection.client is None or connection.server is None:  # it was closed before it was accepted
            return PeerRefusal("gone")
        return self._peers.refuse(connection.client, connection.server)
