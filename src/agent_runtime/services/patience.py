"""Decides how long a call may take while its server reports progress, and asks a person the server's questions."""

import asyncio
from collections.abc import Set as AbstractSet

from agent_runtime.domain.budget import seconds_left
from agent_runtime.domain.elicitation import MOST_QUESTIONS, Question
from agent_runtime.domain.events import InputRequested, InputWithdrawn, ToolCalled
from agent_runtime.domain.patience import Report, report_line
from agent_runtime.domain.values import JsonObject
from agent_runtime.live.interruption import run_until
from agent_runtime.live.progress import Progress, Reported
from agent_runtime.services.identifiers import new_id
from agent_runtime.services.run import Run


class CallPatience:
    """The `Patience` with one call: `longest_s` in all at most, and only seconds that are left in the budget.

    Seconds beyond the time-out are in `Run.extended_s` until the call has ended, so that no other call gets them.
    """

    def __init__(
        self, run: Run, called: ToolCalled, longest_s: float, in_flight: AbstractSet[str], progress: Progress
    ) -> None:
        self._run = run
        self._called = called
        self._longest_s = longest_s
        self._in_flight = in_flight
        self._progress = progress
        self._asked = 0
        self._one_at_a_time = asyncio.Lock()

    @property
    def task_id(self) -> str:
        """The task of the call."""
        return self._run.task.task_id

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
        """Show the report to the followers of the task."""
        step_id = self._called.step_id
        self._progress.say(self.task_id, Reported(step_id, report_line(step_id, report), report))

    async def ask(self, question: Question, expired: asyncio.Event) -> JsonObject | None:
        """Ask a person, through the journal, and return the content of the answer; None if it is declined."""
        self._asked += 1
        if self._asked > MOST_QUESTIONS:
            return None
        return await run_until(self._ask(question), expired, self._run.cancel)

    async def _ask(self, question: Question) -> JsonObject | None:
        called, question_id = self._called, new_id("question")
        asked = {"step_id": called.step_id, "question_id": question_id}
        async with self._one_at_a_time:
            self._run.post(
                InputRequested(
                    **asked,
                    call_id=called.call_id,
                    server=called.server,
                    tool=called.tool,
                    message=question.message,
                    requested_schema=question.requested_schema,
                )
            )
            try:
                return await self._run.wait_for_answer(question_id)
            except asyncio.CancelledError:
                reason = "it was not answered while the call could wait for it"
                self._run.post(InputWithdrawn(**asked, reason=reason))
                raise
