"""One connection to one server. A single task owns it: it enters and leaves it. Everybody else only uses it.

The owner is stopped by an event and never cancelled. A caller that is cancelled leaves the session intact.
"""

import asyncio
import functools
import itertools
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import anyio
import structlog
from mcp import ClientSession
from mcp.client import IncomingMessage
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    ToolListChangedNotification,
)
from pydantic import ValidationError

from agent_runtime.config import LimitSettings
from agent_runtime.domain.elicitation import DECLINED, Question, Reply
from agent_runtime.domain.errors import (
    CallNotSentError,
    OutcomeUnknownError,
    ServerUnavailableError,
    SessionLostError,
)
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.values import JsonObject
from agent_runtime.live.patience import Patience
from agent_runtime.mcp_servers.call import AwaitedCall, find_asking_call
from agent_runtime.mcp_servers.dispatcher import RequestState
from agent_runtime.mcp_servers.explaining import explain, find_retry_after, may_pass
from agent_runtime.mcp_servers.listing import Listed, SharedListing
from agent_runtime.mcp_servers.pages import ToolPages
from agent_runtime.mcp_servers.reading import UnreadableAnswerError, unwrap_answer
from agent_runtime.mcp_servers.results import convert_result, make_unreadable_result, read_definitions
from agent_runtime.text.redaction import Redactor

log = structlog.get_logger(__name__)

_LEAVE_S = 3.0
"""How long leaving a connection may take; a transport that needs longer shields itself."""

_FIRST_TOOLS_S = 5.0
"""How long a server that lists no tools at first, and announces changes, may take to announce one."""

_MUCH_BYTES = 64 * 1024
"""Data of this size or more is processed in a thread, because it would block the event loop (G9)."""


class Opener(Protocol):
    """Opens the connection to one kind of server."""

    remote: bool
    """True for HTTP: there an error answer proves less."""

    @property
    def session_unknown(self) -> bool:
        """True if the server has answered that it does not know the session."""

    def open(self, connection: "SessionConnection") -> AbstractAsyncContextManager[ClientSession]:
        """Enter the transport and the session, and agree on a protocol version."""

    def describe_end(self) -> str:
        """Return how the connection ended, as far as it is known."""

    def find_exit_mark(self) -> str | None:
        """Return a text that is equal for equal ways to exit; None if no process has exited by itself."""

    def read_stderr(self) -> str:
        """Return the end of what a process of our own has written to its stderr, redacted; else an empty text."""


