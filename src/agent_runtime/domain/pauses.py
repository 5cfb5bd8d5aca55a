"""The pauses before retries, in seconds."""

from collections.abc import Callable
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, wait_exponential_jitter

_REPEATING = Retrying(wait=wait_exponential_jitter(multiplier=0.2, max=5.0, jitter=0.1))


def _before_repetition(attempt: int) -> float:
    state = RetryCallState(_REPEATING, None, (), {})
    state.attempt_number = attempt
    return _REPEATING.wait(state)


@dataclass(frozen=True, slots=True)
class Pauses:
    """The pauses of one service.

    `after_crashes_s`: before each retry of a run that ended with a bug. After the last retry the run is abandoned until
    the next start.
    `store_s`: before a run continues after the store refused a write.
    `first_start_s`, `longest_start_s`: bounds of the growing delay for a task that was running when the service died
    several times in a row.
    `before_repetition`: returns the pause after attempt 1, 2, ... of an idempotent call.
    """

    after_crashes_s: tuple[float, ...] = (1.0, 5.0, 30.0)
    store_s: float = 2.0
    first_start_s: float = 10.0
    longest_start_s: float = 3600.0
    before_repetition: Callable[[int], float] = _before_repetition
