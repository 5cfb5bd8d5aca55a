"""The local runner: runs tasks in this process, a bounded number at once.

It needs no proof of another runner's death: whoever holds the data directory's lock is the only one.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import structlog

from agent_runtime.domain.errors import StoreUnavailableError

log = structlog.get_logger()

RunTask = Callable[[str, asyncio.Event, asyncio.Event], Awaitable[None]]
"""`Orchestrator.run`: the id of the task, the event of its cancellation, the event of the runner's stop."""

_RETRIES_AFTER_S = (1.0, 5.0, 30.0)
_STORE_RETRY_S = 2.0


class _Ticket:
    """One task in hand. `again`: it was submitted once more while it was being run."""

    __slots__ = ("again", "cancel", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.cancel = asyncio.Event()
        self.again = False


class LocalRunner:
    """Runs at most `limit` tasks at once; the rest wait in the order of their submission.

    Leaving the context stops it: no further call is started, open calls may end within `grace_s`, and what is then
    still open is left to the next start, as after a crash.
    """

    def __init__(self, run: RunTask, *, limit: int, grace_s: float) -> None:
        self._run = run
        self._limit = limit
        self._grace_s = grace_s
        self._group = asyncio.TaskGroup()
        self._stop = asyncio.Event()
        self._waiting: deque[_Ticket] = deque()
        self._tickets: dict[str, _Ticket] = {}
        self._work: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._waiting.clear()
        try:
            await self._drain()
        except asyncio.CancelledError as cancelled:
            # Told to the group: where one of its own tasks failed, it is the group that cancelled.
            kind, error, trace = type(cancelled), cancelled, cancelled.__traceback__
        await self._group.__aexit__(kind, error, trace)

    async def _drain(self) -> None:
        if self._work:
            _, late = await asyncio.wait(self._work, timeout=self._grace_s)
            for task in late:
                log.warning("run_interrupted", run=task.get_name())
                task.cancel()

    async def submit(self, task_id: str) -> None:
        """See to it that the task is run soon, and again if it was being run just now."""
        if self._stop.is_set():
            return
        ticket = self._tickets.get(task_id)
        if ticket is not None:
            ticket.again = True
            return
        ticket = self._tickets[task_id] = _Ticket(task_id)
        self._waiting.append(ticket)
        self._start_waiting()

    async def cancel(self, task_id: str) -> None:
        """Tell the run of this task that a cancellation was written; else submit it, to be settled."""
        ticket = self._tickets.get(task_id)
        if ticket is not None:
            ticket.cancel.set()
        await self.submit(task_id)

    def _start_waiting(self) -> None:
        while self._waiting and len(self._work) < self._limit:
            ticket = self._waiting.popleft()
            task = self._group.create_task(self._work_on(ticket), name=ticket.task_id)
            self._work.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._start_waiting()

    async def _work_on(self, ticket: _Ticket) -> None:
        """Run one task until nothing asks for it any more. A bug in it must not end its neighbours."""
        failures = 0
        try:
            while not self._stop.is_set():
                ticket.again = False
                try:
                    await self._run(ticket.task_id, ticket.cancel, self._stop)
                except StoreUnavailableError as error:
                    log.warning("run_waits_for_store", task_id=ticket.task_id, error=str(error))
                    await self._pause(_STORE_RETRY_S)
                    continue
                except Exception:  # the edge that owns the run: whatever it was, the others go on
                    if failures == len(_RETRIES_AFTER_S):
                        log.exception("run_given_up", task_id=ticket.task_id)
                        return
                    log.exception("run_crashed", task_id=ticket.task_id, retry_in_s=_RETRIES_AFTER_S[failures])
                    await self._pause(_RETRIES_AFTER_S[failures])
                    failures += 1
                    continue
                if not ticket.again:
                    return
        finally:
            del self._tickets[ticket.task_id]

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
