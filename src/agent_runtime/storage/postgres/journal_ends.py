"""Tells where journals end in the database now, so that what is cached of them can be compared and continued."""

from collections.abc import Collection
from typing import NamedTuple

from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.stored_journal import StoredRecord, continue_task
from agent_runtime.domain.task import Task
from agent_runtime.storage.cache import JournalEnd
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.journals import is_storable

_SELECT_ENDS = "SELECT task_id, version, head, cancel_requested FROM tasks WHERE task_id = ANY(%s)"
_SELECT_MORE = """
SELECT seq, epoch, at, type, data, hash FROM events WHERE task_id = %s AND seq > %s AND seq <= %s ORDER BY seq
"""


class StoredEnd(NamedTuple):
    """The end of a journal as it is stored, and whether it holds a cancellation."""

    end: JournalEnd
    cancel_requested: bool


def select_ends(connection: Connection, task_ids: Collection[str]) -> dict[str, StoredEnd]:
    """Return where the journals of those of the tasks that exist end now."""
    rows = connection.execute(_SELECT_ENDS, ([*filter(is_storable, task_ids)],)).fetchall()
    return {task_id: StoredEnd(JournalEnd(version, head), cancelled) for task_id, version, head, cancelled in rows}


def select_growth(
    connection: Connection, task: Task, known: JournalEnd, newest: JournalEnd
) -> tuple[Task, list[EventRecord]] | None:
    """Return the task at its newest end, and the records between; None if they do not follow from what is known."""
    rows = connection.execute(_SELECT_MORE, (task.task_id, known.version, newest.version)).fetchall()
    return continue_task(task, known.head, [StoredRecord(*row) for row in rows], newest.head)
