"""Answers to interrupts, judged and then carried out, for every door that shows what a task asks as AG-UI has it."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from ag_ui.core import ResumeEntry

from agent_runtime.api.agui_input import RunRefusedError
from agent_runtime.api.agui_interrupts import (
    Asked,
    Subject,
    list_asked,
    parse_subject,
    read_decisions,
    scopes_of_decision,
    was_decided,
)
from agent_runtime.api.scopes import require_scope
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Cancel, Decision, Revise
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.decisions import find_text_faults
from agent_runtime.domain.errors import InvalidInputError, PlanOutdatedError
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.task import Task
from agent_runtime.services.task_manager import PAGE_OF_RECORDS

log = structlog.get_logger()


class Answers:
    """The answers of one request to what a task asks. `journals` is held while a whole journal is read."""

    def __init__(self, runtime: Runtime, caller: Caller, journals: asyncio.Semaphore) -> None:
        self._runtime = runtime
        self._caller = caller
        self._journals = journals

    async def give(
        self, task: Task, entries: Sequence[ResumeEntry], said: str | None = None, *, all_at_once: bool
    ) -> Task | None:
        """Judge all answers, then carry them out, and return the task; None if they are in the journal already.

        `said`: what the user says beside them. Beside a cancelled answer about a plan it is feedback: the task is
        planned again. With `all_at_once` they must answer everything that is open.

        Raises: RunRefusedError for an answer to nothing that is asked, or if `said` would be lost; ScopeMissingError,
        InvalidInputError, and as `TaskManager.decide`. Then nothing has changed, or a plan was edited and not approved.
        """
        named = [entry.interrupt_id for entry in entries]
        if len(set(named)) < len(named):
            raise RunRefusedError("resume_invalid", "Answer each interrupt once.")
        asked = {one.interrupt.id: one for one in list_asked(task)}
        decisions = await self._judge(task, asked, entries, said)
        if not decisions:
            return None
        if said is not None and not is_taken(task, said):
            self._check_message(task, decisions[0], said)
        missing = sorted(asked.keys() - set(named))
        if missing and all_at_once:
            raise RunRefusedError("resume_incomplete", f"Answer all that is open at once: {', '.join(missing)}.")
        return await self._decide(task, decisions)

    async def _judge(
        self, task: Task, asked: Mapping[str, Asked], entries: Sequence[ResumeEntry], said: str | None
    ) -> list[Decision]:
        """Return the decisions of the answers, without those that are in the journal already."""
        decisions: list[Decision] = []
        for entry in entries:
            one = asked.get(entry.interrupt_id)
            subject = one.subject if one else parse_subject(entry.interrupt_id, task.task_id)
            if subject is None:
                raise RunRefusedError("interrupt_unknown", f"{entry.interrupt_id[:300]!r} was not asked in this task.")
            made = read_decisions(subject, entry)
            if said is not None and made == (Cancel(),) and subject.kind == "plan":
                made = (Revise(feedback=said),)
            for decision in made:
                require_scope(self._caller, scopes_of_decision(decision))
            if one is not None:
                self._runtime.tasks.check(task, made[0], self._caller)  # before the first decision is made
                decisions += made
            elif entry.status == "cancelled" and task.terminal:
                continue  # there is nothing left to abandon
            elif not await self._was_decided(task, subject, made):
                raise RunRefusedError(
                    "interrupt_expired", f"{entry.interrupt_id[:300]!r} is no longer open: the task is {task.status}."
                )
        cancels: list[Decision] = [decision for decision in decisions if isinstance(decision, Cancel)]
        return cancels[:1] or decisions

    def _check_message(self, task: Task, decision: Decision, said: str) -> None:
        """Check that a message beside answers is not lost: it is feedback, or the next task once this one is cancelled.

        Raises: RunRefusedError, ScopeMissingError, InvalidInputError.
        """
        if isinstance(decision, Revise):
            return
        if not isinstance(decision, Cancel) or task.open_calls:
            message = "Answer what is open, or say something new beside cancelled answers: not both at once."
            raise RunRefusedError("resume_invalid", message)
        require_scope(self._caller, ("submit",))
        faults = find_text_faults("messages", said, self._runtime.settings.limits.prompt_bytes)
        if faults:
            raise InvalidInputError(faults)

    async def _was_decided(self, task: Task, subject: Subject, made: tuple[Decision, ...]) -> bool:
        async with self._journals:
            journal: list[EventRecord] = []
            while page := await self._runtime.tasks.records(task.task_id, self._caller, len(journal), PAGE_OF_RECORDS):
                journal += page
            return was_decided(subject, made, journal)

    async def _decide(self, task: Task, decisions: list[Decision]) -> Task:
        now = task
        try:
            for decision in decisions:
                made = decision
                if isinstance(made, Approve) and made.digest is None:  # of the plan that was edited just now
                    made = made.model_copy(update={"digest": now.plan_digest})
                now = await self._runtime.tasks.decide(task.task_id, made, self._caller)
        except PlanOutdatedError as error:  # the plan awaits approval again, as things are now
            log.info("plan_outdated_in_run", task_id=task.task_id, reason=str(error))
        return now


def is_taken(task: Task, said: str) -> bool:
    """Return whether this is the feedback that the task was planned with last. A client may send it again."""
    failed = task.revision_failure
    return said == failed.feedback if failed else task.feedback[-1:] == (said,)
