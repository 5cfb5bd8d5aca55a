"""Authentication without keys (G14): accept any process except those that the service started (decision 17)."""

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
"""Threads for looking up callers, so that many new connections do not delay other work in threads."""

_DETAILS: Mapping[str, str] = {
    "started_by_service": "The service started the process that calls, so it may not use the service without a key.",
    "gone": "The caller closed its end of the connection before the service saw who it is. Keep it open until the "
    "answer has arrived.",
    "unseen": "The service cannot see which process calls, and it may be one that the service started. Configure keys "
    "(auth.mode: keys) and show one; `agent-runtime doctor` says what the service can see.",
}


@dataclass(slots=True)
class CallerConnection:
    """One connection. The result of the first check of its caller holds for all of its requests."""

    client: SocketName | None
    server: SocketName | None
    judged: bool = False
    refusal: Refusal | None = None


class AnonymousAuthenticator:
    """Accepts all callers except processes that the service started. Checks once per connection, in a thread."""

    asks_for_keys = False

    def __init__(self, peers: PeerCheck, tickets: Tickets) -> None:
        self._peers = peers
        self._tickets = tickets
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="callers")

    async def authenticate(self, scope: Scope) -> Caller | Refusal:
        """See `Authenticator.authenticate`. Accepts every caller if the app is called without a socket."""
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

    def issue_ticket(self, scope: Scope, task_id: str) -> tuple[str, int]:  # noqa: ARG002 - all callers get the same
        """See `Authenticator.issue_ticket`. Tickets are not checked in a service without keys."""
        return self._tickets.issue(task_id, None)

    async def close(self) -> None:
        """Stop the threads. Idempotent."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _judge(self, connection: CallerConnection) -> PeerRefusal | None:
        if connection.client is None or connection.server is None:  # closed before it was accepted
            return PeerRefusal("gone")
        return self._peers.refuse(connection.client, connection.server)
