"""The secret that all processes of a service on one database share."""

import secrets
from functools import partial
from threading import Event

from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.session import Session, SessionOpener

_SECRET = "secret"  # noqa: S105 - the name of the value, not what is in it
_BYTES = 32
_SELECT = "SELECT value FROM shared_values WHERE name = %s"
_INSERT = "INSERT INTO shared_values (name, value) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING"


def read_shared_secret(database: Database, known: bytes | None) -> bytes:
    """Return the secret of this database. The first process that asks makes it: `known`, or else a new one.

    Waits for the server for a while, as the store does. Raises: ConfigurationError, AlreadyOwnedError,
    StoreUnavailableError.
    """
    proposed = known or secrets.token_bytes(_BYTES)
    return SessionOpener(database, exclusive=False).open_first(Event(), partial(_read_or_make, proposed=proposed))


def _read_or_make(session: Session, proposed: bytes) -> bytes:
    with session.connection as connection:
        found = connection.execute(_SELECT, (_SECRET,)).fetchone()
        if found is None:  # of several that start at once, the first one's counts
            connection.execute(_INSERT, (_SECRET, proposed))
            found = connection.execute(_SELECT, (_SECRET,)).fetchone()
        return bytes(found[0]) if found else proposed
