"""The outages that a run meets. Its task waits for their end once no other step can go on."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Literal

import structlog

from agent_runtime.domain.errors import AgentRuntimeError, ServerUnavailableError
from agent_runtime.domain.events import TaskWaiting
from agent_runtime.domain.outages import OutageLimits, end_call
from agent_runtime.domain.references import text_of
from agent_runtime.domain.task import may_outlast, may_repeat
from agent_runtime.domain.tools import StoredResult
from agent_runtime.services.broker import Outcome
from agent_runtime.services.executor_agent import Answered
from agent_runtime.services.run import Run

log = structlog.get_logger()


class Waits:
    """Keeps the steps of one run that an outage holds up. `begun`: the task waits, so the run ends."""

    def __init__(self, run: Run, outages: OutageLimits) -> None:
        self._run = run
        self._outages = outages
        self._calls: dict[str, AgentRuntimeError] = {}
        self._answers: dict[str, Answered] = {}
        self._exits: dict[str, tuple[str | None, int]] = {}
        self.begun = False

    @property
    def steps(self) -> AbstractSet[str]:
        """The ids of the steps that are held up."""
        return self._calls.keys() | self._answers.keys()

    def clear(self) -> None:
        """Forget all steps that are held up, because the task is being cancelled."""
        self._calls.clear()
        self._answers.clear()

    def settle(self, outcome: Outcome | Answered) -> None:
        """Stage an outcome, or hold its step up if it met an outage."""
        if isinstance(outcome, Answered) and outcome.outage is not None:
            self._answers[outcome.step_id] = outcome
        elif isinstance(outcome, Answered) or not self._hold(outcome):
            outcome.stage(self._run)

    def _hold(self, outcome: Outcome) -> bool:
        """Hold up the step of a call that an outage left without an answer, or end the call if it has waited too long.

        Return False if neither is due. The call is first repeated within the run, unless the task has waited already,
        or the server names a time.
        """
        step_id, task, error = outcome.step_id, self._run.task, outcome.outage
        exits = self._count_exits(step_id, error)
        call = task.steps[step_id].call
        if error is None or call is None or self._run.cancel.is_set() or not may_outlast(task, call):
            return False
        if may_repeat(task, step_id) and task.waiting is None and not error.retry_after_s:
            return False
        if self._plan_wait("server", outcome.intent.called.server, error, exits) is not None:
            self._calls[step_id] = error
        elif task.waiting is not None:
            self._end_calls({step_id: error})
        else:
            return False
        return True

    def _count_exits(self, step_id: str, error: AgentRuntimeError | None) -> int:
        """Return how often in a row the server of a step has now ended in the same way; 1 if this end is new."""
        before, times = self._exits.get(step_id, (None, 0))
        mark = error.exit_mark if error else None
        times = times + 1 if mark is not None and mark == before else 1
        self._exits[step_id] = mark, times
        return times

    def outlast(self, step_id: str, server: str, result: StoredResult) -> None:
        """Hold up a step whose call met an outage. If the task may not wait for its end, stage the end of the call."""
        after_s = result.retry_after_s or 0.0
        error = ServerUnavailableError(server, text_of(result), may_pass=True, retry_after_s=after_s)
        if self._plan_wait("server", server, error) is None:
            self._end_calls({step_id: error})
        else:
            self._calls[step_id] = error

    def begin_for_steps(self) -> None:
        """Have the task wait for what holds up its steps, or stage the end of what has waited too long."""
        task = self._run.task
        if self._calls:
            step_id, error = max(self._calls.items(), key=lambda held: held[1].retry_after_s)
            call = task.steps[step_id].call
            if not self.begin("server", call.server if call else "", error, self._exits.get(step_id, (None, 1))[1]):
                self._end_calls(self._calls)
                self._calls.clear()
            return
        answers = list(self._answers.values())
        outage, name = answers[0].outage, answers[0].question.request.model
        if outage is None or not self.begin("model", name or "", outage):
            for failed in answers:
                failed.stage(self._run)
            self._answers.clear()

    def begin(
        self, kind: Literal["server", "model", "planner"], name: str, error: AgentRuntimeError, exits: int = 1
    ) -> bool:
        """Stage a wait if the error may pass and time is left; the run then ends. Return whether it was staged."""
        waiting = self._plan_wait(kind, name, error, exits)
        if waiting is None:
            return False
        log.warning("task_waits", kind=kind, name=name, reason=waiting.reason, next_try_at=waiting.next_try_at)
        self.begun = True
        self._run.stage(waiting)
        return True

    def _end_calls(self, calls: Mapping[str, AgentRuntimeError]) -> None:
        for step_id, error in calls.items():
            self._run.stage(*end_call(self._run.task, step_id, error, datetime.now(UTC)))

    def _plan_wait(
        self, kind: Literal["server", "model", "planner"], name: str, error: AgentRuntimeError, exits: int = 1
    ) -> TaskWaiting | None:
        return self._outages.wait_for(self._run.task, kind, name, error, datetime.now(UTC), exits=exits)