class SessionConnection:
    """Has the shape of `Connection`, over a session of MCP."""

    def __init__(
        self,
        server_id: str,
        opener: Opener,
        limits: LimitSettings,
        start_s: float,
        redactor: Redactor,
        listings: dict[str, Listed],
        tell_change: Callable[[], None],
    ) -> None:
        """Take `tell_change`, which is called whenever the server announces a change of its tools."""
        self.server_id = server_id
        self.changes = 0
        self.end = asyncio.Event()
        self.ended = asyncio.Event()
        self._opener = opener
        self._limits = limits
        self._start_s = start_s
        self._redactor = redactor
        self._scope = anyio.CancelScope()
        self._ready = asyncio.Event()
        self._session: ClientSession | None = None
        self._fault: str | None = None
        self._may_pass = False
        self._retry_after_s = 0.0
        self.stopped = False
        self._retired = False
        self._calls: dict[int, AwaitedCall] = {}
        self._ids = itertools.count(1_000_001)  # far from the ids that the SDK gives its own requests
        self._listing = SharedListing(self._list)
        self._listings = listings
        self._tell_change = tell_change
        self.has_listed = False
        self.calls_made = 0
        self.is_spare = False
        self.is_untried = False
        self._changed = asyncio.Event()

    @property
    def remote(self) -> bool:
        """True if somebody else runs the server, so that it may forget this connection."""
        return self._opener.remote

    @property
    def usable(self) -> bool:
        """True while it is starting or running and takes new work."""
        return not self.end.is_set() and not self._retired

    async def run(self) -> None:
        """Open the connection, serve until the end, and close it. Never raises: an error is reported to
        those who wait.
        """
        try:
            with self._scope:
                self._scope.deadline = anyio.current_time() + self._start_s
                async with self._opener.open(self) as session:
                    self._scope.deadline = math.inf
                    self._session, self._may_pass = session, self._opener.remote
                    self._ready.set()
                    try:
                        await self.end.wait()
                    finally:
                        self._scope.deadline = anyio.current_time() + _LEAVE_S
            if self._session is None and self._scope.cancelled_caught and not self.stopped:
                self._fault = f"it did not start within {self._start_s:g} s"
                self._may_pass = True
        except Exception as error:  # noqa: BLE001 - the edge that owns the connection; translated here and nowhere else
            self._fault = self._redactor.redact_message(explain(error))
            self._may_pass = self._opener.remote and may_pass(error)
            self._retry_after_s = find_retry_after(error)
        finally:
            lost = self._session is not None and not self.stopped
            self.end.set()
            self.ended.set()
            self._ready.set()
            if lost:
                log.warning("mcp_server_lost", server=self.server_id, reason=self.describe_end())

    def stop(self) -> None:
        """Make the owner close the connection; abort a start under way."""
        self.stopped |= not self.ended.is_set()
        self.end.set()
        if not self._ready.is_set():
            self._scope.cancel()

    @property
    def has_open_call(self) -> bool:
        """True while the answer to a call is awaited."""
        return bool(self._calls)

    def retire(self) -> None:
        """Take no new work, and stop once the calls under way have ended."""
        self._retired = True
        if not self._calls:
            self.stop()

    async def ready(self) -> ClientSession:
        """Return the session once it is open. Raises: ServerUnavailableError with the reason if there is
        none any more.
        """
        await self._ready.wait()
        if self._session is None or self.end.is_set():
            await self._wait_for_end()
            raise self._make_error()
        return self._session

    def _make_error(self) -> ServerUnavailableError:
        """Return the error that there is no session any more."""
        mark = None if self.stopped else self._opener.find_exit_mark()
        may = self.stopped or self._may_pass or mark is not None
        return ServerUnavailableError(
            self.server_id, self.describe_end(), may_pass=may, retry_after_s=self._retry_after_s, exit_mark=mark
        )

    def describe_end(self) -> str:
        """Return the reason why there is no session any more, for people."""
        if self.stopped:
            return "the connection was closed"
        known = self._opener.describe_end()
        if self._fault and known:
            return f"{self._fault}; {known}"
        return self._fault or known or "the connection was lost"

    async def handle_message(self, message: IncomingMessage) -> None:
        """Handle a notification of the server."""
        if isinstance(message, ToolListChangedNotification):
            self.changes += 1
            self._changed.set()
            self._tell_change()

    async def answer(self, question: Question, state: RequestState | None) -> Reply:
        """Ask a person a question of the server, and return the reply; `DECLINED` if no call it belongs to is open."""
        call = find_asking_call(self._calls, state)
        if call is None:
            log.info("mcp_question_declined", server=self.server_id, calls=len(self._calls))
        return await call.ask(question) if call else DECLINED

    async def definitions(self) -> Listed:
        """List the tools in this session; the listing begins after the call. Raises: ServerUnavailableError."""
        await self.ready()
        return await self._listing.read_fresh()

    async def _list(self) -> Listed:
        session = await self.ready()
        limits = self._limits
        try:
            async with asyncio.timeout(limits.server_start_s):
                changes = self.changes
                pages = ToolPages(self.server_id, session, limits, remote=self._opener.remote)
                tools, digest, size = await pages.read_all()
                if not tools and not self.has_listed and await self._wait_for_tools(session, changes):
                    tools, digest, size = await pages.read_all()
        except TimeoutError:
            within = f"it did not list its tools within {limits.server_start_s:g} s"
            raise ServerUnavailableError(self.server_id, within, may_pass=True) from None
        except MCPError as error:
            if self._opener.remote:
                self.retire()
            await self._wait_for_end()
            if self.ended.is_set() and not self.stopped:
                raise self._make_error() from error
            reason, may = self._redactor.redact_message(explain(error)), self._opener.remote and may_pass(error)
            after_s = find_retry_after(error)
            raise ServerUnavailableError(self.server_id, reason, may_pass=may, retry_after_s=after_s) from error
        except (ValidationError, UnreadableAnswerError) as error:
            raise ServerUnavailableError(self.server_id, explain(error)) from error
        self.has_listed = True
        known = self._listings.get(self.server_id)
        if known is not None and known.digest == digest:
            return known
        bounded = functools.partial(read_definitions, self.server_id, tools, limits, self._redactor)
        definitions, left_out = await asyncio.to_thread(bounded) if size > _MUCH_BYTES else bounded()
        usable = {name: one for name, one in definitions.items() if name not in pages.wrong_headers}
        listed = Listed(usable, left_out | pages.wrong_headers, digest)
        self._listings[self.server_id] = listed
        return listed

    async def _wait_for_tools(self, session: ClientSession, changes: int) -> bool:
        """Wait for a server that lists no tools at first. Return False if it does not announce a change in time."""
        capabilities = session.server_capabilities
        tools = capabilities.tools if capabilities else None
        if tools is None or not tools.list_changed:
            return False
        try:
            async with asyncio.timeout(_FIRST_TOOLS_S):
                while self.changes == changes:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def call(
        self,
        tool: str,
        arguments: JsonObject,
        *,
        timeout_s: float,
        cancel: asyncio.Event,
        tasks: asyncio.TaskGroup,
        patience: Patience | None = None,
    ) -> StoredResult:
        """Send one call, once; see `ports.Lease.call`. `tasks` owns work that outlives a cancelled caller."""
        session = self._session
        if session is None or self.end.is_set():
            raise CallNotSentError(f"{self.server_id}.{tool} was not sent: {self.describe_end()}.", may_pass=True)
        if cancel.is_set():
            raise CallNotSentError(f"{self.server_id}.{tool} was not sent: it was cancelled before that.")
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
        call = AwaitedCall(
            f"{self.server_id}.{tool}",
            session,
            self._ids,
            judge=self.judge_error,
            end=self.end,
            grace_s=self._limits.cancel_grace_s,
        )
        if patience is not None:
            call.listen(patience, self._redactor)
        self._calls[call.request_id] = call
        self.calls_made += 1
        try:
            raw = await call.send_watched(request, timeout_s, cancel, tasks)
        finally:
            del self._calls[call.request_id]
            if self._retired and not self._calls:
                self.stop()
        if isinstance(raw, StoredResult):
            return raw
        return await convert_result(unwrap_answer(raw), self._redactor, self._limits.image_bytes)

    async def judge_error(self, call: AwaitedCall, error: Exception) -> StoredResult:
        """Return the definite result that an error of the call amounts to, or raise the error for the caller."""
        # In a later round, the server has looked at the call before.
        if not call.state.sent and not call.rounds:
            await self._wait_for_end()
            may = self.end.is_set() or may_pass(error)
            raise CallNotSentError(f"{call.name} was not sent: {self._explain(error)}.", may_pass=may) from error
        if call.state.session_unknown and not call.rounds:
            self.retire()
            raise SessionLostError(f"{call.name} was not carried out: the server does not know the session any more.")
        if call.given_up is not None:
            # An error after our cancellation does not prove that nothing happened.
            raise call.make_given_up_error() from error
        if isinstance(error, MCPError) and call.state.refused:
            text = self._redactor.redact_message(error.message)
            after_s = call.state.retry_after_s
            return StoredResult(text=text, is_error=True, size=len(text.encode()), retry_after_s=after_s)
        if isinstance(error, UnreadableAnswerError):
            return make_unreadable_result(str(error), self._redactor)
        if self._opener.remote:
            self.retire()  # so a repetition gets a new connection
        await self._wait_for_end()
        after_s = call.state.retry_after_s
        raise OutcomeUnknownError(
            f"{call.name}: no answer after the call was sent: {self._explain(error)}.",
            may_pass=after_s is not None or self.end.is_set() or may_pass(error),
            retry_after_s=after_s or 0.0,
            exit_mark=self._opener.find_exit_mark(),
        ) from error

    def _explain(self, error: Exception) -> str:
        return self.describe_end() if self.end.is_set() else self._redactor.redact_message(explain(error))

    async def _wait_for_end(self) -> None:
        """If the connection is ending, wait until it has ended, so that the whole reason is known."""
        if self.end.is_set():
            try:
                async with asyncio.timeout(_LEAVE_S):
                    await self.ended.wait()
            except TimeoutError:
                log.warning("mcp_server_slow_to_leave", server=self.server_id)
