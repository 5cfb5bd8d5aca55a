"""The text that models are writing now, for whoever follows a task. It is not stored and not sent again."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

_MOST_CHARACTERS = 64 * 1024
"""The most characters buffered for one listener; the oldest pieces are dropped first."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a plan that is being written (`step_id` is None), or of the answer for a step."""

    step_id: str | None
    text: str


@dataclass(slots=True, eq=False)
class Listener:
    """The pieces that one listener has not taken yet."""

    _pieces: list[Piece] = field(default_factory=list)
    _size: int = 0
    _available: asyncio.Event = field(default_factory=asyncio.Event)

    def push(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._size += len(piece.text)
        while self._size > _MOST_CHARACTERS and len(self._pieces) > 1:
            self._size -= len(self._pieces.pop(0).text)
        self._available.set()

    async def take(self) -> list[Piece]:
        """Wait for the first piece, and return all pieces since the last call; neighbours of one text are joined."""
        await self._available.wait()
        self._available.clear()
        pieces, self._pieces, self._size = self._pieces, [], 0
        texts = groupby(pieces, key=lambda piece: piece.step_id)
        return [Piece(step_id, "".join(piece.text for piece in those)) for step_id, those in texts]


class Progress:
    """Passes pieces of text from the models of a task to its present listeners."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}

    def say(self, task_id: str, piece: Piece) -> None:
        if not piece.text:
            return
        for listener in self._listeners.get(task_id, ()):
            listener.push(piece)

    @contextmanager
    def listen(self, task_id: str) -> Iterator[Listener]:
        listener = Listener()
        self._listeners.setdefault(task_id, set()).add(listener)
        try:
            yield listener
        finally:
            listeners = self._listeners[task_id]
            listeners.discard(listener)
            if not listeners:
                del self._listeners[task_id]
