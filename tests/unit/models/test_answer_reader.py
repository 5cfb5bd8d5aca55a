"""The readers of answers: both APIs, whole and streamed, with calls that are numbered in ways of their own."""

import json
from typing import Any

import pytest

from agent_runtime.domain.usage import Usage
from agent_runtime.models.answer_reader import (
    ChatReader,
    CutOffError,
    NotAnAnswerError,
    ResponseInfo,
    ResponsesReader,
    TooLongError,
    read_error,
)

ALPHA, BETA = '{"x": "alpha"}', '{"x": "beta"}'


def piece(index: int | None, call_id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    """Return a piece of a call, without the fields that are None."""
    call: dict[str, Any] = {"index": index, "id": call_id, "type": "function"}
    function = {"name": name, "arguments": arguments}
    return {key: value for key, value in call.items() if value is not None} | {
        "function": {key: value for key, value in function.items() if value is not None}
    }


def read_calls(*events: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return id, name and arguments of the calls in a stream whose events have these pieces."""
    reader = ChatReader(ResponseInfo(streamed=True))
    for pieces in events:
        reader.add({"choices": [{"index": 0, "delta": {"tool_calls": pieces}}]})
    calls = reader.end()["choices"][0]["message"]["tool_calls"]
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


@pytest.mark.parametrize(
    "events",
    [
        [
            [piece(0, "a", "f", "")],
            [piece(0, None, None, ALPHA)],
            [piece(1, "b", "f", "")],
            [piece(1, None, None, BETA)],
        ],
        [[piece(0, "a", "f", ALPHA)], [piece(0, "b", "f", BETA)]],
        [[piece(0, "a", "f", ALPHA), piece(0, "b", "f", BETA)]],
        [
            [piece(0, "a", "f", "")],
            [piece(0, None, None, ALPHA)],
            [piece(0, "b", "f", "")],
            [piece(0, None, None, BETA)],
        ],
        [[piece(None, "a", "f", ALPHA)], [piece(None, "b", "f", BETA)]],
        [[piece(None, "a", "f", '{"x": ')], [piece(None, None, None, '"alpha"}')], [piece(None, "b", "f", BETA)]],
        [
            [piece(None, "a", "f", ""), piece(None, "b", "f", "")],
            [piece(None, "a", None, ALPHA), piece(None, "b", None, BETA)],
        ],
        [[piece(0, "a", "f", '{"x": ')], [piece(0, "a", "f", '"alpha"}')], [piece(1, "b", "f", BETA)]],
        [[piece(0, "a", "f", '{"x": ')], [piece(0, "other", None, '"alpha"}')], [piece(1, "b", "f", BETA)]],
        [
            [piece(0, "a", "f", ALPHA)],
            [piece(0, "a", "f", ALPHA)],
            [piece(1, "b", "f", BETA)],
            [piece(1, "b", "f", "")],
        ],
        [[piece(0, "a", "f", {"x": "alpha"})], [piece(1, "b", "f", {"x": "beta"})]],
    ],
    ids=[
        "as OpenAI",
        "one index",
        "one index in one event",
        "one index, in pieces",
        "no index",
        "no index, in pieces",
        "no index, mixed",
        "name and id repeated",
        "another id in each piece",
        "the whole call repeated",
        "arguments as an object",
    ],
)
def test_two_calls_of_a_stream_are_two_however_they_are_numbered(events: list[list[dict[str, Any]]]) -> None:
    assert read_calls(*events) == [("a", "f", ALPHA), ("b", "f", BETA)]


@pytest.mark.parametrize("index", [0, None])
@pytest.mark.parametrize("call_id", ["", None, "same"])
@pytest.mark.parametrize("together", [True, False])
def test_two_calls_without_ids_of_their_own_are_two(index: int | None, call_id: str | None, *, together: bool) -> None:
    first, second = piece(index, call_id, "f", ALPHA), piece(index, call_id, "f", BETA)
    calls = read_calls([first, second]) if together else read_calls([first], [second])
    assert [arguments for _, _, arguments in calls] == [ALPHA, BETA]


def test_the_same_call_twice_without_ids_is_two_calls() -> None:
    assert len(read_calls([piece(0, "", "roll", "{}")], [piece(0, "", "roll", "{}")])) == 2
    assert len(read_calls([piece(None, None, "roll", ""), piece(None, None, "roll", "")])) == 2


def test_calls_of_a_whole_answer_are_never_joined() -> None:
    calls = [piece(None, "a", "f", ALPHA)] * 2
    answer = ChatReader(ResponseInfo(streamed=False)).read({"choices": [{"message": {"tool_calls": calls}}]})
    assert [call["function"]["arguments"] for call in answer["choices"][0]["message"]["tool_calls"]] == [ALPHA, ALPHA]


def test_text_is_heard_in_pieces_and_thoughts_are_not() -> None:
    heard: list[str] = []
    info = ResponseInfo(streamed=True, on_text=heard.append)
    reader = ChatReader(info)
    parts = [{"type": "text", "text": "It is "}]
    for delta in ({"reasoning_content": "Hmm."}, {"role": "assistant", "content": parts}, {"content": "42."}):
        reader.add({"choices": [{"index": 0, "delta": delta}]})
    reader.add({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": None})
    reader.add({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    message = reader.end()["choices"][0]["message"]
    assert heard == ["It is ", "42."]
    assert (message["content"], message["reasoning_content"]) == ("It is 42.", "Hmm.")
    assert (info.finish, info.usage) == ("stop", Usage(input_tokens=3, output_tokens=2))


@pytest.mark.parametrize(
    "delta", [{"content": "x" * 11}, {"reasoning": "x" * 11}, {"tool_calls": [piece(0, "a", "f", "x" * 11)]}]
)
def test_a_stream_may_have_so_many_characters(delta: dict[str, Any]) -> None:
    reader = ChatReader(ResponseInfo(streamed=True, most=10))
    with pytest.raises(TooLongError):
        reader.add({"choices": [{"delta": delta}]})


def test_parts_of_thoughts_that_come_in_pieces_are_put_together() -> None:
    """As LiteLLM and OpenRouter stream them: text in pieces, the signature last, and then the next thought."""
    info = ResponseInfo(streamed=True)
    reader = ChatReader(info)
    for part in (
        {"type": "thinking", "thinking": "First ", "signature": None},
        {"type": "thinking", "thinking": "this."},
        {"type": "thinking", "thinking": "", "signature": "s1"},
        {"type": "thinking", "thinking": "Then that.", "signature": "s2"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "redacted_thinking", "data": "y"},
    ):
        reader.add({"choices": [{"delta": {"thinking_blocks": [part]}}]})
    reader.end()
    assert info.message_extras["thinking_blocks"] == [
        {"type": "thinking", "thinking": "First this.", "signature": "s1"},
        {"type": "thinking", "thinking": "Then that.", "signature": "s2"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "redacted_thinking", "data": "y"},
    ]


def test_items_of_a_stream_count_where_its_last_event_repeats_none() -> None:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "42"}]}
    reader = ResponsesReader(ResponseInfo(streamed=True))
    reader.add({"type": "response.output_item.done", "item": item})
    reader.add({"type": "response.completed", "response": {"id": "r1", "output": []}})
    assert reader.end()["output"] == [item]


def test_a_stream_without_a_last_event_is_cut_off() -> None:
    reader = ResponsesReader(ResponseInfo(streamed=True))
    reader.add({"type": "response.output_text.delta", "delta": "4"})
    with pytest.raises(CutOffError):
        reader.end()


@pytest.mark.parametrize("kind", [ChatReader, ResponsesReader])
@pytest.mark.parametrize("error", [{"message": "upstream is overloaded", "code": 502}, "upstream is overloaded"])
def test_an_error_in_place_of_an_answer_is_read(kind: type[ChatReader | ResponsesReader], error: object) -> None:
    info = ResponseInfo(streamed=False)
    with pytest.raises(NotAnAnswerError):
        kind(info).read(json.loads(json.dumps({"error": error})))
    assert info.error
    assert info.error.message == "upstream is overloaded"


@pytest.mark.parametrize(
    ("code", "status"),
    [(502, 502), ("503", 503), ("rate_limit_exceeded", None), ("5030", None), (True, None), (None, None)],
)
def test_an_error_in_a_stream_may_hold_its_status_as_a_number_or_as_a_text(code: object, status: int | None) -> None:
    assert read_error({"message": "Connection error.", "code": code}).status == status
    assert read_error({"message": "Connection error.", "code": code}, 429).status == 429
