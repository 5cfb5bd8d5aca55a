"""Brings the tables up to date. Several processes may start at once, also on an empty database."""

from dataclasses import dataclass
from importlib.resources import files

import psycopg

from agent_runtime.domain.errors import AlreadyOwnedError, ConfigurationError
from agent_runtime.storage.postgres.connecting import Connection, Database, find_schema, make_opening_error
from agent_runtime.storage.postgres.locks import MIGRATION, lock_transaction, own_database
from agent_runtime.storage.schema import Schema


@dataclass(frozen=True, slots=True)
class Migration:
    """A script of `migrations/`. `oldest` is the number of the oldest migration whose program can work on its result.

    Where `oldest` is less than its own number, processes of the version before go on beside those of this version.
    """

    script: str
    oldest: int


MIGRATIONS = (
    Migration("0001_journal.sql", oldest=1),
    Migration("0002_queue.sql", oldest=1),
    Migration("0004_ended.sql", oldest=1),
    Migration("0005_shared.sql", oldest=1),
    Migration("0006_catalogue.sql", oldest=1),
    Migration("0007_workers.sql", oldest=1),
    Migration("0008_states.sql", oldest=1),
    Migration("0009_threads.sql", oldest=1),
    Migration("0010_images.sql", oldest=1),
)

# Not to_regclass: it may answer from a cache that is older than the lock.
_HAS_TABLE = """
SELECT EXISTS (
    SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relname = 'schema_migrations')
"""
_CREATE_TABLE = """
CREATE TABLE schema_migrations (
    number integer PRIMARY KEY,
    oldest integer NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
)
"""
_SELECT = "SELECT coalesce(max(number), 0), coalesce(max(oldest), 0) FROM schema_migrations"
_INSERT = "INSERT INTO schema_migrations (number, oldest) VALUES (%s, %s)"


def migrate(connection: Connection, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Apply the migrations that are missing, in one transaction. Raises: ConfigurationError where a newer version has
    written the database in a way that this one cannot work with; psycopg.Error.
    """
    if _find_number(connection, len(migrations)) >= len(migrations):
        return
    with connection.transaction():
        lock_transaction(connection, MIGRATION)  # others that start wait here
        if not has_tables(connection):
            connection.execute(_CREATE_TABLE)
        found = _find_number(connection, len(migrations))
        for number, migration in enumerate(migrations[found:], start=found + 1):
            script = files(__package__).joinpath("migrations", migration.script).read_bytes()
            connection.execute(script)
            connection.execute(_INSERT, (number, migration.oldest))


def read_schema(database: Database, migrations: tuple[Migration, ...] = MIGRATIONS) -> Schema:
    """Return the state of the tables, and change nothing. Raises: ConfigurationError, StoreUnavailableError."""
    try:
        with database.connect(read_only=True) as connection:
            find_schema(connection)
            return _read_schema(connection, migrations)
    except psycopg.Error as error:
        raise make_opening_error(error) from error


def update_schema(database: Database, migrations: tuple[Migration, ...] = MIGRATIONS) -> Schema:
    """Apply the migrations that are missing, and return the state of the tables after that.

    Processes of the version before may run meanwhile, where they can work with the result.
    Raises: AlreadyOwnedError where they run and cannot; ConfigurationError, StoreUnavailableError.
    """
    try:
        with database.connect() as connection:
            find_schema(connection)
            found = _read_schema(connection, migrations).number
            new = migrations[found:]
            if found and any(migration.oldest > found for migration in new):
                _refuse_running(connection, new)
            migrate(connection, migrations)
            return _read_schema(connection, migrations)
    except psycopg.Error as error:
        raise make_opening_error(error) from error


def _refuse_running(connection: Connection, new: tuple[Migration, ...]) -> None:
    """Own the database, so that no process of the version before goes on. Raises: AlreadyOwnedError."""
    try:
        own_database(connection, exclusive=True)
    except AlreadyOwnedError as error:
        scripts = ", ".join(migration.script for migration in new)
        raise AlreadyOwnedError(
            f"The version before this one cannot work with {scripts}, and it is running. Stop every process that uses "
            f"the database, and migrate again. {error}",
            url=error.url,
            pid=error.pid,
        ) from error


def _read_schema(connection: Connection, migrations: tuple[Migration, ...]) -> Schema:
    number = _find_number(connection, len(migrations))
    return Schema(number, len(migrations), tuple(migration.script for migration in migrations[number:]))


def has_tables(connection: Connection) -> bool:
    """Return whether a service has made its tables here."""
    return connection.execute(_HAS_TABLE).fetchone() == (True,)


def _find_number(connection: Connection, known: int) -> int:
    """Return the number of the last applied migration. Raises: ConfigurationError."""
    if not has_tables(connection):
        return 0
    number, oldest = connection.execute(_SELECT).fetchone() or (0, 0)
    if oldest > known:
        raise ConfigurationError(
            f"The PostgreSQL database was written by a newer version of Agent Runtime (its schema is {number}, this "
            f"version knows {known}). Run that version, or set another storage.url."
        )
    return int(number)
