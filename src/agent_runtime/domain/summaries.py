"""The list of tasks: a row for each, in pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from agent_runtime.domain.status import TERMINAL, TaskStatus


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """A row of the list of tasks, written in the same transaction as the journal."""

    task_id: str
    status: TaskStatus
    prompt: str
    plan_revision: int
    cancel_requested: bool
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    thread: str | None = None

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def size(self) -> int:
        """Return what counts of it against `PAGE_BYTES`: the characters of its prompt and metadata."""
        return len(self.prompt) + sum(len(name) + len(value) for name, value in self.metadata.items())


PAGE_BYTES = 1024 * 1024
"""The size in bytes at which a page ends."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of tasks, newest first. `next_cursor` is opaque, and None on the last page.

    The page ends with the task with which it exceeds `PAGE_BYTES`.
    """

    tasks: tuple[TaskSummary, ...]
    next_cursor: str | None
