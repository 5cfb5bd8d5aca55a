"""The retries of the clients: the time for which a service may be away, and the pauses between two tries."""

import time
from collections.abc import Callable

from agent_runtime.client.errors import ClientError, UnavailableError

SILENCE_S = 40.0
"""Seconds without data after which a stream counts as lost: the service sends a comment every 15 s (G8)."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


class Retries:
    """The time in which a service may be away, counted from its last answer, and the time for the whole."""

    def __init__(
        self, away_s: float, timeout_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._away_s = away_s
        self._clock = clock
        self._timeout_s = timeout_s
        self._end = None if timeout_s is None else clock() + timeout_s
        self.restart()

    def restart(self) -> None:
        """Begin anew, because the service has answered."""
        self._give_up_at = self._clock() + self._away_s
        self._pause_s = _FIRST_PAUSE_S

    def silence_s(self) -> float:
        """Return the seconds to wait for more of a stream. Raises: TimeoutError if the whole took too long."""
        self.check()
        return SILENCE_S if self._end is None else min(SILENCE_S, max(0.01, self._end - self._clock()))

    def check(self) -> None:
        """Check the time for the whole. Raises: TimeoutError."""
        if self._end is not None and self._clock() >= self._end:
            raise TimeoutError(f"The task has neither ended nor asked for anything within {self._timeout_s:g} s.")

    def pause_after(self, failure: ClientError | None) -> float:
        """Return the seconds until the next try. Raises: `failure` if the service was away too long; TimeoutError."""
        self.check()
        now = self._clock()
        if failure is not None and now >= self._give_up_at:
            raise failure
        pause, self._pause_s = self._pause_s, min(2 * self._pause_s, _LONGEST_PAUSE_S)
        if isinstance(failure, UnavailableError) and failure.retry_after is not None:
            pause = max(pause, failure.retry_after)
        left = [self._give_up_at - now] if failure is not None else []
        if self._end is not None:
            left.append(self._end - now)
        return max(0.0, min(pause, *left)) if left else pause
