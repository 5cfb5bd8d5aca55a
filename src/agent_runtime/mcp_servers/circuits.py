"""A circuit breaker for each MCP server: after too many failed starts in a row, it is not started for a while."""

import asyncio
from typing import Protocol

from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.live.breaker import CircuitBreaker, CircuitState


class Start(Protocol):
    """A connection while it starts. `stopped`: nobody needs it any more."""

    server_id: str
    stopped: bool

    async def ready(self) -> object:
        """Wait for the session. Raises: ServerUnavailableError."""


class Circuits:
    """Counts failed starts and connections in a row, by server. Call `admit` before each, and `watch` after it."""

    def __init__(self, open_s: float) -> None:
        """Take `open_s`, the seconds for which a server is not started."""
        self._open_s = open_s
        self._breakers: dict[str, CircuitBreaker] = {}
        self._latest: dict[str, ServerUnavailableError] = {}

    @property
    def states(self) -> dict[str, CircuitState]:
        """The circuits of the servers that were started so far, by id."""
        return {server_id: breaker.state for server_id, breaker in self._breakers.items()}

    def admit(self, server_id: str) -> CircuitBreaker:
        """Return the breaker that the start is to be recorded in, because it may have been forgotten by then.

        Raises: ServerUnavailableError with the latest failure of the server where it may not be started now.
        """
        breaker = self._breakers.setdefault(server_id, CircuitBreaker(self._now, open_s=self._open_s))
        wait_s = breaker.admit()
        latest = self._latest.get(server_id)
        if wait_s is None or latest is None:
            return breaker
        when = f"again in {max(wait_s, 1):.0f} s" if wait_s else "just now"
        raise ServerUnavailableError(
            server_id,
            f"it failed so often that it is left alone; it is tried {when}. The latest failure: {latest.reason}",
            may_pass=True,
            exit_mark=latest.exit_mark,
        )

    async def watch(self, start: Start, breaker: CircuitBreaker) -> None:
        """Wait until a server that was admitted has started or failed, and record the outcome in its breaker."""
        try:
            await start.ready()
        except ServerUnavailableError as error:
            if start.stopped:
                breaker.record_cancellation()
            elif error.may_pass:
                if self._breakers.get(start.server_id) is breaker:
                    self._latest[start.server_id] = error.copy()
                breaker.record_failure()
            else:
                breaker.record_success()  # it was reached, and refuses
        else:
            breaker.record_success()

    def forget(self) -> None:
        """Close all circuits, because the same ids may name other servers now."""
        self._breakers.clear()
        self._latest.clear()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
