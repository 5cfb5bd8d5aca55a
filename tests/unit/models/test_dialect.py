from typing import Any

import pytest

from agent_runtime.domain.model_requests import ModelRequest
from agent_runtime.models.dialect import Dialect, Output, allows_strict

OPENAI = (
    "None response_format Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
)
SENT = frozenset({"store", "temperature"})


@pytest.mark.parametrize(
    "complaint",
    [
        OPENAI,
        "unsupported_parameter text.format Unsupported parameter: 'text.format'.",
        "400 body.response_format.type Input should be 'text' or 'json_object'",
        "server_error failed to parse grammar",
        "This model does not support structured outputs",
        "invalid JSON schema in format",
        "json_validate_failed Failed to generate JSON. Please adjust your prompt.",
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


def test_below_the_prompt_there_is_no_rung() -> None:
    assert Dialect(output="prompt").lower_output() is None


@pytest.mark.parametrize(
    "complaint",
    [
        "invalid_json_schema Invalid schema for response_format 'plan': ...",
        "output_format.schema: For 'object' type, 'additionalProperties: true' is not supported.",
        "Unknown name \"additionalProperties\" at 'generation_config.response_schema.properties[0].value'",
        "* GenerateContentRequest.generation_config.response_schema.properties[a].properties: should be non-empty",
        "The provided JSON schema contains features not supported by xgrammar.",
        "json_validate_failed Failed to generate JSON.",
    ],
)
def test_a_complaint_about_one_schema_says_nothing_of_the_endpoint(complaint: str) -> None:
    assert Dialect().adapt_to(complaint, schema=True) == Dialect(output="json_object", lasting=False)


@pytest.mark.parametrize(
    "complaint",
    [OPENAI, "This response_format type is unavailable now", "This model does not support structured outputs"],
)
def test_a_complaint_about_all_schemas_does(complaint: str) -> None:
    assert Dialect().adapt_to(complaint, schema=True) == Dialect(output="json_object")


@pytest.mark.parametrize(
    ("complaint", "changed"),
    [
        ("Encrypted content is not supported with this model.", Dialect(reasoning=False)),
        ("unknown_parameter include Unknown parameter: 'include'.", Dialect(reasoning=False)),
        ("Unrecognized request argument supplied: stream_options", Dialect(counts=False)),
        ("unsupported_value stream Your organization may not stream this model.", Dialect(streams=False)),
        ("Your organization must be verified to stream this model.", Dialect(streams=False)),
        ("Jinja Exception: System role not supported", Dialect(system=False)),
        ("Conversation roles must alternate user/assistant/user/assistant/...", Dialect(system=False)),
    ],
)
def test_what_an_endpoint_rejects_is_not_asked_for_again(complaint: str, changed: Dialect) -> None:
    assert Dialect().adapt_to(complaint, schema=True) == changed
    assert changed.adapt_to(complaint, schema=False) is None


@pytest.mark.parametrize(
    ("complaint", "rejected"),
    [
        ("unsupported_value temperature Unsupported value: 'temperature' does not support 0.2.", "temperature"),
        ("`temperature` may only be set to 1 when thinking is enabled.", "temperature"),
        ("Unrecognized request argument supplied: store", "store"),
        ("Unknown parameter: 'store'. Known are temperature and stream.", "store"),
        ("[{'type': 'extra_forbidden', 'loc': ('body', 'store')}]", "store"),
    ],
)
def test_a_parameter_that_an_endpoint_does_not_know_is_left_out(complaint: str, rejected: str) -> None:
    lower = Dialect(options=SENT).adapt_to(complaint, schema=True)
    assert lower == Dialect(options=SENT - {rejected})


def test_a_limit_goes_by_the_name_that_an_endpoint_knows() -> None:
    newer = "unsupported_parameter max_tokens Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    lower = Dialect().adapt_to(newer, schema=False)
    assert lower == Dialect(limit="max_completion_tokens")
    assert lower.adapt_to("Unknown parameter: 'max_completion_tokens'", schema=False) == Dialect()


@pytest.mark.parametrize(
    "complaint",
    [
        "",
        "Invalid 'tools': array too long.",
        "temperature must be positive",
        "max_tokens must be less than or equal to 8192",
        "Error during streaming",
        "Messages must include a user message.",
    ],
)
def test_another_complaint_changes_nothing(complaint: str) -> None:
    assert Dialect(options=SENT).adapt_to(complaint, schema=True) is None


def test_only_what_a_request_had_to_do_without_is_learned() -> None:
    known = Dialect(options=SENT)
    used = Dialect("prompt", counts=False, limit="max_completion_tokens", options=SENT - {"store"}, lasting=False)
    learned = Dialect(counts=False, limit="max_completion_tokens", options=SENT - {"store"})
    assert known.learn_from(used) == learned
    assert learned.learn_from(known) == Dialect(counts=False, options=SENT - {"store"})


@pytest.mark.parametrize(
    ("items", "sent"),
    [
        ([{"role": "user", "content": "Add."}], [{"role": "user", "content": "Be brief.\n\nAdd."}]),
        (
            [{"role": "assistant", "content": "Hi."}],
            [{"role": "user", "content": "Be brief."}, {"role": "assistant", "content": "Hi."}],
        ),
        ([], [{"role": "user", "content": "Be brief."}]),
    ],
)
def test_without_a_system_message_the_instructions_go_to_the_user(items: list[Any], sent: list[Any]) -> None:
    request = ModelRequest("Be brief.", items)
    assert Dialect().shape(request) is request
    shaped = Dialect(system=False).shape(request)
    assert (shaped.instructions, shaped.items) == ("", sent)


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


@pytest.mark.parametrize(
    "complaint",
    [
        "Unknown name \"additionalProperties\" at 'tools[0].function_declarations[0].parameters': Cannot find field.",
        "Invalid schema for function 'label': In context=(), 'not' is not permitted",
        "tools.0.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12",
        "Invalid 'tools[0].function.description': string too long. Expected a string with maximum length 1024",
    ],
)
def test_a_complaint_about_a_function_makes_functions_plain_once(complaint: str) -> None:
    plain = Dialect().adapt_to(complaint, schema=False)
    assert plain == Dialect(plain=True)
    assert plain.adapt_to(complaint, schema=False) != plain
    assert Dialect().learn_from(plain) == plain


@pytest.mark.parametrize("complaint", ["gemma3 does not support tools", "tools param requires --jinja flag"])
def test_a_model_without_functions_is_not_asked_again_with_plain_ones(complaint: str) -> None:
    assert Dialect().adapt_to(complaint, schema=False) is None


def test_thoughts_are_no_longer_returned_where_they_are_refused() -> None:
    refused = "body.messages.2.reasoning_content: Extra inputs are not permitted"
    assert Dialect().adapt_to(refused, schema=False) == Dialect(returns=False)
    missing = "The `reasoning_content` in the thinking mode must be passed back to the API."
    assert Dialect().adapt_to(missing, schema=False) is None
