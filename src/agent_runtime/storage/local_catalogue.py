"""The catalogue of a process that shares its store with no other."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf

from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.listings import Listing
from agent_runtime.services.ports import TaskStore


class LocalCatalogue:
    """Asks each time, and keeps the definitions for the next start, with the shape of `ports.Catalogue`."""

    asks = True

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    async def obtain(
        self, key: str, ask: Callable[[], Awaitable[Listing]], _age_s: float = inf, *, compared: bool = False
    ) -> Listing:
        """See `ports.Catalogue`."""
        listing = await ask()
        if listing.failure is None and not compared:
            with suppress(StoreUnavailableError):
                await self._store.save_definitions(key, listing.judged)
        return listing

    def on_change(self, tell: Callable[[str], None]) -> None:
        """See `ports.Catalogue`. Nothing else changes a listing."""
