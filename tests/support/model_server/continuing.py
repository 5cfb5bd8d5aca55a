"""Replies of endpoints that want back on the next turn what they sent with a call, and refuse to go on without it."""

from typing import Any

from model_server.replies import Answer, Calls, Text
from model_server.requests import Request, WireError

ARGUMENTS = {"label": "one"}
SIGNATURE = {"google": {"thought_signature": "c2lnbmF0dXJl"}}
THOUGHT = "I need the tool for this, and nothing else."
SIGNATURE_FIELD = {"extra_content": SIGNATURE}
BLOCKS = [{"type": "thinking", "thinking": THOUGHT, "signature": "c2lnbmF0dXJl"}]


def reply_like_gemini(request: Request) -> Answer:
    """Call the first function, with a signature of the thought; refuse a call without it. Gemini 3 does so."""
    for call in _find_calls(request):
        if call.get("extra_content") != SIGNATURE:
            raise WireError(400, "Function call is missing a thought_signature in functionCall parts.")
    return (
        Text("done")
        if request.results
        else Calls([(request.tools[0], ARGUMENTS)], ids=[""], call_fields=SIGNATURE_FIELD)
    )


def reply_like_deepseek(request: Request) -> Answer:
    """Call the first function after some thought; refuse a call without it. DeepSeek and Kimi do so."""
    return _reply_with_thought(request, {"reasoning_content": THOUGHT})


def reply_like_litellm(request: Request) -> Answer:
    """Call the first function after a signed thought; refuse a call without it. LiteLLM does so before Claude."""
    return _reply_with_thought(request, {"thinking_blocks": BLOCKS})


def _reply_with_thought(request: Request, fields: dict[str, Any]) -> Answer:
    for message in request.body["messages"]:
        if message.get("tool_calls") and any(message.get(name) != value for name, value in fields.items()):
            raise WireError(400, f"The `{next(iter(fields))}` in the thinking mode must be passed back to the API.")
        if not message.get("tool_calls") and fields.keys() & message.keys():
            raise WireError(400, "A thought belongs to a message with calls.")
    return Text("done") if request.results else Calls([(request.tools[0], ARGUMENTS)], message_fields=fields)


def _find_calls(request: Request) -> list[dict[str, Any]]:
    return [call for message in request.body["messages"] for call in message.get("tool_calls") or ()]
