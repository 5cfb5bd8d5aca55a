"""How long the service waits before it tries something again. All times are in seconds."""

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

    `after_crashes_s`: before each further try of a run that ended by a bug; after the last of them it is given up
    until the next start. `store_s`: before a run goes on that the store refused. `first_start_s` and `longest_start_s`:
    how long a task waits with which the service died again and again; the pause grows from the one to the other.
    `before_repetition` gives the pause after attempt number 1, 2, ... of an idempotent call.
    """

    after_crashes_s: tuple[float, ...] = (1.0, 5.0, 30.0)
    store_s: float = 2.0
    first_start_s: float = 10.0
    longest_start_s: float = 3600.0
    before_repetition: Callable[[int], float] = _before_repetition
