"""The advisory locks of a schema. A session holds them, so they are free as soon as its process is dead."""

import time
from typing import LiteralString

from agent_runtime.domain.errors import AlreadyOwnedError
from agent_runtime.storage.postgres.connecting import Connection

MIGRATION, OWNER, CHAIN, SWEEPS, LISTING = 0x4152_0001, 0x4152_0002, 0x4152_0003, 0x4152_0004, 0x4152_0005
"""The first halves of the keys; the second is computed from the name of the schema.

`OWNER` is held by the one process that owns the database, or shared by all that write it together. `CHAIN` is held by
the one that writes the commits, `SWEEPS` by the worker that does what one of all has to do. `LISTING` is held for each
server of the registry by the one that asks for its tools.
"""

TODOS = 0x4152_0010
"""Held by a transaction that changes the todo list."""

_PATIENCE_S = 2.0
"""How long to try: the session of a process that was just killed may take a moment to end."""

TRY_LOCK: LiteralString = "SELECT pg_try_advisory_lock(%s, hashtext(current_schema()))"
_TRY_SHARED: LiteralString = "SELECT pg_try_advisory_lock_shared(%s, hashtext(current_schema()))"
_LOCK_TRANSACTION: LiteralString = "SELECT pg_advisory_xact_lock(%s, hashtext(current_schema()))"
_HELD: LiteralString = """
l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid()
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND l.classid::bigint = %s AND l.objid = (hashtext(current_schema())::bigint & 4294967295)::oid
"""
_HOLDER: LiteralString = f"""
SELECT a.application_name, a.client_addr::text, date_trunc('second', a.backend_start)::text
FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE {_HELD} LIMIT 1
"""  # noqa: S608 - constants alone
_COUNT_HOLDERS: LiteralString = f"SELECT count(*) FROM pg_locks l WHERE {_HELD}"  # noqa: S608 - constants alone


def try_lock(connection: Connection, key: int, *, shared: bool = False) -> bool:
    """Return whether the lock was taken. The session keeps it until it ends."""
    return connection.execute(_TRY_SHARED if shared else TRY_LOCK, (key,)).fetchone() == (True,)


def lock_transaction(connection: Connection, key: int) -> None:
    """Wait for the lock, and keep it until the transaction ends. Raises: psycopg.Error."""
    connection.execute(_LOCK_TRANSACTION, (key,))


def own_database(connection: Connection, *, exclusive: bool, patience_s: float = _PATIENCE_S) -> None:
    """Own the database with this session, alone or together with others. Raises: AlreadyOwnedError, psycopg.Error."""
    give_up_at = time.monotonic() + patience_s
    while not try_lock(connection, OWNER, shared=not exclusive):
        if time.monotonic() > give_up_at:
            raise _make_owned_error(connection)
        time.sleep(0.05)


def count_sharers(connection: Connection) -> int:
    """Return how many processes share the database now. Raises: psycopg.Error."""
    found = connection.execute(_COUNT_HOLDERS, (OWNER,)).fetchone()
    return int(found[0]) if found else 0


def _make_owned_error(connection: Connection) -> AlreadyOwnedError:
    found = connection.execute(_HOLDER, (OWNER,)).fetchone()
    who = "another process"
    if found is not None and found[0] is not None:
        name, address, since = found
        who = f"another process ({name}{f' at {address}' if address else ''}, connected since {since})"
    return AlreadyOwnedError(
        f"The PostgreSQL database is owned by {who}. Use the service there, stop it, or set another storage.url: "
        "another database, or another schema of this one.",
        url=None,
        pid=None,
    )
