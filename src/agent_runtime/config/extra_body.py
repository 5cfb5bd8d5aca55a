"""The setting `openai.extra_body`: what it may add to a request to the model."""

from collections.abc import Mapping

from pydantic import JsonValue

_ONE_MODEL = "a plan is approved with one model, which openai.model names"
_TOOLS = "the model gets the tools of the plan, and no others"
_CONVERSATION = "the service writes it"
_LENGTH = "set openai.answer_tokens"
_FORM = "the service asks for the form that the endpoint supports"
_KEPT = "a conversation is kept by the service alone"

_RESERVED: Mapping[str, str] = {
    **dict.fromkeys(("model", "models", "fallbacks", "route"), _ONE_MODEL),
    **dict.fromkeys(("messages", "input", "instructions", "prompt", "system"), _CONVERSATION),
    **dict.fromkeys(
        ("tools", "tool_choice", "functions", "function_call", "plugins", "web_search_options", "mcp_servers"), _TOOLS
    ),
    **dict.fromkeys(("stream", "stream_options"), "set openai.stream"),
    "temperature": "set openai.temperature",
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens"), _LENGTH),
    **dict.fromkeys(("response_format", "text", "n"), _FORM),
    **dict.fromkeys(("store", "previous_response_id", "conversation", "background"), _KEPT),
}
"""The fields of a request that a setting may not change, each with the reason or the remedy."""


def check_extra_body(body: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the setting as it is. Raises: ValueError where it holds a field that the service decides on."""
    faults = [f"must not hold {name!r}: {_RESERVED[name]}" for name in body if name in _RESERVED]
    if faults:
        raise ValueError("; ".join(faults))
    return body
