"""The local runner: runs tasks in this process, a bounded number at once.

It needs no proof that other runners are dead: the process that holds the database's lock is the only one.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import structlog

from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.pauses import Pauses

log = structlog.get_logger()

RunTask = Callable[[str, asyncio.Event, asyncio.Event], Awaitable[float | None]]
"""`Orchestrator.run`: the id of the task, the event of its cancellation, the event of the runner's stop."""

ServersOf = Callable[[str], Awaitable[frozenset[str] | None]]
"""`Orchestrator.servers_of`: the servers that the next run of a task holds; None if it holds none and
needs no place.
"""


class JobOwner(Protocol):
    """Owns what a runner runs, where several processes share the tasks."""

    def end(self, task_id: str, pause_s: float | None) -> None:
        """Note that the runner has let go of the task: it is done for now, or, with `pause_s`, must be run again after
        that many seconds; 0: by another runner, because this one stops.
        """

    def note_room(self) -> None:
        """Note that the runner can run one more task."""


class _Ticket:
    """One task of the runner. `again`: it was woken while it ran. `lane`: the lane in which it has a place.

    `in_outage`: it pauses until the next attempt to reach something.
    """

    __slots__ = ("again", "cancel", "failures", "in_outage", "lane", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.cancel = asyncio.Event()
        self.again = False
        self.failures = 0
        self.in_outage = False
        self.lane: _Lane | None = None


@dataclass(slots=True, eq=False)
class _Lane:
    """The tasks that hold the same servers. `places` counts those that run or were just called up;
    `parked` ones wait.
    """

    servers: frozenset[str]
    places: int = 0
    parked: dict[_Ticket, None] = field(default_factory=dict)


class LocalRunner:
    """Runs at most `limit` tasks at once, and at most `share` of those that hold the same servers (G9).

    So a server that hangs delays its own tasks and no others. A task that waits for a slot, or pauses after a failure,
    counts for neither bound. One that waits for the end of an outage is a ticket and a timer, or is left to `owner`,
    which is told of every task that the runner lets go. Leaving the context stops the runner. No call is started any
    more; open calls may end within `grace_s`. What is then still open is left to the next start, as after a crash.
    """

    def __init__(
        self,
        run: RunTask,
        servers_of: ServersOf,
        *,
        limit: int,
        share: int,
        grace_s: float,
        pauses: Pauses = Pauses(),  # noqa: B008 - a frozen value
        owner: JobOwner | None = None,
    ) -> None:
        self._run = run
        self._servers_of = servers_of
        self._limit = limit
        self._share = share
        self._grace_s = grace_s
        self._pauses = pauses
        self._owner = owner
        self._group = asyncio.TaskGroup()
        self._stop = asyncio.Event()
        self._waiting: deque[_Ticket] = deque()
        self._lanes: dict[frozenset[str], _Lane] = {}
        self._resting: dict[_Ticket, asyncio.TimerHandle] = {}
        self._tickets: dict[str, _Ticket] = {}
        self._work: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._waiting.clear()
        self._lanes.clear()
        while self._resting:
            self._resting.popitem()[1].cancel()
        running = {task.get_name() for task in self._work}
        for task_id in self._tickets.keys() - running:
            self._let_go(task_id, 0)
        try:
            await self._drain()
        except asyncio.CancelledError as cancelled:
            # Passed to the group: if one of its own tasks failed, the group itself has cancelled.
            kind, error, trace = type(cancelled), cancelled, cancelled.__traceback__
        await self._group.__aexit__(kind, error, trace)

    def stop(self) -> None:
        """Start no call and no run any more."""
        self._stop.set()

    @property
    def room(self) -> int:
        """The number of tasks that would run at once if they came now, unless their servers are busy."""
        return 0 if self._waiting or self._stop.is_set() else self._limit - len(self._work)

    @property
    def queue(self) -> dict[str, int]:
        """The number of tasks that run, wait for a slot, pause after a failure, and wait for the end of an outage."""
        parked = sum(len(lane.parked) for lane in self._lanes.values())
        in_outage = sum(ticket.in_outage for ticket in self._resting)
        return {
            "running": len(self._work),
            "waiting": len(self._waiting) + parked,
            "resting": len(self._resting) - in_outage,
            "in_outage": in_outage,
        }

    async def _drain(self) -> None:
        if self._work:
            _, late = await asyncio.wait(self._work, timeout=self._grace_s)
            for task in late:
                log.warning("run_interrupted", run=task.get_name())
                task.cancel()

    async def wake(self, task_id: str) -> None:
        """Have the task run soon; if it is running now, have it run once more."""
        if self._stop.is_set():
            return
        ticket = self._tickets.get(task_id)
        if ticket is not None:
            ticket.again = True
            return
        ticket = self._tickets[task_id] = _Ticket(task_id)
        self._queue(ticket)

    async def cancel(self, task_id: str) -> None:
        """Tell the run of this task that a cancellation is in the journal; if there is no run, wake the task."""
        ticket = self._tickets.get(task_id)
        if ticket is None or self._stop.is_set():
            await self.wake(task_id)
            return
        ticket.cancel.set()
        ticket.again = True
        if ticket in self._resting:
            self._resting[ticket].cancel()
            self._resume(ticket)
        for lane in self._lanes.values():
            if ticket in lane.parked:
                del lane.parked[ticket]
                self._queue(ticket)

    def _queue(self, ticket: _Ticket) -> None:
        self._waiting.append(ticket)
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._work) < self._limit:
            ticket = self._waiting.popleft()
            task = self._group.create_task(self._work_on(ticket), name=ticket.task_id)
            self._work.add(task)
            task.add_done_callback(self._forget_finished)

    def _forget_finished(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._start_waiting()
        if self._owner is not None and self.room:
            self._owner.note_room()

    def _let_go(self, task_id: str, pause_s: float | None) -> None:
        del self._tickets[task_id]
        if self._owner is not None:
            self._owner.end(task_id, pause_s)

    async def _work_on(self, ticket: _Ticket) -> None:
        """Run one task until nothing asks for it any more. A bug in it must not end the other tasks."""
        try:
            while not self._stop.is_set():
                ticket.again = False
                if not self._take_place(ticket, await self._servers_of(ticket.task_id)):
                    return
                pause_s = await self._run(ticket.task_id, ticket.cancel, self._stop)
                self._give_up_place(ticket)
                ticket.failures = 0
                if ticket.again:
                    continue
                if pause_s is None or (pause_s and self._owner is not None):
                    self._let_go(ticket.task_id, pause_s)
                    return
                if pause_s:
                    ticket.in_outage = True
                    self._rest(ticket, pause_s)
                    return
            self._let_go(ticket.task_id, 0)
        except StoreUnavailableError as error:
            log.warning("run_waits_for_store", task_id=ticket.task_id, error=str(error))
            self._rest(ticket, self._pauses.store_s)
        except Exception:  # the edge that owns the run: a failed run must not end the others
            log.exception("run_crashed", task_id=ticket.task_id)
            self._try_again(ticket)
        finally:
            self._give_up_place(ticket)

    def _try_again(self, ticket: _Ticket) -> None:
        if ticket.failures < len(self._pauses.after_crashes_s):
            # If it was woken meanwhile, such as by a cancellation, there is no pause.
            self._rest(ticket, 0 if ticket.again else self._pauses.after_crashes_s[ticket.failures])
            ticket.failures += 1
        else:
            # It stays unfinished: a cancellation or the next start takes it up again, or its owner does much later.
            log.error("run_given_up", task_id=ticket.task_id)
            self._let_go(ticket.task_id, self._pauses.longest_start_s)

    def _rest(self, ticket: _Ticket, seconds: float) -> None:
        if not self._stop.is_set():
            self._resting[ticket] = asyncio.get_running_loop().call_later(seconds, self._resume, ticket)

    def _resume(self, ticket: _Ticket) -> None:
        del self._resting[ticket]
        ticket.in_outage = False
        self._queue(ticket)

    def _take_place(self, ticket: _Ticket, servers: frozenset[str] | None) -> bool:
        """Take a place among the tasks that hold these servers, and return True; else park the ticket for the next free
        place.
        """
        if servers is None:
            return True
        lane = ticket.lane
        if lane is not None and lane.servers == servers:  # it was called up
            return True
        self._give_up_place(ticket)
        lane = self._lanes.setdefault(servers, _Lane(servers))
        if lane.places == self._share:
            lane.parked[ticket] = None
            return False
        lane.places += 1
        ticket.lane = lane
        return True

    def _give_up_place(self, ticket: _Ticket) -> None:
        """Free the place, and call up the ticket that has waited longest."""
        lane, ticket.lane = ticket.lane, None
        if lane is None or self._stop.is_set():
            return
        if lane.parked:
            following = next(iter(lane.parked))
            del lane.parked[following]
            following.lane = lane
            self._queue(following)
            return
        lane.places -= 1
        if not lane.places:
            del self._lanes[lane.servers]
