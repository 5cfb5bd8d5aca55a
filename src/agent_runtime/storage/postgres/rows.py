"""The statements that read the tables of `migrations/`, and the small writes beside the journal.

Every function here runs in a thread of the store, on that thread's connection.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from heapq import merge
from operator import itemgetter
from typing import Any, LiteralString

from agent_runtime.domain.chain import format_time
from agent_runtime.domain.commits import Deletion
from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.stored_journal import restore_task
from agent_runtime.domain.summaries import Page, TaskSummary
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import JudgedDefinition
from agent_runtime.storage.base import judge_deletion, make_page
from agent_runtime.storage.conversions import (
    ASKING,
    RUNNABLE,
    count_statuses,
    decode_definitions,
    make_summary,
    read_records,
    read_time,
)
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.images import DELETE_IMAGES
from agent_runtime.storage.postgres.journals import is_storable, read_text, select_stored_journal
from agent_runtime.storage.postgres.planning import DELETE_ATTEMPTS
from agent_runtime.storage.postgres.states import delete_states_of_thread

_SELECT_VERSION = "SELECT version FROM tasks WHERE task_id = %s"
_SELECT_NOT_CANCELLED = "SELECT task_id FROM tasks WHERE task_id = ANY(%s) AND NOT cancel_requested"
_SELECT_VERSIONS = "SELECT task_id, version FROM tasks WHERE task_id = ANY(%s)"
_SELECT_EVENTS = "SELECT seq, epoch, at, type, data FROM events WHERE task_id = %s AND seq > %s ORDER BY seq LIMIT %s"
# While a plan awaits approval nothing else is written, so `updated_at` is when the plan was made.
_SELECT_AWAITING = """
SELECT task_id, updated_at FROM tasks
WHERE status = 'awaiting_approval' AND NOT cancel_requested AND task_id <> ALL(%s) ORDER BY updated_at LIMIT %s
"""
_SELECT_COUNTS = "SELECT status, count(*) FROM tasks GROUP BY status"
_SELECT_STATUSES = "SELECT status FROM tasks WHERE task_id = ANY(%s)"
_SELECT_REQUEST = "SELECT task_id FROM tasks WHERE submitter = %s AND request_key = %s"
_PAGE_COLUMNS: LiteralString = """
SELECT position, task_id, status, prompt, plan_revision, cancel_requested, metadata, created_at, updated_at, thread
FROM tasks
"""
_SELECT_PAGE: LiteralString = f"{_PAGE_COLUMNS} WHERE position < %s ORDER BY position DESC LIMIT %s"
_SELECT_PAGE_BY_STATUS: LiteralString = (
    f"{_PAGE_COLUMNS} WHERE status = %s AND position < %s ORDER BY position DESC LIMIT %s"
)
# The same, counting tasks with a changed journal as `needs_attention`, whatever their rows say.
_SELECT_PAGE_BY_STATUS_BUT: LiteralString = (
    f"{_PAGE_COLUMNS} WHERE status = %s AND task_id <> ALL(%s) AND position < %s ORDER BY position DESC LIMIT %s"
)
_SELECT_CHANGED: LiteralString = (
    f"{_PAGE_COLUMNS} WHERE task_id = ANY(%s) AND position < %s ORDER BY position DESC LIMIT %s"
)
_SELECT_PAGE_OF_THREAD: LiteralString = (
    f"{_PAGE_COLUMNS} WHERE thread = %s AND position < %s ORDER BY position DESC LIMIT %s"
)
# `created_at` is never later than `updated_at`, and the index has it. The last term says that the index suffices.
_SELECT_ENDED = """
SELECT task_id FROM tasks
WHERE status = %s AND created_at < %s AND updated_at < %s
  AND status IN ('cancelled', 'completed', 'expired', 'failed', 'rejected')
ORDER BY created_at LIMIT %s
"""
_SELECT_UNFINISHED = """
SELECT task_id FROM tasks
WHERE status = ANY(%s)
   OR (cancel_requested AND status = ANY(%s))
   OR (status = 'needs_attention' AND EXISTS (
          SELECT 1 FROM events WHERE events.task_id = tasks.task_id AND type = 'input.requested'))
