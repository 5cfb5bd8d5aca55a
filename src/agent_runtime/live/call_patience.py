"""Decides how long a call may take while its server reports progress, and asks a person the server's questions."""

import asyncio
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Protocol

from agent_runtime.domain.budget import seconds_left
from agent_runtime.domain.elicitation import DECLINED, MOST_QUESTIONS, Question, Reply
from agent_runtime.domain.events import Event, EventRecord, InputAnswered, InputRequested, InputWithdrawn, ToolCalled
from agent_runtime.domain.patience import Report, report_line
from agent_runtime.domain.task import Task
from agent_runtime.live.identifiers import new_id
from agent_runtime.live.interruption import run_until
from agent_runtime.live.progress import Progress, Reported

_LAST_WORDS_S = 1.0
"""How long writing the end of a question may take. After that the server is declined in any case."""


class RunOfCall(Protocol):
    """The part of a run that a call needs; see `services/run.py`."""

    task: Task
    extended_s: dict[str, float]
    cancel: asyncio.Event

    @property
    def charged_task(self) -> Task: ...

    def post(self, event: Event) -> None: ...

    async def read_on(self, after: int) -> list[EventRecord]: ...

    def fall_behind(self) -> None: ...


class CallPatience:
    """The `Patience` with one call: `longest_s` in all at most, and only seconds that are left in the budget.

    Seconds beyond the time-out are in `Run.extended_s` until the call has ended, so that no other call gets them.
    """

    def __init__(
        self, run: RunOfCall, called: ToolCalled, longest_s: float, in_flight: AbstractSet[str], progress: Progress
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

    async def ask(self, question: Question, expired: asyncio.Event) -> Reply:
        """Ask a person, through the journal, and return the reply."""
        self._asked += 1
        if self._asked > MOST_QUESTIONS:
            return DECLINED
        async with self._one_at_a_time:
            return DECLINED if expired.is_set() else await self._ask(question, expired)

    async def _ask(self, question: Question, expired: asyncio.Event) -> Reply:
        run, called, question_id = self._run, self._called, new_id("question")
        asked = {"step_id": called.step_id, "question_id": question_id}
        requested = InputRequested(
            **asked,
            call_id=called.call_id,
            server=called.server,
            tool=called.tool,
            message=question.message,
            requested_schema=question.requested_schema,
        )
        withdrawn = InputWithdrawn(**asked, reason="it was not answered while the call could wait for it")
        after = run.task.version
        run.post(requested)
        try:
            end = await run_until(self._wait_for_end(question_id, after), expired, run.cancel)
        except asyncio.CancelledError:
            run.post(withdrawn)
            raise
        if end is None:
            run.post(withdrawn)
            # What the journal says counts: an answer may have been written a moment before.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    end = await self._wait_for_end(question_id, after)
        return Reply(end.action, end.content) if isinstance(end, InputAnswered) else DECLINED

    async def _wait_for_end(self, question_id: str, after: int) -> InputAnswered | InputWithdrawn:
        """Wait until the journal holds the end of the question."""
        while True:
            for record in await self._run.read_on(after):
                after, event = record.seq, record.event
                if isinstance(event, InputAnswered | InputWithdrawn) and event.question_id == question_id:
                    self._run.fall_behind()
                    return event
