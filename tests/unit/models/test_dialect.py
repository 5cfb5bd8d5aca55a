from typing import Any

import pytest

from agent_runtime.models.dialect import Dialect, Output, allows_strict

OPENAI = (
    "None response_format Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
)


@pytest.mark.parametrize(
    "complaint",
    [
        OPENAI,
        "unsupported_parameter text.format Unsupported parameter: 'text.format'.",
        "400 body.response_format.type Input should be 'text' or 'json_object'",
        "server_error failed to parse grammar",
        "This model does not support structured outputs",
    ],
)
def test_a_complaint_about_the_format_goes_one_rung_down(complaint: str) -> None:
    rungs: list[Output] = []
    dialect: Dialect | None = Dialect(reasoning=False)
    while dialect:
        rungs.append(dialect.output)
        dialect = dialect.adapt_to(complaint, schema=True)
    assert rungs == ["json_schema", "json_object", "prompt"]


def test_without_a_schema_there_is_no_rung_to_leave() -> None:
    assert Dialect().adapt_to(OPENAI, schema=False) is None


def test_a_complaint_about_one_schema_says_nothing_of_the_endpoint() -> None:
    lower = Dialect().adapt_to("invalid_json_schema Invalid schema for response_format 'plan': ...", schema=True)
    assert lower == Dialect(output="json_object", lasting=False)


@pytest.mark.parametrize(
    ("complaint", "changed"),
    [
        ("Encrypted content is not supported with this model.", Dialect(reasoning=False)),
        ("unknown_parameter include Unknown parameter: 'include'.", Dialect(reasoning=False)),
        ("Unrecognized request argument supplied: stream_options", Dialect(counts=False)),
        ("unsupported_value stream Your organization may not stream this model.", Dialect(streams=False)),
    ],
)
def test_what_an_endpoint_rejects_is_not_asked_for_again(complaint: str, changed: Dialect) -> None:
    assert Dialect().adapt_to(complaint, schema=True) == changed
    assert changed.adapt_to(complaint, schema=False) is None


@pytest.mark.parametrize("complaint", ["", "Invalid 'tools': array too long.", "temperature must be positive"])
def test_another_complaint_changes_nothing(complaint: str) -> None:
    assert Dialect().adapt_to(complaint, schema=True) is None


def close_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        close_object(),
        close_object(
            a={"type": "string", "enum": ["x"]},
            b={"type": "array", "items": close_object(c={"type": ["null", "integer"]})},
        ),
        {**close_object(a={"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}), "$defs": {"n": close_object()}},
    ],
)
def test_a_closed_schema_with_every_property_required_may_be_strict(schema: dict[str, Any]) -> None:
    assert allows_strict(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "array", "items": {"type": "string"}},
        {**close_object(a={"type": "string"}), "required": []},
        {**close_object(), "oneOf": []},
        close_object(a={"type": "object", "additionalProperties": True}),
        close_object(a={}),
        close_object(a=True),
        close_object(a={"type": "array", "items": {"type": "object"}}),
        {**close_object(), "anyOf": [close_object()]},
    ],
)
def test_any_other_schema_may_not(schema: dict[str, Any]) -> None:
    assert not allows_strict(schema)
