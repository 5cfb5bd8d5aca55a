"""Reads the finish reasons of chat completions, of which endpoints have more than OpenAI."""

from typing import Literal

Finish = Literal["complete", "cut", "filtered", "broken"]

_KNOWN: dict[str, Finish] = {
    **dict.fromkeys(("stop", "tool_calls", "function_call", "tool_use"), "complete"),
    **dict.fromkeys(("end_turn", "stop_sequence", "eos", "eos_token", "completed"), "complete"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_length"), "cut"),
    **dict.fromkeys(("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"), "filtered"),
    "refusal": "filtered",
}
"""OpenAI's, then those that pass through from Anthropic, Together, Mistral and Gemini, in lower case."""


def read_finish(reason: object) -> Finish | None:
    """Return the meaning of a finish reason; None if there is none.

    One that is not known, like `error` and `abort`, says that the answer was broken off: a model that is done is said
    to be done by every endpoint.
    """
    if reason is None or reason == "":
        return None
    return _KNOWN.get(str(reason).lower(), "broken")
