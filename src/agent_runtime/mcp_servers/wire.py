"""What leaves on a connection: under which id a call goes out, and whether it was handed over."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import anyio
from mcp.client._transport import WriteStream
from mcp.shared.dispatcher import CallOptions
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext


@dataclass(slots=True)
class Sending:
    """One call on its way. `sent` is false only while it certainly has not reached the server."""

    request_id: int
    sent: bool = False


SENDING: ContextVar[Sending | None] = ContextVar("sending", default=None)
"""The call that the running code sends. The SDK carries the context of the sender as far as the socket."""


class Wire(JSONRPCDispatcher[TransportContext]):
    """The SDK's dispatcher, sending a call under an id that is known before the answer comes.

    Without it nobody could tell the server to stop and still wait for the result that may come.
    """

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        *,
        _related_request_id: int | str | None = None,
    ) -> dict[str, Any]:
        sending = SENDING.get()
        if sending is not None and method == "tools/call":
            # We cancel in our own words and time; the SDK's courtesy would wait up to 5 s for a stuck pipe.
            opts = {**(opts or {}), "request_id": sending.request_id, "cancel_on_abandon": False}
        return await super().send_raw_request(method, params, opts, _related_request_id=_related_request_id)


class Outgoing:
    """A write stream that notes on the call when it was handed over."""

    def __init__(self, inner: WriteStream[SessionMessage]) -> None:
        self._inner = inner

    async def send(self, item: SessionMessage, /) -> None:
        sending = SENDING.get()
        if sending is None:
            await self._inner.send(item)
            return
        # Before the await: a hand-over that is interrupted may have happened.
        sending.sent = True
        try:
            await self._inner.send(item)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # By their contract these two mean that nothing was taken.
            sending.sent = False
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()
