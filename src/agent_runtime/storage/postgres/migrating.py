"""Brings the tables up to date. Several processes may start at once, also on an empty database."""

from dataclasses import dataclass
from importlib.resources import files

from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.locks import MIGRATION


@dataclass(frozen=True, slots=True)
class Migration:
    """A script of `migrations/`. `oldest` is the number of the oldest migration whose program can work on its result.

    Where `oldest` is less than its own number, processes of the version before go on beside those of this version.
    """

    script: str
    oldest: int


MIGRATIONS = (Migration("0001_journal.sql", oldest=1),)

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
_LOCK = "SELECT pg_advisory_xact_lock(%s, hashtext(current_schema()))"


def migrate(connection: Connection, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Apply the migrations that are missing, in one transaction. Raises: ConfigurationError where a newer version has
    written the database in a way that this one cannot work with; psycopg.Error.
    """
    if _find_number(connection, len(migrations)) >= len(migrations):
        return
    with connection.transaction():
        connection.execute(_LOCK, (MIGRATION,))  # others that start wait here
        if not has_tables(connection):
            connection.execute(_CREATE_TABLE)
        found = _find_number(connection, len(migrations))
        for number, migration in enumerate(migrations[found:], start=found + 1):
            script = files(__package__).joinpath("migrations", migration.script).read_bytes()
            connection.execute(script)
            connection.execute(_INSERT, (number, migration.oldest))


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
