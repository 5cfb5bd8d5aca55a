"""The statements on the table `planning_attempts`."""

import sqlite3

from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.planning_attempts import MOST_KEPT, PlanningAttempt
from agent_runtime.storage.conversions import read_attempts

_INSERT = """
INSERT INTO planning_attempts (task_id, number, data)
SELECT task_id, (SELECT coalesce(max(number), 0) + 1 FROM planning_attempts WHERE task_id = ?1), ?2
FROM tasks WHERE task_id = ?1
"""
_DELETE_OLD = """
DELETE FROM planning_attempts WHERE task_id = ?1
AND number <= (SELECT max(number) FROM planning_attempts WHERE task_id = ?1) - ?2
"""
_SELECT = """
SELECT number, data FROM tasks LEFT JOIN planning_attempts USING (task_id) WHERE task_id = ? ORDER BY number
"""
DELETE_ATTEMPTS = "DELETE FROM planning_attempts WHERE task_id = ?"


def insert_attempt(connection: sqlite3.Connection, task_id: str, data: str) -> None:
    """Add an attempt, as JSON, to those of a task, and drop the oldest beyond `MOST_KEPT`; do nothing if the task is
    gone.
    """
    connection.execute(_INSERT, (task_id, data))
    connection.execute(_DELETE_OLD, (task_id, MOST_KEPT))


def select_attempts(connection: sqlite3.Connection, task_id: str) -> list[tuple[int, PlanningAttempt]]:
    """Return the numbered attempts of a task, without those that cannot be read. Raises: TaskNotFoundError."""
    rows = connection.execute(_SELECT, (task_id,)).fetchall()
    if not rows:
        raise TaskNotFoundError(task_id)
    return read_attempts(rows)
