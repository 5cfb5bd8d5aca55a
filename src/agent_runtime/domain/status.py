"""The statuses of a task."""

from enum import StrEnum


class TaskStatus(StrEnum):
    """The status of a task. The last five are terminal: they never change (G7)."""

    PENDING = "pending"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    EXECUTING = "executing"
    NEEDS_ATTENTION = "needs_attention"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL = frozenset(
    {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.REJECTED, TaskStatus.CANCELLED, TaskStatus.EXPIRED}
)
WAITING = frozenset({TaskStatus.AWAITING_APPROVAL, TaskStatus.NEEDS_ATTENTION})
"""Statuses in which the task waits for a person and nothing runs."""
