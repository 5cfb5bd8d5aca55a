"""The task manager: the operations that every API calls, each for a caller."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import structlog

from agent_runtime.config import ApprovalSettings, LimitSettings
from agent_runtime.domain.approval import Cancel, Decision, Edit
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.contract import Limits
from agent_runtime.domain.decisions import events_of, expect_editable, find_text_faults
from agent_runtime.domain.edited_calls import JudgeCall, check_edit
from agent_runtime.domain.errors import (
    ConflictError,
    DecisionRefusedError,
    DefinitionChangedError,
    Fault,
    ImageNotFoundError,
    InvalidInputError,
    InvalidPlanError,
    PlanOutdatedError,
    RequestKeyReusedError,
    ScopeMissingError,
    StoreClosedError,
    StoreUnavailableError,
    TaskNotFoundError,
)
from agent_runtime.domain.events import (
    CallApproved,
    Event,
    EventRecord,
    PlanApproved,
    TaskFailed,
    TaskSubmitted,
)
from agent_runtime.domain.feed import FeedEntry
from agent_runtime.domain.images import Image
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.rerun import Rerun, RerunFrom
from agent_runtime.domain.rerun_source import describe_source
from agent_runtime.domain.revisions import Revision, read_revisions
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.stored_journal import StoredJournal, read_record
from agent_runtime.domain.summaries import Page
from agent_runtime.domain.task import Task, expect_unchanged
from agent_runtime.domain.values import LARGE_BYTES, canonical, digest
from agent_runtime.live.identifiers import new_id
from agent_runtime.services.agent_service import PlannerAgent
from agent_runtime.services.expiry import Expiry
from agent_runtime.services.ports import Runner, TaskStore

log = structlog.get_logger()

PAGE_OF_RECORDS = 1000

FOLLOWED_AT_ONCE = 100
_OUTAGE_PAUSE_S = 1.0
_FOLLOWED_BYTES = 256 * 1024
"""The bytes of records in one batch of a follower, without the last record. It bounds the memory of a slow follower."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A request for a task. A repetition with the same `request_key` and `request_digest` returns the same task."""

    prompt: str
    plan: Plan | None = None
    approval: Literal["manual", "auto"] = "manual"
    tools: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_key: str | None = None
    request_digest: str | None = None
    rerun: Rerun | None = None
    thread: str | None = None


@dataclass(frozen=True, slots=True)
class RerunSubmission:
    """A request to run the finished task `task_id` again. `request_key` and `request_digest` are as in `Submission`."""

    task_id: str
    start: RerunFrom = "start"
    approval: Literal["manual", "auto"] = "manual"
    request_key: str | None = None
    request_digest: str | None = None


