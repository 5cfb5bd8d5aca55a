"""The thread that writes: it commits all waiting jobs in one transaction (group commit)."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress

from agent_runtime.domain.commits import TaskChange
from agent_runtime.domain.errors import AgentRuntimeError, ConflictError, StoreUnavailableError
from agent_runtime.storage.base import TakeCheckpoint
from agent_runtime.storage.sqlite.commits import CommitLog, select_head
from agent_runtime.storage.sqlite.database import connect, make_unavailable_error, open_database, primary_code
from agent_runtime.storage.sqlite.database_file import DatabaseFile
from agent_runtime.storage.writing import Job, Outcome, WritingThread, Written

Work = Callable[[sqlite3.Connection], TaskChange | TakeCheckpoint | None]
"""Writes something, and returns the change of a journal if it made one."""


class Writer(WritingThread[Work]):
    """Writes all jobs that wait in one transaction. `start` raises as `open_database`.

    Each transaction that changes journals adds a row to `commits`. A job may raise an AgentRuntimeError only while it
    has changed nothing; then the others commit without it. After any other error everything is rolled back, and each
    job is tried again alone.
    """

    def __init__(self, file: DatabaseFile, *, advance: Callable[[int], None] = lambda _: None) -> None:
        super().__init__(advance)
        self._file = file
        self._commits = CommitLog()
        self._connection: sqlite3.Connection | None = None

    def _open_database(self) -> int:
        self._connection = open_database(self._file.path)
        self._file.remember()
        return select_head(self._connection).position

    def _write_jobs(self, jobs: list[Job[Work]]) -> Iterator[Written[Work]]:
        yield self._commit(jobs)

    def _commit(self, jobs: list[Job[Work]]) -> Written[Work]:
        try:
            connection = self._begin()
        except (sqlite3.Error, StoreUnavailableError) as error:  # no job is to blame
            return [(job, self._to_failure(error)) for job in jobs], 0
        changes: list[TaskChange | TakeCheckpoint] = []
        try:
            outcomes: list[Outcome[Work]] = [(job, _run_job(job, connection, changes)) for job in jobs]
            self._commits.add(connection, changes)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - a job may fail in any way; none may end the thread
            self._roll_back(connection, error)
            if len(jobs) == 1:
                return [(jobs[0], self._to_failure(error))], 0
            alone = [self._commit([job]) for job in jobs]
            return [outcome for tried, _ in alone for outcome in tried], max(position for _, position in alone)
        try:
            self._file.check()
        except StoreUnavailableError as error:  # it may be in a file that was deleted
            self._commits.forget()
            return [(job, self._to_failure(error)) for job in jobs], 0
        if any(refusal is None for _, refusal in outcomes):
            self._note_success()
        return outcomes, self._commits.confirm()

    def _begin(self) -> sqlite3.Connection:
        self._file.check()
        if self._connection is None:
            self._connection = connect(self._file.path)
            self._file.remember()
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def _roll_back(self, connection: sqlite3.Connection, error: Exception) -> None:
        self._commits.forget()
        try:
            if connection.in_transaction:  # SQLite itself rolls back after the worst errors
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._discard()
            return
        if isinstance(error, sqlite3.Error) and primary_code(error) in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}:
            self._discard()  # a connection opened read-only stays read-only

    def _discard(self) -> None:
        """Close the connection, so that the next transaction opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._file.forget_log()
            with suppress(sqlite3.Error):
                connection.close()

    def _to_failure(self, error: Exception) -> Exception:
        """Return what the callers get for an error that undid their transaction."""
        if isinstance(error, sqlite3.IntegrityError):  # the store works; its content is not the expected one
            return ConflictError(f"The stored task is not as expected: {error}. Read it again.")
        if not isinstance(error, sqlite3.Error | StoreUnavailableError):
            return error
        self._note_failure(str(error))
        if isinstance(error, StoreUnavailableError):
            return error
        failure = make_unavailable_error(error)
        failure.__cause__ = error
        return failure

    def _close_database(self) -> None:
        if self._connection is not None:
            # Whatever is not checkpointed now stays in the WAL file, which is read when the database is next opened.
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._discard()


def _run_job(
    job: Job[Work], connection: sqlite3.Connection, changes: list[TaskChange | TakeCheckpoint]
) -> AgentRuntimeError | None:
    try:
        change = job.work(connection)
    except AgentRuntimeError as refusal:
        return refusal
    if change is not None:
        changes.append(change)
    return None
