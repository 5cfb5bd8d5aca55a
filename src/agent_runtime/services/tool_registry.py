"""The tool registry: the entries of tool_registry.yaml, and the catalogue of the tools that their servers offer.

The catalogue is filled in the background. Only planning waits for it, and only for the servers that it needs.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

import structlog

from agent_runtime.domain.errors import Fault, InvalidInputError, ServerUnavailableError, StoreUnavailableError
from agent_runtime.domain.identity import Identities
from agent_runtime.domain.listings import Listing, ListingFailure
from agent_runtime.domain.tools import Tool, ToolServer, tool_key
from agent_runtime.registry.current import CurrentRegistry
from agent_runtime.registry.reloading import RegistryChanges
from agent_runtime.registry.resolved import ResolvedEntry
from agent_runtime.registry.shelf import Shelf
from agent_runtime.registry.verdicts import Verdicts
from agent_runtime.services.ports import Catalogue, SchemaJudge, TaskStore, ToolServers

log = structlog.get_logger()

_FIRST_RETRY_S = 5.0
_LAST_RETRY_S = 300.0

_CHANGE_PAUSE_S = 1.0
"""The seconds between a server's announcement that its tools have changed and the next request for them."""

_FRESH_S = 300.0
"""How old the listing of another process may be, for a process that has just started to use it."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server in `GET /v1/tools/status`. `detail` is the reason if it is not connected."""

    id: str
    name: str
    type: str
    enabled: bool
    connected: bool
    detail: str


