"""A second task store, in memory. It uses only the port and `storage.base`, to show that the port is sufficient."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

from agent_runtime.domain.chain import GENESIS, format_time
from agent_runtime.domain.commits import (
    CHANGES,
    CHECKPOINT,
    Change,
    Commit,
    CommitHead,
    Deletion,
    chain_commit,
    encode_changes,
    encode_checkpoint,
)
from agent_runtime.domain.cursors import LAST_POSITION, position_of
from agent_runtime.domain.errors import ConflictError, StateChangedError, StoreUnavailableError, TaskNotFoundError
from agent_runtime.domain.events import Event, EventRecord
from agent_runtime.domain.feed import (
    NEWEST,
    FeedEntry,
    FeedPage,
    FeedPosition,
    check_cursor,
    end_of,
    parse_cursor,
)
from agent_runtime.domain.images import Image, select_new
from agent_runtime.domain.planning_attempts import MOST_KEPT, PlanningAttempt
from agent_runtime.domain.status import TERMINAL, WAITING, TaskStatus
from agent_runtime.domain.stored_journal import StoredIndex, StoredJournal, StoredRecord
from agent_runtime.domain.summaries import Page, TaskSummary
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import JudgedDefinition
from agent_runtime.states.saved import Condition, SavedState, allow_any
from agent_runtime.storage.base import Draft, chain_records, draft_append, make_append_error, make_page, utc_now
from agent_runtime.storage.feed import follow_feed, read_page
from agent_runtime.storage.followers import Watch


@dataclass(slots=True)
class Journal:
    task: Task
    position: int
    records: list[EventRecord] = field(default_factory=list)
    entries: list[StoredRecord] = field(default_factory=list)
    attempts: list[tuple[int, PlanningAttempt]] = field(default_factory=list)
    images: dict[str, Image] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return self.entries[-1].hash if self.entries else GENESIS

    @property
    def facts(self) -> int:
        """The number of records other than claims; it grows with the progress of the task."""
        return sum(record.type != "task.claimed" for record in self.records)

    @property
    def runs_without_people(self) -> bool:
        return self.task.status not in TERMINAL | WAITING or (
            self.task.status in WAITING and (self.task.cancel_requested or bool(self.task.questions))
        )

    def extend(self, draft: Draft) -> None:
        rows, _ = chain_records(self.head, draft.records)
        self.records += draft.records
        self.entries += [StoredRecord(*row[1:]) for row in rows]
        self.task = draft.task

    def read(self, change: Change) -> list[EventRecord]:
        """Return the records of a change; an empty list if it belongs to an earlier task with this id."""
        wanted = self.records[change.first - 1 : change.last]
        return wanted if wanted and self.entries[wanted[-1].seq - 1].hash == change.head else []


@dataclass(slots=True)
class Memory:
    """The content of the store, which outlives one opening."""

    journals: dict[str, Journal] = field(default_factory=dict)
    positions: int = 0
    starts: dict[str, tuple[int, int]] = field(default_factory=dict)
    definitions: dict[str, list[JudgedDefinition]] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    states: dict[tuple[str, str], SavedState] = field(default_factory=dict)

    def commit(self, kind: str, data: str) -> None:
        head = self.commits[-1].head if self.commits else CommitHead()
        self.commits.append(Commit(*chain_commit(head, format_time(utc_now()), kind, data)))


class MemoryStates:
    """A `StateStore` on a `Memory`."""

    def __init__(self, memory: Memory) -> None:
        self._states = memory.states

    async def load(self, agent: str, thread: str, horizon: datetime | None = None) -> SavedState | None:
        state = self._states.get((agent, thread))
        return None if state is None or (horizon and state.saved_at < horizon) else state

    async def save(
        self, agent: str, thread: str, data: str, condition: Condition = allow_any, horizon: datetime | None = None
    ) -> SavedState:
        current = await self._expect(agent, thread, condition, horizon)
        saved = SavedState(agent, thread, current.number + 1 if current else 1, data, utc_now())
        self._states[agent, thread] = saved
        return saved

    async def delete(
        self, agent: str, thread: str, condition: Condition = allow_any, horizon: datetime | None = None
    ) -> bool:
        current = await self._expect(agent, thread, condition, horizon)
        self._states.pop((agent, thread), None)
        return current is not None

    async def delete_expired(self, horizon: datetime, limit: int) -> int:
        expired = [name for name, state in self._states.items() if state.saved_at < horizon][:limit]
        for name in expired:
            del self._states[name]
        return len(expired)

    async def _expect(
        self, agent: str, thread: str, condition: Condition, horizon: datetime | None
    ) -> SavedState | None:
        current = await self.load(agent, thread, horizon)
        if not condition(current):
            raise StateChangedError(agent, thread, current.revision if current else None)
        return current


class MemoryStore:
    """A `TaskStore` on a `Memory`, for one event loop at a time."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._grown = asyncio.Event()
        self._commits = Watch()
        self.states = MemoryStates(memory)
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._commits.end()
        self._wake()

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        draft = draft_append(task, events, epoch, utc_now)
        if not draft.records:
            return task
        self._check_open()
        journal = self._memory.journals.get(task.task_id)
        if task.version == 0:
            journal = self._create(draft.task, journal)
        elif journal is None or journal.task.version != task.version:
            found = (journal.task.version, journal.task.epoch) if journal else None
            raise make_append_error(task.task_id, task.version, epoch, found)
        journal.extend(draft)
        change = Change(task.task_id, draft.records[0].seq, draft.task.version, journal.head)
        self._commit(CHANGES, encode_changes([change]))
        self._wake()
        return draft.task

    def _create(self, task: Task, known: Journal | None) -> Journal:
        if known is not None or (task.request_key is not None and self._find_request(task.submitter, task.request_key)):
            raise ConflictError(f"Task {task.task_id}, or one with its request key, exists already.")
        self._memory.positions += 1
        journal = self._memory.journals[task.task_id] = Journal(task, self._memory.positions)
        if task.rerun is not None and (source := self._memory.journals.get(task.rerun.task_id)):
            journal.images = {one: source.images[one] for one in task.rerun.image_digests if one in source.images}
        return journal

    def _find_request(self, submitter: str | None, request_key: str) -> Task | None:
        tasks = (journal.task for journal in self._memory.journals.values())
        wanted = (submitter, request_key)
        return next((task for task in tasks if (task.submitter, task.request_key) == wanted), None)

    async def load(self, task_id: str) -> Task:
        return self._journal(task_id).task

    async def find_request(self, submitter: str, request_key: str) -> Task | None:
        return self._find_request(submitter, request_key)

    async def records(
        self,
        task_id: str,
        after: int = 0,
        limit: int = 1000,
        *,
        newest: bool = True,  # noqa: ARG002 - all are at hand
    ) -> list[EventRecord]:
        return self._journal(task_id).records[after : after + limit]

    async def load_stored_journal(self, task_id: str) -> StoredJournal:
        journal = self._journal(task_id)
        task, first, last = journal.task, journal.records[0], journal.records[-1]
        index = StoredIndex(
            version=task.version,
            epoch=task.epoch,
            status=task.status.value,
            prompt=task.prompt,
            plan_revision=task.plan_revision,
            cancel_requested=int(task.cancel_requested),
            metadata=json.dumps(dict(task.metadata)),
            created_at=format_time(first.at),
            updated_at=format_time(last.at),
            request_key=task.request_key,
            head=journal.head,
            submitter=task.submitter,
            thread=task.thread,
        )
        return StoredJournal(task_id, tuple(journal.entries), index)

    def watch(self, task_id: str) -> AbstractContextManager[object]:  # noqa: ARG002 - nobody else writes
        return nullcontext()

    async def wait_for_change(self, task_id: str, after: int) -> None:
        while self._open:
            journal = self._memory.journals.get(task_id)
            if journal is None or journal.task.version > after:
                return
            await self._grown.wait()

    async def wait_for_cancellation(self, task_id: str) -> None:
        while self._open:
            journal = self._memory.journals.get(task_id)
            if journal is None or journal.task.cancel_requested:
                return
            await self._grown.wait()

    async def page(
        self, status: TaskStatus | None = None, limit: int = 50, cursor: str | None = None, thread: str | None = None
    ) -> Page:
        before = LAST_POSITION if cursor is None else position_of(cursor, "tasks")
        newest_first = sorted(self._memory.journals.values(), key=lambda journal: -journal.position)
        found = [
            one
            for one in newest_first
            if one.position < before and status in {None, one.task.status} and thread in {None, one.task.thread}
        ]
        return make_page(((one.position, _summary(one)) for one in found), limit)

    async def count(self) -> Mapping[TaskStatus, int]:
        return Counter(journal.task.status for journal in self._memory.journals.values())

    @property
    def sharing(self) -> None:
        return None

    async def measure_fleet(self) -> None:
        return None

    async def list_ended(self, status: TaskStatus, before: datetime, limit: int) -> list[str]:
        tasks = (journal.task for journal in self._memory.journals.values())
        ended = [task for task in tasks if task.status is status and task.updated_at and task.updated_at < before]
        return [task.task_id for task in ended][:limit]

    async def list_unfinished(self) -> list[str]:
        return [task_id for task_id, journal in self._memory.journals.items() if journal.runs_without_people]

    async def starts(self) -> dict[str, int]:
        journals = self._memory.journals
        counted = ((task_id, *start) for task_id, start in self._memory.starts.items() if task_id in journals)
        return {task_id: count for task_id, facts, count in counted if journals[task_id].facts == facts}

    async def note_starts(self, task_ids: Collection[str]) -> None:
        known = await self.starts()
        for task_id in task_ids:
            self._memory.starts[task_id] = (self._journal(task_id).facts, known.get(task_id, 0) + 1)

    async def forget_starts(self) -> None:
        self._memory.starts.clear()

    async def list_awaiting_approval(self, limit: int) -> list[tuple[str, datetime]]:
        tasks = (journal.task for journal in self._memory.journals.values())
        waiting = [
            (task.task_id, task.updated_at)
            for task in tasks
            if task.status is TaskStatus.AWAITING_APPROVAL and not task.cancel_requested and task.updated_at
        ]
        return sorted(waiting, key=lambda one: one[1])[:limit]

    async def delete(self, task: Task) -> None:
        if self._journal(task.task_id).task.version != task.version:
            raise ConflictError(f"Task {task.task_id} is not at event {task.version}: read it again.")
        journal = self._memory.journals.pop(task.task_id)
        if task.thread not in {one.task.thread for one in self._memory.journals.values()}:
            for name in [name for name in self._memory.states if name[1] == task.thread]:
                del self._memory.states[name]
        self._commit(CHANGES, encode_changes([Deletion(task.task_id, task.version, journal.head)]))
        self._wake()

    async def subscribe(
        self, after: str | None = None, *, idle_s: float | None = None
    ) -> AsyncGenerator[tuple[FeedEntry, ...], None]:
        seen = None if after in (None, NEWEST) else parse_cursor(after)
        if after == NEWEST:
            seen = end_of(self._memory.commits[-1] if self._memory.commits else None)
        elif seen is not None:
            head = await self.commit_head()
            named = next((commit for commit in self._memory.commits if commit.position == seen.commit), None)
            check_cursor(seen, head.position, named)
        return follow_feed(self._read_feed, self._commits, seen, idle_s, announced=after == NEWEST)

    async def _read_feed(self, seen: FeedPosition | None) -> FeedPage:
        rows = self._memory.commits
        first = rows[0] if rows else None
        return read_page(seen, first, lambda start: (row for row in rows if row.position >= start), self._read_change)

    def _read_change(self, change: Change) -> list[EventRecord]:
        journal = self._memory.journals.get(change.task_id)
        return journal.read(change) if journal else []

    async def commit_head(self) -> CommitHead:
        return self._memory.commits[-1].head if self._memory.commits else CommitHead()

    async def checkpoint(self, *, drop: bool = False) -> None:
        journals = self._memory.journals.items()
        heads = [Change(task_id, 1, journal.task.version, journal.head) for task_id, journal in journals]
        previous = self._memory.commits[-1] if self._memory.commits else None
        self._commit(CHECKPOINT, encode_checkpoint(heads, previous, drop=drop))
        if drop:
            del self._memory.commits[:-1]

    def _commit(self, kind: str, data: str) -> None:
        self._memory.commit(kind, data)
        self._commits.advance(self._memory.commits[-1].position)

    async def save_planning_attempt(self, task_id: str, attempt: PlanningAttempt) -> None:
        journal = self._memory.journals.get(task_id)
        if journal is not None:
            number = journal.attempts[-1][0] + 1 if journal.attempts else 1
            journal.attempts = [*journal.attempts, (number, attempt)][-MOST_KEPT:]

    async def load_planning_attempts(self, task_id: str) -> list[tuple[int, PlanningAttempt]]:
        return list(self._journal(task_id).attempts)

    async def save_images(self, task_id: str, images: Sequence[Image], most_bytes: int) -> frozenset[str]:
        journal = self._memory.journals.get(task_id)
        if journal is None:
            return frozenset()
        known = {digest: image.size for digest, image in journal.images.items()}
        journal.images |= {image.digest: image for image in select_new(images, known, most_bytes)}
        return frozenset(journal.images)

    async def load_image(self, task_id: str, digest: str) -> Image | None:
        journal = self._memory.journals.get(task_id)
        return journal.images.get(digest) if journal else None

    async def save_definitions(self, identity: str, definitions: Sequence[JudgedDefinition]) -> None:
        self._memory.definitions[identity] = list(definitions)

    async def load_definitions(self, identity: str) -> list[JudgedDefinition] | None:
        return self._memory.definitions.get(identity)

    async def check(self) -> None:
        self._check_open()

    def _check_open(self) -> None:
        if not self._open:
            raise StoreUnavailableError("The store is closed.")

    def _journal(self, task_id: str) -> Journal:
        journal = self._memory.journals.get(task_id)
        if journal is None:
            raise TaskNotFoundError(task_id)
        return journal

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


def _summary(journal: Journal) -> TaskSummary:
    task = journal.task
    return TaskSummary(
        task_id=task.task_id,
        status=task.status,
        prompt=task.prompt,
        plan_revision=task.plan_revision,
        cancel_requested=task.cancel_requested,
        metadata=task.metadata,
        created_at=journal.records[0].at,
        updated_at=journal.records[-1].at,
        thread=task.thread,
    )
