"""A circuit breaker: after too many failures of an endpoint, no request is sent for a while, then one to try it.

Written here because no library fits. purgatory 3.0 lets every waiting request through when half open, counts a
cancelled one as a failure and reads the wall clock; pybreaker 1.4 is for threads and Tornado; aiobreaker has not been
released since 2021.
"""

from collections.abc import Callable
from typing import Literal

CircuitState = Literal["closed", "half_open", "open"]


class CircuitBreaker:
    """Counts the outcomes of requests. Call `admit` before each request and one of the `record_...` methods after it.

    Opens after `failures` in a row, for `open_s` seconds by `clock`. Then it admits one request at a time: a success
    closes the circuit, a failure opens it again.
    """

    def __init__(self, clock: Callable[[], float], *, failures: int = 5, open_s: float = 30.0) -> None:
        self._clock = clock
        self._most = failures
        self._open_s = open_s
        self._failures = 0
        self._opened_at: float | None = None
        self._trying = False

    @property
    def state(self) -> CircuitState:
        """The state; `half_open` while a request is out that tries the endpoint again."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._trying else "open"

    def admit(self) -> float | None:
        """Return None if a request may be sent now; else the seconds to wait, 0 while another request tries the
        endpoint.
        """
        if self._opened_at is None:
            return None
        left = self._opened_at + self._open_s - self._clock()
        if left > 0 or self._trying:
            return max(left, 0.0)
        self._trying = True
        return None

    def record_success(self) -> None:
        """Record that the endpoint answered, if only with a refusal."""
        self._failures = 0
        self._opened_at = None
        self._trying = False

    def record_failure(self) -> None:
        """Record that the endpoint was unreachable or failed. Failures of requests sent before the circuit opened are
        ignored.
        """
        self._failures += 1
        if self._trying or (self._opened_at is None and self._failures >= self._most):
            self._opened_at = self._clock()
            self._trying = False

    def record_cancellation(self) -> None:
        """Record that the request was cancelled, which shows nothing about the endpoint."""
        self._trying = False