class TaskManager:
    """All operations on tasks. When a write returns, it is durable (G1).

    Each operation takes the caller. A write records the caller in the journal. Today every caller may read every task.
    """

    def __init__(
        self,
        store: TaskStore,
        runner: Runner,
        planner: PlannerAgent,
        limits: LimitSettings,
        approval: ApprovalSettings,
        expiry: Expiry,
        judge_call: JudgeCall,
    ) -> None:
        self._store = store
        self._runner = runner
        self._planner = planner
        self._limits = limits
        self._approval = approval
        self._expiry = expiry
        self._judge_call = judge_call

    async def submit(self, submission: Submission, caller: Caller) -> Task:
        """Create a task and have it planned. With a ready-made plan it awaits approval at once.

        A request key belongs to its caller: two callers may use the same key.
        Raises: InvalidInputError, InvalidPlanError (nothing was created), RequestKeyReusedError, StoreUnavailableError.
        """
        self._check(submission)
        existing = await self._find_existing(submission, caller)
        if existing is not None:
            return existing
        events: list[Event] = [
            TaskSubmitted(
                prompt=submission.prompt,
                approval=submission.approval,
                tools=submission.tools,
                limits=submission.limits,
                metadata=submission.metadata,
                request_key=submission.request_key,
                request_digest=submission.request_digest,
                rerun=submission.rerun,
                thread=submission.thread,
                **caller.signature,
            )
        ]
        if submission.plan is not None:
            auto = submission.approval == "auto"
            events += await self._planner.accept(
                submission.plan, submission.limits, submission.tools, auto=auto, rerun=submission.rerun
            )
        try:
            task = await self._store.append(Task(new_id("task")), events)
        except ConflictError as error:
            existing = await self._find_existing(submission, caller)
            if existing is None:
                raise RequestKeyReusedError(
                    "The Idempotency-Key was used for a task that is deleted, or cannot be found: use another."
                ) from error
            return existing
        log.info("task_submitted", task_id=task.task_id, status=task.status)
        await self._runner.wake(task.task_id)
        return task

    async def rerun(self, request: RerunSubmission, caller: Caller) -> Task:
        """Create a task that runs a finished one again: with its plan, judged against the current tools.

        If there is no plan to take over, the prompt is planned again. Raises: TaskNotFoundError, DecisionRefusedError
        (or its subclass RerunTooLargeError), ScopeMissingError, and as `submit`.
        """
        if not caller.may("read"):
            raise ScopeMissingError("To run a task again takes the scope 'read' too.", "read")
        source = await self._store.load(request.task_id)
        expect_unchanged(source)
        stored = await self._store.load_stored_journal(request.task_id)

        def describe() -> Rerun:
            read = (read_record(source.task_id, entry) for entry in stored.entries)
            records = (record for record in read if isinstance(record, EventRecord))
            return describe_source(source, stored.entries[-1].hash, records, request.start)

        submission = Submission(
            prompt=source.prompt,
            plan=source.contract.plan if source.contract else None,
            approval=request.approval,
            tools=source.tools,
            limits=source.limits,
            metadata=source.metadata,
            request_key=request.request_key,
            request_digest=digest([request.task_id, request.request_digest]) if request.request_digest else None,
            thread=source.thread,
            rerun=await asyncio.to_thread(describe) if source.journal_bytes > LARGE_BYTES else describe(),
        )
        try:
            return await self.submit(submission, caller)
        except InvalidPlanError as error:
            why = f"The plan of task {source.task_id} cannot be carried out as things are now: {error}"
            raise DecisionRefusedError(why, source.status) from error

    def _check(self, submission: Submission) -> None:
        faults = find_text_faults("prompt", submission.prompt, self._limits.prompt_bytes)
        if submission.approval == "auto" and not self._approval.auto_effects:
            message = "'auto' is not allowed here: the operator has set no approval.auto_effects. Use 'manual'."
            faults.append(Fault("approval", message))
        try:
            canonical(submission.limits.model_dump(mode="json"))
        except ValueError as error:
            faults.append(Fault("budget", f"JSON cannot hold a number exactly: {error}."))
        if faults:
            raise InvalidInputError(faults)
        self._planner.check_servers(submission.tools)

    async def _find_existing(self, submission: Submission, caller: Caller) -> Task | None:
        if submission.request_key is None:
            return None
        task = await self._store.find_request(caller.name, submission.request_key)
        if task is not None:
            expect_unchanged(task)
        if task is not None and task.request_digest != submission.request_digest:
            raise RequestKeyReusedError(
                f"The Idempotency-Key was already used for task {task.task_id} with another body; use a new key."
            )
        return task

    async def get(self, task_id: str, caller: Caller) -> Task:
        """Return the state of a task. Raises: TaskNotFoundError."""
        return await self._store.load(task_id)

    async def page(
        self,
        caller: Caller,
        status: TaskStatus | None = None,
        limit: int = 50,
        cursor: str | None = None,
        thread: str | None = None,
    ) -> Page:
        """Return a page of tasks, newest first. Raises: InvalidInputError for an invalid cursor."""
        return await self._store.page(status, limit, cursor, thread)

    async def count(self, caller: Caller) -> Mapping[TaskStatus, int]:
        """Return how many tasks there are in each status that occurs. Raises: StoreUnavailableError."""
        return await self._store.count()

    async def decide(self, task_id: str, decision: Decision, caller: Caller) -> Task:
        """Write a caller's decision, if the task's status and the caller's scopes allow it, and let the task go on.

        Cancelling a task that is being cancelled changes nothing.
        Raises: TaskNotFoundError, ScopeMissingError, DecisionRefusedError (or a subclass: EditOutdatedError for an edit
        of another plan than the current one), InvalidInputError, InvalidPlanError, StoreUnavailableError.
        """
        while True:
            task = await self._expiry.load(task_id)
            expect_unchanged(task)
            try:
                events = await self._events_of(task, decision, caller)
                if not events:
                    return task
                task = await self._store.append(task, events)
            except ConflictError:
                continue
            log.info("decided", task_id=task_id, decision=events[0].type, status=task.status, actor=caller.name)
            if isinstance(decision, Cancel):
                await self._runner.cancel(task_id)
            elif not (task.terminal or task.status is TaskStatus.AWAITING_APPROVAL):
                await self._runner.wake(task_id)
            return task

    async def _events_of(self, task: Task, decision: Decision, caller: Caller) -> list[Event]:
        """Return the events of a decision; an edit may first ask servers for their tools. Raises: as `decide`, and
        ConflictError.
        """
        events = self.check(task, decision, caller)
        if isinstance(decision, Edit):
            events = [await self._planner.edit(decision.plan, task, caller)]
            self._expect_in_time(task)
        for event in events:
            if isinstance(event, PlanApproved):
                await self._refuse_outdated(task, event, caller)
        return events

    def check(self, task: Task, decision: Decision, caller: Caller) -> list[Event]:
        """Check a decision as far as that takes no server, and return its events; those of an edit are not known yet.

        Raises: as `decide`.
        """
        if isinstance(decision, Edit):
            expect_editable(task, decision, caller, self._limits)
            return []
        events = events_of(task, decision, caller, self._limits, require_digest=self._approval.require_digest)
        for event in events:
            if isinstance(event, CallApproved):
                check_edit(task, event, self._judge_call)
        return events

    def _expect_in_time(self, task: Task) -> None:
        """Check that the task has not become overdue while servers were asked. Raises: ConflictError."""
        if self._expiry.is_overdue(task):
            raise ConflictError(f"Task {task.task_id} has expired meanwhile.")

    async def _refuse_outdated(self, task: Task, approval: PlanApproved, caller: Caller) -> None:
        """Refuse the approval if servers or model have changed since the plan was made.

        The same plan becomes the next revision, pinned to the current servers and model, to be read and approved. If
        the approval named no digest, the task fails instead.
        Raises: PlanOutdatedError, which lists the changes only to callers with `read`; ConflictError.
        """
        await self._planner.identify_model(task.contract)
        differences = self._planner.differences(task)
        if not differences or await self._planner.is_at_home_elsewhere(task):
            return
        changed = f"Servers or the model have changed since the plan was made. {' '.join(differences)}"
        shown = changed if caller.may("read") else "Servers or the model have changed since the plan was made."
        if not approval.names_digest:
            events: list[Event] = [TaskFailed(code=DefinitionChangedError.code, message=changed)]
            hint = "Nothing was approved, and the task has ended: this approval did not name the plan that was read."
        else:
            try:
                events = await self._planner.repin(task, differences)
            except InvalidPlanError as error:
                why = f": {error}" if caller.may("read") else "."
                hint = f"It cannot run with the current servers and model{why} Ask for another plan, or reject it."
                raise PlanOutdatedError(f"{shown} {hint}", task.status) from error
            self._expect_in_time(task)
            hint = f"Nothing was approved: read the plan again, which is revision {task.plan_revision + 1} now."
        task = await self._store.append(task, events)
        log.info("plan_outdated", task_id=task.task_id, status=task.status, differences=differences)
        raise PlanOutdatedError(f"{shown} {hint}", task.status)

    async def delete(self, task_id: str, caller: Caller) -> None:
        """Delete a task that has ended, or whose journal was changed.

        Raises: TaskNotFoundError, DecisionRefusedError, StoreUnavailableError.
        """
        while True:
            task = await self._store.load(task_id)
            if not (task.terminal or task.journal_change):
                raise DecisionRefusedError(
                    f"Task {task_id} is {task.status}; cancel it before you delete it.", task.status
                )
            try:
                await self._store.delete(task)
            except ConflictError:
                continue
            log.info("task_deleted", task_id=task_id, actor=caller.name)
            return

    async def records(
        self, task_id: str, caller: Caller, after: int = 0, limit: int = PAGE_OF_RECORDS
    ) -> list[EventRecord]:
        """Return the records after number `after`, at most `limit`. Raises: TaskNotFoundError."""
        return await self._store.records(task_id, after, limit)

    async def load_stored_journal(self, task_id: str, caller: Caller) -> StoredJournal:
        """Return everything stored of a task, for the audit. Raises: TaskNotFoundError, StoreUnavailableError."""
        return await self._store.load_stored_journal(task_id)

    async def load_image(self, task_id: str, digest: str, caller: Caller) -> Image:
        """Return an image of a result. Raises: TaskNotFoundError, ImageNotFoundError, StoreUnavailableError."""
        await self.get(task_id, caller)
        image = await self._store.load_image(task_id, digest)
        if image is None:
            raise ImageNotFoundError(task_id, digest)
        return image

    async def list_planning_attempts(self, task_id: str, caller: Caller) -> list[tuple[int, PlanningAttempt]]:
        """Return the attempts at plans of a task, each with its number. Raises: TaskNotFoundError."""
        return await self._store.load_planning_attempts(task_id)

    async def read_revisions(self, task_id: str, caller: Caller) -> list[Revision]:
        """Return every revision of the plan, in order. Raises: TaskNotFoundError."""
        task = await self._store.load(task_id)
        found: list[Revision] = []
        journal: list[EventRecord] = []
        while len(found) < task.plan_revision:
            after = journal[-1].seq if journal else 0
            journal += await self._store.records(task_id, after, PAGE_OF_RECORDS)
            found = list(read_revisions(journal))
        return found

    async def subscribe(
        self, caller: Caller, after: str | None = None, idle_s: float | None = None
    ) -> AsyncGenerator[tuple[FeedEntry, ...], None]:
        """Return the feed of all tasks that the caller may read, after a cursor; see `TaskStore.subscribe`.

        Raises: InvalidInputError for an invalid cursor.
        """
        return await self._store.subscribe(after, idle_s=idle_s)

    async def follow(
        self, task_id: str, caller: Caller, after: int = 0, idle_s: float | None = None
    ) -> AsyncGenerator[list[EventRecord], None]:
        """Yield the records after number `after` in batches as the journal grows, up to the terminal event (G8).

        With `idle_s`, yield an empty batch whenever nothing has happened for that many seconds. Waits for the end of an
        outage of the store.
        Raises: TaskNotFoundError and StoreUnavailableError before the first batch. If the task is deleted later, or the
        store is closed, the iteration ends.
        """
        await self._store.load(task_id)
        at_once = FOLLOWED_AT_ONCE
        with self._store.watch(task_id):
            while True:
                try:
                    records = _limit_batch(await self._store.records(task_id, after, at_once, newest=False))
                    if records:
                        at_once = min(2 * len(records), FOLLOWED_AT_ONCE)  # records that are not yielded are read again
                        after = records[-1].seq
                        yield records
                        if records[-1].event.ends_task:
                            return
                    elif (task := await self._store.load(task_id)).terminal and task.version <= after:
                        return
                    async with asyncio.timeout(idle_s):
                        await self._store.wait_for_change(task_id, after)
                except TimeoutError:
                    yield []
                except (TaskNotFoundError, StoreClosedError):
                    return
                except StoreUnavailableError:
                    if idle_s is not None:
                        yield []
                    await asyncio.sleep(_OUTAGE_PAUSE_S)


def _limit_batch(records: list[EventRecord]) -> list[EventRecord]:
    """Return the first records, up to the one that takes them past `_FOLLOWED_BYTES`."""
    size = 0
    for index, record in enumerate(records):
        size += len(record.data)
        if size > _FOLLOWED_BYTES:
            return records[: index + 1]
    return records
