"""The statements on the table `agent_states`."""

import sqlite3

_SELECT = "SELECT number, data, saved_at FROM agent_states WHERE agent = ? AND thread = ?"
_UPSERT = """
INSERT INTO agent_states (agent, thread, number, data, saved_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (agent, thread) DO UPDATE SET number = excluded.number, data = excluded.data, saved_at = excluded.saved_at
"""
_DELETE = "DELETE FROM agent_states WHERE agent = ? AND thread = ?"
_DELETE_OF_THREAD = """
DELETE FROM agent_states WHERE thread = ?1 AND NOT EXISTS (SELECT 1 FROM tasks WHERE thread = ?1)
"""
_DELETE_BEFORE = """
DELETE FROM agent_states WHERE rowid IN (SELECT rowid FROM agent_states WHERE saved_at < ? ORDER BY saved_at LIMIT ?)
"""


def select_state(connection: sqlite3.Connection, agent: str, thread: str) -> tuple[int, str, str] | None:
    found = connection.execute(_SELECT, (agent, thread)).fetchone()
    return None if found is None else (found[0], found[1], found[2])


lock_state = select_state
"""One thread writes, so its transaction has the row for itself."""


def write_state(
    connection: sqlite3.Connection,
    agent: str,
    thread: str,
    row: tuple[int, str, str],
    *,
    known: bool,  # noqa: ARG001 - the shape that other databases need
) -> bool:
    """Write the row of a state, in place of an earlier one. Return True."""
    connection.execute(_UPSERT, (agent, thread, *row))
    return True


def delete_state(connection: sqlite3.Connection, agent: str, thread: str) -> None:
    connection.execute(_DELETE, (agent, thread))


def delete_states_of_thread(connection: sqlite3.Connection, thread: str) -> None:
    """Delete the states of a thread that has no task any more."""
    connection.execute(_DELETE_OF_THREAD, (thread,))


def delete_states_before(connection: sqlite3.Connection, at: str, limit: int) -> int:
    """Delete at most `limit` states that were saved before then. Return how many there were."""
    return connection.execute(_DELETE_BEFORE, (at, limit)).rowcount
