"""The statements that every database of a store has, each a function of a connection.

The modules `commits`, `images`, `journals`, `planning`, `rows`, `starts` and `states` of a database have these shapes.
All run in a thread of the store, on that thread's connection.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from agent_runtime.domain.commits import CommitHead, Deletion
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.feed import FeedPage, FeedPosition
from agent_runtime.domain.images import Image
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.stored_journal import StoredJournal
from agent_runtime.domain.summaries import Page
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import JudgedDefinition
from agent_runtime.storage.states import StateStatements

C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)


class RowStatements(Protocol[C_contra]):
    """Statements on tasks, records and definitions, but for appends."""

    def select_journal(self, connection: C_contra, task_id: str) -> tuple[Task, list[EventRecord], str]: ...
    def select_records(self, connection: C_contra, task_id: str, after: int, limit: int) -> list[EventRecord]: ...
    def select_version(self, connection: C_contra, task_id: str) -> int | None: ...
    def select_not_cancelled(self, connection: C_contra, task_ids: Collection[str]) -> set[str]: ...
    def select_request(self, connection: C_contra, submitter: str, request_key: str) -> str | None: ...
    def select_page(
        self, connection: C_contra, status: TaskStatus | None, changed: Collection[str], before: int, limit: int
    ) -> Page: ...
    def select_thread_page(
        self,
        connection: C_contra,
        thread: str,
        status: TaskStatus | None,
        changed: Collection[str],
        before: int,
        limit: int,
    ) -> Page: ...
    def select_unfinished(self, connection: C_contra) -> list[str]: ...
    def select_awaiting(
        self, connection: C_contra, changed: Collection[str], limit: int
    ) -> list[tuple[str, datetime]]: ...
    def select_ended(self, connection: C_contra, status: TaskStatus, before: datetime, limit: int) -> list[str]: ...
    def select_counts(self, connection: C_contra, changed: Collection[str]) -> dict[TaskStatus, int]: ...
    def select_definitions(self, connection: C_contra, identity: str) -> list[JudgedDefinition] | None: ...
    def save_definitions(self, connection: C_contra, identity: str, definitions: bytes) -> None: ...
    def delete_task(self, connection: C_contra, task: Task) -> Deletion: ...
    def beat(self, connection: C_contra, at: datetime) -> None: ...


class JournalStatements(Protocol[C_contra]):
    def select_stored_journal(self, connection: C_contra, task_id: str) -> StoredJournal: ...


class CommitStatements(Protocol[C_contra]):
    def check_position(self, connection: C_contra, seen: FeedPosition) -> None: ...
    def select_end(self, connection: C_contra) -> FeedPosition | None: ...
    def select_feed(self, connection: C_contra, seen: FeedPosition | None) -> FeedPage: ...
    def select_head(self, connection: C_contra) -> CommitHead: ...


class StartStatements(Protocol[C_contra]):
    def select_starts(self, connection: C_contra) -> dict[str, int]: ...
    def note_starts(self, connection: C_contra, task_ids: Iterable[str]) -> None: ...
    def forget_starts(self, connection: C_contra) -> None: ...


class PlanningStatements(Protocol[C_contra]):
    def insert_attempt(self, connection: C_contra, task_id: str, data: str) -> None: ...
    def select_attempts(self, connection: C_contra, task_id: str) -> list[tuple[int, PlanningAttempt]]: ...


class ImageStatements(Protocol[C_contra]):
    def insert_images(
        self, connection: C_contra, task_id: str, images: Sequence[Image], most_bytes: int
    ) -> frozenset[str]: ...
    def select_image(self, connection: C_contra, task_id: str, digest: str) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Statements(Generic[C]):
    """The modules with the statements of one kind of database."""

    rows: RowStatements[C]
    journals: JournalStatements[C]
    commits: CommitStatements[C]
    starts: StartStatements[C]
    planning: PlanningStatements[C]
    states: StateStatements[C]
    images: ImageStatements[C]
