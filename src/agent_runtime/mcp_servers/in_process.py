"""The connection to a server that ships with the service: its functions are called here, and no message is sent."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from agent_runtime.config import LimitSettings
from agent_runtime.domain.errors import CallNotSentError, OutcomeUnknownError, ServerUnavailableError
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.values import JsonObject
from agent_runtime.live.patience import Patience
from agent_runtime.mcp_servers.listing import Listed
from agent_runtime.mcp_servers.results import convert_result, read_definitions
from agent_runtime.text.redaction import Redactor

_LEAVE_S = 2.0
"""How long calls under way may take once the service stops."""


class ShippedServer(Protocol):
    """A server that ships with the service. Its definitions and results have the fields of MCP."""

    def list_tools(self) -> Sequence[JsonObject]:
        """Return the definitions of the tools; they never change."""

    async def call(self, tool: str, arguments: JsonObject) -> JsonObject:
        """Call a tool, and return its result. Errors are results too; nothing is raised."""

    def close(self) -> None:
        """Release what the tools hold open. The next call opens it again."""


class InProcessConnection:
    """Has the shape of `Connection`. Calls are short, and always awaited to their end, so that their outcome is known.

    A call ends with an unknown outcome only if it still runs some seconds after the connection was stopped.
    """

    remote = False

    def __init__(self, server_id: str, server: ShippedServer, limits: LimitSettings, redactor: Redactor) -> None:
        self.server_id = server_id
        self.end = asyncio.Event()
        self.ended = asyncio.Event()
        self.stopped = False
        self.changes = 0
        self.calls_made = 0
        self.has_listed = False
        self.is_spare = False
        self.is_untried = False
        self._server = server
        self._limits = limits
        self._redactor = redactor
        self._calls: set[asyncio.Task[JsonObject]] = set()
        self._listed: Listed | None = None

    @property
    def usable(self) -> bool:
        return not self.end.is_set()

    @property
    def has_open_call(self) -> bool:
        return bool(self._calls)

    async def run(self) -> None:
        try:
            await self.end.wait()
            if self._calls:
                await asyncio.wait(self._calls, timeout=_LEAVE_S)
            for call in self._calls:
                call.cancel()
            await asyncio.to_thread(self._server.close)
        finally:
            self.end.set()
            self.ended.set()

    def stop(self) -> None:
        self.stopped |= not self.ended.is_set()
        self.end.set()

    def retire(self) -> None:
        self.stop()

    async def ready(self) -> None:
        if self.end.is_set():
            await self.ended.wait()
            raise ServerUnavailableError(self.server_id, "the connection was closed", may_pass=True)

    async def definitions(self) -> Listed:
        await self.ready()
        if self._listed is None:
            raw = self._server.list_tools()
            tools, left_out = read_definitions(self.server_id, raw, self._limits, self._redactor)
            self._listed, self.has_listed = Listed(tools, left_out), True
        return self._listed

    async def call(
        self,
        tool: str,
        arguments: JsonObject,
        *,
        timeout_s: float,  # noqa: ARG002 - a short call has no use for it
        cancel: asyncio.Event,
        tasks: asyncio.TaskGroup,
        patience: Patience | None = None,  # noqa: ARG002 - likewise
    ) -> StoredResult:
        name = f"{self.server_id}.{tool}"
        if self.end.is_set():
            raise CallNotSentError(f"{name} was not sent: the connection was closed.", may_pass=True)
        if cancel.is_set():
            raise CallNotSentError(f"{name} was not sent: it was cancelled before that.")
        call = tasks.create_task(self._server.call(tool, arguments), name=f"call of {name}")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        self.calls_made += 1
        await asyncio.wait([call])
        if call.cancelled():
            raise OutcomeUnknownError(f"{name}: the service stopped during the call.", may_pass=True)
        return await convert_result(call.result(), self._redactor, self._limits.image_bytes)
