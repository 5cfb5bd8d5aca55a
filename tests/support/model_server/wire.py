"""Encodes a turn of the model as OpenAI does: a response or a chat completion, whole or as a stream of events."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from model_server.requests import RESPONSES, Request

CREATED = 1_800_000_000
PIECE = 16
"""The number of characters per event; long texts use larger pieces, so that a stream has at most 200 of them."""


_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is incomplete, in the words of chat completions and of the Responses API."""


@dataclass(frozen=True)
class Turn:
    """A turn of the model: text or a refusal, and calls as (id, name, arguments). `usage`: input and output tokens.

    `call_fields` and `message_fields` are fields that OpenAI does not have: of each call of a chat completion, and of
    the message that holds them.
    """

    text: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    refusal: str = ""
    finish: Literal["stop", "length", "content_filter", "failed"] = "stop"
    usage: tuple[int, int] | None = None
    counted: bool = True
    call_fields: Mapping[str, Any] = field(default_factory=dict)
    message_fields: Mapping[str, Any] = field(default_factory=dict)
    thoughts: str = ""
    reason: str = ""


def tokens(text: str) -> int:
    """Count the tokens of a text: one per four characters, rounded up."""
    return -(-len(text) // 4)


def whole(request: Request, turn: Turn) -> bytes:
    """Return the body of an answer without streaming."""
    body = _response(request, turn) if request.path == RESPONSES else _completion(request, turn)
    return json.dumps(body, ensure_ascii=False).encode()


def frames(request: Request, turn: Turn) -> list[bytes]:
    """Return the answer as a list of server-sent events."""
    if request.path == RESPONSES:
        events = [{**event, "sequence_number": number} for number, event in enumerate(_response_events(request, turn))]
        return [f"event: {event['type']}\ndata: {_dump(event)}\n\n".encode() for event in events]
    chunks = [f"data: {_dump(chunk)}\n\n".encode() for chunk in _completion_chunks(request, turn)]
    return [*chunks, b"data: [DONE]\n\n"]


def error_frame(request: Request, error: dict[str, Any], place: int) -> bytes:
    """Return the error event of a server that fails while it streams, as event number `place`."""
    if request.path == RESPONSES:
        event = {**error, "type": "error", "sequence_number": place}
        return f"event: error\ndata: {_dump(event)}\n\n".encode()
    return f"data: {_dump({'error': error})}\n\n".encode()


def usage_of(request: Request, turn: Turn) -> tuple[int, int]:
    """Return the number of input and output tokens."""
    said = turn.thoughts + turn.text + turn.refusal + "".join(name + arguments for _, name, arguments in turn.calls)
    return turn.usage or (tokens(request.text), tokens(said))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _pieces(text: str) -> Iterator[str]:
    size = max(PIECE, -(-len(text) // 200))
    return (text[start : start + size] for start in range(0, len(text), size))


def _response(request: Request, turn: Turn) -> dict[str, Any]:
    body, (asked, said) = request.body, usage_of(request, turn)
    status = {"stop": "completed", "failed": "failed"}.get(turn.finish, "incomplete")
    return {
        "id": f"resp_{request.index}",
        "object": "response",
        "created_at": CREATED,
        "completed_at": CREATED if status == "completed" else None,
        "status": status,
        "background": False,
        "error": {"code": "server_error", "message": turn.text} if status == "failed" else None,
        "incomplete_details": {"reason": _REASONS.get(turn.finish)} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": request.model,
        "output": [] if status == "failed" else _output(request, turn),
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": None
        if status == "failed" or not turn.counted
        else {
            "input_tokens": asked,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked + said,
        },
        "user": None,
    }


def _output(request: Request, turn: Turn) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    status = "incomplete" if turn.finish in _REASONS else "completed"
    if turn.text or turn.refusal:
        part = {"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}
        if turn.refusal:
            part = {"type": "refusal", "refusal": turn.refusal}
        message = {"id": f"msg_{request.index}", "type": "message", "role": "assistant"}
        items.append({**message, "status": status, "content": [part]})
    for number, (call_id, name, arguments) in enumerate(turn.calls):
        call = {"id": f"fc_{request.index}_{number}", "type": "function_call", "status": status}
        items.append({**call, "call_id": call_id, "name": name, "arguments": arguments})
    return items


def _response_events(request: Request, turn: Turn) -> Iterator[dict[str, Any]]:
    final = _response(request, turn)
    begun = {**final, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    begun |= {"incomplete_details": None, "error": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for place, item in enumerate(final["output"]):
        at = {"item_id": item["id"], "output_index": place}
        bare: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
        added = {**item, **bare, "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": place, "item": added}
        if item["type"] == "message":
            yield from _part_events(item["content"][0], {**at, "content_index": 0})
        else:
            kind = "response.function_call_arguments"
            yield from ({"type": f"{kind}.delta", **at, "delta": piece} for piece in _pieces(item["arguments"]))
            yield {"type": f"{kind}.done", **at, "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": place, "item": item}
    yield {"type": f"response.{final['status']}", "response": final}


def _part_events(part: dict[str, Any], at: dict[str, Any]) -> Iterator[dict[str, Any]]:
    name = "refusal" if part["type"] == "refusal" else "text"
    kind = "response.refusal" if name == "refusal" else "response.output_text"
    more: dict[str, Any] = {} if name == "refusal" else {"logprobs": []}
    yield {"type": "response.content_part.added", **at, "part": {**part, name: ""}}
    yield from ({"type": f"{kind}.delta", **at, "delta": piece, **more} for piece in _pieces(part[name]))
    yield {"type": f"{kind}.done", **at, name: part[name], **more}
    yield {"type": "response.content_part.done", **at, "part": part}


def _finish(turn: Turn) -> str:
    usual = turn.finish if turn.finish in _REASONS else "tool_calls" if turn.calls else "stop"
    return turn.reason or usual


def _completion_usage(request: Request, turn: Turn) -> dict[str, Any]:
    asked, said = usage_of(request, turn)
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _completion(request: Request, turn: Turn) -> dict[str, Any]:
    content = None if turn.refusal or (turn.calls and not turn.text) else turn.text
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": turn.refusal or None}
    if turn.thoughts:
        message["reasoning_content"] = turn.thoughts
    if turn.calls:
        message |= {"tool_calls": [{**_call(*call), **turn.call_fields} for call in turn.calls]}
    message |= turn.message_fields
    return {
        "id": f"chatcmpl-{request.index}",
        "object": "chat.completion",
        "created": CREATED,
        "model": request.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(turn)}],
        **({"usage": _completion_usage(request, turn)} if turn.counted else {}),
        "service_tier": "default",
        "system_fingerprint": "fp_test",
    }


def _completion_chunks(request: Request, turn: Turn) -> Iterator[dict[str, Any]]:
    counts = (request.body.get("stream_options") or {}).get("include_usage") is True and turn.counted
    head = {
        "id": f"chatcmpl-{request.index}",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": request.model,
        "system_fingerprint": "fp_test",
        **({"usage": None} if counts else {}),
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    starts_with_text = not turn.calls or bool(turn.text)
    yield chunk({"role": "assistant", "content": "" if starts_with_text else None, "refusal": None})
    for name, value in turn.message_fields.items():
        yield from (chunk({name: piece}) for piece in (_pieces(value) if isinstance(value, str) else [value]))
    yield from (chunk({"reasoning_content": piece}) for piece in _pieces(turn.thoughts))
    yield from (chunk({"content": piece}) for piece in _pieces(turn.text))
    yield from (chunk({"refusal": piece}) for piece in _pieces(turn.refusal))
    for number, (call_id, name, arguments) in enumerate(turn.calls):
        yield chunk({"tool_calls": [{"index": number, **_call(call_id, name, ""), **turn.call_fields}]})
        for piece in _pieces(arguments):
            yield chunk({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
    yield chunk({}, _finish(turn))
    if counts:
        yield {**head, "choices": [], "usage": _completion_usage(request, turn)}
