"""The events of a stream, wherever the network cuts it."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.models.event_stream import EventDecoder

STREAM = (
    b": OPENROUTER PROCESSING\n\n"
    b'event: message\r\ndata: {"a": "\xc3\xa9"}\r\n\r\n'
    b'data:{"b": 1}\n\nid: 7\nretry: 5\n\n'
    b'data: {"c":\ndata: 2}\n\n'
    b"data:\n\n"
    b'data: [DONE]\n\ndata: {"after": 1}\n\n'
)  # fmt: skip
EVENTS = [{"a": "é"}, {"b": 1}, {"c": 2}]


def decode(*parts: bytes) -> list[Any]:
    decoder = EventDecoder()
    return [event for part in parts for event in decoder.feed(part)] + decoder.finish()


@given(st.lists(st.integers(0, len(STREAM)), max_size=30).map(sorted))
def test_events_are_the_same_wherever_a_stream_is_cut(places: list[int]) -> None:
    ends = [0, *places, len(STREAM)]
    assert decode(*(STREAM[start:end] for start, end in itertools.pairwise(ends))) == EVENTS


def test_the_last_event_counts_without_an_empty_line_after_it() -> None:
    assert decode(b'data: {"a": 1}\n\ndata: {"b": 2}') == [{"a": 1}, {"b": 2}]
    assert decode(b'data: {"a": 1}\n\ndata: {"b": ') == [{"a": 1}]


def test_an_event_that_is_no_json_is_an_error() -> None:
    with pytest.raises(json.JSONDecodeError):
        decode(b"data: words\n\n")


def test_a_stream_has_ended_with_its_last_event() -> None:
    decoder = EventDecoder()
    decoder.feed(b'data: {"a": 1}\n\n')
    assert not decoder.ended
    decoder.feed(b"data: [DONE]\n\n")
    assert decoder.ended
