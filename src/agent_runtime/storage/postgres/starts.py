"""The statements on the table `starts`: in how many starts a task was resumed without progress."""

from collections.abc import Iterable

from agent_runtime.storage.postgres.connecting import Connection

_NOTE = """
INSERT INTO starts (task_id, facts, count)
SELECT id, (SELECT count(*) FROM events WHERE task_id = id AND type <> 'task.claimed'), 1 FROM unnest(%s::text[]) id
ON CONFLICT (task_id) DO UPDATE SET
    count = CASE WHEN starts.facts = excluded.facts THEN starts.count + 1 ELSE 1 END, facts = excluded.facts
"""
_PRUNE = """
DELETE FROM starts WHERE task_id IN (
    SELECT task_id FROM starts
    WHERE facts <> (SELECT count(*) FROM events WHERE events.task_id = starts.task_id AND type <> 'task.claimed')
    FOR UPDATE SKIP LOCKED
)
"""
_SELECT = """
SELECT task_id, count FROM starts
WHERE facts = (SELECT count(*) FROM events WHERE events.task_id = starts.task_id AND type <> 'task.claimed')
"""


def note_starts(connection: Connection, task_ids: Iterable[str]) -> None:
    """Count one more start for each of these tasks; begin again at 1 if a task has made progress since the last.

    Deletes the counts that other tasks no longer need, because they have made progress or are deleted: where several
    processes share the database, no stop of one of them resets the counts of all.
    """
    connection.execute(_NOTE, ([*task_ids],))
    connection.execute(_PRUNE)  # after the counts, and never waiting: so two processes cannot wait for each other


def forget_starts(connection: Connection) -> None:
    """Reset all counts, because the service stops in order."""
    connection.execute("DELETE FROM starts")


def select_starts(connection: Connection) -> dict[str, int]:
    """Return in how many starts in a row each task was resumed without progress. Tasks with progress are left out."""
    return dict(connection.execute(_SELECT).fetchall())
