"""Writes many appends in one transaction, in two round trips: what is there now, then what comes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent_runtime.domain.chain import GENESIS, format_time
from agent_runtime.domain.commits import Change, TaskChange
from agent_runtime.domain.errors import AgentRuntimeError, ConflictError
from agent_runtime.domain.events import EventRecord, TaskCancelRequested
from agent_runtime.domain.task import Task
from agent_runtime.storage.base import chain_records, make_append_error
from agent_runtime.storage.postgres.commits import TAKE_PENDING, CommitLog, Pending
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.images import copy_images
from agent_runtime.storage.postgres.journals import is_as_written

INSERT_TASK = """
INSERT INTO tasks (task_id, version, epoch, status, prompt, plan_revision, cancel_requested, metadata,
                   created_at, updated_at, submitter, request_key, thread, head)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
UPDATE_TASK = """
UPDATE tasks SET version = %s, epoch = %s, status = %s, plan_revision = %s, cancel_requested = %s, updated_at = %s,
                 head = %s
WHERE task_id = %s
"""
INSERT_EVENT = "INSERT INTO events (task_id, seq, epoch, at, type, data, hash) VALUES (%s, %s, %s, %s, %s, %s, %s)"
# In one order, so that two processes that lock several tasks do not wait for each other.
_LOCK_ENDS = "SELECT task_id, version, epoch, head FROM tasks WHERE task_id = ANY(%s) ORDER BY task_id FOR UPDATE"
_SELECT_HASH = "SELECT hash FROM events WHERE task_id = %s AND seq = %s"


@dataclass(slots=True, eq=False)
class Append:
    """Events to add to a journal; see `Draft`. `before` is the version that they follow.

    `head`, the hash of the last record, is set as soon as it is sent to the database. If the answer to the COMMIT is
    lost, it shows in the next session whether the events were written.
    """

    task: Task
    records: Sequence[EventRecord]
    epoch: int | None
    verifies: bool
    head: str | None = field(default=None, init=False)

    @property
    def before(self) -> int:
        return self.records[0].seq - 1


@dataclass(slots=True)
class _End:
    """The last record of a journal, as of now in this transaction."""

    version: int
    epoch: int
    head: str


def write_appends(connection: Connection, appends: Sequence[Append], log: CommitLog) -> list[AgentRuntimeError | None]:
    """Write the appends in one transaction, and return for each why it was refused. Raises: psycopg.Error."""
    created, ends, pending = _begin(connection, appends, log)
    refusals: list[AgentRuntimeError | None] = []
    grown: dict[str, Append] = {}
    rows: list[tuple[object, ...]] = []
    changes: list[TaskChange] = []
    cancelled: list[str] = []
    for append in appends:
        if append.head is not None and _was_written(connection, append):
            refusals.append(None)
            continue
        end = _End(0, 0, GENESIS) if append.before == 0 else ends.get(append.task.task_id)
        refusal = None if append in created else _refuse(connection, append, end)
        refusals.append(refusal)
        if refusal is not None or end is None:
            continue
        chained, append.head = chain_records(end.head, append.records)
        ends[append.task.task_id] = _End(append.task.version, append.task.epoch, append.head)
        rows += chained
        changes.append(Change(append.task.task_id, append.records[0].seq, append.records[-1].seq, append.head))
        if any(isinstance(record.event, TaskCancelRequested) for record in append.records):
            cancelled.append(append.task.task_id)
        if append not in created:
            grown[append.task.task_id] = append
    with connection.pipeline():
        for append in grown.values():
            connection.execute(UPDATE_TASK, _to_update(append))
        for row in rows:
            connection.execute(INSERT_EVENT, row)
        for append in created:
            if append.task.rerun is not None and append.task.rerun.image_digests:
                copy_images(connection, append.task.task_id, append.task.rerun)
        log.add(connection, changes, pending, cancelled)
        connection.execute("COMMIT")
    return refusals


def _begin(
    connection: Connection, appends: Sequence[Append], log: CommitLog
) -> tuple[set[Append], dict[str, _End], list[Pending]]:
    """Begin the transaction. Return the appends that created a task, and the locked ends of the journals; and, where
    this process writes the chain, what others have committed before.
    """
    known = [append.task.task_id for append in appends if append.before > 0]
    with connection.pipeline():
        connection.execute("BEGIN")
        creations = [
            (append, connection.execute(INSERT_TASK, _to_insert(append))) for append in appends if append.before == 0
        ]
        locked = connection.execute(_LOCK_ENDS, (known,)) if known else None
        taken = connection.execute(TAKE_PENDING) if log.takes_pending else None
    created = {append for append, cursor in creations if cursor.rowcount == 1}
    ends = {task_id: _End(version, epoch, head) for task_id, version, epoch, head in locked or ()}
    return created, ends, [Pending(*row) for row in taken or ()]


def _to_insert(append: Append) -> tuple[object, ...]:
    task, records = append.task, append.records
    state = (task.version, task.epoch, task.status.value, (task.prompt or "").encode(), task.plan_revision)
    metadata = json.dumps(dict(task.metadata))  # in ASCII, because text holds no NUL
    times = (format_time(records[0].at), format_time(records[-1].at))
    key = None if task.request_key is None else task.request_key.encode()
    request = ((task.submitter or "").encode(), key, None if task.thread is None else task.thread.encode())
    _, head = chain_records(GENESIS, records)
    return (task.task_id, *state, task.cancel_requested, metadata, *times, *request, head)


def _to_update(append: Append) -> tuple[object, ...]:
    task = append.task
    state = (task.version, task.epoch, task.status.value, task.plan_revision, task.cancel_requested)
    return (*state, format_time(append.records[-1].at), append.head, task.task_id)


def _refuse(connection: Connection, append: Append, end: _End | None) -> AgentRuntimeError | None:
    task_id, before = append.task.task_id, append.before
    if before == 0:
        return ConflictError(f"Task {task_id}, or one with its request key, exists already.")
    if end is None or end.version != before:
        return make_append_error(task_id, before, append.epoch, None if end is None else (end.version, end.epoch))
    if append.verifies and not is_as_written(connection, task_id, before, end.head):
        return ConflictError(f"The journal of task {task_id} is not as it was written: read it again.")
    return None


def _was_written(connection: Connection, append: Append) -> bool:
    """Return whether an earlier session has written this append, though its answer was lost."""
    last = append.records[-1]
    return connection.execute(_SELECT_HASH, (last.task_id, last.seq)).fetchone() == (append.head,)
