"""Answers that never end by themselves, as broken models and endpoints send them until their client leaves.

Each function returns an `Endless`, to be used like any other answer: `models.next(repeat_itself("and so on, "))`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count, repeat
from typing import Any

from model_server.requests import RESPONSES, Request

_PIECE = 16


@dataclass(frozen=True)
class Endless:
    """The pieces of a body that is sent on and on, one every `pause_s` seconds, streamed or as one JSON object."""

    pieces: Callable[[Request], Iterator[bytes]]
    pause_s: float = 0.0


def repeat_itself(text: str, begun: str = "") -> Endless:
    """A model that writes the same text again and again, after it has begun with another."""
    return Endless(lambda request: _write(request, "content", chain(_cut(begun), _cut_on(text))))


def think_on() -> Endless:
    """A reasoning model whose thoughts lead nowhere, each of them new."""
    return Endless(lambda request: _write(request, "reasoning_content", (f"But {n} says otherwise. " for n in count())))


def write_on() -> Endless:
    """A model that always finds something new to say, at an endpoint that ignores the limit of tokens."""
    return Endless(lambda request: _write(request, "content", (f"Item {n} of the list; " for n in count())))


def write_arguments_on() -> Endless:
    """A model that repeats itself in the arguments of a call."""
    return Endless(lambda request: _write(request, "tool_calls", _cut_on("0, ")))


def keep_alive(pause_s: float = 0.02) -> Endless:
    """A gateway that says that it is still there, while nothing comes of it. Unstreamed it sends white space."""
    return Endless(lambda request: repeat(b": still there\n\n" if request.stream else b" "), pause_s)


def say_nothing(pause_s: float = 0.02) -> Endless:
    """A model whose every piece is empty."""
    return Endless(lambda request: _write(request, "content", repeat("")), pause_s)


def _cut(text: str) -> Iterator[str]:
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def _cut_on(text: str) -> Iterator[str]:
    several = text * _PIECE
    return (several[start : start + _PIECE] for _ in count() for start in range(0, len(several), _PIECE))


def _write(request: Request, field: str, pieces: Iterator[str]) -> Iterator[bytes]:
    if not request.stream:
        yield b'{"error": null, "text": "'
        yield from (json.dumps(piece)[1:-1].encode() for piece in pieces)
    elif request.path == RESPONSES:
        kind = {
            "content": "response.output_text.delta",
            "reasoning_content": "response.reasoning_text.delta",
            "tool_calls": "response.function_call_arguments.delta",
        }[field]
        at = {"item_id": "item_1", "output_index": 0, "content_index": 0, "logprobs": []}
        yield from (
            _frame({"type": kind, **at, "sequence_number": number, "delta": piece}, kind)
            for number, piece in enumerate(pieces)
        )
    else:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": request.model}
        for number, piece in enumerate(pieces):
            delta: Any = piece
            if field == "tool_calls":
                started = {"id": "call_1", "type": "function"} if number == 0 else {}
                named = {"name": request.tools[0]} if number == 0 else {}
                delta = [{"index": 0, **started, "function": {**named, "arguments": piece}}]
            yield _frame({**head, "choices": [{"index": 0, "delta": {field: delta}, "finish_reason": None}]})


def _frame(event: dict[str, Any], kind: str = "") -> bytes:
    named = f"event: {kind}\n" if kind else ""
    return f"{named}data: {json.dumps(event)}\n\n".encode()
