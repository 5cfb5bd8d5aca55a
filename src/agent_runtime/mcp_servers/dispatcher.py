"""A connection as messages: gives each call its id, notes when it was handed over, and drops what nobody needs.

A message with too many parts would block the event loop, so it is refused here (G9). The SDK sees a stand-in for each
result (see `reading.py`), because its types refuse a whole answer for one odd field.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import anyio
from mcp.client._transport import ReadStream, WriteStream
from mcp.shared.dispatcher import CallOptions, OnNotify, OnRequest, coerce_request_id
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import MessageMetadata, SessionMessage
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    ErrorData,
    JSONRPCNotification,
    JSONRPCRequest,
)

from agent_runtime.domain.elicitation import Question, Reply, UnreadableQuestionError, read_question
from agent_runtime.domain.values import JsonValue, has_more_parts
from agent_runtime.mcp_servers.reading import UnreadableAnswerError, check_readable, make_stand_in

NESTED = 100_000
"""The most arrays and objects in one message. Four megabytes of `[],` would block the event loop for seconds (G9)."""

_ELICIT = "elicitation/create"
_UNSUPPORTED = frozenset({"sampling/createMessage", "roots/list"})
PROGRESS = "notifications/progress"
HEARD = frozenset({"notifications/tools/list_changed", "notifications/cancelled", PROGRESS})
"""The notifications that are handled; all others are dropped unread."""

_MOST_PARTS = 20_000
_MOST_LISTED_PARTS = 200_000
"""The most fields and entries of a message, and of a page of a listing with its schemas."""

_UNCHECKED = frozenset({"structuredContent", "_meta"})
"""Fields that may hold any data; their parts are not counted."""

_MOST_REQUESTS = 64
"""The most requests of one server that are answered at a time. More are dropped, or they would pile up in memory."""


class TooManyPartsError(UnreadableAnswerError):
    """A server sent an answer with so many parts that reading it would block the event loop."""


def has_many_arrays(data: bytes) -> bool:
    """Return whether a message has more than `NESTED` arrays and objects."""
    return len(data) > NESTED and data.count(b"[") + data.count(b"{") > NESTED


@dataclass(slots=True)
class RequestState:
    """The state of one call. `sent` is False only while it has certainly not reached the server.

    `refused`: the server answered its id with an error, or refused the request by HTTP status. Only that makes an error
    a definite result; its code does not, because the SDK uses the same codes for its own errors. `session_unknown`: the
    server does not know the session any more, so it has not looked at the call. `retry_after_s`: the server cannot
    answer now, and asks to be left alone for these seconds (0: it names no time). `on_progress` is called with each
    progress notification of the call, whose token is its id.
    """

    request_id: int
    sent: bool = False
    refused: bool = False
    session_unknown: bool = False
    retry_after_s: float | None = None
    on_progress: Callable[[Mapping[str, JsonValue]], None] | None = None

    def is_answered_by(self, answered: int | str | None) -> bool:
        """Return whether an answer with this id answers this call."""
        return answered is not None and coerce_request_id(answered) == self.request_id


AnswerQuestion = Callable[[Question, RequestState | None], Awaitable[Reply]]
"""Returns the reply to a question."""

CURRENT_REQUEST: ContextVar[RequestState | None] = ContextVar("current_request", default=None)
"""The call that the running code sends. The SDK carries the sender's context as far as the socket."""


