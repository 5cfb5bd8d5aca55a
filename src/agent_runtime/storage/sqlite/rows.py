"""The statements on the tables of `migrations/`, and the conversion between rows and values.

Every function here runs in a thread of the store, on that thread's connection.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from datetime import datetime
from heapq import merge
from operator import itemgetter
from typing import Any

from agent_runtime.domain.chain import GENESIS, format_time
from agent_runtime.domain.commits import Change, Deletion
from agent_runtime.domain.errors import ConflictError, TaskNotFoundError
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.stored_journal import restore_task
from agent_runtime.domain.summaries import Page
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import JudgedDefinition
from agent_runtime.storage.base import chain_records, judge_deletion, make_append_error, make_page
from agent_runtime.storage.conversions import (
    ASKING,
    RUNNABLE,
    count_statuses,
    decode_definitions,
    make_summary,
    read_records,
    read_time,
)
from agent_runtime.storage.sqlite.images import DELETE_IMAGES, copy_images
from agent_runtime.storage.sqlite.journals import is_as_written, select_stored_journal
from agent_runtime.storage.sqlite.planning import DELETE_ATTEMPTS
from agent_runtime.storage.sqlite.states import delete_states_of_thread

INSERT_TASK = """
INSERT INTO tasks (task_id, version, epoch, status, prompt, plan_revision, cancel_requested, metadata,
                   created_at, updated_at, submitter, request_key, thread, head)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
UPDATE_TASK = """
UPDATE tasks SET version = ?, epoch = ?, status = ?, plan_revision = ?, cancel_requested = ?, updated_at = ?, head = ?
WHERE task_id = ? AND version = ?
"""
SELECT_HEAD = "SELECT head FROM tasks WHERE task_id = ? AND version = ?"
INSERT_EVENT = "INSERT INTO events (task_id, seq, epoch, at, type, data, hash) VALUES (?, ?, ?, ?, ?, ?, ?)"
DELETE_TASK = "DELETE FROM tasks WHERE task_id = ?"
DELETE_EVENTS = "DELETE FROM events WHERE task_id = ?"
SELECT_END = "SELECT version, head FROM tasks WHERE task_id = ?"
SELECT_NOT_CANCELLED = """
SELECT task_id FROM tasks WHERE task_id IN (SELECT value FROM json_each(?)) AND NOT cancel_requested
"""
SELECT_VERSION = "SELECT version, epoch FROM tasks WHERE task_id = ?"
SELECT_EVENTS = "SELECT seq, epoch, at, type, data FROM events WHERE task_id = ? AND seq > ? ORDER BY seq LIMIT ?"
# While a plan awaits approval nothing else is written, so `updated_at` is when the plan was made.
SELECT_AWAITING = """
SELECT task_id, updated_at FROM tasks
WHERE status = 'awaiting_approval' AND NOT cancel_requested AND task_id NOT IN (SELECT value FROM json_each(?))
ORDER BY updated_at LIMIT ?
"""
SELECT_COUNTS = "SELECT status, count(*) FROM tasks GROUP BY status"
SELECT_STATUSES = "SELECT status FROM tasks WHERE task_id IN (SELECT value FROM json_each(?))"
SELECT_REQUEST = "SELECT task_id FROM tasks WHERE submitter = ? AND request_key = ?"
_PAGE_COLUMNS = """
SELECT position, task_id, status, prompt, plan_revision, cancel_requested, metadata, created_at, updated_at, thread
FROM tasks
"""
SELECT_PAGE = f"""
{_PAGE_COLUMNS} WHERE position < ? ORDER BY position DESC LIMIT ?
"""
SELECT_PAGE_BY_STATUS = f"""
{_PAGE_COLUMNS} WHERE status = ? AND position < ? ORDER BY position DESC LIMIT ?
"""
# The same, counting tasks with a changed journal as `needs_attention`, whatever their rows say.
SELECT_PAGE_BY_STATUS_BUT = f"""
{_PAGE_COLUMNS} WHERE status = ? AND position < ? AND task_id NOT IN (SELECT value FROM json_each(?))
ORDER BY position DESC LIMIT ?
"""  # noqa: S608 - the columns are ours
SELECT_CHANGED = f"""
{_PAGE_COLUMNS} WHERE task_id IN (SELECT value FROM json_each(?)) AND position < ? ORDER BY position DESC LIMIT ?
"""  # noqa: S608 - the columns are ours
SELECT_PAGE_OF_THREAD = f"""
{_PAGE_COLUMNS} WHERE thread = ? AND position < ? ORDER BY position DESC
"""
# `created_at` is never later than `updated_at`, and the index has it. The last term says that the index suffices; it is
# spelled as in the index.
SELECT_ENDED = """
SELECT task_id FROM tasks
WHERE status = ? AND created_at < ? AND updated_at < ?
  AND (status = 'cancelled' OR status = 'completed' OR status = 'expired' OR status = 'failed' OR status = 'rejected')
ORDER BY created_at LIMIT ?
"""
SELECT_UNFINISHED = """
SELECT CAST(task_id AS BLOB) FROM tasks
WHERE status IN (SELECT value FROM json_each(?))
   OR (cancel_requested AND status IN (SELECT value FROM json_each(?)))
   OR (status = 'needs_attention' AND EXISTS (
          SELECT 1 FROM events WHERE events.task_id = tasks.task_id AND type = 'input.requested'))
ORDER BY position
"""
UPSERT_DEFINITIONS = """
INSERT INTO definitions (identity, definitions) VALUES (?, ?)
ON CONFLICT (identity) DO UPDATE SET definitions = excluded.definitions
"""
SELECT_DEFINITIONS = "SELECT definitions FROM definitions WHERE identity = ?"
UPSERT_HEARTBEAT = "INSERT INTO heartbeat (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at"

