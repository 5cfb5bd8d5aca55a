"""A PostgreSQL database opened read only, with or without a service that writes it meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from agent_runtime.domain.commit_verification import CommitFindings, verify_commits
from agent_runtime.domain.commits import CommitHead
from agent_runtime.domain.errors import ConfigurationError, StoreUnavailableError
from agent_runtime.domain.stored_journal import AuditFault, StoredJournal
from agent_runtime.storage.postgres.commits import select_head, select_stored_commits
from agent_runtime.storage.postgres.connecting import Connection, Database, find_schema, make_opening_error
from agent_runtime.storage.postgres.journals import BEGIN_READ, JournalEnds, select_ids, select_stored_journal
from agent_runtime.storage.postgres.migrating import has_tables

_TRIGGERS = """
SELECT c.relname, t.tgname FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND NOT t.tgisinternal
      AND c.relname <> 'procrastinate_jobs'
"""


class ReadOnlyDatabase:
    """The journals in a PostgreSQL database: `storage.base.StoredDatabase`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def damages(self) -> list[AuditFault]:
        """Return a fault for each trigger, since the service makes none but those of the queue. The server checks its
        pages itself.
        """
        try:
            found = self._connection.execute(_TRIGGERS).fetchall()
        except psycopg.Error as error:
            return [AuditFault("", None, "the database", str(error))]
        return [AuditFault("", None, "the database", f"it has a trigger, {name}, on {table}.") for table, name in found]

    def ids(self) -> list[str]:
        """See `StoredDatabase.ids`."""
        try:
            return select_ids(self._connection)
        except psycopg.Error as error:
            raise _make_unreadable_error(error) from error

    def read(self, task_id: str) -> StoredJournal:
        """See `StoredDatabase.read`."""
        try:
            return select_stored_journal(self._connection, task_id)
        except psycopg.Error as error:
            raise _make_unreadable_error(error) from error

    @property
    def has_commits(self) -> bool:
        """Return True: there is no version without them."""
        return True

    def commit_head(self) -> CommitHead:
        """See `StoredDatabase.commit_head`."""
        try:
            return select_head(self._connection)
        except psycopg.Error as error:
            raise _make_unreadable_error(error) from error

    def verify_commits(self, kept_head: CommitHead | None = None) -> CommitFindings:
        """See `StoredDatabase.verify_commits`."""
        try:
            self._connection.execute(BEGIN_READ)
            try:
                rows = select_stored_commits(self._connection)
                return verify_commits(rows, JournalEnds(self._connection), kept_head)
            finally:
                self._connection.execute("ROLLBACK")
        except psycopg.Error as error:
            raise _make_unreadable_error(error) from error


@contextmanager
def open_database_read_only(database: Database) -> Iterator[ReadOnlyDatabase]:
    """Open a database without changing it.

    Raises: ConfigurationError where there is none, or no service has written it; StoreUnavailableError where it cannot
    be reached.
    """
    try:
        connection = database.connect(read_only=True)
    except psycopg.Error as error:
        raise make_opening_error(error) from error
    with connection:
        schema = find_schema(connection)
        if not has_tables(connection):
            raise ConfigurationError(
                f"There are no tasks in the schema {schema} of this PostgreSQL database: set storage.url to the one to "
                "audit."
            )
        yield ReadOnlyDatabase(connection)


def _make_unreadable_error(error: psycopg.Error) -> StoreUnavailableError:
    return StoreUnavailableError(f"The database cannot be read: {' '.join(str(error).split())}.")
