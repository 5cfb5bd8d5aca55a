"""The messages of a task as they come: what its journal holds, and what models are writing now, in pieces.

A message that was told cannot be taken back. So a text is told in pieces only if it was heard from its beginning.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

from agent_runtime.api.copilotkit_graphql.messages import Message, Narrator, identify_text, make_text
from agent_runtime.domain import events as ev
from agent_runtime.domain.events import EventRecord
from agent_runtime.live.progress import Piece, Reported
from agent_runtime.text.escaping import escape_hidden


class _Writing:
    """A text that a model is writing, and the queue of the pieces that its message has not had yet."""

    def __init__(self) -> None:
        self.text = ""
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def add(self, text: str) -> None:
        self.text += text
        if text:
            self._pieces.put_nowait(text)

    def end(self) -> None:
        self._pieces.put_nowait(None)

    async def read(self, _: object) -> AsyncIterator[str]:
        """Yield the pieces of `content`."""
        while (piece := await self._pieces.get()) is not None:
            yield piece


class LiveMessages:
    """Makes the messages of a task. Give it the pieces and the records of the task in the order in which they come.

    `version`: that of the task when the first piece could be heard.
    """

    def __init__(self, task_id: str, version: int) -> None:
        self._task_id = task_id
        self._version = version
        self._narrator = Narrator()
        self._turns: dict[str, Message] = {}
        """The message of the turn of each step whose beginning was heard, without its text."""
        self._early: dict[str, str] = {}
        """What came before the record after which it was written."""
        self._open: dict[str, _Writing] = {}

    def add_piece(self, piece: Piece) -> Iterator[Message]:
        """Take what a model has written. Yield the message of a text that begins with it."""
        if piece.step_id is None or isinstance(piece, Reported):
            return
        text = escape_hidden(piece.text, keep="\n\t")
        if piece.step_id in self._open:
            self._open[piece.step_id].add(text)
        elif piece.step_id in self._turns:
            yield self._begin(piece.step_id, text)
        else:
            self._early[piece.step_id] = self._early.get(piece.step_id, "") + text

    def _begin(self, step_id: str, text: str) -> Message:
        writing = self._open[step_id] = _Writing()
        writing.add(text)
        return {**self._turns[step_id], "content": writing.read}

    def add_record(self, record: EventRecord) -> Iterator[Message]:
        """Yield the messages of the next event, without a text that was told in pieces."""
        messages = list(self._narrator.tell(record))
        match record.event:
            case ev.StepStarted() as started:
                self._hear(record, started.step_id, 1)
            case ev.ModelAnswered() as answered:
                messages = self._end(answered, messages)
                self._hear(record, answered.step_id, answered.turn + 1)
            case ev.StepCompleted() | ev.StepFailed() | ev.StepSkipped() as ended:
                self._forget(ended.step_id)
            case _:
                pass
        yield from messages
        for step_id in [*self._early.keys() & self._turns.keys()]:
            yield self._begin(step_id, self._early.pop(step_id))

    def _hear(self, record: EventRecord, step_id: str, turn: int) -> None:
        """Note that a turn begins. What came early belongs to it only if nothing can have been missed."""
        if record.seq > self._version:
            self._turns[step_id] = make_text(record, identify_text(self._task_id, step_id, turn), "")
        else:
            self._early.pop(step_id, None)

    def _end(self, answered: ev.ModelAnswered, messages: list[Message]) -> list[Message]:
        """End the text that came in pieces. Return what is still to be told: nothing if it has all of the answer."""
        writing = self._open.get(answered.step_id)
        whole = messages[0]["content"][0] if messages else ""
        told = writing is not None and whole.startswith(writing.text)
        if writing is not None and told:
            writing.add(whole[len(writing.text) :])
        self._forget(answered.step_id)
        if writing is None or not messages:
            return messages
        return [] if told else [{**messages[0], "id": f"{messages[0]['id']}-whole"}]

    def _forget(self, step_id: str) -> None:
        self._turns.pop(step_id, None)
        self._early.pop(step_id, None)
        if step_id in self._open:
            self._open.pop(step_id).end()

    def end(self) -> None:
        """End all texts, as the answer ends."""
        for step_id in [*self._open]:
            self._forget(step_id)