class ToolRegistry:
    """The catalogue of every server in the registry."""

    def __init__(
        self,
        current: CurrentRegistry,
        servers: ToolServers,
        store: TaskStore,
        judge: SchemaJudge,
        catalogue: Catalogue,
    ) -> None:
        self._current = current
        self._servers = servers
        self._store = store
        self._schema_judge = judge
        self._catalogue = catalogue
        self._shelves = {name: Shelf(entry, Verdicts(judge.judge)) for name, entry in current.entries.items()}
        self._begin: Callable[[Shelf], None] = _leave_to_watch
        servers.on_change(self._ask_soon)
        catalogue.on_change(self._look_soon)

    async def watch(self, *, eager: bool) -> None:
        """List the tools of every enabled server, again on request and with backoff after a failure, until cancelled.

        With `eager`, each server is asked at the start, and a second time once its tools are usable, to find
        definitions that are never the same. Without it, each is asked as soon as somebody waits for it. A process that
        asks no servers reads what others have stored, from the start.
        """
        asks = self._catalogue.asks
        async with asyncio.TaskGroup() as group:

            def begin(shelf: Shelf) -> None:
                if shelf.server.enabled:
                    if eager or not asks:
                        shelf.want(_FRESH_S if asks else inf)
                    watch = self._watch(shelf, twice=eager and asks)
                    shelf.watch = group.create_task(watch, name=f"catalogue:{shelf.server.id}")

            self._begin = begin
            for shelf in self._shelves.values():
                begin(shelf)
            await asyncio.Event().wait()  # keeps the group open: a reload begins to watch more servers

    @property
    def identities(self) -> Identities:
        """The current servers and model; a new object after each change."""
        return self._current.identities

    @property
    def asks_for_model(self) -> bool:
        """Return whether the endpoint knows which model there is, and not the settings."""
        return self._current.asks_for_model

    async def identify_model(self) -> None:
        """Find out which model there is now; see `CurrentRegistry`."""
        await self._current.identify_model()

    def replace(self, entries: Iterable[ResolvedEntry]) -> RegistryChanges:
        """Put these entries in force at once, and ask the servers of new and changed ones."""
        self._current.replace(entries)
        before, now = self._shelves, self._current.entries
        kept = {name for name, entry in now.items() if name in before and before[name].entry == entry}
        self._shelves = {
            name: before[name] if name in kept else Shelf(entry, Verdicts(self._schema_judge.judge))
            for name, entry in now.items()
        }
        for name in before.keys() - kept:
            before[name].discard()
        for name in now.keys() - kept:
            self._begin(self._shelves[name])
        return RegistryChanges(
            added=tuple(name for name in now if name not in before),
            changed=tuple(name for name in now if name in before and name not in kept),
            removed=tuple(name for name in before if name not in now),
        )

    async def _watch(self, shelf: Shelf, *, twice: bool) -> None:
        try:
            kept = await self._store.load_definitions(shelf.key) or []
            shelf.verdicts.remember(kept)
            await shelf.fill(Listing(judged=tuple(kept)))
        except StoreUnavailableError:
            log.info("kept_definitions_not_read", server=shelf.server.id)
        except Exception:  # the edge that owns the watch: stored definitions must not keep the service from starting
            log.exception("kept_definitions_not_understood", server=shelf.server.id)
        await shelf.wanted.wait()
        shelf.begin()
        retry_s = _FIRST_RETRY_S
        while True:
            shelf.wanted.clear()
            age_s, shelf.age_s = shelf.age_s, inf
            await self._ask(shelf, age_s)
            shelf.checked.set()
            if twice and shelf.connected:
                await self._ask_twice(shelf)
            settled = shelf.connected and bool(shelf.tools or shelf.unusable or retry_s >= _LAST_RETRY_S)
            retry_s = _FIRST_RETRY_S if shelf.tools else min(retry_s * 2, _LAST_RETRY_S)
            asked_s = min(shelf.outage.retry_after_s, _LAST_RETRY_S) if shelf.outage else 0.0
            pause_s = None if settled or not self._catalogue.asks else max(retry_s, asked_s)
            try:
                await asyncio.wait_for(shelf.wanted.wait(), pause_s)
            except TimeoutError:
                shelf.want(retry_s / 2)  # another process may have asked it meanwhile

    def _ask_soon(self, server_id: str) -> None:
        """Have a server asked again after it has announced a change of its tools, at most once in `_CHANGE_PAUSE_S`."""
        shelf = self._shelves.get(server_id)
        if shelf is None or not shelf.begun or shelf.change is not None:
            return

        def want() -> None:
            shelf.change = None
            shelf.want(0)

        shelf.change = asyncio.get_running_loop().call_later(_CHANGE_PAUSE_S, want)

    def _look_soon(self, key: str) -> None:
        """Read a listing for which another process has asked, or ask for one that another process wants."""
        for shelf in self._shelves.values():
            if shelf.key == key:
                shelf.want(inf)

    async def _ask(self, shelf: Shelf, age_s: float) -> None:
        """Bring the shelf up to date with a listing that is at most `age_s` seconds old."""
        asked: list[Listing] = []

        async def ask() -> Listing:
            asked.append(await self._list_tools(shelf))
            return asked[0]

        try:
            listing = await self._catalogue.obtain(shelf.key, ask, age_s)
            await (shelf.take(listing) if asked else shelf.take_from_another(listing))
        except Exception:  # the edge that owns the watch: one server must not end the catalogue of the others (G9)
            log.exception("server_not_understood", server=shelf.server.id)
            await shelf.take(Listing(failure=ListingFailure(reason="internal error, see the log")))

    async def _list_tools(self, shelf: Shelf) -> Listing:
        """Ask the server for its tools, and judge them."""
        try:
            offer = await self._servers.discover(self.server(shelf.server.id))
        except ServerUnavailableError as error:
            log.warning("server_unavailable", server=shelf.server.id, reason=error.reason)
            return Listing(failure=ListingFailure.of_error(error))
        with contextlib.suppress(ValueError):
            shelf.stability.settle(offer)
        return await shelf.judge(offer)

    async def _ask_twice(self, shelf: Shelf) -> None:
        """List the tools a second time: a definition that differs from one list to the next cannot be approved."""
        first, compared = shelf.definitions, False
        if shelf.server.type == "builtin" or shelf.stability.is_known(first):
            return

        async def compare() -> Listing:
            nonlocal compared
            news = shelf.stability.compare(first, await self._servers.discover(shelf.server))
            if news:
                log.warning("definitions_unstable", server=shelf.server.id, tools=shelf.stability.unstable)
                shelf.want(0)
            compared = True
            return shelf.listing.model_copy(update={"unstable": shelf.stability.unstable, "compared": True})

        try:
            listing = await self._catalogue.obtain(shelf.key, compare, compared=True)
        except (ServerUnavailableError, ValueError):
            return  # they are compared the next time
        if compared:
            shelf.listing = listing
            shelf.withhold()
        else:
            await shelf.take_from_another(listing)

    def server(self, server_id: str) -> ToolServer:
        """Return the entry of this id. Raises: ServerUnavailableError where there is none, or it cannot be used."""
        shelf = self._shelves.get(server_id)
        if shelf is None or not shelf.server.enabled:
            reason = "it is disabled in the tool registry" if shelf else "it is not in the tool registry"
            raise ServerUnavailableError(server_id, reason)
        if shelf.entry.problem is not None:
            raise ServerUnavailableError(server_id, shelf.entry.problem)
        return shelf.server

    def list_enabled(self, *, builtin_only: bool = False) -> list[str]:
        """Return the ids of the servers that may be used."""
        shelves = [shelf.server for shelf in self._shelves.values() if shelf.server.enabled]
        return [server.id for server in shelves if server.type == "builtin" or not builtin_only]

    def tools(self, server_ids: Iterable[str] | None = None) -> dict[str, Tool]:
        """Return the usable tools of these servers, or of all, by `server/tool`."""
        names = self.list_enabled() if server_ids is None else [name for name in server_ids if name in self._shelves]
        return {key: tool for name in names for key, tool in self._shelves[name].tools.items()}

    def unusable(self) -> dict[str, str]:
        """Return the tools that are listed but cannot be used, by `server/tool`, with the reason."""
        return {f"{name}/{tool}": why for name, shelf in self._shelves.items() for tool, why in shelf.unusable.items()}

    def explain_missing(self, server_ids: Iterable[str]) -> dict[str, str]:
        """Return the reasons why tools of these servers (`server/tool`) and the servers themselves (`server`) are
        unusable.
        """
        shelves = self._find_enabled(server_ids)
        tools = {tool_key(shelf.server.id, name): why for shelf in shelves for name, why in shelf.unusable.items()}
        return tools | {shelf.server.id: shelf.detail for shelf in shelves if not shelf.connected}

    def list_outages(self, server_ids: Iterable[str]) -> list[ServerUnavailableError]:
        """Return the errors of the servers among these that an outage keeps from listing their tools."""
        return [shelf.outage for shelf in self._find_enabled(server_ids) if shelf.outage is not None]

    def statuses(self) -> list[ServerStatus]:
        """Return the status of every entry, enabled or not, in the order of the file."""
        return [
            ServerStatus(
                id=shelf.server.id,
                name=shelf.server.name or shelf.server.id,
                type=shelf.server.type,
                enabled=shelf.server.enabled,
                connected=shelf.connected,
                detail=shelf.detail if shelf.server.enabled else "disabled in the tool registry",
            )
            for shelf in self._shelves.values()
        ]

    async def ready(self, server_ids: Iterable[str], timeout_s: float) -> None:
        """Wait until each of these servers was asked at least once, `timeout_s` seconds at most."""
        names = list(server_ids)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while late := [shelf for shelf in self._find_enabled(names) if not shelf.checked.is_set()]:
                    for shelf in late:
                        if not shelf.begun:
                            shelf.want(_FRESH_S)
                    await asyncio.gather(*(shelf.checked.wait() for shelf in late))

    def _find_enabled(self, server_ids: Iterable[str]) -> list[Shelf]:
        shelves = [self._shelves[name] for name in server_ids if name in self._shelves]
        return [shelf for shelf in shelves if shelf.server.enabled]

    def invalidate(self, server_ids: Iterable[str]) -> None:
        """Have these servers asked again. Until then, `ready` waits for them."""
        for shelf in self._find_enabled(server_ids):
            shelf.checked.clear()
            shelf.want(0)

    async def refresh(self, timeout_s: float, server: str | None = None) -> None:
        """Ask every enabled server again, or only one, and wait `timeout_s` seconds at most for the answers.

        Raises: InvalidInputError if no enabled server has this id.
        """
        enabled = list(self.list_enabled())
        if server is not None and server not in enabled:
            raise InvalidInputError([Fault("server", f"There is no enabled server {server!r}.")])
        names = enabled if server is None else [server]
        self.invalidate(names)
        await self.ready(names, timeout_s)


def _leave_to_watch(_: Shelf) -> None:
    """Do nothing until `watch` runs: it begins with all shelves that exist then."""