_RUNNABLE = json.dumps(RUNNABLE)
_ASKING = json.dumps(ASKING)


def insert_task(connection: sqlite3.Connection, task: Task, records: Sequence[EventRecord]) -> Change:
    """Write a new task. Raises: ConflictError, with nothing written, where its id or the submitter's key exists
    already.
    """
    created, updated = format_time(records[0].at), format_time(records[-1].at)
    metadata = json.dumps(dict(task.metadata), ensure_ascii=False)
    state = (task.version, task.epoch, task.status, task.prompt, task.plan_revision, task.cancel_requested)
    chained, head = chain_records(GENESIS, records)
    request = (task.submitter, task.request_key, task.thread)
    try:
        connection.execute(INSERT_TASK, (task.task_id, *state, metadata, created, updated, *request, head))
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
            raise
        raise ConflictError(f"Task {task.task_id}, or one with its request key, exists already.") from error
    connection.executemany(INSERT_EVENT, chained)
    if task.rerun is not None and task.rerun.image_digests:
        copy_images(connection, task.task_id, task.rerun)
    return Change(task.task_id, records[0].seq, records[-1].seq, head)


def update_task(
    connection: sqlite3.Connection, task: Task, records: Sequence[EventRecord], epoch: int | None, *, verify: bool
) -> Change:
    """Write the next events of a task; with `verify`, only if all stored records match their hashes.

    Raises: ConflictError or StaleEpochError, with nothing written.
    """
    before = records[0].seq - 1
    found = connection.execute(SELECT_HEAD, (task.task_id, before)).fetchone()
    if found is None:
        found_now = connection.execute(SELECT_VERSION, (task.task_id,)).fetchone()
        raise make_append_error(task.task_id, before, epoch, found_now)
    if verify and not is_as_written(connection, task.task_id, before, found[0]):
        raise ConflictError(f"The journal of task {task.task_id} is not as it was written: read it again.")
    chained, head = chain_records(found[0], records)
    state = (task.version, task.epoch, task.status, task.plan_revision, task.cancel_requested)
    connection.execute(UPDATE_TASK, (*state, format_time(records[-1].at), head, task.task_id, before))
    connection.executemany(INSERT_EVENT, chained)
    return Change(task.task_id, records[0].seq, records[-1].seq, head)


def delete_task(connection: sqlite3.Connection, task: Task) -> Deletion:
    """Delete a task of exactly this version; a task with a changed journal, whatever is left of it.

    Raises: TaskNotFoundError or ConflictError, with nothing written.
    """
    found = connection.execute(SELECT_END, (task.task_id,)).fetchone()
    last, head = judge_deletion(task, found)
    deleted = [connection.execute(sql, (task.task_id,)).rowcount for sql in (DELETE_TASK, DELETE_EVENTS)]
    connection.execute(DELETE_ATTEMPTS, (task.task_id,))
    connection.execute(DELETE_IMAGES, (task.task_id,))
    if not any(deleted):
        raise TaskNotFoundError(task.task_id)
    if task.thread is not None:
        delete_states_of_thread(connection, task.thread)
    return Deletion(task.task_id, last, head, journal_changed=task.journal_change is not None)


def save_definitions(connection: sqlite3.Connection, identity: str, definitions: bytes) -> None:
    connection.execute(UPSERT_DEFINITIONS, (identity, definitions.decode()))


def beat(connection: sqlite3.Connection, at: datetime) -> None:
    connection.execute(UPSERT_HEARTBEAT, (format_time(at),))


def select_journal(connection: sqlite3.Connection, task_id: str) -> tuple[Task, list[EventRecord], str]:
    """Return a task, its journal, and the hash in its row. Raises: TaskNotFoundError."""
    stored = select_stored_journal(connection, task_id)
    task, journal = restore_task(stored)
    return task, journal, stored.index.head if stored.index else ""


