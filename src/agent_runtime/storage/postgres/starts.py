"""The statements on the table `starts`: in how many starts a task was resumed without progress."""

from collections.abc import Iterable

from agent_runtime.storage.postgres.connecting import Connection

_NOTE = """
INSERT INTO starts (task_id, facts, count)
SELECT id, (SELECT count(*) FROM events WHERE task_id = id AND type <> 'task.claimed'), 1 FROM unnest(%s::text[]) id
ON CONFLICT (task_id) DO UPDATE SET
    count = CASE WHEN starts.facts = excluded.facts THEN starts.count + 1 ELSE 1 END, facts = excluded.facts
"""
_SELECT = """
SELECT task_id, count FROM starts
WHERE facts = (SELECT count(*) FROM events WHERE events.task_id = starts.task_id AND type <> 'task.claimed')
"""


def note_starts(connection: Connection, task_ids: Iterable[str]) -> None:
    """Count one more start for each of these tasks; begin again at 1 if a task has made progress since the last."""
    connection.execute(_NOTE, ([*task_ids],))


def forget_starts(connection: Connection) -> None:
    """Reset all counts, because the service stops in order."""
    connection.execute("DELETE FROM starts")


def select_starts(connection: Connection) -> dict[str, int]:
    """Return in how many starts in a row each task was resumed without progress. Tasks with progress are left out."""
    return dict(connection.execute(_SELECT).fetchall())
