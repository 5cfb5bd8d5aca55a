"""The tool registry: the entries of tool_registry.yaml, and the catalogue of the tools that their servers offer.

The catalogue is filled in the background. Only planning waits for it, and only for the servers that it needs.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from agent_runtime.domain.errors import ServerUnavailableError, StoreUnavailableError
from agent_runtime.domain.identity import Identities
from agent_runtime.domain.stability import Stability
from agent_runtime.domain.tools import (
    JudgedDefinition,
    Offer,
    Tool,
    ToolDefinition,
    ToolServer,
    describe_tool,
    tool_key,
)
from agent_runtime.registry.current import CurrentRegistry
from agent_runtime.registry.reloading import RegistryChanges
from agent_runtime.registry.resolved import ResolvedEntry
from agent_runtime.registry.verdicts import Verdicts
from agent_runtime.services.ports import SchemaJudge, TaskStore, ToolServers
from agent_runtime.text.escaping import json_line, look_alikes

log = structlog.get_logger()

_FIRST_RETRY_S = 5.0
_LAST_RETRY_S = 300.0

_CHANGE_PAUSE_S = 1.0
"""The seconds between a server's announcement that its tools have changed and the next request for them."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server in `GET /v1/tools/status`. `detail` is the reason if it is not connected."""

    id: str
    name: str
    type: str
    enabled: bool
    connected: bool
    detail: str


@dataclass(slots=True)
class _Shelf:
    """The catalogue of one server. `begun`: it is being asked or was. `checked` is set once it was asked.

    `outage`: why it cannot be asked, if that may pass. `withheld` are the tools with unstable definitions. `change` is
    set while the server has announced a change of its tools and is about to be asked again.
    """

    entry: ResolvedEntry
    verdicts: Verdicts
    tools: dict[str, Tool] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    stability: Stability = field(default_factory=Stability)
    withheld: list[ToolDefinition] = field(default_factory=list)
    change: asyncio.TimerHandle | None = None
    connected: bool = False
    detail: str = "not asked yet"
    outage: ServerUnavailableError | None = None
    begun: bool = False
    checked: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    watch: asyncio.Task[None] | None = None

    @property
    def server(self) -> ToolServer:
        return self.entry.server

    def discard(self) -> None:
        """Stop asking the server, and wake everybody who waits for it, because its entry was replaced or removed."""
        if self.watch:
            self.watch.cancel()
        if self.change:
            self.change.cancel()
        self.checked.set()

    def withhold(self) -> None:
        """Move the unstable tools out of the usable ones."""
        keys = {name: tool_key(self.server.id, name) for name in self.stability.unstable}
        self.withheld = [self.tools.pop(key).definition for key in keys.values() if key in self.tools]
        for name, how in self.stability.unstable.items():
            self.unusable[name] = f"its definition differs from one list to the next: {how}"


