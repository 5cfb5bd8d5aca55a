"""Opens the session that writes: it owns the database, brings the tables up to date, and makes commits durable."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

import psycopg
import structlog

from agent_runtime.storage.postgres.connecting import (
    Connection,
    Database,
    find_schema,
    is_refusal,
    make_channel,
    make_opening_error,
)
from agent_runtime.storage.postgres.locks import CHAIN, own_database, try_lock
from agent_runtime.storage.postgres.migrating import migrate

log = structlog.get_logger(__name__)

T = TypeVar("T")

_START_S = 30.0
"""How long a start waits for the server, which may be starting too."""

_PAUSE_S = 0.25
_AGAIN_S = 0.5
"""How long a new session tries to own the database: that of this process may have just ended."""

_DURABILITY = "SELECT current_setting('synchronous_commit'), current_setting('fsync')"

_RESTARTS = (psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown, psycopg.errors.CannotConnectNow)
"""What a server says that stops, or that has not started yet."""


@dataclass(frozen=True, slots=True)
class Session:
    """A connection that writes. `leads`: it holds the lock of the chain of commits."""

    connection: Connection
    channel: str
    leads: bool


class SessionOpener:
    """Opens the sessions of one process. `exclusive`: no other process may write the database meanwhile."""

    def __init__(self, database: Database, *, exclusive: bool) -> None:
        self._database = database
        self._exclusive = exclusive

    def open_first(self, stopping: Event, begin: Callable[[Session], T]) -> T:
        """Open the first session, and return what `begin` returns of it. Wait for the server for a while, and begin
        anew if the session is lost, unless the server refuses for good or `stopping` is set.

        Raises: ConfigurationError, AlreadyOwnedError, StoreUnavailableError.
        """
        give_up_at = time.monotonic() + _START_S
        waits = False
        while True:
            try:
                session = self._open(patience_s=None)
                try:
                    return begin(session)
                except BaseException:
                    session.connection.close()
                    raise
            except psycopg.Error as error:
                final = is_refusal(error) or (error.sqlstate and not isinstance(error, _RESTARTS))
                if final or time.monotonic() > give_up_at or stopping.wait(_PAUSE_S):
                    raise make_opening_error(error) from error
                if not waits:
                    waits = True
                    log.warning("database_awaited", error=" ".join(str(error).split()), seconds=_START_S)

    def open(self) -> Session:
        """Open a session after another was lost. Raises: psycopg.Error, ConfigurationError."""
        return self._open(patience_s=_AGAIN_S)

    def _open(self, *, patience_s: float | None) -> Session:
        connection = self._database.connect()
        try:
            schema = find_schema(connection)
            if patience_s is None:
                own_database(connection, exclusive=self._exclusive)
            else:
                own_database(connection, exclusive=self._exclusive, patience_s=patience_s)
            migrate(connection)
            self._make_durable(connection, warn=patience_s is None)
            connection.execute("SET lock_timeout = '5s'")  # one task that somebody has locked must not stop the others
            return Session(connection, make_channel(schema), self._exclusive or try_lock(connection, CHAIN))
        except BaseException:
            connection.close()
            raise

    def _make_durable(self, connection: Connection, *, warn: bool) -> None:
        """Have each commit wait for the disk of the server (G1), whatever its settings say."""
        commit, fsync = connection.execute(_DURABILITY).fetchone() or ("", "")
        if commit == "off":
            connection.execute("SET synchronous_commit = on")
        if fsync == "off" and warn:
            log.warning(
                "database_not_durable", message="The server has fsync = off: a crash may lose what was written."
            )
