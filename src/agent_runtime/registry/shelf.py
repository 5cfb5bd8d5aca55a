"""The catalogue of one server: its usable tools, and why the others are unusable."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import structlog

from agent_runtime import __version__
from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.listings import Listing
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
from agent_runtime.registry.resolved import ResolvedEntry
from agent_runtime.registry.verdicts import Verdicts
from agent_runtime.text.escaping import json_line, look_alikes

log = structlog.get_logger()


@dataclass(slots=True)
class Shelf:
    """The catalogue of one server. `begun`: it is being asked or was. `checked` is set once its state is known.

    `outage`: why it cannot be asked, if that may pass. `withheld` are the tools with unstable definitions. `change` is
    set while the server has announced a change of its tools and is about to be asked again. `wanted` is set while a
    listing is wanted that is at most `age_s` seconds old.
    """

    entry: ResolvedEntry
    verdicts: Verdicts
    tools: dict[str, Tool] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    stability: Stability = field(default_factory=Stability)
    withheld: list[ToolDefinition] = field(default_factory=list)
    listing: Listing = field(default_factory=Listing)
    change: asyncio.TimerHandle | None = None
    connected: bool = False
    detail: str = "not asked yet"
    outage: ServerUnavailableError | None = None
    begun: bool = False
    checked: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    age_s: float = inf
    watch: asyncio.Task[None] | None = None

    @property
    def server(self) -> ToolServer:
        return self.entry.server

    @property
    def key(self) -> str:
        """The key under which the catalogue keeps the listing of this server: replicas with the same key share it.

        A built-in server lists what the version of the service has.
        """
        digest = self.entry.identity.digest
        return f"{digest} {__version__}" if self.server.type == "builtin" else digest

    def want(self, age_s: float) -> None:
        """Have the server asked again, unless it was asked within the last `age_s` seconds."""
        self.age_s = min(self.age_s, age_s)
        self.wanted.set()

    def begin(self) -> None:
        """Note that the server is being asked now."""
        self.begun, self.detail = True, "it was asked, and has not answered yet"

    def discard(self) -> None:
        """Stop asking the server, and wake everybody who waits for it, because its entry was replaced or removed."""
        if self.watch:
            self.watch.cancel()
        if self.change:
            self.change.cancel()
        self.checked.set()

    async def judge(self, offer: Offer) -> Listing:
        """Judge what the server has listed."""
        if self.server.type == "builtin":  # ours: trusted
            judged = [JudgedDefinition(definition=definition) for definition in offer.definitions]
        else:
            if not self.connected:
                self.detail = "it has listed its tools, and their schemas are being judged"
            judged = await self.verdicts.judge(offer.definitions)
        unjudged = {one.name for one in offer} - {one.definition.name for one in judged}
        left_out = {**offer.left_out, **dict.fromkeys(unjudged, "its schema could not be judged yet")}
        return Listing(judged=tuple(judged), left_out=left_out, unstable=self.stability.unstable)

    async def take(self, listing: Listing) -> None:
        """Take over a listing: whether the server can be asked, and its tools."""
        self.listing = listing
        failure = listing.failure
        if failure is not None:
            self.outage = failure.make_outage(self.server.id)
            self.connected, self.detail, self.tools = False, failure.reason, {}
            return
        await self.fill(listing)
        self.outage = None
        self.connected, self.detail = True, f"{len(self.tools)} tool{'' if len(self.tools) == 1 else 's'}"

    async def take_from_another(self, listing: Listing) -> None:
        """Take over a listing for which another process has asked, so that this one can go on from it."""
        if listing.failure is not None:
            await self.take(listing)
            return
        self.verdicts.remember(listing.judged)
        definitions = [one.definition for one in listing.judged]
        with contextlib.suppress(ValueError):
            await asyncio.to_thread(self.stability.resume, definitions, listing.unstable, known=listing.compared)
        await self.take(listing)

    async def fill(self, listing: Listing) -> None:
        """Store the usable tools of the server, and for each other tool the reason why it is unusable."""
        tools: dict[str, Tool] = {}
        unusable = dict(listing.left_out)

        def describe() -> None:  # in a thread: the digests of many tools take long
            for one in listing.judged:
                name = one.definition.name
                outcome = make_tool(self.entry, one)
                if isinstance(outcome, Tool):
                    tools[outcome.key] = outcome
                else:
                    unusable[name] = outcome

        await asyncio.to_thread(describe)
        self.tools, self.unusable = tools, unusable
        self.withhold()
        for alike in look_alikes(tool.name for tool in tools.values()):
            log.warning("tools_look_alike", server=self.server.id, tools=list(map(json_line, alike)))

    def withhold(self) -> None:
        """Move the unstable tools out of the usable ones."""
        keys = {name: tool_key(self.server.id, name) for name in self.stability.unstable}
        self.withheld = [self.tools.pop(key).definition for key in keys.values() if key in self.tools]
        for name, how in self.stability.unstable.items():
            self.unusable[name] = f"its definition differs from one list to the next: {how}"

    @property
    def definitions(self) -> Sequence[ToolDefinition]:
        """The definitions of the tools, also of those that are withheld."""
        return [*(tool.definition for tool in self.tools.values()), *self.withheld]


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