ORDER BY position
"""
_SELECT_END = "SELECT version, head FROM tasks WHERE task_id = %s FOR UPDATE"
_DELETE_TASK = "DELETE FROM tasks WHERE task_id = %s"
_DELETE_EVENTS = "DELETE FROM events WHERE task_id = %s"
_UPSERT_DEFINITIONS = """
INSERT INTO definitions (identity, definitions) VALUES (%s, %s)
ON CONFLICT (identity) DO UPDATE SET definitions = excluded.definitions
"""
_SELECT_DEFINITIONS = "SELECT definitions FROM definitions WHERE identity = %s"
_UPSERT_HEARTBEAT = "INSERT INTO heartbeat (id, at) VALUES (1, %s) ON CONFLICT (id) DO UPDATE SET at = excluded.at"
_CHUNK = 50


def delete_task(connection: Connection, task: Task) -> Deletion:
    """Delete a task of exactly this version; a task with a changed journal, whatever is left of it.

    Raises: TaskNotFoundError or ConflictError, with nothing written.
    """
    if not is_storable(task.task_id):
        raise TaskNotFoundError(task.task_id)
    found = connection.execute(_SELECT_END, (task.task_id,)).fetchone()
    last, head = judge_deletion(task, found)
    deleted = [connection.execute(sql, (task.task_id,)).rowcount for sql in (_DELETE_TASK, _DELETE_EVENTS)]
    connection.execute(DELETE_ATTEMPTS, (task.task_id,))
    connection.execute(DELETE_IMAGES, (task.task_id,))
    if not any(deleted):
        raise TaskNotFoundError(task.task_id)
    if task.thread is not None:
        delete_states_of_thread(connection, task.thread)
    return Deletion(task.task_id, last, head, journal_changed=task.journal_change is not None)


def save_definitions(connection: Connection, identity: str, definitions: bytes) -> None:
    connection.execute(_UPSERT_DEFINITIONS, (identity, definitions.decode()))


def beat(connection: Connection, at: datetime) -> None:
    connection.execute(_UPSERT_HEARTBEAT, (format_time(at),))


def select_journal(connection: Connection, task_id: str) -> tuple[Task, list[EventRecord], str]:
    """Return a task, its journal, and the hash in its row. Raises: TaskNotFoundError."""
    stored = select_stored_journal(connection, task_id)
    task, journal = restore_task(stored)
    return task, journal, stored.index.head if stored.index else ""


def select_records(connection: Connection, task_id: str, after: int, limit: int) -> list[EventRecord]:
    """Return a part of a journal, up to the first unreadable record. Raises: TaskNotFoundError."""
    if not is_storable(task_id):
        raise TaskNotFoundError(task_id)
    rows = connection.execute(_SELECT_EVENTS, (task_id, after, limit)).fetchall()
    if not rows and select_version(connection, task_id) is None:
        raise TaskNotFoundError(task_id)
    return read_records(task_id, rows)


def select_version(connection: Connection, task_id: str) -> int | None:
    """Return the number of the last event; None if there is no such task."""
    if not is_storable(task_id):
        return None
    found = connection.execute(_SELECT_VERSION, (task_id,)).fetchone()
    return int(found[0]) if found else None


def select_versions(connection: Connection, task_ids: Collection[str]) -> dict[str, int]:
    """Return the numbers of the last events of the tasks that exist."""
    return dict(connection.execute(_SELECT_VERSIONS, ([*filter(is_storable, task_ids)],)).fetchall())


def select_not_cancelled(connection: Connection, task_ids: Collection[str]) -> set[str]:
    """Return those of the tasks that exist and have no cancellation in their journals."""
    rows = connection.execute(_SELECT_NOT_CANCELLED, ([*filter(is_storable, task_ids)],))
    return {task_id for (task_id,) in rows}


def select_request(connection: Connection, submitter: str, request_key: str) -> str | None:
    found = connection.execute(_SELECT_REQUEST, (submitter.encode(), request_key.encode())).fetchone()
    return str(found[0]) if found else None


def select_page(
    connection: Connection, status: TaskStatus | None, changed: Collection[str], before: int, limit: int
) -> Page:
    """Return the newest tasks before a position. `changed` are those with a changed journal."""
    statement, values = _SELECT_PAGE, ()  # type: LiteralString, tuple[Any, ...]
    others: list[tuple[Any, ...]] = []
    if status is not None and changed:
        statement, values = _SELECT_PAGE_BY_STATUS_BUT, (str(status), [*changed])
        if status is TaskStatus.NEEDS_ATTENTION:
            others = connection.execute(_SELECT_CHANGED, ([*changed], before, limit + 1)).fetchall()
    elif status is not None:
        statement, values = _SELECT_PAGE_BY_STATUS, (str(status),)
    most = limit + 1  # one more, to know whether there is a next page
    rows = _read_rows(connection, statement, values, before, most)
    return make_page(_make_summaries(merge(rows, others, key=itemgetter(0), reverse=True), changed), limit)


def select_thread_page(
    connection: Connection,
    thread: str,
    status: TaskStatus | None,
    changed: Collection[str],
    before: int,
    limit: int,
) -> Page:
    """Return the newest tasks of a thread before a position, as `select_page`."""
    rows = _read_rows(connection, _SELECT_PAGE_OF_THREAD, (thread.encode(),), before, None)
    found = _make_summaries(rows, changed)
    return make_page(((place, task) for place, task in found if status in {None, task.status}), limit)


def _read_rows(
    connection: Connection, statement: LiteralString, values: tuple[Any, ...], before: int, most: int | None
) -> Iterator[tuple[Any, ...]]:
    """Yield at most `most` rows of a page. They are read in chunks, because prompts are long and end a page early."""
    position, left = before, most
    while left is None or left > 0:
        wanted = _CHUNK if left is None else min(left, _CHUNK)
        found = connection.execute(statement, (*values, position, wanted)).fetchall()
        yield from found
        if len(found) < wanted:
            return
        position, left = found[-1][0], None if left is None else left - wanted


def _make_summaries(rows: Iterable[tuple[Any, ...]], changed: Collection[str]) -> Iterator[tuple[int, TaskSummary]]:
    for position, task_id, said, prompt, *rest, thread in rows:
        shown = (*rest, None if thread is None else read_text(thread))
        summary = make_summary(task_id, said, read_text(prompt), *shown, needs_attention=task_id in changed)
        yield position, summary


def select_unfinished(connection: Connection) -> list[str]:
    """Return the ids of the tasks that do not wait for a person, oldest first; a task being cancelled does not wait."""
    return [task_id for (task_id,) in connection.execute(_SELECT_UNFINISHED, (RUNNABLE_TEXTS, ASKING_TEXTS))]


RUNNABLE_TEXTS, ASKING_TEXTS = [[str(status) for status in statuses] for statuses in (RUNNABLE, ASKING)]


def select_awaiting(connection: Connection, changed: Collection[str], limit: int) -> list[tuple[str, datetime]]:
    """Return the tasks that await approval and since when, oldest first, without those with a changed journal."""
    rows = connection.execute(_SELECT_AWAITING, ([*changed], limit))
    return [(task_id, read_time(at)) for task_id, at in rows]


def select_ended(connection: Connection, status: TaskStatus, before: datetime, limit: int) -> list[str]:
    """Return the tasks in a final status whose last event is older than `before`, those created first at first."""
    at = format_time(before)
    return [task_id for (task_id,) in connection.execute(_SELECT_ENDED, (str(status), at, at, limit))]


def select_counts(connection: Connection, changed: Collection[str]) -> Counter[TaskStatus]:
    """Count the tasks in each status that occurs, by the index alone."""
    counted = connection.execute(_SELECT_COUNTS).fetchall()
    said = connection.execute(_SELECT_STATUSES, ([*changed],)).fetchall() if changed else []
    return count_statuses(counted, (status for (status,) in said))


def select_definitions(connection: Connection, identity: str) -> list[JudgedDefinition] | None:
    """Return the stored listing of a server; None if it is missing, of another version or changed, so that it is asked
    again.
    """
    found = connection.execute(_SELECT_DEFINITIONS, (identity,)).fetchone()
    return decode_definitions(found[0]) if found else None
