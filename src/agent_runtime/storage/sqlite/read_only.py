"""A database file opened read only, with or without a service that writes it meanwhile."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from agent_runtime.domain.commit_verification import CommitFindings, verify_commits
from agent_runtime.domain.commits import CommitHead
from agent_runtime.domain.errors import ConfigurationError, StoreUnavailableError
from agent_runtime.domain.stored_journal import AuditFault, StoredJournal
from agent_runtime.storage.sqlite.commits import select_head
from agent_runtime.storage.sqlite.database import BUSY_TIMEOUT_S, READER_PRAGMAS
from agent_runtime.storage.sqlite.journals import JournalEnds, select_ids, select_stored_commits, select_stored_journal

_HAS_CHAIN = "SELECT count(*) FROM pragma_table_info('events') WHERE name = 'hash'"
_HAS_COMMITS = "SELECT count(*) FROM pragma_table_info('commits')"
_SCHEMA_WITH_COMMITS = 5
_TRIGGERS = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
_MOST_DAMAGES = 20

_BROKEN = (sqlite3.Error, UnicodeDecodeError)
"""The errors that a broken file raises. Where SQLite's message quotes invalid bytes, Python raises a
UnicodeDecodeError.
"""


class ReadOnlyDatabase:
    """The journals in a database file. Where SQLite cannot read a part of it, only the task that was
    asked for fails.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def damages(self) -> list[AuditFault]:
        """Return the faults of the file itself: in pages, keys and indexes, and any trigger, since the service makes
        none.
        """
        statement = f"PRAGMA integrity_check({_MOST_DAMAGES})"
        try:
            found = [str(line) for (line,) in self._connection.execute(statement)]
            found += [f"it has a trigger, {name}." for (name,) in self._connection.execute(_TRIGGERS)]
        except _BROKEN as error:
            found = [str(error)]
        return [AuditFault("", None, "the database file", line) for line in found if line != "ok"]

    def ids(self) -> list[str]:
        """Return the ids of everything that has a row or a journal. Raises: StoreUnavailableError."""
        try:
            return select_ids(self._connection)
        except _BROKEN as error:
            raise _make_unreadable_error(error) from error

    def read(self, task_id: str) -> StoredJournal:
        """Return everything stored of a task. Raises: TaskNotFoundError, StoreUnavailableError."""
        try:
            return select_stored_journal(self._connection, task_id)
        except _BROKEN as error:
            raise _make_unreadable_error(error) from error

    @property
    def has_commits(self) -> bool:
        """Return whether there are commits, or should be; a database of an earlier version has none yet.

        Raises: StoreUnavailableError.
        """
        try:
            (schema,) = self._connection.execute("PRAGMA user_version").fetchone()
            (columns,) = self._connection.execute(_HAS_COMMITS).fetchone()
        except _BROKEN as error:
            raise _make_unreadable_error(error) from error
        return bool(columns) or schema >= _SCHEMA_WITH_COMMITS

    def commit_head(self) -> CommitHead:
        """Return the newest stored commit. Raises: StoreUnavailableError."""
        try:
            return select_head(self._connection)
        except _BROKEN as error:
            raise _make_unreadable_error(error) from error

    def verify_commits(self, kept_head: CommitHead | None = None) -> CommitFindings:
        """Return the faults of the commits and of the journals that they name, as of one instant.

        Raises: StoreUnavailableError.
        """
        try:
            self._connection.execute("BEGIN")
            try:
                rows = select_stored_commits(self._connection)
                return verify_commits(rows, JournalEnds(self._connection), kept_head)
            finally:
                self._connection.execute("ROLLBACK")
        except _BROKEN as error:
            raise _make_unreadable_error(error) from error


@contextmanager
def open_read_only(path: Path) -> Iterator[ReadOnlyDatabase]:
    """Open a database without changing it, not even its schema.

    Raises: ConfigurationError where there is none, or it was written before journals had hashes.
    """
    if not path.exists():
        raise ConfigurationError(f"There is no database {path}: set data_dir (--data-dir) to the one to audit.")
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
    except _BROKEN as error:
        raise _make_unusable_error(path, error) from error
    try:
        try:
            connection.isolation_level = None
            connection.text_factory = lambda raw: raw.decode(errors="backslashreplace")
            for pragma in READER_PRAGMAS:
                connection.execute(pragma)
            (has_chain,) = connection.execute(_HAS_CHAIN).fetchone()
        except _BROKEN as error:
            raise _make_unusable_error(path, error) from error
        if not has_chain:
            raise ConfigurationError(
                f"The database {path} was written before journals had hashes. Start the service on it once to add "
                "them; until then there is nothing to verify."
            )
        yield ReadOnlyDatabase(connection)
    finally:
        connection.close()


def _make_unusable_error(path: Path, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"The database {path} cannot be read: {error}.")


def _make_unreadable_error(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"The database cannot be read here: {error}.")
