"""Spare processes of MCP servers: each is started before a task needs it, and serves one task (G10)."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.tools import StdioServer
from agent_runtime.mcp_servers.connection import Connection
from agent_runtime.mcp_servers.listing import Listed

if TYPE_CHECKING:
    from agent_runtime.mcp_servers.openers import OverStdio
    from agent_runtime.mcp_servers.spawn import Spawn

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SpareTimes:
    """The times of spares, in seconds.

    `used_within_s`: how long a spare is kept after a task has used its entry. `longest_s`: the age at which a spare is
    replaced. `check_s`: how often age, use and secrets are checked. `start_after_s`: a spare starts once the task that
    uses the entry has made no call for this long, so that it does not compete with its calls for the processor.
    `start_latest_s`: how long it waits for that. `first_retry_s`, `longest_retry_s`: the bounds of the
    growing pause after a spare that ended by itself.
    """

    used_within_s: float = 600.0
    longest_s: float = 3600.0
    check_s: float = 10.0
    start_after_s: float = 0.2
    start_latest_s: float = 5.0
    first_retry_s: float = 5.0
    longest_retry_s: float = 300.0


class _Slot:
    """The place of one spare. `connection` is the spare, or the one before it while that is stopping."""

    def __init__(self, server: StdioServer) -> None:
        self.server = server
        self.used_at = -math.inf
        self.connection: Connection | None = None
        self.spawn: Spawn | None = None
        self.listed: Listed | None = None
        self.keeper: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Stop the spare, if there is one, and keep no other until the entry is used again."""
        if self.keeper is not None:
            self.keeper.cancel()
        self.keeper = self.listed = None
        if self.connection is not None:
            self.connection.stop()

    def hand_out(self, spare: Connection) -> Connection:
        """Return the spare and keep no other until the entry is used again."""
        self.connection = None
        self.end()
        spare.is_spare, spare.is_untried = False, True
        return spare


