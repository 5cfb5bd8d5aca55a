"""Progress over the processes that share a PostgreSQL database. Each store and relay here stands for a process."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import pairwise

import psycopg
import pytest

from agent_runtime.config import StorageSettings
from agent_runtime.domain.patience import Report
from agent_runtime.live.progress import Listener, Piece, Progress, Reported
from agent_runtime.storage.opening import relay_progress
from agent_runtime.storage.postgres.connecting import Database, make_channel
from agent_runtime.storage.postgres.progress_notices import HERE, make_said, make_wants, read_payload
from agent_runtime.storage.postgres.store import PostgresStore
from postgres_server import PostgresServer
from waiting import eventually

Join = Callable[[], Awaitable[Progress]]


@pytest.fixture
async def join(postgres_url: str) -> AsyncIterator[Join]:
    """Start one more process on the database."""
    async with asyncio.timeout(40), AsyncExitStack() as opened:

        async def start() -> Progress:
            await opened.enter_async_context(PostgresStore(Database(postgres_url), exclusive=False))
            progress = Progress()
            await opened.enter_async_context(relay_progress(StorageSettings(url=postgres_url), progress))
            return progress

        yield start


async def take(listener: Listener) -> list[Piece]:
    async with asyncio.timeout(20):
        return await listener.take()


async def reach(speaking: Progress, listener: Listener) -> None:
    """Wait until what one process says reaches a listener of task t in another, and take all of it."""

    async def try_once() -> bool:
        speaking.say("t", Piece(None, "?"))
        try:
            async with asyncio.timeout(0.05):
                return bool(await listener.take())
        except TimeoutError:
            return False

    await eventually(try_once)
    speaking.say("t", Piece("last", "."))
    while (await take(listener))[-1] != Piece("last", "."):
        pass


@contextmanager
def heard_notices(url: str, server: PostgresServer) -> Iterator[Callable[[], list[str]]]:
    """Give the payloads of all notices on the channel of progress, from now on, when called."""
    schema = str(server.execute("SELECT current_schema()", url)[0][0])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'LISTEN "{make_channel(schema)}_live"'.encode())
        yield lambda: [notice.payload for notice in connection.notifies(timeout=0.2)]


async def test_what_one_process_says_reaches_the_followers_of_the_task_at_another(join: Join) -> None:
    running, other = await join(), await join()
    with other.listen("t") as there, other.listen("u") as elsewhere, running.listen("t") as here:
        await reach(running, there)
        report = Report(1, 2, "half\x00 \u20ac")
        for piece in (Piece("s1", "Hello, "), Piece("s1", "w\x00rld"), Reported("s2", "Step s2 ...", report)):
            running.say("t", piece)
        got: list[Piece] = []
        while len(got) < 2 or not isinstance(got[-1], Reported):
            got += await take(there)
        assert "".join(piece.text for piece in got[:-1]) == "Hello, w\x00rld"
        assert isinstance(got[-1], Reported)
        assert (got[-1].step_id, got[-1].report) == ("s2", report)
        assert Piece("s1", "Hello, w\x00rld") in await take(here)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await elsewhere.take()


async def test_a_process_that_comes_later_follows_too(join: Join, postgres_server: PostgresServer) -> None:
    other = await join()
    with other.listen("t") as there:
        running = await join()
        await reach(running, there)
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_notify%'"
        assert await asyncio.to_thread(postgres_server.execute, f"{ended} AND pid <> pg_backend_pid()")
        await reach(running, there)  # both have come back by themselves


async def test_a_process_alone_sends_nothing_and_one_without_followers_elsewhere_says_nothing(
    join: Join, postgres_url: str, postgres_server: PostgresServer
) -> None:
    with heard_notices(postgres_url, postgres_server) as notices:
        alone = await join()
        with alone.listen("t"):
            await eventually(lambda: asyncio.to_thread(notices))  # it says that it is here, once
            for _ in range(20):
                alone.say("t", Piece(None, "text"))
            assert not await asyncio.to_thread(notices)
            other = await join()
            for _ in range(20):
                other.say("u", Piece(None, "text"))
            said = [payload for _ in range(3) for payload in await asyncio.to_thread(notices)]
            assert HERE in said
            assert "said" not in {read_payload(payload).kind for payload in said}


async def test_a_flood_is_sent_in_few_notices_and_what_is_too_much_is_dropped(
    join: Join, postgres_url: str, postgres_server: PostgresServer
) -> None:
    running, other = await join(), await join()
    with other.listen("t") as there:
        await reach(running, there)
        with heard_notices(postgres_url, postgres_server) as notices:
            began = time.monotonic()
            for number in range(20_000):
                running.say("t", Piece("s1", f"<{number:05}> " * 8))
            running.say("t", Piece("s2", "end"))
            got: list[Piece] = []
            while not got or got[-1] != Piece("s2", "end"):
                got += await take(there)
            took = time.monotonic() - began
            sent = await asyncio.to_thread(notices)
        assert len(sent) <= took / 0.1 + 3
        assert max(len(payload.encode()) for payload in sent) < 8000
        assert sum(len(piece.text) for piece in got) < 200_000
        # Where something was dropped, two halves of a word may stand together.
        numbers = [int(word) for piece in got for word in re.findall(r"<(\d{5})>", piece.text)]
        assert numbers
        assert all(before <= after for before, after in pairwise(numbers))


def test_what_cannot_be_read_says_nothing() -> None:
    for payload in (
        "",
        "{",
        "[]",
        '["said"]',
        '["said", 1, []]',
        '["want", 5]',
        "null",
        '["said", "t", [1, [2], ["s"]]]',
    ):
        assert not read_payload(payload).pieces
    long = Reported("s", "", Report(None, None, "\x00" * 4000))
    payload, left = make_said("t" * 250, [Piece("s", "\x00" * 5000), long])
    assert len(payload.encode()) < 8000
    while left:
        payload, left = make_said("t", left)
    assert read_payload(payload).pieces[-1].step_id == "s"
    assert [read_payload(one).task_ids for one in make_wants(["a", "b", "c" * 5000])] == [("a", "b")]
