"""The statements on the table `images`."""

from collections.abc import Sequence

from agent_runtime.domain.images import Image, select_new
from agent_runtime.domain.rerun import Rerun
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.journals import is_storable

_LOCK_TASK = "SELECT 1 FROM tasks WHERE task_id = %s FOR UPDATE"
_SELECT_SIZES = "SELECT digest, octet_length(data) FROM images WHERE task_id = %s"
_INSERT = "INSERT INTO images (task_id, digest, data) VALUES (%s, %s, %s)"
_COPY = """
INSERT INTO images (task_id, digest, data)
SELECT %s, digest, data FROM images WHERE task_id = %s AND digest = ANY(%s)
"""
_SELECT = "SELECT data FROM images WHERE task_id = %s AND digest = %s"
DELETE_IMAGES = "DELETE FROM images WHERE task_id = %s"


def insert_images(connection: Connection, task_id: str, images: Sequence[Image], most_bytes: int) -> frozenset[str]:
    """Add images to those of a task; see `TaskStore.save_images`. The task stays locked, so that it is not deleted
    meanwhile.
    """
    if connection.execute(_LOCK_TASK, (task_id,)).fetchone() is None:
        return frozenset()
    known: dict[str, int] = dict(connection.execute(_SELECT_SIZES, (task_id,)).fetchall())
    new = select_new(images, known, most_bytes)
    for image in new:
        connection.execute(_INSERT, (task_id, image.digest, image.data))
    return frozenset(known) | {image.digest for image in new}


def copy_images(connection: Connection, task_id: str, rerun: Rerun) -> None:
    """Give a rerun the images in the results that it reuses, as far as the finished task is still there."""
    connection.execute(_COPY, (task_id, rerun.task_id, rerun.image_digests))


def select_image(connection: Connection, task_id: str, digest: str) -> bytes | None:
    if not is_storable(task_id):
        return None
    found = connection.execute(_SELECT, (task_id, digest), binary=True).fetchone()
    return bytes(found[0]) if found else None
