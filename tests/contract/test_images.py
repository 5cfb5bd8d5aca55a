"""Images stand beside the journal of their task, in every store: whole, bounded, and gone with it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from agent_runtime.domain.rerun import Rerun, ReusedResult
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import StoredResult
from agent_runtime.services.ports import TaskStore
from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.store import PostgresStore
from agent_runtime.storage.sqlite.store import SqliteStore
from journals import task_submitted, write_cancelled_task
from pictures import make_image
from store_adapters import ADAPTERS, OpenStore

ROOM = 1_000_000


@pytest.fixture(params=list(ADAPTERS))
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    return ADAPTERS[request.param](request)


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[TaskStore]:
    async with asyncio.timeout(30), open_store() as opened:
        yield opened


async def test_an_image_outlives_a_restart_and_goes_with_its_task(open_store: OpenStore) -> None:
    image, other = make_image(1), make_image(2)
    async with asyncio.timeout(30), open_store() as store:
        task = await write_cancelled_task(store, "t")
        await write_cancelled_task(store, "u")
        assert await store.save_images("t", [image, image], ROOM) == {image.digest}
        assert await store.save_images("u", [image], ROOM) == {image.digest}
        assert await store.save_images("t", [other], ROOM) == {image.digest, other.digest}
        assert await store.load("t") == task, "an image is no event"
    async with asyncio.timeout(30), open_store() as store:
        assert await store.load_image("t", image.digest) == image
        assert await store.load_image("t", other.digest) == other
        assert await store.load_image("u", other.digest) is None, "it belongs to another task"
        await store.delete(await store.load("t"))
        assert await store.load_image("t", image.digest) is None
        assert await store.save_images("t", [image], ROOM) == frozenset(), "too late"
        await store.append(Task("t"), [task_submitted()])
        assert await store.load_image("t", image.digest) is None
        assert await store.load_image("u", image.digest) == image


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:\x00", "\ud800", "../../etc/passwd", "%"])
async def test_an_unknown_digest_has_no_image(store: TaskStore, digest: str) -> None:
    await store.append(Task("t"), [task_submitted()])
    await store.save_images("t", [make_image(1)], ROOM)
    assert await store.load_image("t", digest) is None
    assert await store.load_image("nobody\x00", make_image(1).digest) is None


async def test_the_images_of_a_task_have_a_limit_together(store: TaskStore) -> None:
    await store.append(Task("t"), [task_submitted()])
    large, small, last, tiny = (make_image(number, size) for number, size in ((1, 600), (2, 300), (3, 200), (4, 100)))
    assert await store.save_images("t", [large], 1000) == {large.digest}
    assert await store.save_images("t", [large, small, last, tiny], 1000) == {
        large.digest,
        small.digest,
        tiny.digest,
    }, "the same image is kept and counted once, and a smaller one may still find room"
    assert await store.load_image("t", last.digest) is None


async def test_a_rerun_has_the_images_of_the_results_that_it_reuses(store: TaskStore) -> None:
    reused, left = make_image(1), make_image(2)
    task = await write_cancelled_task(store, "t")
    await store.save_images("t", [reused, left], ROOM)
    results = {
        "s1": ReusedResult(step="sha256:1", result=StoredResult(images=(reused.reference,)), open_world=False),
        "s2": ReusedResult(step="sha256:2", result=StoredResult(images=(reused.reference,)), open_world=False),
    }
    for name in ("r", "late"):
        rerun = Rerun(task_id="t", head="sha256:0", start="failed_step", results=results)
        await store.append(Task(name), [task_submitted().model_copy(update={"rerun": rerun})])
        if name == "r":
            await store.delete(task)
    assert await store.load_image("r", reused.digest) == reused
    assert await store.load_image("r", left.digest) is None, "no result that it reuses names it"
    assert await store.load_image("late", reused.digest) is None, "the finished task is gone"


async def test_an_image_that_was_changed_in_the_database_is_not_shown(tmp_path: Path) -> None:
    path, image, other = tmp_path / "tasks.db", make_image(1), make_image(2)
    async with SqliteStore(path) as store:
        await store.append(Task("t"), [task_submitted()])
        await store.save_images("t", [image], ROOM)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE images SET data = ?", (other.data,))
        assert await store.load_image("t", image.digest) is None


async def test_replicas_that_save_images_at_once_keep_to_the_limit(postgres_url: str) -> None:
    database = Database(postgres_url)
    async with (
        asyncio.timeout(30),
        PostgresStore(database, exclusive=False) as one,
        PostgresStore(database, exclusive=False) as two,
    ):
        await one.append(Task("t"), [task_submitted()])
        images = [make_image(number, 100) for number in range(40)]
        await asyncio.gather(
            *(store.save_images("t", [image], 1000) for image in images for store in (one, two)),
        )
        found = [await one.load_image("t", image.digest) for image in images]
    assert sum(image is not None for image in found) == 10
