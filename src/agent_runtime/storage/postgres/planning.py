"""The statements on the table `planning_attempts`."""

from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.planning_attempts import MOST_KEPT, PlanningAttempt
from agent_runtime.storage.conversions import read_attempts
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.journals import is_storable

_INSERT = """
INSERT INTO planning_attempts (task_id, number, data)
SELECT task_id, (SELECT coalesce(max(number), 0) + 1 FROM planning_attempts WHERE task_id = %(id)s), %(data)s
FROM tasks WHERE task_id = %(id)s
"""
_DELETE_OLD = """
DELETE FROM planning_attempts WHERE task_id = %(id)s
AND number <= (SELECT max(number) FROM planning_attempts WHERE task_id = %(id)s) - %(most)s
"""
_SELECT = """
SELECT number, data FROM tasks LEFT JOIN planning_attempts USING (task_id) WHERE task_id = %s ORDER BY number
"""
DELETE_ATTEMPTS = "DELETE FROM planning_attempts WHERE task_id = %s"


def insert_attempt(connection: Connection, task_id: str, data: str) -> None:
    """Add an attempt, as JSON, to those of a task, and drop the oldest beyond `MOST_KEPT`; do nothing if the task is
    gone.
    """
    connection.execute(_INSERT, {"id": task_id, "data": data})
    connection.execute(_DELETE_OLD, {"id": task_id, "most": MOST_KEPT})


def select_attempts(connection: Connection, task_id: str) -> list[tuple[int, PlanningAttempt]]:
    """Return the numbered attempts of a task, without those that cannot be read. Raises: TaskNotFoundError."""
    rows = connection.execute(_SELECT, (task_id,)).fetchall() if is_storable(task_id) else []
    if not rows:
        raise TaskNotFoundError(task_id)
    return read_attempts((number, data) for number, data in rows)
