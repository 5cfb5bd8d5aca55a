"""The catalogue that replicas share in the database: one at a time asks a server, and tells the others."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from math import inf

import structlog

from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.listings import Listing
from agent_runtime.storage.followers import Followers
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.listings import (
    StoredListing,
    save_listing,
    select_listing,
    try_lock_listing,
    unlock_listing,
    want_listing,
)
from agent_runtime.storage.postgres.notices import News, notify
from agent_runtime.storage.postgres.store import PostgresStore

log = structlog.get_logger(__name__)

_LOOK_AGAIN_S = 30.0
"""How long to wait for the listing of another process, which may have died, before trying to ask the server."""

_OUTAGE_S = 5.0


class SharedCatalogue:
    """The catalogue in a database that several processes share, with the shape of `ports.Catalogue`.

    The session that writes holds a lock while its process asks a server, so that another can as soon as it is dead.
    """

    def __init__(self, store: PostgresStore, *, asks: bool, look_again_s: float = _LOOK_AGAIN_S) -> None:
        self.asks = asks
        self._look_again_s = look_again_s
        self._store = store
        self._followers = Followers()
        self._numbers: dict[str, int] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Of this process too only one task asks a server at a time."""
        self._tell: Callable[[str], None] = _ignore
        store.on_news(self._hear)

    def on_change(self, tell: Callable[[str], None]) -> None:
        """See `ports.Catalogue`."""
        self._tell = tell

    def _hear(self, news: News) -> None:
        changed = [key for key, number in news.listings.items() if number > self._numbers.get(key, 0)]
        self._numbers |= {key: news.listings[key] for key in changed}
        for key in changed:
            self._followers.advance(key, self._numbers[key])
        for key in {*changed, *(news.wanted if self.asks else ())}:
            self._tell(key)

    async def obtain(
        self, key: str, ask: Callable[[], Awaitable[Listing]], age_s: float = inf, *, compared: bool = False
    ) -> Listing:
        """See `ports.Catalogue`."""
        while True:
            try:
                return await self._obtain(key, ask, age_s, compared=compared)
            except StoreUnavailableError as error:
                log.info("catalogue_not_read", error=str(error))
                await asyncio.sleep(_OUTAGE_S)

    async def _obtain(
        self, key: str, ask: Callable[[], Awaitable[Listing]], age_s: float, *, compared: bool
    ) -> Listing:
        if age_s <= 0:
            await self._want(key)
        stored = await self._store.read(partial(select_listing, key=key))
        oldest = stored.oldest_enough(age_s if age_s > 0 else inf)
        if not self.asks and age_s > 0 and not stored.is_enough(*oldest, compared=compared):
            await self._want(key)
        with self._followers.watch(key) as watch:
            while not stored.is_enough(*oldest, compared=compared):
                if self.asks:
                    async with self._turns[key]:
                        asked_at, stored = await self._claim(key)
                        if asked_at is not None:
                            return await self._ask(key, ask, asked_at, stored, compared=compared, oldest=oldest)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._look_again_s):
                        await watch.wait_beyond(stored.number)
                stored = await self._store.read(partial(select_listing, key=key))
        assert stored.listing is not None  # noqa: S101 - else it is not enough
        return stored.listing

    async def _want(self, key: str) -> None:
        """Note that a newer listing is wanted. A process that asks no servers tells those that do."""

        def want(connection: Connection) -> None:
            want_listing(connection, key)
            if not self.asks:
                notify(connection, self._store.channel, f"w {key}\n")

        await self._store.write(want)

    async def _claim(self, key: str) -> tuple[datetime | None, StoredListing]:
        """Return the time if this process may ask the server now, and what is stored by then."""
        found: list[tuple[datetime | None, StoredListing]] = []

        def claim(connection: Connection) -> None:
            asked_at = try_lock_listing(connection, key)
            found.append((asked_at, select_listing(connection, key)))

        try:
            await self._store.write(claim)
        except asyncio.CancelledError:
            await self._unlock(key)  # the lock may have been taken all the same
            raise
        return found[-1]

    async def _ask(
        self,
        key: str,
        ask: Callable[[], Awaitable[Listing]],
        asked_at: datetime,
        stored: StoredListing,
        *,
        compared: bool,
        oldest: tuple[datetime | None, datetime | None],
    ) -> Listing:
        """Ask the server, unless another process has just done so, and store its listing."""
        try:
            if stored.listing is not None and stored.is_enough(*oldest, compared=compared):
                return stored.listing
            listing = await ask()
            with suppress(StoreUnavailableError):
                await self._save(key, listing, asked_at)
            return listing
        finally:
            await self._unlock(key)

    async def _unlock(self, key: str) -> None:
        with suppress(StoreUnavailableError):
            await self._store.write(partial(unlock_listing, key=key))

    async def _save(self, key: str, listing: Listing, asked_at: datetime) -> None:
        def save(connection: Connection) -> None:
            number = save_listing(connection, key, listing, asked_at)
            self._numbers[key] = max(number, self._numbers.get(key, 0))
            notify(connection, self._store.channel, f"l {number} {key}\n")

        await self._store.write(save)


def _ignore(_: str) -> None:
    """Do nothing until the registry listens."""
