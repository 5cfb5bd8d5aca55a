"""The items of a conversation as plain JSON: what a model gave, made fit to be kept and to be sent back."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from agent_runtime.domain.events import ModelCall
from agent_runtime.domain.values import JsonObject, is_deeper_than

MOST_DEPTH = 100
"""How deep an item may be nested, to be read back from the journal, where JSON ends at 200."""


def prepare_items(items: Iterable[JsonObject]) -> tuple[JsonObject, ...]:
    """A model's items as they are recorded: what can be sent back after a restart, its calls told apart by `call_id`.

    A reasoning item of which nothing came but a name is left out: the endpoint keeps nothing of it (`store: false`).
    An empty or repeated `call_id` is replaced. Raises: ValueError where an item is not what UTF-8 JSON can carry, or is
    nested more than `MOST_DEPTH` deep.
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
    """Bytes of the items as JSON."""
    return len(json.dumps(items, ensure_ascii=False).encode())


def text_of(items: Iterable[JsonObject]) -> str:
    """What the model said, all of its messages in a row."""
    return "".join(part.get("text") or "" for part in _parts(items) if part.get("type") == "output_text")


def refusal_of(items: Iterable[JsonObject]) -> str | None:
    """Why the model declined to answer; null where it did not."""
    refusals = [str(part.get("refusal") or "") for part in _parts(items) if part.get("type") == "refusal"]
    return " ".join(refusals) if refusals else None


def calls_of(items: Iterable[JsonObject]) -> tuple[ModelCall, ...]:
    """The calls that kept items propose, in their order."""
    return tuple(
        ModelCall(call_id=item["call_id"], name=item["name"], arguments=item["arguments"])
        for item in items
        if item.get("type") == "function_call"
    )


def to_sendable(items: Iterable[JsonObject]) -> list[JsonObject]:
    """The items as they are sent: an earlier call's arguments are a JSON object, in which other text is wrapped.

    Servers that render a conversation with a template (Ollama, vLLM) read the arguments of earlier calls, and would
    reject the whole conversation for one that was malformed.
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


def _parts(items: Iterable[JsonObject]) -> Iterable[JsonObject]:
    messages = (item for item in items if item.get("type") == "message")
    return (part for message in messages for part in message.get("content") or ())
