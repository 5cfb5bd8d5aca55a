"""The text that models write and the reports of servers now, for whoever follows a task. Not stored and
not sent again.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

from agent_runtime.domain.patience import Report

MOST_CHARACTERS = 64 * 1024
"""The most characters buffered for one listener; the oldest pieces are dropped first."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a plan that is being written (`step_id` is None), or of the answer for a step."""

    step_id: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Reported(Piece):
    """A server's report on the call of a step. `text` is its line for a person."""

    report: Report


@dataclass(slots=True, eq=False)
class Listener:
    """The pieces that one listener has not taken yet."""

    _pieces: list[Piece] = field(default_factory=list)
    _size: int = 0
    _available: asyncio.Event = field(default_factory=asyncio.Event)

    def push(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._size += len(piece.text)
        while self._size > MOST_CHARACTERS and len(self._pieces) > 1:
            self._size -= len(self._pieces.pop(0).text)
        self._available.set()

    async def take(self) -> list[Piece]:
        """Wait for the first piece, and return all since the last call: texts joined, and the newest report of each
        step.
        """
        await self._available.wait()
        self._available.clear()
        pieces, self._pieces, self._size = self._pieces, [], 0
        return coalesce(pieces)


def coalesce(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces with texts of one step joined, and only the newest of the reports that follow each other."""
    return [_join(list(those)) for _, those in groupby(pieces, key=lambda piece: (type(piece), piece.step_id))]


def _join(pieces: Sequence[Piece]) -> Piece:
    """Return the pieces with neighbours of one text joined, and only the newest report of each step."""
    newest = pieces[-1]
    return newest if isinstance(newest, Reported) else Piece(newest.step_id, "".join(piece.text for piece in pieces))


class Relay(Protocol):
    """Passes progress on between the processes of a service. Its methods do not wait, and may drop what they get."""

    def say(self, task_id: str, piece: Piece) -> None:
        """Pass on what happens in this process."""

    def follow(self, task_id: str) -> None:
        """Have the others pass on what happens there, from now on."""


class Progress:
    """Passes text of models and reports of servers to the present listeners of a task."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}
        self.relay: Relay | None = None
        """The way to other processes, if there may be some."""

    @property
    def followed(self) -> list[str]:
        """The ids of the tasks that somebody listens to. Any thread may ask."""
        return list(self._listeners)

    def say(self, task_id: str, piece: Piece) -> None:
        """Pass on what happens in this process."""
        if not piece.text:
            return
        self.hear(task_id, piece)
        if self.relay is not None:
            self.relay.say(task_id, piece)

    def hear(self, task_id: str, piece: Piece) -> None:
        """Pass on what happens in another process."""
        for listener in self._listeners.get(task_id, ()):
            listener.push(piece)

    @contextmanager
    def listen(self, task_id: str) -> Iterator[Listener]:
        listener = Listener()
        self._listeners.setdefault(task_id, set()).add(listener)
        if self.relay is not None:
            self.relay.follow(task_id)
        try:
            yield listener
        finally:
            listeners = self._listeners[task_id]
            listeners.discard(listener)
            if not listeners:
                del self._listeners[task_id]
