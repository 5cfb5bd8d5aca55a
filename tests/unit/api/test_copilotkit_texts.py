"""Texts that models are writing, as GraphQL messages of CopilotKit that come in pieces."""

from collections.abc import Iterable
from typing import Any

from agent_runtime.api.copilotkit_graphql.messages import Message
from agent_runtime.api.copilotkit_graphql.texts import LiveMessages
from agent_runtime.domain import events as ev
from agent_runtime.domain.tools import StoredResult
from agent_runtime.live.progress import Piece
from agent_steps import AT

STARTED = ev.StepStarted(step_id="do", title="Do it")


def record(seq: int, event: ev.Event) -> ev.EventRecord:
    return ev.make_record("t", seq, 1, AT, event)


def make_answer(text: str | None, turn: int = 1) -> ev.ModelAnswered:
    answer = None if text is None else StoredResult(text=text, is_error=False)
    return ev.ModelAnswered(step_id="do", turn=turn, items=(), answer=answer)


async def read(messages: Iterable[Message]) -> list[tuple[str, Any]]:
    """Return the id and the whole text of each message."""
    found = []
    for message in messages:
        content = message["content"]
        pieces = [piece async for piece in content(None)] if callable(content) else content
        found.append((message["id"], "".join(pieces)))
    return found


async def test_a_text_comes_in_pieces_and_not_again_with_its_event() -> None:
    live = LiveMessages("t", 4)
    told = [
        *live.add_record(record(5, STARTED)),
        *live.add_piece(Piece("do", "Hel")),
        *live.add_piece(Piece("do", "lo")),
    ]
    told += live.add_record(record(6, make_answer("Hello, you")))
    told += live.add_record(record(7, ev.TaskCompleted(result="Hello, you")))
    assert await read(told) == [("t-do-1", "Hello, you")]


async def test_what_comes_before_the_event_after_which_it_was_written_waits_for_it() -> None:
    live = LiveMessages("t", 4)
    assert [*live.add_piece(Piece("do", "Hello"))] == []
    told = [*live.add_record(record(5, STARTED)), *live.add_record(record(6, make_answer("Hello")))]
    assert await read(told) == [("t-do-1", "Hello")]


async def test_of_a_text_whose_beginning_was_missed_only_the_whole_is_told() -> None:
    live = LiveMessages("t", 5)
    told = [*live.add_record(record(5, STARTED)), *live.add_piece(Piece("do", "lo"))]
    told += live.add_record(record(6, make_answer("Hello")))
    assert await read(told) == [("t-do-1", "Hello")]


async def test_a_text_that_began_anew_is_told_whole_in_a_message_of_its_own() -> None:
    live = LiveMessages("t", 4)
    told = [
        *live.add_record(record(5, STARTED)),
        *live.add_piece(Piece("do", "Hel")),
        *live.add_piece(Piece("do", "Hello")),
    ]
    told += live.add_record(record(6, make_answer("Hello")))
    assert await read(told) == [("t-do-1", "HelHello"), ("t-do-1-whole", "Hello")]


async def test_what_is_written_beside_calls_ends_with_its_turn_and_late_pieces_of_a_step_are_dropped() -> None:
    live = LiveMessages("t", 4)
    told = [*live.add_record(record(5, STARTED)), *live.add_piece(Piece("do", "I look."))]
    told += live.add_record(record(6, make_answer(None)))
    told += [*live.add_piece(Piece("do", "Done.")), *live.add_record(record(7, make_answer("Done.", turn=2)))]
    told += live.add_record(record(8, ev.StepCompleted(step_id="do")))
    told += live.add_piece(Piece("do", "late"))
    assert await read(told) == [("t-do-1", "I look."), ("t-do-2", "Done.")]
