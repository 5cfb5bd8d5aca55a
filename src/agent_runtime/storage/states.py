"""States of front ends in a database, whichever it is: the `StateStore` of a store on a database."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Generic, Protocol, TypeVar

from agent_runtime.domain.chain import format_time
from agent_runtime.domain.errors import StateChangedError
from agent_runtime.states.saved import Condition, SavedState, allow_any
from agent_runtime.storage.base import Clock
from agent_runtime.storage.conversions import read_time
from agent_runtime.storage.reading import C

C_contra = TypeVar("C_contra", contravariant=True)
C_co = TypeVar("C_co", covariant=True)
T = TypeVar("T")

Row = tuple[int, str, str]
"""The number, the JSON text and the time of a state."""


class StateStatements(Protocol[C_contra]):
    """The statements on the table `agent_states`; the modules `states` of a database have this shape."""

    def select_state(self, connection: C_contra, agent: str, thread: str) -> Row | None: ...
    def lock_state(self, connection: C_contra, agent: str, thread: str) -> Row | None:
        """Return the row of a state in a transaction that writes: nobody else changes it before the end."""

    def write_state(self, connection: C_contra, agent: str, thread: str, row: Row, *, known: bool) -> bool:
        """Write the row; `known`: in place of the one that was locked. Return False if another process has just
        written a first one.
        """

    def delete_state(self, connection: C_contra, agent: str, thread: str) -> None: ...
    def delete_states_before(self, connection: C_contra, at: str, limit: int) -> int: ...


class ReadWith(Protocol[C_co]):
    """Runs statements that read, in a thread, and returns their result."""

    async def __call__(self, work: Callable[[C_co], T]) -> T: ...


class States(Generic[C]):
    """See `StateStore`. `write` runs statements in a transaction of the thread that writes."""

    def __init__(
        self,
        sql: StateStatements[C],
        read: ReadWith[C],
        write: Callable[[Callable[[C], None]], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._sql = sql
        self._read = read
        self._write = write
        self._clock = clock

    async def load(self, agent: str, thread: str, horizon: datetime | None = None) -> SavedState | None:
        """See `StateStore.load`."""
        row: Row | None = await self._read(partial(self._sql.select_state, agent=agent, thread=thread))
        return _restore(agent, thread, row, horizon)

    async def save(
        self, agent: str, thread: str, data: str, condition: Condition = allow_any, horizon: datetime | None = None
    ) -> SavedState:
        """See `StateStore.save`."""
        saved: list[SavedState] = []

        def work(connection: C) -> None:
            while True:
                row = self._sql.lock_state(connection, agent, thread)
                current = _restore(agent, thread, row, horizon)
                if saved and current is not None and current.number == saved[-1].number and current.data == data:
                    return  # it was committed in a session whose end was lost
                _expect(condition, current, agent, thread)
                new = SavedState(agent, thread, current.number + 1 if current else 1, data, self._clock())
                saved.append(new)
                made: Row = (new.number, data, format_time(new.saved_at))
                if self._sql.write_state(connection, agent, thread, made, known=row is not None):
                    return
                saved.pop()

        await self._write(work)
        return saved[-1]

    async def delete(
        self, agent: str, thread: str, condition: Condition = allow_any, horizon: datetime | None = None
    ) -> bool:
        """See `StateStore.delete`."""
        found: list[bool] = []

        def work(connection: C) -> None:
            current = _restore(agent, thread, self._sql.lock_state(connection, agent, thread), horizon)
            if found and found[-1] and current is None:
                return  # it was deleted in a session whose end was lost
            _expect(condition, current, agent, thread)
            self._sql.delete_state(connection, agent, thread)
            found.append(current is not None)

        await self._write(work)
        return found[-1]

    async def delete_expired(self, horizon: datetime, limit: int) -> int:
        """See `StateStore.delete_expired`."""
        deleted: list[int] = []

        def work(connection: C) -> None:
            deleted.append(self._sql.delete_states_before(connection, format_time(horizon), limit))

        await self._write(work)
        return deleted[-1]


def _restore(agent: str, thread: str, row: Row | None, horizon: datetime | None) -> SavedState | None:
    """Return the state of a row; None if there is no row, or if it has expired."""
    if row is None:
        return None
    number, data, at = row
    state = SavedState(agent, thread, number, data, read_time(at))
    return None if horizon is not None and state.saved_at < horizon else state


def _expect(condition: Condition, current: SavedState | None, agent: str, thread: str) -> None:
    if not condition(current):
        raise StateChangedError(agent, thread, current.revision if current else None)