class Spares:
    """Keeps one spare for each entry of scope `task` that a task used a short time ago.

    `prepare` returns how an entry is started now, and `start` starts it; both raise ServerUnavailableError.
    `tell_change` is called with the id of a server whose spare lists other tools than the catalogue. With `times` None
    there are no spares.
    """

    def __init__(
        self,
        prepare: "Callable[[StdioServer], Awaitable[OverStdio]]",
        start: "Callable[[StdioServer, OverStdio], Connection]",
        tasks: asyncio.TaskGroup,
        tell_change: Callable[[str], None],
        times: SpareTimes | None,
    ) -> None:
        self._prepare = prepare
        self._start = start
        self._tasks = tasks
        self._tell_change = tell_change
        self._times = times
        self._slots: dict[str, _Slot] = {}
        self._discovered: dict[str, Listed] = {}
        self._in_force: Mapping[str, StdioServer] | None = None

    def replace(self, servers: Mapping[str, StdioServer]) -> None:
        """Put these entries in force. The spares of all other entries end."""
        self._in_force = servers
        self._discovered.clear()
        for name in [name for name, slot in self._slots.items() if servers.get(name) != slot.server]:
            self._slots[name].end()

    def note_use(self, server: StdioServer, used: Connection) -> None:
        """Keep a spare of this entry from now on, because a task has just begun to use it, in this connection."""
        if self._times is None or not server.spares or server.scope != "task":
            return
        if self._in_force is not None and self._in_force.get(server.id) != server:
            return  # a run that goes on with an entry of before
        slot = self._slots.setdefault(server.id, _Slot(server))
        if slot.server != server:
            slot.end()
            slot.server = server
        slot.used_at = self._now()
        if slot.keeper is None or slot.keeper.done():
            keep = self._keep(slot, self._times, used)
            slot.keeper = self._tasks.create_task(keep, name=f"spare of {server.id}")

    def take(self, server: StdioServer, opener: "OverStdio") -> Connection | None:
        """Return the spare of an entry for a task; None if there is none that would be started in the same way now.

        An outdated spare ends.
        """
        slot = self._slots.get(server.id)
        if slot is None or slot.connection is None or not slot.connection.usable or slot.server != server:
            return None
        if slot.spawn != opener.spawn:
            slot.end()
            return None
        spare = slot.hand_out(slot.connection)
        self.note_use(server, spare)
        return spare

    def note_listing(self, server_id: str, listed: Listed) -> None:
        """End a spare that lists other tools than a new process of the server has just listed for the catalogue."""
        self._discovered[server_id] = listed
        slot = self._slots.get(server_id)
        if slot is not None and slot.listed is not None and slot.listed.tools != listed.tools:
            slot.end()

    def close(self) -> None:
        """End all spares."""
        self._times = None
        for slot in self._slots.values():
            slot.end()

    async def _keep(self, slot: _Slot, times: SpareTimes, used: Connection) -> None:
        """Keep one spare ready until the entry has been unused for long enough. Cancelled once the spare is taken.

        `used` is the connection of the task that has just begun to use the entry.
        """
        await self._wait_for_calm(used, times)
        pause_s, retry_s = times.start_after_s, times.first_retry_s
        while True:
            await asyncio.sleep(pause_s)
            if slot.connection is not None:
                await slot.connection.ended.wait()  # there is never more than one
            if not self._is_used(slot, times):
                return
            try:
                ended_in_order = await self._keep_one(slot, times)
            except Exception:  # the edge that owns the spare: a task would meet the same error, and says so
                log.exception("spare_failed", server=slot.server.id)
                ended_in_order = False
            if slot.connection is not None:
                slot.connection.stop()
            slot.listed = None
            if ended_in_order:
                pause_s, retry_s = 0.0, times.first_retry_s
            else:
                pause_s, retry_s = retry_s, min(retry_s * 2, times.longest_retry_s)

    async def _wait_for_calm(self, used: Connection, times: SpareTimes) -> None:
        """Wait until the task has made its first calls, or has ended; not longer than `start_latest_s`."""
        latest, made = self._now() + times.start_latest_s, 0
        while not used.end.is_set() and self._now() < latest:
            if made == used.calls_made > 0 and not used.has_open_call:
                return
            made = used.calls_made
            await asyncio.sleep(times.start_after_s)

    async def _keep_one(self, slot: _Slot, times: SpareTimes) -> bool:
        """Start a spare. Return True if it has to end, False if it could not start or has ended by itself."""
        server = slot.server
        try:
            opener = await self._prepare(server)
            connection = self._start(server, opener)
            connection.is_spare = True
            slot.connection, slot.spawn = connection, opener.spawn
            await self._list(slot, connection)
        except ServerUnavailableError as error:
            log.info("spare_not_started", server=server.id, reason=error.reason)
            return False
        until = self._now() + times.longest_s
        while True:
            try:
                async with asyncio.timeout(times.check_s):
                    await connection.end.wait()
            except TimeoutError:
                if self._now() >= until or not self._is_used(slot, times) or not await self._is_current(slot):
                    return True
            else:
                return False

    async def _list(self, slot: _Slot, connection: Connection) -> None:
        """List the tools once, which warms the server up. If they differ, have the catalogue filled again."""
        slot.listed = await connection.definitions()
        known = self._discovered.get(slot.server.id)
        if known is not None and known.tools != slot.listed.tools:
            self._tell_change(slot.server.id)

    async def _is_current(self, slot: _Slot) -> bool:
        """Return whether the entry would be started in the same way now: with the same secrets, folder and sandbox."""
        try:
            return (await self._prepare(slot.server)).spawn == slot.spawn
        except ServerUnavailableError:
            return False

    def _is_used(self, slot: _Slot, times: SpareTimes) -> bool:
        return self._now() - slot.used_at < times.used_within_s

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
