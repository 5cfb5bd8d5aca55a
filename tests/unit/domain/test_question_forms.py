"""Forms of questions: any JSON becomes a valid schema of simple fields, and what is lost is named."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.domain.elicitation import find_answer_faults, read_question
from agent_runtime.domain.question_forms import read_form
from agent_runtime.domain.schemas import check_schema

NOTE = "Parts of this field that cannot be shown: "
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["string", "array", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
KEYWORDS = st.sampled_from(
    [
        "type",
        "title",
        "description",
        "format",
        "enum",
        "enumNames",
        "const",
        "default",
        "oneOf",
        "anyOf",
        "allOf",
        "$ref",
    ]
)
FIELDS = st.dictionaries(KEYWORDS, JSON, max_size=6) | JSON


def read_field(field: Any) -> Any:
    schema, _ = read_form({"properties": {"a": field}})
    properties: Any = schema["properties"]
    return properties["a"]


@given(JSON | st.fixed_dictionaries({"properties": st.dictionaries(st.text(max_size=5), FIELDS), "required": JSON}))
def test_any_form_becomes_a_valid_schema(form: Any) -> None:
    schema, _ = read_form(form)
    check_schema(schema, 5)


@pytest.mark.parametrize(
    ("field", "kept"),
    [
        ({"type": "string", "title": "A", "minLength": 1}, {"type": "string", "title": "A", "minLength": 1}),
        ({"type": "integer", "default": None, "minimum": 0}, {"type": "integer", "minimum": 0}),
        ({"oneOf": [{"const": "a", "title": "A", "more": 1}]}, {"oneOf": [{"const": "a", "title": "A"}]}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "title": "A"}, {"type": "string", "title": "A"}),
        (
            {"type": "array", "items": {"type": "string", "enum": ["a"]}},
            {"type": "array", "items": {"type": "string", "enum": ["a"]}},
        ),
        ({"type": "string", "pattern": "(a+)+$"}, {"type": "string", "description": f"{NOTE}pattern."}),
        ({"type": "file", "description": "A file."}, {"description": f"A file. {NOTE}type."}),
        ({"enum": list(range(10_000))}, {"description": f"{NOTE}enum."}),
        ({"type": "array", "items": {"items": {"items": {}}}}, {"type": "array", "items": {}}),
        (
            {"minLength": -1, "maximum": True, "default": {"a": []}},
            {"description": f"{NOTE}minLength, maximum, default."},
        ),
        ({"title": "\ud800", "format": 7}, {"description": f"{NOTE}title, format."}),
        ({str(n): 1 for n in range(9)}, {"description": f"{NOTE}0, 1, 2, 3, 4 and 4 more."}),
        (None, {}),
        ([1], {}),
    ],
)
def test_a_field_keeps_what_can_be_shown_and_names_the_rest(field: Any, kept: Any) -> None:
    assert read_field(field) == kept


def test_a_long_text_of_a_field_is_cut() -> None:
    assert len(read_field({"description": "x" * 50_000})["description"]) == 1000


@pytest.mark.parametrize("required", [None, "name", {"name": 1}, 5, [None, [], {}, "absent"]])
def test_a_field_is_required_only_if_a_list_names_it(required: Any) -> None:
    schema, _ = read_form({"properties": {"name": {}}, "required": required})
    assert "required" not in schema


@pytest.mark.parametrize("form", [None, [], "x", {}, {"properties": None}, {"properties": [1]}])
def test_a_form_without_fields_can_be_answered_with_nothing(form: Any) -> None:
    question = read_question({"message": "Sure?", "requestedSchema": form})
    assert question.message == "Sure?"
    assert not list(find_answer_faults({}, question.requested_schema))


def test_fields_that_do_not_fit_are_named_in_the_message_and_cost_no_time() -> None:
    fields = {f"field {n}": {"enum": list(range(9))} for n in range(2000)}
    began = time.thread_time()
    question = read_question({"message": "Much?", "requestedSchema": {"properties": fields}})
    assert time.thread_time() - began < 2
    kept: Any = question.requested_schema["properties"]
    assert question.message.startswith("Much?\n\nFields of the form that are too large to be shown: field ")
    assert question.message.endswith(f" and {2000 - len(kept) - 5} more.")
