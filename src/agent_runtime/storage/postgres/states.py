"""The statements on the table `agent_states`."""

from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.journals import is_storable

_SELECT = "SELECT number, data, saved_at FROM agent_states WHERE agent = %s AND thread = %s"
_LOCK = f"{_SELECT} FOR UPDATE"
_INSERT = """
INSERT INTO agent_states (number, data, saved_at, agent, thread) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_UPDATE = "UPDATE agent_states SET number = %s, data = %s, saved_at = %s WHERE agent = %s AND thread = %s"
_DELETE = "DELETE FROM agent_states WHERE agent = %s AND thread = %s"
_DELETE_OF_THREAD = """
DELETE FROM agent_states WHERE thread = %s AND NOT EXISTS (SELECT 1 FROM tasks WHERE thread = %s)
"""
_DELETE_BEFORE = """
DELETE FROM agent_states WHERE (agent, thread) IN
    (SELECT agent, thread FROM agent_states WHERE saved_at < %s ORDER BY saved_at LIMIT %s FOR UPDATE SKIP LOCKED)
"""


def select_state(connection: Connection, agent: str, thread: str) -> tuple[int, str, str] | None:
    found = connection.execute(_SELECT, (agent, thread)).fetchone()
    return None if found is None else (found[0], found[1], found[2])


def lock_state(connection: Connection, agent: str, thread: str) -> tuple[int, str, str] | None:
    """Return the row of a state, locked until the end of the transaction."""
    found = connection.execute(_LOCK, (agent, thread)).fetchone()
    return None if found is None else (found[0], found[1], found[2])


def write_state(connection: Connection, agent: str, thread: str, row: tuple[int, str, str], *, known: bool) -> bool:
    """Write the row of a state. Return False if another process has just written a first one."""
    return connection.execute(_UPDATE if known else _INSERT, (*row, agent, thread)).rowcount == 1


def delete_state(connection: Connection, agent: str, thread: str) -> None:
    connection.execute(_DELETE, (agent, thread))


def delete_states_of_thread(connection: Connection, thread: str) -> None:
    """Delete the states of a thread that has no task any more."""
    if is_storable(thread):
        connection.execute(_DELETE_OF_THREAD, (thread, thread.encode()))


def delete_states_before(connection: Connection, at: str, limit: int) -> int:
    """Delete at most `limit` states that were saved before then. Return how many there were."""
    return connection.execute(_DELETE_BEFORE, (at, limit)).rowcount
