"""How long one call of a task may take: longer than its time-out while its server reports progress."""

from collections.abc import Set as AbstractSet

from agent_runtime.domain.budget import seconds_left
from agent_runtime.domain.events import ToolCalled
from agent_runtime.domain.patience import Report, report_line
from agent_runtime.live.progress import Progress, Reported
from agent_runtime.services.run import Run


class CallPatience:
    """The `Patience` with one call: up to `longest_s` in all, and only seconds that the budget still has.

    What it gives beyond the time-out stands in `Run.extended_s` until the call has ended, so that nobody else gets it.
    """

    def __init__(
        self, run: Run, called: ToolCalled, longest_s: float, in_flight: AbstractSet[str], progress: Progress
    ) -> None:
        self._run = run
        self._called = called
        self._longest_s = longest_s
        self._in_flight = in_flight
        self._progress = progress

    def extend(self, seconds: float) -> float:
        """Return how many seconds the call may take in all, at most `seconds`."""
        run, step_id = self._run, self._called.step_id
        given_s = run.extended_s.get(step_id, 0.0)
        more_s = min(seconds, self._longest_s) - self._called.timeout_s - given_s
        if more_s > 0:
            given_s += max(0.0, min(more_s, seconds_left(run.charged_task, self._in_flight)))
            run.extended_s[step_id] = given_s
        return self._called.timeout_s + given_s

    def tell(self, report: Report) -> None:
        """Show the report to whoever follows the task."""
        step_id = self._called.step_id
        self._progress.say(self._run.task.task_id, Reported(step_id, report_line(step_id, report), report))
