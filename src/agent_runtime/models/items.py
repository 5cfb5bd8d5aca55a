"""The items of a conversation as plain JSON, prepared for the journal and for sending back to the model."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from agent_runtime.domain.events import ModelCall
from agent_runtime.domain.values import JsonObject, is_deeper_than

MOST_DEPTH = 100
"""The deepest nesting of an item. The journal can read JSON 200 deep."""


def prepare_items(items: Iterable[JsonObject]) -> tuple[JsonObject, ...]:
    """Return a model's items as they are recorded: fit to be sent back after a restart, each call with its own
    `call_id`.

    A reasoning item with nothing but an id is left out, because the endpoint does not store it (`store: false`). An
    empty or repeated `call_id` is replaced.
    Raises: ValueError where an item is no valid UTF-8 JSON, or is nested more than `MOST_DEPTH` deep.
    """
    result = []
    seen: Counter[str] = Counter()
    for item in items:
        if item.get("type") == "reasoning" and not (item.get("encrypted_content") or item.get("content")):
            continue
        if item.get("type") == "function_call":
            name, arguments = item.get("name") or "", item.get("arguments")
            call_id = str(item.get("call_id") or "call")
            seen[call_id] += 1
            if seen[call_id] > 1 or not item.get("call_id"):
                call_id = f"{call_id}-{sum(seen.values())}"
            text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
            item = {**item, "call_id": call_id, "name": name, "arguments": text}  # noqa: PLW2901 - its fit form
        if is_deeper_than(item, MOST_DEPTH):
            raise ValueError(f"an item is nested more than {MOST_DEPTH} deep")
        result.append(item)
    json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
    return tuple(result)


def size_of(items: Sequence[JsonObject]) -> int:
    """Return the size of the items as JSON, in bytes."""
    return len(json.dumps(items, ensure_ascii=False).encode())


def text_of(items: Iterable[JsonObject]) -> str:
    """Return the text of all messages of the model, joined."""
    return "".join(part.get("text") or "" for part in _find_parts(items) if part.get("type") == "output_text")


def refusal_of(items: Iterable[JsonObject]) -> str | None:
    """Return the model's reason for declining to answer; None if it did not decline."""
    refusals = [str(part.get("refusal") or "") for part in _find_parts(items) if part.get("type") == "refusal"]
    return " ".join(refusals) if refusals else None


def calls_of(items: Iterable[JsonObject]) -> tuple[ModelCall, ...]:
    """Return the calls that prepared items propose, in their order."""
    return tuple(
        ModelCall(call_id=item["call_id"], name=item["name"], arguments=item["arguments"])
        for item in items
        if item.get("type") == "function_call"
    )


def to_sendable(items: Iterable[JsonObject]) -> list[JsonObject]:
    """Return the items as they are sent. The arguments of earlier calls become JSON objects; other text is wrapped in
    one.

    Servers that render a conversation with a template (Ollama, vLLM) parse the arguments of earlier calls, and reject
    the whole conversation for malformed ones.
    """
    return [
        {**item, "arguments": _to_object(item["arguments"])} if item.get("type") == "function_call" else item
        for item in items
    ]


def _to_object(text: str) -> str:
    if not text.strip():
        return "{}"
    try:
        if isinstance(json.loads(text), dict):
            return text
    except (ValueError, RecursionError):
        pass
    return json.dumps({"malformed_arguments": text})


def _find_parts(items: Iterable[JsonObject]) -> Iterable[JsonObject]:
    messages = (item for item in items if item.get("type") == "message")
    return (part for message in messages for part in message.get("content") or ())
