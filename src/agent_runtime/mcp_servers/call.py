"""One call to one server: sent once, watched, and given up in good order."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import structlog
from mcp import ClientSession
from mcp_types import CallToolRequest, CancelledNotification, CancelledNotificationParams
from pydantic import TypeAdapter

from agent_runtime.domain.errors import AgentRuntimeError, OutcomeUnknownError
from agent_runtime.domain.tools import StoredResult
from agent_runtime.mcp_servers.dispatcher import CURRENT_REQUEST, RequestState

log = structlog.get_logger(__name__)

RAW: TypeAdapter[Any] = TypeAdapter(dict[str, Any])
"""An answer as it came."""

Judge = Callable[["AwaitedCall", Exception], Awaitable[StoredResult]]
"""What an error says about a call: a definite result, or the error to raise."""


class AwaitedCall:
    """One call on its way, and what became of waiting for it.

    `judge` says what an error means; `end` is set once the connection ends; `grace_s` is how long a server that was
    told that nobody waits may still answer.
    """

    def __init__(
        self,
        name: str,
        session: ClientSession,
        state: RequestState,
        *,
        judge: Judge,
        end: asyncio.Event,
        grace_s: float,
    ) -> None:
        self.name = name
        self.state = state
        self.given_up: str | None = None
        self._session = session
        self._judge = judge
        self._end = end
        self._grace_s = grace_s

    async def send(self, request: CallToolRequest) -> dict[str, Any] | StoredResult:
        token = CURRENT_REQUEST.set(self.state)
        try:
            # Not `call_tool`: that judges the output against its schema, and hides that the call has happened.
            raw: dict[str, Any] = await self._session.send_request(request, RAW)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises here, the call may have happened (G2)
            return await self._judge(self, error)
        else:
            return raw
        finally:
            CURRENT_REQUEST.reset(token)

    async def send_uninterrupted(
        self, request: CallToolRequest, tasks: asyncio.TaskGroup
    ) -> dict[str, Any] | StoredResult:
        """Send it, and let it come to its end even where the caller is cancelled."""
        outcome = await asyncio.shield(tasks.create_task(self._send_and_catch(request)))
        if isinstance(outcome, AgentRuntimeError):
            raise outcome
        return outcome

    async def _send_and_catch(self, request: CallToolRequest) -> dict[str, Any] | StoredResult | AgentRuntimeError:
        """What became of it. An error is returned: raised in a task of the pool, it would end the pool."""
        try:
            return await self.send(request)
        except AgentRuntimeError as error:
            return error

    async def send_watched(
        self, request: CallToolRequest, timeout_s: float, cancel: asyncio.Event, tasks: asyncio.TaskGroup
    ) -> dict[str, Any] | StoredResult:
        """Send it, and stop waiting some time after the server was told that nobody waits."""
        scope = anyio.CancelScope()
        watch = tasks.create_task(self._watch(scope, timeout_s, cancel))
        try:
            with scope:
                return await self.send(request)
        except asyncio.CancelledError:
            if self.given_up is None and not self._end.is_set():
                tasks.create_task(self._tell("the caller is gone"))
            raise
        finally:
            watch.cancel()
        raise OutcomeUnknownError(f"{self.name}: {self.given_up}.")

    async def _watch(self, scope: anyio.CancelScope, timeout_s: float, cancel: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await cancel.wait()
            self.given_up = "it was cancelled after it was sent, and no result came"
        except TimeoutError:
            self.given_up = f"there was no answer within {timeout_s:g} s"
        loop = asyncio.get_running_loop()
        until = loop.time() + self._grace_s
        await self._tell(self.given_up)
        await asyncio.sleep(until - loop.time())
        scope.cancel()

    async def _tell(self, reason: str) -> None:
        """Tell the server that nobody waits for the answer any more."""
        CURRENT_REQUEST.set(None)  # in the context of this task: what goes out now is not the call
        params = CancelledNotificationParams(request_id=self.state.request_id, reason=reason)
        try:
            async with asyncio.timeout(self._grace_s):
                await self._session.send_notification(CancelledNotification(params=params))
        except TimeoutError:
            log.warning("mcp_cancel_not_delivered", call=self.name)
