"""Connects to the PostgreSQL database that `storage.url` names, and translates the errors of the driver."""

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from agent_runtime.config import StorageSettings
from agent_runtime.domain.errors import AgentRuntimeError, ConfigurationError, StoreUnavailableError

Connection = psycopg.Connection[TupleRow]

logging.getLogger("psycopg").setLevel(logging.ERROR)  # what it warns of is also raised, and logged once

_DEFAULTS = {
    "connect_timeout": "5",
    "client_encoding": "utf8",
    "target_session_attrs": "read-write",  # of several hosts the one that can be written; never a replica that lags
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""Parameters of libpq that the URL can set otherwise. A host that is gone is noticed within half a minute."""

SERVER_KEEPALIVES = (
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 2",
)
"""A session of a host that is gone ends, and frees its locks, within half a minute too."""

_OLDEST_SERVER = 130000
_SCHEMA = "SELECT current_schema(), current_setting('server_encoding')"
_PERMANENT = (
    "authentication failed",
    "no pg_hba.conf entry",
    "no password supplied",
    "does not exist",
    "not permitted",
    "permission denied",
    "certificate verify failed",
    "certificate file",
    "does not match host name",
    "SSL was required",
)
"""What a server or libpq says of a connection that will not succeed until the operator changes something."""

_REFUSALS = {"42501", "28000", "28P01", "3D000", "3F000"}
"""The SQLSTATEs for what the operator must change: privileges, role, password, database, schema."""

_HELP = "See storage.url."


@dataclass(frozen=True, slots=True)
class Database:
    """A database and how to connect to it. `schema` is known once a connection was open."""

    url: str = field(repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Parameters of libpq that are not in the URL, such as the password of PGPASSWORD."""

    def connect(self, *, read_only: bool = False) -> Connection:
        """Return a connection in autocommit mode: transactions are explicit. Raises: psycopg.Error,
        ConfigurationError.
        """
        connection = psycopg.connect(autocommit=True, **self.read_parameters())  # type: ignore[arg-type]
        try:
            _check_version(connection)
            with connection.pipeline():
                for statement in SERVER_KEEPALIVES:
                    connection.execute(statement)
                if read_only:
                    connection.execute("SET default_transaction_read_only = on")
        except BaseException:
            connection.close()
            raise
        return connection

    def read_parameters(self) -> dict[str, object]:
        """Return the parameters of the URL, with defaults. Raises: ConfigurationError without the URL."""
        try:
            given = conninfo_to_dict(self.url)
        except psycopg.Error as error:
            raise ConfigurationError(
                "storage.url: libpq cannot read this URL; it must be like postgresql://USER@HOST:5432/DATABASE, with "
                "special characters of a password as %XX."
            ) from error
        # Visible in pg_stat_activity, where another process looks up who the owner is. The limit is PostgreSQL's.
        name = {"application_name": f"agent-runtime {socket.gethostname()[:32]} {os.getpid()}"[:63]}
        return {**_DEFAULTS, **name, **self.secrets, **given}


def read_database(settings: StorageSettings) -> Database:
    """Return the database that the settings name, which must be on PostgreSQL."""
    secrets = {name: value.get_secret_value() for name, value in settings.libpq.items()}
    return Database(settings.url or "", secrets)


def _check_version(connection: Connection) -> None:
    if connection.info.server_version < _OLDEST_SERVER:
        raise ConfigurationError(f"PostgreSQL 13 or later is needed; this server is older. {_HELP}")


def find_schema(connection: Connection) -> str:
    """Return the schema that holds, or will hold, the tables. Raises: ConfigurationError, psycopg.Error."""
    schema, encoding = connection.execute(_SCHEMA).fetchone() or (None, None)
    if schema is None:
        raise ConfigurationError(f"The schema that search_path names does not exist: create it first. {_HELP}")
    if encoding != "UTF8":
        raise ConfigurationError(f"The database has the encoding {encoding}: create one with UTF8. {_HELP}")
    return str(schema)


def make_channel(schema: str) -> str:
    """Return the channel on which the processes of this schema notify each other."""
    return f"agent_runtime_{sha256(schema.encode()).hexdigest()[:16]}"


def make_opening_error(error: psycopg.Error) -> AgentRuntimeError:
    """Return the error for an operator whose database could not be opened."""
    if is_refusal(error):
        return ConfigurationError(f"The PostgreSQL database cannot be used: {_one_line(error)}. {_HELP}")
    return StoreUnavailableError(f"The PostgreSQL database cannot be reached: {_one_line(error)}.")


def is_refusal(error: psycopg.Error) -> bool:
    """Return whether the operator must change something before this can succeed."""
    if error.sqlstate is not None:
        return error.sqlstate in _REFUSALS
    if not isinstance(error, psycopg.OperationalError):
        return True  # parameters that libpq does not accept
    text = str(error)
    return any(reason in text for reason in _PERMANENT)


def is_connection_lost(connection: Connection | None, error: psycopg.Error) -> bool:
    """Return whether a new connection is needed: it is closed, or leads to a server that can only be read now."""
    return connection is None or connection.closed or isinstance(error, psycopg.errors.ReadOnlySqlTransaction)


def make_unavailable_error(error: psycopg.Error) -> StoreUnavailableError:
    """Return the error for callers: it shows no address and no statement."""
    reason = error.diag.message_primary or "the database server cannot be reached"
    return StoreUnavailableError(f"The store cannot be used now: {reason}. Try again later.")


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split()).rstrip(".")
