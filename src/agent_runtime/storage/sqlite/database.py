"""Opens the database file, migrates its schema, and translates its errors."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.resources import files
from pathlib import Path

from agent_runtime.domain.errors import AgentRuntimeError, ConfigurationError, StoreUnavailableError
from agent_runtime.storage.schema import Schema
from agent_runtime.storage.sqlite.commits import begin_commits
from agent_runtime.storage.sqlite.database_file import create_database_file, describe_unusable
from agent_runtime.storage.sqlite.journals import fill_hashes

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for a lock of another process; this process never waits for itself."""

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # an acknowledged write survives a power cut, not only a crash (G1)
    "PRAGMA journal_size_limit = 67108864",  # a burst does not leave a large WAL file for ever
)
READER_PRAGMAS = ("PRAGMA query_only = ON",)

Step = Callable[[sqlite3.Connection], None]
"""The part of a migration that SQL cannot do; it runs after the script, in the same transaction."""

MIGRATIONS: tuple[tuple[str, Step | None], ...] = (
    ("0001_journal.sql", None),
    ("0002_chain.sql", fill_hashes),
    ("0003_submitter.sql", None),
    ("0004_starts.sql", None),
    ("0005_commits.sql", begin_commits),
    ("0006_planning.sql", None),
    ("0007_ended.sql", None),
    ("0008_states.sql", None),
    ("0009_threads.sql", None),
    ("0010_images.sql", None),
)
"""The scripts of `migrations/`, each with its step. A database's `user_version` counts those applied."""

_OPERATOR_CAN_HELP = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOTADB,
    }
)
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the disk is read-only",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_BUSY: "another process has locked the database",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
}


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection for writing, in autocommit mode: transactions are explicit. Raises: sqlite3.Error."""
    return _connect(path, PRAGMAS)


def connect_reader(path: Path) -> sqlite3.Connection:
    """Return a connection that can only read. Raises: sqlite3.Error."""
    return _connect(path, READER_PRAGMAS)


def _decode_lenient(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _connect(path: Path, pragmas: tuple[str, ...]) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",  # do not create a file that was deleted
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,  # it is used by one thread at a time, but closed by another
    )
    connection.text_factory = _decode_lenient  # one changed row must not make the others unreadable
    try:
        for pragma in pragmas:
            connection.execute(pragma)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def open_database(path: Path) -> sqlite3.Connection:
    """Create the database if there is none, migrate its schema, and return a connection for writing.

    Raises: ConfigurationError where the path cannot hold a database or a newer version wrote it; StoreUnavailableError
    where the disk is full or fails.
    """
    if not path.exists():
        os.close(create_database_file(path))
    _refuse_rollback_journal(path)
    try:
        connection = connect(path)
    except sqlite3.Error as error:
        raise _make_opening_error(path, error) from error
    try:
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            reason = "its file system cannot share memory between connections, as network file systems cannot"
            raise ConfigurationError(describe_unusable(path, reason))
        _migrate(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise _make_opening_error(path, error) from error
    except AgentRuntimeError:
        connection.close()
        raise
    return connection


def read_schema(path: Path) -> Schema:
    """Return the state of the tables, and change nothing. Raises: ConfigurationError, StoreUnavailableError."""
    if not path.exists():
        return _make_schema(0)
    try:
        with closing(connect_reader(path)) as connection:
            return _make_schema(_find_number(connection, path))
    except sqlite3.Error as error:
        raise _make_opening_error(path, error) from error


def update_schema(path: Path) -> Schema:
    """Apply the migrations that are missing, and return the state of the tables after that. The caller owns the
    database.

    Raises: ConfigurationError, StoreUnavailableError.
    """
    open_database(path).close()
    return read_schema(path)


def _make_schema(number: int) -> Schema:
    return Schema(number, len(MIGRATIONS), tuple(script for script, _ in MIGRATIONS[number:]))


def _refuse_rollback_journal(path: Path) -> None:
    """Refuse a rollback journal beside the database, which SQLite would apply to it. Raises: ConfigurationError.

    In WAL mode this service writes no rollback journal, so somebody else has put it there.
    """
    journal = Path(f"{os.path.realpath(path)}-journal")
    try:
        found = journal.stat().st_size > 0
        with path.open("rb") as file:
            in_wal_mode = file.read(20)[18:] == b"\2\2"
    except OSError:  # opening the database reports what is wrong
        return
    if found and in_wal_mode:
        raise ConfigurationError(
            f"The database {path} cannot be used: {journal} lies beside it, which this service has not written and "
            "which SQLite would put into it. Find out who wrote it, and remove it."
        )


def _find_number(connection: sqlite3.Connection, path: Path) -> int:
    """Return the number of the last applied migration. Raises: ConfigurationError."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > len(MIGRATIONS):
        raise ConfigurationError(
            f"The database {path} was written by a newer version of Agent Runtime (its schema is {found}, this version "
            f"knows {len(MIGRATIONS)}). Run that version, or set another data_dir."
        )
    return int(found)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    found = _find_number(connection, path)
    for number, (name, step) in enumerate(MIGRATIONS[found:], start=found + 1):
        script = files(__package__).joinpath("migrations", name).read_text(encoding="utf-8")
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};")
            if step is not None:
                step(connection)
            connection.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):  # report the first error
                connection.execute("ROLLBACK")
            raise


def _make_opening_error(path: Path, error: sqlite3.Error) -> AgentRuntimeError:
    if primary_code(error) in _OPERATOR_CAN_HELP:
        return ConfigurationError(describe_unusable(path, str(error)))
    return make_unavailable_error(error)


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for an error of the Python module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def make_unavailable_error(error: sqlite3.Error) -> StoreUnavailableError:
    """Return the error for callers: it shows no path and no statement."""
    reason = _REASONS.get(primary_code(error), str(error))
    return StoreUnavailableError(f"The store cannot be used now: {reason}. Nothing was changed; try again later.")