class ToolRegistry:
    """The catalogue of every server in the registry."""

    def __init__(self, current: CurrentRegistry, servers: ToolServers, store: TaskStore, judge: SchemaJudge) -> None:
        self._current = current
        self._servers = servers
        self._store = store
        self._schema_judge = judge
        self._shelves = {name: _Shelf(entry, Verdicts(judge.judge)) for name, entry in current.entries.items()}
        self._begin: Callable[[_Shelf], None] = _leave_to_watch
        servers.on_change(self._ask_soon)

    async def watch(self, *, eager: bool) -> None:
        """List the tools of every enabled server, again on request and with backoff after a failure, until cancelled.

        With `eager`, each server is asked at the start, and a second time once its tools are usable, to find
        definitions that are never the same. Without it, each is asked as soon as somebody waits for it.
        """
        async with asyncio.TaskGroup() as group:

            def begin(shelf: _Shelf) -> None:
                if shelf.server.enabled:
                    if eager:
                        shelf.wanted.set()
                    watch = self._watch(shelf, twice=eager)
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
            name: before[name] if name in kept else _Shelf(entry, Verdicts(self._schema_judge.judge))
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

    async def _watch(self, shelf: _Shelf, *, twice: bool) -> None:
        try:
            kept = await self._store.load_definitions(shelf.entry.identity.digest) or []
            shelf.verdicts.remember(kept)
            await self._fill(shelf, kept, Offer())
        except StoreUnavailableError:
            log.info("kept_definitions_not_read", server=shelf.server.id)
        except Exception:  # the edge that owns the watch: stored definitions must not keep the service from starting
            log.exception("kept_definitions_not_understood", server=shelf.server.id)
        await shelf.wanted.wait()
        shelf.begun = True
        retry_s = _FIRST_RETRY_S
        while True:
            shelf.wanted.clear()
            await self._ask(shelf)
            shelf.checked.set()
            if twice and shelf.connected:
                await self._ask_twice(shelf)
            settled = shelf.connected and bool(shelf.tools or shelf.unusable or retry_s >= _LAST_RETRY_S)
            retry_s = _FIRST_RETRY_S if shelf.tools else min(retry_s * 2, _LAST_RETRY_S)
            asked_s = min(shelf.outage.retry_after_s, _LAST_RETRY_S) if shelf.outage else 0.0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(shelf.wanted.wait(), None if settled else max(retry_s, asked_s))

    def _ask_soon(self, server_id: str) -> None:
        """Have a server asked again after it has announced a change of its tools, at most once in `_CHANGE_PAUSE_S`."""
        shelf = self._shelves.get(server_id)
        if shelf is None or not shelf.begun or shelf.change is not None:
            return

        def want() -> None:
            shelf.change = None
            shelf.wanted.set()

        shelf.change = asyncio.get_running_loop().call_later(_CHANGE_PAUSE_S, want)

    async def _ask_twice(self, shelf: _Shelf) -> None:
        """List the tools a second time: a definition that differs from one list to the next cannot be approved."""
        first = [*(tool.definition for tool in shelf.tools.values()), *shelf.withheld]
        if shelf.server.type == "builtin" or shelf.stability.is_known(first):
            return
        try:
            news = shelf.stability.compare(first, await self._servers.discover(shelf.server))
        except (ServerUnavailableError, ValueError):
            return  # they are compared the next time
        if news:
            log.warning("definitions_unstable", server=shelf.server.id, tools=shelf.stability.unstable)
            shelf.wanted.set()
        shelf.withhold()

    async def _ask(self, shelf: _Shelf) -> None:
        server, shelf.outage = shelf.server, None
        try:
            offer = await self._servers.discover(self.server(server.id))
            with contextlib.suppress(ValueError):
                shelf.stability.settle(offer)
            judged = await self._judge(shelf, offer.definitions)
            await self._fill(shelf, judged, offer)
        except ServerUnavailableError as error:
            log.warning("server_unavailable", server=server.id, reason=error.reason)
            shelf.connected, shelf.detail, shelf.tools = False, error.reason, {}
            shelf.outage = error.copy() if error.may_pass else None
            return
        except Exception:  # the edge that owns the watch: one server must not end the catalogue of the others (G9)
            log.exception("server_not_understood", server=server.id)
            shelf.connected, shelf.detail, shelf.tools = False, "internal error, see the log", {}
            return
        shelf.connected, shelf.detail = True, f"{len(shelf.tools)} tool{'' if len(shelf.tools) == 1 else 's'}"
        with contextlib.suppress(StoreUnavailableError):
            await self._store.save_definitions(shelf.entry.identity.digest, judged)

    @staticmethod
    async def _judge(shelf: _Shelf, definitions: Sequence[ToolDefinition]) -> list[JudgedDefinition]:
        if shelf.server.type == "builtin":  # ours: trusted
            return [JudgedDefinition(definition=definition) for definition in definitions]
        if not shelf.connected:
            shelf.detail = "it has listed its tools, and their schemas are being judged"
        return await shelf.verdicts.judge(definitions)

    @staticmethod
    async def _fill(shelf: _Shelf, judged: Sequence[JudgedDefinition], offer: Offer) -> None:
        """Store the usable tools of a server, and for each other tool the reason why it is unusable."""
        tools: dict[str, Tool] = {}
        unusable = {**offer.left_out, **{one.name: "its schema could not be judged yet" for one in offer}}

        def describe() -> None:  # in a thread: the digests of many tools take long
            for one in judged:
                name = one.definition.name
                outcome = make_tool(shelf.entry, one)
                if isinstance(outcome, Tool):
                    tools[outcome.key] = outcome
                    unusable.pop(name, None)
                else:
                    unusable[name] = outcome

        await asyncio.to_thread(describe)
        shelf.tools, shelf.unusable = tools, unusable
        shelf.withhold()
        for alike in look_alikes(tool.name for tool in tools.values()):
            log.warning("tools_look_alike", server=shelf.server.id, tools=list(map(json_line, alike)))

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
                    self.want(shelf.server.id for shelf in late if not shelf.begun)
                    await asyncio.gather(*(shelf.checked.wait() for shelf in late))

    def _find_enabled(self, server_ids: Iterable[str]) -> list[_Shelf]:
        shelves = [self._shelves[name] for name in server_ids if name in self._shelves]
        return [shelf for shelf in shelves if shelf.server.enabled]

    def want(self, server_ids: Iterable[str]) -> None:
        """Have these servers asked again soon."""
        for name in server_ids:
            if name in self._shelves:
                self._shelves[name].wanted.set()

    def invalidate(self, server_ids: Iterable[str]) -> None:
        """Have these servers asked again. Until then, `ready` waits for them."""
        names = [shelf.server.id for shelf in self._find_enabled(server_ids)]
        for name in names:
            self._shelves[name].checked.clear()
        self.want(names)

    async def refresh(self, timeout_s: float) -> None:
        """Ask every enabled server again, and wait `timeout_s` seconds at most for the answers."""
        names = self.list_enabled()
        self.invalidate(names)
        await self.ready(names, timeout_s)


def _leave_to_watch(_: _Shelf) -> None:
    """Do nothing until `watch` runs: it begins with all shelves that exist then."""


def make_tool(entry: ResolvedEntry, judged: JudgedDefinition) -> Tool | str:
    """Return the tool, or the reason why it cannot be used."""
    if entry.server.policy_for(judged.definition.name).enabled is False:
        return "disabled in the tool registry"
    if judged.fault is not None:
        return f"its definition cannot be used: {judged.fault}"
    try:
        return describe_tool(entry.server, judged.definition, entry.identity.digest)
    except ValueError as error:
        first = str(error).partition("\n")[0]
        return f"its definition cannot be used: {first}"
