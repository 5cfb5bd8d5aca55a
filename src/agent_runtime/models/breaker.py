"""A circuit breaker: an endpoint that failed too often is left alone for a while, then tried with one request.

Written here, all of it, because no library fits: purgatory 3.0 lets every waiting request through when half open,
counts a cancelled one as a failure and reads the wall clock; pybreaker 1.4 is for threads and Tornado; aiobreaker has
not been released since 2021.
"""

from collections.abc import Callable
from typing import Literal


class CircuitBreaker:
    """Counts the outcomes of requests. Call `admit` before each request and one of the `record_...` methods after it.

    Opens after `failures` in a row, for `open_s` seconds by `clock`. After that one request at a time is let through:
    its success closes the circuit, its failure opens it again.
    """

    def __init__(self, clock: Callable[[], float], *, failures: int = 5, open_s: float = 30.0) -> None:
        self._clock = clock
        self._most = failures
        self._open_s = open_s
        self._failures = 0
        self._opened_at: float | None = None
        self._trying = False

    @property
    def state(self) -> Literal["closed", "half_open", "open"]:
        """`half_open` while a request is out that tries the endpoint again."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._trying else "open"

    def admit(self) -> float | None:
        """Null where a request may be sent now; else in how many seconds to ask again, 0 while another one tries."""
        if self._opened_at is None:
            return None
        left = self._opened_at + self._open_s - self._clock()
        if left > 0 or self._trying:
            return max(left, 0.0)
        self._trying = True
        return None

    def record_success(self) -> None:
        """The endpoint answered, be it with a refusal."""
        self._failures = 0
        self._opened_at = None
        self._trying = False

    def record_failure(self) -> None:
        """The endpoint could not be reached, or broke down. Late news of requests sent before it opened is ignored."""
        self._failures += 1
        if self._trying or (self._opened_at is None and self._failures >= self._most):
            self._opened_at = self._clock()
            self._trying = False

    def record_cancellation(self) -> None:
        """The request was cancelled, and says nothing of the endpoint."""
        self._trying = False
