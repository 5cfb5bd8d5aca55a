"""The catalogue of several replicas on one database: who asks a server, and what the others learn of it.

Each store here stands for a process: it has its own connections, threads and memory.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from agent_runtime.domain.listings import Listing, ListingFailure
from agent_runtime.domain.tools import JudgedDefinition, ToolDefinition
from agent_runtime.storage.postgres.catalogue import SharedCatalogue
from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.store import PostgresStore
from waiting import eventually

FRESH_S = 300.0
DOWN = Listing(failure=ListingFailure(reason="it is down", may_pass=True, retry_after_s=7))


class Replica:
    """A process with a catalogue, and a server that says how often it was asked. It answers once `answers` is set."""

    def __init__(self, store: PostgresStore, *, asks: bool = True) -> None:
        self.store = store
        self.catalogue = SharedCatalogue(store, asks=asks, look_again_s=0.2)
        self.heard: list[str] = []
        self.catalogue.on_change(self.heard.append)
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.listing = make_listing("echo")

    async def ask(self) -> Listing:
        self.asked += 1
        await self.answers.wait()
        return self.listing


def make_listing(*names: str, compared: bool = False) -> Listing:
    judged = tuple(JudgedDefinition(definition=ToolDefinition(name=name, description="\0é")) for name in names)
    return Listing(judged=judged, left_out={"odd": "no name"}, unstable={"x": "y"}, compared=compared)


@pytest.fixture
async def replicas(postgres_url: str) -> AsyncIterator[list[Replica]]:
    """Two workers, and a replica that asks no servers."""
    database = Database(postgres_url)
    async with asyncio.timeout(40), AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(PostgresStore(database, exclusive=False)) for _ in range(3)]
        yield [Replica(stores[0]), Replica(stores[1]), Replica(stores[2], asks=False)]


async def test_one_replica_asks_and_the_others_take_its_listing(replicas: list[Replica]) -> None:
    one, two, api = replicas
    async with asyncio.TaskGroup() as group:
        one.answers.clear()
        asking = group.create_task(one.catalogue.obtain("k", one.ask, FRESH_S))
        await eventually(lambda: one.asked == 1)
        others: list[asyncio.Task[Listing]] = []
        for other in (two, api):  # one after the other: what `api` asks for is newer than what `two` has asked for
            others.append(group.create_task(other.catalogue.obtain("k", other.ask, FRESH_S)))
            done, _ = await asyncio.wait(others, timeout=0.3)  # longer than they wait before they look again
            assert not done
        one.answers.set()
        assert await asyncio.gather(asking, *others) == [one.listing] * 3
        assert (one.asked, two.asked, api.asked) == (1, 0, 0)
        await eventually(lambda: {"k"} <= {*two.heard} & {*api.heard})


async def test_a_listing_is_used_while_it_is_fresh_and_a_failure_is_told_too(replicas: list[Replica]) -> None:
    one, two, _ = replicas
    assert await one.catalogue.obtain("k", one.ask, FRESH_S) == one.listing
    assert await two.catalogue.obtain("k", two.ask, FRESH_S) == one.listing
    assert two.asked == 0
    two.listing = DOWN
    assert await two.catalogue.obtain("k", two.ask, 0) == DOWN
    assert await one.catalogue.obtain("k", one.ask) == DOWN
    assert (one.asked, two.asked) == (1, 1)


async def test_a_replica_that_asks_no_servers_has_a_worker_ask(replicas: list[Replica]) -> None:
    one, two, api = replicas
    async with asyncio.TaskGroup() as group:
        await one.catalogue.obtain("k", one.ask)
        two.listing = make_listing("echo", "more")
        waiting = group.create_task(api.catalogue.obtain("k", api.ask, 0))
        await eventually(lambda: "k" in two.heard[1:])  # at first it heard of the listing
        assert await two.catalogue.obtain("k", two.ask) == two.listing
        assert await waiting == two.listing
        assert await one.catalogue.obtain("k", one.ask) == two.listing
        assert (one.asked, two.asked, api.asked) == (1, 1, 0)


async def test_requests_of_one_moment_are_answered_by_one_listing(replicas: list[Replica]) -> None:
    one, two, api = replicas
    async with asyncio.TaskGroup() as group:
        one.answers.clear()
        first = group.create_task(one.catalogue.obtain("k", one.ask))
        await eventually(lambda: one.asked == 1)
        later = [group.create_task(two.catalogue.obtain("k", two.ask, 0)) for _ in range(5)]
        later.append(group.create_task(api.catalogue.obtain("k", api.ask, 0)))
        await eventually(lambda: len(one.heard) == 1)  # of what the replica wants that asks no servers
        one.answers.set()
        await asyncio.gather(first, *later)
        assert (one.asked, two.asked) == (1, 1)


async def test_another_replica_asks_after_the_one_that_asked_has_died(replicas: list[Replica]) -> None:
    one, two, _ = replicas
    async with asyncio.TaskGroup() as group:
        one.answers.clear()
        asking = group.create_task(one.catalogue.obtain("k", one.ask, FRESH_S))
        await eventually(lambda: one.asked == 1)
        await one.store.close()
        assert await two.catalogue.obtain("k", two.ask, FRESH_S) == two.listing
        asking.cancel()


async def test_a_cancelled_request_leaves_the_server_to_others(replicas: list[Replica]) -> None:
    one, two, _ = replicas
    async with asyncio.TaskGroup() as group:
        one.answers.clear()
        for _ in range(5):
            asking = group.create_task(one.catalogue.obtain("k", one.ask, FRESH_S))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert await two.catalogue.obtain("k", two.ask, FRESH_S) == two.listing


async def test_two_lists_are_compared_once(replicas: list[Replica]) -> None:
    one, two, _ = replicas
    assert not (await one.catalogue.obtain("k", one.ask)).compared
    two.listing = make_listing("echo", compared=True)
    assert await two.catalogue.obtain("k", two.ask, compared=True) == two.listing
    assert await one.catalogue.obtain("k", one.ask, compared=True) == two.listing
    assert (one.asked, two.asked) == (1, 1)
