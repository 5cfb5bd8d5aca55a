"""One call to one server: sent once, watched, and abandoned in an orderly way."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import anyio
import structlog
from mcp import ClientSession
from mcp_types import CallToolRequest, CancelledNotification, CancelledNotificationParams
from pydantic import TypeAdapter

from agent_runtime.domain.elicitation import DECLINED, Question, Reply
from agent_runtime.domain.errors import OutcomeUnknownError
from agent_runtime.domain.tools import StoredResult
from agent_runtime.live.patience import Patience
from agent_runtime.mcp_servers.dispatcher import CURRENT_REQUEST, RequestState
from agent_runtime.mcp_servers.reading import unwrap_answer
from agent_runtime.mcp_servers.reports import Reports
from agent_runtime.mcp_servers.rounds import (
    SHORT_PAUSE_S,
    UnsupportedInputError,
    collect_input,
    make_next_round,
    read_needed_input,
)
from agent_runtime.text.redaction import Redactor

log = structlog.get_logger(__name__)

RAW: TypeAdapter[Any] = TypeAdapter(dict[str, Any])
"""Reads an answer as a plain object."""

Judge = Callable[["AwaitedCall", Exception], Awaitable[StoredResult]]
"""Returns the definite result that an error of a call amounts to, or raises the error for the caller."""


class AwaitedCall:
    """One call under way, and the state of waiting for it.

    `ids` gives the id of each round. `state` belongs to the present one, and `rounds` counts those that are over.
    `judge` interprets an error. `end` is set once the connection ends. `grace_s` is how long a server may still answer
    after it was told to cancel.
    """

    def __init__(
        self,
        name: str,
        session: ClientSession,
        ids: Iterator[int],
        *,
        judge: Judge,
        end: asyncio.Event,
        grace_s: float,
    ) -> None:
        self.name = name
        self.request_id = next(ids)
        self.state = RequestState(self.request_id)
        self.rounds = 0
        self._ids = ids
        self.given_up: str | None = None
        self._timed_out = False
        self._session = session
        self._judge = judge
        self._end = end
        self._grace_s = grace_s
        self._patience: Patience | None = None
        self._reports: Reports | None = None
        self._expired = asyncio.Event()
        self.open_questions = 0

    async def send(self, request: CallToolRequest) -> dict[str, Any] | StoredResult:
        """Send the call, and send it again with the input that its server needs, until it is completed."""
        while True:
            answer = await self._send_round(request)
            if isinstance(answer, StoredResult) or self._session.discover_result is None:
                return answer
            needed = read_needed_input(unwrap_answer(answer))
            if needed is None:
                return answer
            self.rounds += 1
            try:
                responses = await collect_input(needed, self.rounds, self.ask)
            except UnsupportedInputError as error:
                text = f"The server did not complete the call: {error}."
                return StoredResult(text=text, is_error=True, size=len(text))
            if responses is None:
                await asyncio.sleep(SHORT_PAUSE_S)
            if self.given_up is not None:
                raise self.make_given_up_error()
            request = make_next_round(request, needed, responses)
            self.state = RequestState(next(self._ids), on_progress=self.state.on_progress)

    async def _send_round(self, request: CallToolRequest) -> dict[str, Any] | StoredResult:
        token = CURRENT_REQUEST.set(self.state)
        try:
            # Not `call_tool`: it validates the output, and an error of that hides that the call has happened.
            raw: dict[str, Any] = await self._session.send_request(request, RAW)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises here, the call may have happened (G2)
            return await self._judge(self, error)
        else:
            return raw
        finally:
            CURRENT_REQUEST.reset(token)

    def listen(self, patience: Patience, redactor: Redactor) -> None:
        """Receive progress reports, which extend the time limit of the call."""
        self._patience, self._reports = patience, Reports(patience, redactor)
        self.state.on_progress = self._reports.add

    @property
    def task_id(self) -> str | None:
        """The task of the call; None if it is unknown here."""
        return self._patience.task_id if self._patience else None

    async def ask(self, question: Question) -> Reply:
        """Ask a person the server's question, and return the reply.

        The question is declined when the time of the call is up. Its time-out starts again with the question and with
        the answer.
        """
        if self._patience is None or self._reports is None or self.given_up is not None:
            return DECLINED
        self.open_questions += 1
        self._reports.note_life()
        try:
            return await self._patience.ask(self._reports.redact(question), self._expired)
        finally:
            self.open_questions -= 1
            self._reports.note_life()

    async def send_watched(
        self, request: CallToolRequest, timeout_s: float, cancel: asyncio.Event, tasks: asyncio.TaskGroup
    ) -> dict[str, Any] | StoredResult:
        """Send the call. After `timeout_s` or a cancellation, tell the server, and wait `grace_s` more."""
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
            self._expired.set()
            if self._reports is not None:
                self._reports.close()
        raise self.make_given_up_error()

    def make_given_up_error(self) -> OutcomeUnknownError:
        """Return the error of a call that was given up. A time-out may be an outage, a cancellation is none."""
        return OutcomeUnknownError(f"{self.name}: {self.given_up}.", may_pass=self._timed_out)

    async def _watch(self, scope: anyio.CancelScope, timeout_s: float, cancel: asyncio.Event) -> None:
        self.given_up = await self._wait_for_end_of_patience(timeout_s, cancel)
        self._timed_out = not cancel.is_set()
        self._expired.set()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._grace_s
        await self._tell(self.given_up)
        await asyncio.sleep(until - loop.time())
        scope.cancel()

    async def _wait_for_end_of_patience(self, timeout_s: float, cancel: asyncio.Event) -> str:
        """Wait until the call is cancelled or its time is up, and return the reason. `timeout_s` counts from the last
        report.
        """
        began, waits_s = asyncio.get_running_loop().time(), timeout_s
        while True:
            try:
                async with asyncio.timeout_at(began + waits_s):
                    await cancel.wait()
            except TimeoutError:
                pass
            else:
                return "it was cancelled after it was sent, and no result came"
            if self._reports is None or self._patience is None or self._reports.last_at is None:
                return f"there was no answer within {timeout_s:g} s"
            wanted_s = self._reports.last_at + timeout_s - began
            if wanted_s <= waits_s and self.open_questions:
                self._expired.set()
                self._expired = asyncio.Event()
                wanted_s = asyncio.get_running_loop().time() + timeout_s - began
                self._reports.note_life()
            if wanted_s <= waits_s:
                return f"there was no answer within {waits_s:.3g} s, and no progress for {timeout_s:g} s"
            may_take_s = self._patience.extend(wanted_s)
            if may_take_s <= waits_s:
                return f"there was progress, but no answer within {waits_s:.3g} s, and it may take no longer"
            waits_s = may_take_s

    async def _tell(self, reason: str) -> None:
        """Tell the server that the call is cancelled."""
        CURRENT_REQUEST.set(None)  # in the context of this task: the notification is not the call
        params = CancelledNotificationParams(request_id=self.state.request_id, reason=reason)
        try:
            async with asyncio.timeout(self._grace_s):
                await self._session.send_notification(CancelledNotification(params=params))
        except TimeoutError:
            log.warning("mcp_cancel_not_delivered", call=self.name)


def find_asking_call(calls: Mapping[int, AwaitedCall], state: RequestState | None) -> AwaitedCall | None:
    """Return the open call that a question of the server belongs to: the call of `state`, if the transport names one.

    Otherwise it is the first of the calls with the fewest questions. None if there is none, or if calls of several
    tasks are open: a question must not be shown to another task.
    """
    if state is not None:
        return calls.get(state.request_id)
    if len({call.task_id for call in calls.values()}) != 1:
        return None
    return min(calls.values(), key=lambda call: call.open_questions)