def select_records(connection: sqlite3.Connection, task_id: str, after: int, limit: int) -> list[EventRecord]:
    """Return a part of a journal, up to the first unreadable record. Raises: TaskNotFoundError."""
    rows = connection.execute(SELECT_EVENTS, (task_id, after, limit)).fetchall()
    if not rows and select_version(connection, task_id) is None:
        raise TaskNotFoundError(task_id)
    return read_records(task_id, rows)


def select_version(connection: sqlite3.Connection, task_id: str) -> int | None:
    """Return the number of the last event; None if there is no such task."""
    found = connection.execute(SELECT_VERSION, (task_id,)).fetchone()
    return int(found[0]) if found else None


def select_not_cancelled(connection: sqlite3.Connection, task_ids: Collection[str]) -> set[str]:
    """Return those of the tasks that exist and have no cancellation in their journals."""
    return {task_id for (task_id,) in connection.execute(SELECT_NOT_CANCELLED, (json.dumps([*task_ids]),))}


def select_request(connection: sqlite3.Connection, submitter: str, request_key: str) -> str | None:
    found = connection.execute(SELECT_REQUEST, (submitter, request_key)).fetchone()
    return str(found[0]) if found else None


def select_page(
    connection: sqlite3.Connection, status: TaskStatus | None, changed: Collection[str], before: int, limit: int
) -> Page:
    """Return the newest tasks before a position. `changed` are those with a changed journal."""
    most = limit + 1  # one more, to know whether there is a next page
    names = json.dumps([*changed])
    others: list[Any] = []
    if status is None:
        rows = connection.execute(SELECT_PAGE, (before, most))
    elif changed:
        rows = connection.execute(SELECT_PAGE_BY_STATUS_BUT, (status, before, names, most))
        if status is TaskStatus.NEEDS_ATTENTION:
            others = connection.execute(SELECT_CHANGED, (names, before, most)).fetchall()
    else:
        rows = connection.execute(SELECT_PAGE_BY_STATUS, (status, before, most))
    with closing(rows):
        found = merge(rows, others, key=itemgetter(0), reverse=True)
        return make_page(((row[0], make_summary(*row[1:], needs_attention=row[1] in changed)) for row in found), limit)


def select_thread_page(
    connection: sqlite3.Connection,
    thread: str,
    status: TaskStatus | None,
    changed: Collection[str],
    before: int,
    limit: int,
) -> Page:
    """Return the newest tasks of a thread before a position, as `select_page`."""
    with closing(connection.execute(SELECT_PAGE_OF_THREAD, (thread, before))) as rows:
        found = ((row[0], make_summary(*row[1:], needs_attention=row[1] in changed)) for row in rows)
        return make_page(((place, task) for place, task in found if status in {None, task.status}), limit)


def select_unfinished(connection: sqlite3.Connection) -> list[str]:
    """Return the ids of the tasks that do not wait for a person, oldest first; a task being cancelled does not wait.

    An id that is no valid text, in a broken file, is left to the audit, so that the other tasks can be resumed.
    """
    found = [raw.decode(errors="replace") for (raw,) in connection.execute(SELECT_UNFINISHED, (_RUNNABLE, _ASKING))]
    return [task_id for task_id in found if "\ufffd" not in task_id]


def select_awaiting(connection: sqlite3.Connection, changed: Collection[str], limit: int) -> list[tuple[str, datetime]]:
    """Return the tasks that await approval and since when, oldest first, without those with a changed journal."""
    rows = connection.execute(SELECT_AWAITING, (json.dumps([*changed]), limit))
    return [(task_id, read_time(at)) for task_id, at in rows]


def select_ended(connection: sqlite3.Connection, status: TaskStatus, before: datetime, limit: int) -> list[str]:
    """Return the tasks in a final status whose last event is older than `before`, those created first at first."""
    at = format_time(before)
    return [task_id for (task_id,) in connection.execute(SELECT_ENDED, (status, at, at, limit))]


def select_counts(connection: sqlite3.Connection, changed: Collection[str]) -> Counter[TaskStatus]:
    """Count the tasks in each status that occurs, by the index alone."""
    counted = connection.execute(SELECT_COUNTS).fetchall()
    said = connection.execute(SELECT_STATUSES, (json.dumps([*changed]),)).fetchall() if changed else []
    return count_statuses(counted, (status for (status,) in said))


def select_definitions(connection: sqlite3.Connection, identity: str) -> list[JudgedDefinition] | None:
    """Return the stored listing of a server; None if it is missing, of another version or changed, so that it is asked
    again.
    """
    found = connection.execute(SELECT_DEFINITIONS, (identity,)).fetchone()
    return decode_definitions(found[0]) if found else None
