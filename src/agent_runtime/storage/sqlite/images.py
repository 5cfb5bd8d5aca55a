"""The statements on the table `images`."""

import json
import sqlite3
from collections.abc import Sequence

from agent_runtime.domain.images import Image, select_new
from agent_runtime.domain.rerun import Rerun

_SELECT_TASK = "SELECT 1 FROM tasks WHERE task_id = ?"
_SELECT_SIZES = "SELECT digest, length(data) FROM images WHERE task_id = ?"
_INSERT = "INSERT INTO images (task_id, digest, data) VALUES (?, ?, ?)"
_COPY = """
INSERT INTO images (task_id, digest, data)
SELECT ?, digest, data FROM images WHERE task_id = ? AND digest IN (SELECT value FROM json_each(?))
"""
_SELECT = "SELECT data FROM images WHERE task_id = ? AND digest = ?"
DELETE_IMAGES = "DELETE FROM images WHERE task_id = ?"


def insert_images(
    connection: sqlite3.Connection, task_id: str, images: Sequence[Image], most_bytes: int
) -> frozenset[str]:
    """Add images to those of a task; see `TaskStore.save_images`."""
    if connection.execute(_SELECT_TASK, (task_id,)).fetchone() is None:
        return frozenset()
    known = dict(connection.execute(_SELECT_SIZES, (task_id,)).fetchall())
    new = select_new(images, known, most_bytes)
    connection.executemany(_INSERT, [(task_id, image.digest, image.data) for image in new])
    return frozenset(known) | {image.digest for image in new}


def copy_images(connection: sqlite3.Connection, task_id: str, rerun: Rerun) -> None:
    """Give a rerun the images in the results that it reuses, as far as the finished task is still there."""
    connection.execute(_COPY, (task_id, rerun.task_id, json.dumps(rerun.image_digests)))


def select_image(connection: sqlite3.Connection, task_id: str, digest: str) -> bytes | None:
    found = connection.execute(_SELECT, (task_id, digest)).fetchone()
    return bytes(found[0]) if found else None
