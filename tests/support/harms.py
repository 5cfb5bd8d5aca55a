"""Ways to tamper with a stored journal without the service."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

HARMS: dict[str, tuple[str, ...]] = {
    "the prompt was changed": (
        "UPDATE events SET data = replace(data, 'count', 'spend') WHERE task_id = :id AND seq = 1",
    ),
    "the plan was changed": (
        """UPDATE events SET data = replace(data, '"goal":"count"', '"goal":"spend"') WHERE task_id = :id""",
    ),
    "a record is no JSON": ("UPDATE events SET data = '{' WHERE task_id = :id AND seq = 1",),
    "a record is no text": ("UPDATE events SET data = CAST(x'ff' AS TEXT) WHERE task_id = :id AND seq = 2",),
    "a record is of no type": ("UPDATE events SET type = 'task.danced' WHERE task_id = :id AND seq = 2",),
    "a time is none": ("UPDATE events SET at = 'noon' WHERE task_id = :id AND seq = 2",),
    "the first record was deleted": ("DELETE FROM events WHERE task_id = :id AND seq = 1",),
    "the last record was deleted": (
        "DELETE FROM events WHERE task_id = :id AND seq = (SELECT max(seq) FROM events WHERE task_id = :id)",
    ),
    "all records were deleted": ("DELETE FROM events WHERE task_id = :id",),
    "a record was added": (
        """
        INSERT INTO events SELECT task_id, seq + 1, NULL, at, 'task.cancel_requested', '{}', hash
        FROM events WHERE task_id = :id ORDER BY seq DESC LIMIT 1
        """,
    ),
    "the row counts too many": ("UPDATE tasks SET version = version + 1 WHERE task_id = :id",),
    "the row has another head": ("UPDATE tasks SET head = 'sha256:1' WHERE task_id = :id",),
    "the row has a head that is no text": ("UPDATE tasks SET head = CAST(x'ff' AS TEXT) WHERE task_id = :id",),
    "the row was deleted": ("DELETE FROM tasks WHERE task_id = :id",),
}
FORGED_APPROVAL = (
    """
    INSERT INTO events SELECT task_id, seq + 1, NULL, at, 'plan.approved',
        json_object('revision', 1, 'digest', json_extract(data, '$.digest'), 'actor', 'alice', 'comment', NULL), hash
    FROM events WHERE task_id = :id AND type = 'plan.proposed'
    """,
    "UPDATE tasks SET status = 'approved', version = version + 1 WHERE task_id = :id",
)


def harm(path: Path, statements: tuple[str, ...], task_id: str) -> None:
    """Change the stored task directly, with SQL, with or without a running service."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        changed = [connection.execute(statement, {"id": task_id}).rowcount for statement in statements]
    assert all(changed), "nothing was harmed"


def read_stored(path: Path, task_id: str) -> list[Any]:
    """Return all stored rows of a task, as bytes."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        connection.text_factory = bytes
        return [
            connection.execute(f"SELECT * FROM {table} WHERE task_id = ? ORDER BY 1, 2", (task_id,)).fetchall()  # noqa: S608
            for table in ("tasks", "events")
        ]
