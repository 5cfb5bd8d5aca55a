"""The words of `agent-runtime call` become arguments by the schema of the tool."""

from typing import Any

import pytest

from agent_runtime.cli.argument_schemas import describe_type, write_sample
from agent_runtime.cli.calling import find_unknown, read_arguments
from agent_runtime.cli.plan_files import read_plan
from agent_runtime.domain.errors import ConfigurationError, InvalidInputError

SCHEMA = {
    "properties": {
        "text": {"type": "string"},
        "number": {"type": "number"},
        "flag": {"type": "boolean"},
        "list": {"type": "array"},
        "perhaps": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "either": {"type": ["string", "integer"]},
        "defined": {"$ref": "#/$defs/Count"},
        "choice": {"enum": ["1", "2"]},
        "anything": {},
    },
    "$defs": {"Count": {"type": "integer"}},
}


NESTED: Any = {
    "$defs": {
        "Count": {"type": "integer"},
        "Edit": {
            "type": "object",
            "properties": {
                "old": {"type": "string"},
                "new": {"type": "array", "items": {"$ref": "#/$defs/Count"}},
                "dry": {"type": "boolean"},
            },
            "required": ["old", "new"],
        },
    }
}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("text=5", "5"),
        ("text=a=b", "a=b"),
        ("text=", ""),
        ("number=5", 5),
        ("number=5.5", 5.5),
        ("number=five", "five"),
        ("flag=true", True),
        ("list=[1, 2]", [1, 2]),
        ("perhaps=null", "null"),
        ("perhaps:=null", None),
        ("either=5", 5),
        ("either=true", "true"),
        ("defined=5", 5),
        ("choice=1", "1"),
        ("anything=5", 5),
        ("anything=five", "five"),
        ('unknown:={"a": "${b}"}', {"a": "$${b}"}),
        ("text=${s1.text}", "$${s1.text}"),
    ],
)
def test_a_word_is_typed_by_the_schema(word: str, value: Any) -> None:
    assert list(read_arguments([word], SCHEMA).values()) == [value]


def test_a_schema_with_common_mistakes_types_words_as_the_service_reads_it() -> None:
    schema: Any = {"properties": {"text": {"type": "str", "enum": None}, "count": {"type": "int"}}, "required": None}
    assert read_arguments(["text=5", "count=5"], schema) == {"text": "5", "count": 5}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array", "items": {"type": "string"}}, "array of string"),
        ({"type": "array"}, "array"),
        ({"type": "array", "items": {"type": ["string", "null"]}}, "array of (string or null)"),
        (
            {"type": "array", "items": {"$ref": "#/$defs/Edit"}},
            "array of {old: string, new: array of integer, dry?: boolean}",
        ),
        ({"anyOf": [{"$ref": "#/$defs/Count"}, {"type": "null"}]}, "integer or null"),
        ({"enum": ["a", "b"]}, "string"),
        ({}, "any"),
        ("broken", "any"),
    ],
)
def test_a_type_is_described_with_all_that_it_holds(schema: Any, words: str) -> None:
    assert describe_type(schema, NESTED) == words


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "string"}, "path=PATH"),
        ({"type": "array", "items": {"type": "string"}}, 'path:=["PATH"]'),
        ({"type": "array", "items": {"$ref": "#/$defs/Edit"}}, 'path:=[{"old": "OLD", "new": [1]}]'),
        ({"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]}, 'path:={"a": "x"}'),
        ({"type": "array", "items": {"type": "boolean"}}, "path:=[true]"),
        ({"type": "array"}, 'path:=["PATH"]'),
    ],
)
def test_a_sample_of_an_argument_fits_its_schema(schema: Any, word: str) -> None:
    assert write_sample(schema, NESTED, "path") == word


def test_a_schema_that_refers_to_itself_is_described_to_a_depth() -> None:
    node: Any = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "required": ["next"]}
    schema = {"$defs": {"Node": node}}
    assert describe_type(node, schema).startswith("{next: {next: ")
    assert write_sample(node, schema, "path").startswith('path:={"next": {"next": ')


@pytest.mark.parametrize(
    ("word", "example"),
    [
        ("names=Ann", """'names:=["Ann"]'"""),
        ("names=it's", "it"),
        ("edits=x", """'edits:=[{"old": "OLD", "new": [1]}]'"""),
    ],
)
def test_a_text_in_place_of_a_list_is_refused_with_an_example(word: str, example: str) -> None:
    properties = {
        "names": {"type": "array", "items": {"type": "string"}},
        "edits": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Edit"}}, {"type": "null"}]},
    }
    with pytest.raises(InvalidInputError) as refused:
        read_arguments([word], {**NESTED, "properties": properties})
    assert example in str(refused.value)


def test_an_argument_that_the_schema_does_not_name_is_told() -> None:
    assert find_unknown({"text": "x", "txt": "x"}, SCHEMA) == ["txt"]
    assert find_unknown({"txt": "x"}, {}) == []


@pytest.mark.parametrize("words", [["text"], ["=5"], ["text=1", "text=2"], ["text:=no"]])
def test_a_word_that_is_no_argument_is_named(words: list[str]) -> None:
    with pytest.raises(InvalidInputError):
        read_arguments(words, SCHEMA)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("goal: [", "is not valid YAML"),
        ("- 1", "must be a plan"),
        ("goal: 2026-11-30", r"plan\.yaml: goal.*in quotes"),
        ("steps: [{1: 2}]", r"steps\[0\]\.1.*in quotes"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_with_the_place(tmp_path: Any, text: str, said: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises((InvalidInputError, ConfigurationError), match=said):
        read_plan(str(file))


def test_a_plan_in_json_may_have_tabs_which_yaml_has_not(tmp_path: Any) -> None:
    file = tmp_path / "plan.json"
    file.write_text('{\t"goal": "x"}')
    assert read_plan(str(file)) == {"goal": "x"}
