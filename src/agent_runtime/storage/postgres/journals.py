"""Journals as they are stored, for the audit and for every reading. Nothing here trusts the data, or fails on it."""

from collections.abc import Iterator

from agent_runtime.domain.chain import StoredRow, chain_holds
from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.stored_journal import StoredIndex, StoredJournal, StoredRecord
from agent_runtime.storage.postgres.connecting import Connection

BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SELECT_ENTRIES = "SELECT seq, epoch, at, type, data, hash FROM events WHERE task_id = %s ORDER BY seq"
# In a database that an earlier version wrote, `tasks` has no `thread`, and the name means that of `absent`.
_SELECT_INDEX = """
SELECT found.* FROM (SELECT NULL::bytea AS thread) absent CROSS JOIN LATERAL (
    SELECT version, epoch, status, prompt, plan_revision, cancel_requested, metadata, created_at, updated_at, submitter,
           request_key, thread, head
    FROM tasks WHERE task_id = %s) found
"""
_SELECT_IDS = "SELECT task_id FROM tasks UNION SELECT task_id FROM events ORDER BY task_id"
_SELECT_HASH = "SELECT hash FROM events WHERE task_id = %s AND seq = %s"
_SELECT_LENGTHS = """
SELECT task_id, coalesce((SELECT max(seq) FROM events WHERE events.task_id = ids.task_id), 0)
FROM (SELECT task_id FROM tasks UNION SELECT task_id FROM events) ids ORDER BY task_id
"""
_LARGEST = 2**63 - 1


def is_storable(text: str) -> bool:
    """Return whether a column can hold this text: it has no NUL, and is valid Unicode."""
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def select_stored_journal(connection: Connection, task_id: str) -> StoredJournal:
    """Return everything stored of a task, as of one instant. Raises: TaskNotFoundError where there is nothing."""
    if not is_storable(task_id):
        raise TaskNotFoundError(task_id)
    with connection.pipeline():
        connection.execute(BEGIN_READ)
        records = connection.execute(_SELECT_ENTRIES, (task_id,))
        row = connection.execute(_SELECT_INDEX, (task_id,))
        connection.execute("COMMIT")
    entries = tuple(StoredRecord(*record) for record in records)
    index = row.fetchone()
    if index is None and not entries:
        raise TaskNotFoundError(task_id)
    return StoredJournal(task_id, entries, None if index is None else _to_index(*index))


def is_as_written(connection: Connection, task_id: str, version: int, head: str) -> bool:
    """Return whether the journal has `version` records that match their hashes, the last of which is `head`."""
    rows = connection.execute(_SELECT_ENTRIES, (task_id,), binary=True)
    return chain_holds(task_id, (_to_raw(*row) for row in rows), version, head)


def select_ids(connection: Connection) -> list[str]:
    """Return the ids of everything that has a row or a journal."""
    return [task_id for (task_id,) in connection.execute(_SELECT_IDS)]


class JournalEnds:
    """The stored hashes and lengths of the journals: `StoredJournals` for the verification of commits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def hash_of(self, task_id: str, seq: int) -> str | None:
        """See `StoredJournals.hash_of`."""
        if not is_storable(task_id) or not 0 <= seq <= _LARGEST:
            return None
        found = self._connection.execute(_SELECT_HASH, (task_id, seq)).fetchone()
        return str(found[0]) if found else None

    def lengths(self) -> Iterator[tuple[str, int]]:
        """See `StoredJournals.lengths`."""
        yield from self._connection.execute(_SELECT_LENGTHS).fetchall()


def _to_raw(seq: int, epoch: int | None, at: str, kind: str, data: str, hash_: str) -> StoredRow:
    return seq, epoch, at.encode(), kind.encode(), data.encode(), hash_.encode()


def _to_index(
    version: int,
    epoch: int,
    status: str,
    prompt: bytes,
    plan_revision: int,
    cancel_requested: bool,  # noqa: FBT001 - a column
    metadata: str,
    created_at: str,
    updated_at: str,
    submitter: bytes,
    request_key: bytes | None,
    thread: bytes | None,
    head: str,
) -> StoredIndex:
    return StoredIndex(
        version=version,
        epoch=epoch,
        status=status,
        prompt=read_text(prompt),
        plan_revision=plan_revision,
        cancel_requested=int(cancel_requested),
        metadata=metadata,
        created_at=created_at,
        updated_at=updated_at,
        submitter=read_text(submitter),
        request_key=None if request_key is None else read_text(request_key),
        head=head,
        thread=None if thread is None else read_text(thread),
    )


def read_text(stored: bytes) -> str:
    """Return a text that is stored as bytes. An invalid byte becomes a lone surrogate, which no valid text contains."""
    return stored.decode("utf-8", "surrogateescape")
