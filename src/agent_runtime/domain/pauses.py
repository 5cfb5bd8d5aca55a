"""The pauses before retries, and between what is done again and again, in seconds."""

from collections.abc import Callable
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, wait_exponential_jitter

from agent_runtime.domain.task import LONGEST_PAUSE_S


def _make_pause(first_s: float, longest_s: float, jitter_s: float) -> Callable[[int], float]:
    """Return a function that gives the pause after attempt number 1, 2, ...: twice as long each time."""
    retrying = Retrying(wait=wait_exponential_jitter(multiplier=first_s, max=longest_s, jitter=jitter_s))

    def pause_s(attempt: int) -> float:
        state = RetryCallState(retrying, None, (), {})
        state.attempt_number = attempt
        return retrying.wait(state)

    return pause_s


_before_repetition = _make_pause(0.2, LONGEST_PAUSE_S, 0.1)
_in_outage = _make_pause(1.0, 300.0, 0.5)


@dataclass(frozen=True, slots=True)
class Pauses:
    """The pauses of one service.

    `after_crashes_s`: before each retry of a run that ended with a bug. After the last retry the run is abandoned until
    the next start.
    `store_s`: before a run continues after the store refused a write.
    `first_start_s`, `longest_start_s`: bounds of the growing delay for a task that was running when the service died
    several times in a row.
    `circuit_s`: how long an MCP server is left alone that failed five times in a row.
    `heartbeat_s`: between the heartbeats of a worker on a shared database. `silence_s`: after so long without one it is
    declared dead, and others take up its tasks. `look_s`: between looks for what no notice has told.
    `before_repetition`: returns the pause after attempt 1, 2, ... of an idempotent call.
    `in_outage`: returns the pause after attempt 1, 2, ... of reaching a server or a model.
    """

    after_crashes_s: tuple[float, ...] = (1.0, 5.0, 30.0)
    store_s: float = 2.0
    first_start_s: float = 10.0
    longest_start_s: float = 3600.0
    circuit_s: float = 30.0
    heartbeat_s: float = 3.0
    silence_s: float = 12.0
    look_s: float = 30.0
    before_repetition: Callable[[int], float] = _before_repetition
    in_outage: Callable[[int], float] = _in_outage
