"""Which process calls (G14): one that the service started may not use it without a key (decision 17)."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from agent_runtime.api.problems import Refusal
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


class Callers:
    """Judges who calls, once for each connection and off the event loop."""

    def __init__(self, peers: PeerCheck) -> None:
        self._peers = peers
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="callers")

    async def refusal(self, connection: CallerConnection) -> Refusal | None:
        """Return why the caller may not use the service without a key, or None where it may."""
        if not connection.judged:
            refused = await asyncio.get_running_loop().run_in_executor(self._threads, self._judge, connection)
            if refused is not None:
                log.warning("caller_refused", reason=refused.reason, pid=refused.pid, error=refused.error)
                connection.refusal = Refusal(403, f"caller_{refused.reason}", _DETAILS[refused.reason])
            connection.judged = True
        return connection.refusal

    def _judge(self, connection: CallerConnection) -> PeerRefusal | None:
        if connection.client is None or connection.server is None:  # it was closed before it was accepted
            return PeerRefusal("gone")
        return self._peers.refuse(connection.client, connection.server)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