class Dispatcher(JSONRPCDispatcher[TransportContext]):
    """The SDK's dispatcher, which sends a call under an id that is known before the answer comes.

    The id makes it possible to cancel a call and still wait for its result. With `remote`, errors on the stream may be
    the transport's own, so the transport marks those that are the server's.
    """

    def __init__(
        self,
        read: ReadStream[SessionMessage | Exception],
        write: WriteStream[SessionMessage],
        *,
        remote: bool,
        answer: AnswerQuestion,
    ) -> None:
        """Take `answer`, which answers the server's questions to the user."""
        super().__init__(read, write)
        self._remote = remote
        self._answer = answer
        self._request_states: dict[object, RequestState] = {}
        self._answering = 0

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        *,
        _related_request_id: int | str | None = None,
    ) -> dict[str, Any]:
        state = CURRENT_REQUEST.get()
        if method == "initialize":
            params = _offer_elicitation(params or {}, "capabilities")
        elif params and CLIENT_CAPABILITIES_META_KEY in (params.get("_meta") or {}):  # 2026-07-28 has no handshake
            params = {**params, "_meta": _offer_elicitation(params["_meta"], CLIENT_CAPABILITIES_META_KEY)}
        if state is None or method != "tools/call":
            raw = await super().send_raw_request(method, params, opts, _related_request_id=_related_request_id)
            return make_stand_in(method, _check_parts(method, raw), remote=self._remote)
        # We send our own cancellation: the SDK's would wait up to 5 s for a stuck pipe.
        opts = {**(opts or {}), "request_id": state.request_id, "cancel_on_abandon": False}
        self._request_states[state.request_id] = state
        params = {**(params or {})}
        params["_meta"] = {**(params.get("_meta") or {}), "progressToken": state.request_id}
        try:
            raw = await super().send_raw_request(method, params, opts, _related_request_id=_related_request_id)
        finally:
            del self._request_states[state.request_id]
        return make_stand_in(method, _check_parts(method, raw), remote=self._remote)

    def _resolve_pending(self, request_id: int | str | None, outcome: dict[str, Any] | ErrorData) -> None:
        if isinstance(outcome, ErrorData) and not self._remote and request_id is not None:
            state = self._request_states.get(coerce_request_id(request_id))
            if state is not None:
                state.refused = True
        super()._resolve_pending(request_id, outcome)

    async def _dispatch_request(
        self, req: JSONRPCRequest, metadata: MessageMetadata, on_request: OnRequest, sender_ctx: Context | None
    ) -> None:
        if self._answering < _MOST_REQUESTS:
            self._answering += 1
            await super()._dispatch_request(req, metadata, on_request, sender_ctx)

    async def _handle_request(
        self, req: JSONRPCRequest, dctx: Any, scope: anyio.CancelScope, on_request: OnRequest
    ) -> None:
        # Over HTTP this runs in the context of the call whose stream the request came on; its answer is not that call.
        state = CURRENT_REQUEST.get()
        CURRENT_REQUEST.set(None)
        if has_more_parts(req.params, _MOST_PARTS, _UNCHECKED):
            on_request = _refuse_size
        elif req.method == _ELICIT:
            on_request = partial(self._answer_question, state)
        elif req.method in _UNSUPPORTED:
            on_request = _refuse
        try:
            await super()._handle_request(req, dctx, scope, on_request)
        finally:
            self._answering -= 1

    async def _answer_question(
        self, state: RequestState | None, _ctx: Any, _method: str, params: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Answer a question of the server as MCP specifies. `state` is its call, if the transport names one."""
        try:
            question = read_question(params or {})
        except UnreadableQuestionError as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error
        reply = await self._answer(question, state)
        return {"action": reply.action} | ({} if reply.content is None else {"content": reply.content})

    def _dispatch_notification(
        self, msg: JSONRPCNotification, metadata: MessageMetadata, on_notify: OnNotify, sender_ctx: Context | None
    ) -> None:
        if msg.method == PROGRESS:
            self._note_progress(msg.params or {})
        elif msg.method in HEARD:
            super()._dispatch_notification(msg, metadata, on_notify, sender_ctx)

    def _note_progress(self, params: Mapping[str, JsonValue]) -> None:
        """Pass a progress notification to its call. Tokens that we did not give are ignored."""
        token = params.get("progressToken")
        if isinstance(token, bool) or not isinstance(token, int | str):
            return
        state = self._request_states.get(coerce_request_id(token))
        if state is not None and state.on_progress is not None:
            state.on_progress(params)


async def _refuse_size(_ctx: Any, _method: str, _params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Refuse a request that takes too long to read."""
    raise MCPError(INVALID_PARAMS, f"It has more than {_MOST_PARTS} fields and entries.")


async def _refuse(_ctx: Any, method: str, _params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Refuse a request for a capability that was not offered, as MCP specifies for roots and sampling."""
    raise MCPError(METHOD_NOT_FOUND, f"{method} is not supported here")


def _offer_elicitation(params: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return parameters with the capability to ask the user, by forms only, among those under this key."""
    return {**params, key: {**(params.get(key) or {}), "elicitation": {}}}


def _check_parts(method: str, raw: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the result if it is readable and has few enough parts. Raises: UnreadableAnswerError."""
    check_readable(raw)
    listing = method == "tools/list"
    limit = _MOST_LISTED_PARTS if listing else _MOST_PARTS
    if has_more_parts(raw, limit, frozenset() if listing else _UNCHECKED):
        beside = "" if listing else ", beside structured content"
        raise TooManyPartsError(f"its answer has more than {limit} fields and entries{beside}")
    return raw


class Outgoing:
    """A write stream that marks a call as sent when it is handed over."""

    def __init__(self, inner: WriteStream[SessionMessage]) -> None:
        self._inner = inner

    async def send(self, item: SessionMessage, /) -> None:
        state = CURRENT_REQUEST.get()
        if state is None:
            await self._inner.send(item)
            return
        # Before the await: an interrupted write may have happened.
        state.sent = True
        try:
            await self._inner.send(item)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # By contract these two mean that nothing was written.
            state.sent = False
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()
