"""The statements on the table `starts`: in how many starts a task was resumed without progress."""

import sqlite3
from collections.abc import Iterable

_NOTE = """
INSERT INTO starts (task_id, facts, count)
VALUES (?1, (SELECT count(*) FROM events WHERE task_id = ?1 AND type <> 'task.claimed'), 1)
ON CONFLICT (task_id) DO UPDATE SET
    count = CASE WHEN facts = excluded.facts THEN count + 1 ELSE 1 END, facts = excluded.facts
"""
_SELECT = """
SELECT task_id, count FROM starts
WHERE facts = (SELECT count(*) FROM events WHERE events.task_id = starts.task_id AND type <> 'task.claimed')
"""


def note_starts(connection: sqlite3.Connection, task_ids: Iterable[str]) -> None:
    """Count one more start for each of these tasks; begin again at 1 if a task has made progress since the last."""
    connection.executemany(_NOTE, [(task_id,) for task_id in task_ids])


def select_starts(connection: sqlite3.Connection) -> dict[str, int]:
    """Return in how many starts in a row each task was resumed without progress. Tasks with progress are left out."""
    return dict(connection.execute(_SELECT).fetchall())


def forget_starts(connection: sqlite3.Connection) -> None:
    """Reset all counts, because the service stops in order."""
    connection.execute("DELETE FROM starts")
