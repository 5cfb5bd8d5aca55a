import json
from typing import Any

import pytest

from agent_runtime.models.items import (
    add_extras,
    calls_of,
    find_extras,
    prepare_items,
    refusal_of,
    text_of,
    to_sendable,
)


def call(call_id: Any, arguments: Any = "{}", name: Any = "f") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


def test_calls_are_told_apart_even_where_the_endpoint_does_not() -> None:
    calls = calls_of(prepare_items([call("a"), call("a"), call(""), call(None)]))
    assert [one.call_id for one in calls] == ["a", "a-2", "call-3", "call-4"]


def test_ids_of_calls_are_not_those_of_earlier_turns() -> None:
    calls = calls_of(prepare_items([call("a"), call("")], taken={"a", "call-3", "b"}))
    assert [one.call_id for one in calls] == ["a-4", "call-5"]


def test_an_item_and_its_call_have_the_same_id() -> None:
    items = prepare_items([call("a"), call("a")])
    assert [item["call_id"] for item in items] == [one.call_id for one in calls_of(items)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": 1}, '{"x": 1}'),
        (None, "{}"),
        ("", ""),
        ("{not", "{not"),
        (json.dumps('{"x": 1}'), '{"x": 1}'),
        (json.dumps("{not"), '"{not"'),
        ('"{', '"{'),
    ],
)
def test_the_arguments_of_a_call_are_text(given: object, said: str) -> None:
    assert calls_of(prepare_items([call("a", given)]))[0].arguments == said


def test_sealed_thoughts_are_kept_and_empty_ones_are_not() -> None:
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    assert prepare_items([{"type": "reasoning", "id": "rs_2", "summary": []}, sealed]) == (sealed,)


@pytest.mark.parametrize("item", [message({"type": "output_text", "text": "\ud800"}), call("a", name=float("nan"))])
def test_what_json_in_utf8_cannot_carry_is_refused(item: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"surrogates|JSON"):
        prepare_items([item])


def test_text_and_refusal_are_read_from_all_messages() -> None:
    items = [
        message({"type": "output_text", "text": "one "}, {"type": "refusal", "refusal": "no"}),
        call("a"),
        message({"type": "output_text", "text": "two"}),
    ]
    assert (text_of(items), refusal_of(items)) == ("one two", "no")
    assert refusal_of([message()]) is None


@pytest.mark.parametrize("arguments", ["{not", "[1]", "7", "[" * 100_000])
def test_malformed_arguments_are_sent_back_wrapped_in_an_object(arguments: str) -> None:
    [item] = to_sendable([call("a", arguments)])
    assert json.loads(item["arguments"]) == {"malformed_arguments": arguments}


def test_good_arguments_are_sent_back_as_they_were() -> None:
    items = [call("a", '{"x": 1 }'), {"type": "function_call_output", "call_id": "a", "output": "1"}]
    assert to_sendable(items) == items
    assert to_sendable([call("a", " ")])[0]["arguments"] == "{}"


def test_what_came_with_calls_is_found_again_by_their_ids() -> None:
    items = [message(), call("a"), call("b"), call("c")]
    for item in items:
        item["provider_data"] = {"model": "tiny"}
    add_extras(items, {"reasoning_content": "Hmm."}, [{"extra_content": {"x": 1}}, {}, {"extra_content": {"x": 3}}])
    found = {
        "a": {"message": {"reasoning_content": "Hmm."}, "call": {"extra_content": {"x": 1}}},
        "b": {},
        "c": {"call": {"extra_content": {"x": 3}}},
    }
    assert find_extras(items, "tiny") == found
    assert find_extras(items, "another model") == {}


def test_items_of_plain_calls_stay_as_they_are() -> None:
    items = [call("a")]
    add_extras(items, {}, [{}])
    assert items == [call("a")]
