"""The jobs of the queue that several processes share."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Job:
    """A job that a worker has taken, to run a task."""

    id: int
    task_id: str
