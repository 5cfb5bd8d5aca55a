"""The items of a conversation as plain JSON, prepared for the journal and for sending back to the model."""

import json
from collections.abc import Collection, Iterable, Sequence

from agent_runtime.domain.events import ModelCall
from agent_runtime.domain.values import JsonObject, is_deeper_than

MOST_DEPTH = 100
"""The deepest nesting of an item. The journal can read JSON 200 deep."""


def prepare_items(items: Iterable[JsonObject], taken: Collection[str] = ()) -> tuple[JsonObject, ...]:
    """Return a model's items as they are recorded: fit to be sent back after a restart, each call with its own
    `call_id`.

    A reasoning item with nothing but an id is left out, because the endpoint does not store it (`store: false`). An
    empty `call_id` is replaced, and one that is repeated or `taken` by an earlier turn.
    Raises: ValueError where an item is no valid UTF-8 JSON, or is nested more than `MOST_DEPTH` deep.
    """
    result = []
    used = set(taken)
    for item in items:
        if item.get("type") == "reasoning" and not (item.get("encrypted_content") or item.get("content")):
            continue
        if item.get("type") == "function_call":
            name, arguments = item.get("name") or "", item.get("arguments")
            call_id = _make_unique(item.get("call_id"), used)
            used.add(call_id)
            text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
            fit = {"call_id": call_id, "name": name, "arguments": _unquote(text)}
            item = {**item, **fit}  # noqa: PLW2901 - its fit form
        if is_deeper_than(item, MOST_DEPTH):
            raise ValueError(f"an item is nested more than {MOST_DEPTH} deep")
        result.append(item)
    json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
    return tuple(result)


def _unquote(text: str) -> str:
    """Return the object that a text holds as a JSON string, as some models write their arguments; else the text."""
    if not text.startswith('"{'):
        return text
    try:
        inner = json.loads(text)
        return inner if isinstance(json.loads(inner), dict) else text
    except (ValueError, RecursionError):
        return text


def _make_unique(given: object, used: Collection[str]) -> str:
    call_id = str(given or "")
    if call_id and call_id not in used:
        return call_id
    base, number = call_id or "call", len(used) + 1
    while f"{base}-{number}" in used:
        number += 1
    return f"{base}-{number}"


def add_extras(items: Iterable[JsonObject], message: JsonObject, calls: Sequence[JsonObject]) -> None:
    """Put into the items of calls the fields of a chat completion that its endpoint needs back on the next turn.

    `message` are fields of the message that holds the calls, `calls` those of each call. See `find_extras`.
    """
    called = [item for item in items if item.get("type") == "function_call"]
    for item, extra in zip(called, calls, strict=False):
        kept = ({"message": message} if message and item is called[0] else {}) | ({"call": extra} if extra else {})
        if kept:
            item["provider_data"] = (item.get("provider_data") or {}) | kept


def find_extras(items: Iterable[JsonObject], model: str) -> dict[str, JsonObject]:
    """Return, by `call_id`, what `add_extras` put into items of this model: `message` and `call`."""
    found = {}
    for item in items:
        data = item.get("provider_data")
        if item.get("type") == "function_call" and isinstance(data, dict) and data.get("model") in {None, model}:
            found[item["call_id"]] = {name: data[name] for name in ("message", "call") if data.get(name)}
    return found


def size_of(items: Sequence[JsonObject]) -> int:
    """Return the size of the items as JSON, in bytes."""
    return len(json.dumps(items, ensure_ascii=False).encode())


def text_of(items: Iterable[JsonObject]) -> str:
    """Return the text of all messages of the model, joined."""
    return "".join(part.get("text") or "" for part in _find_parts(items) if part.get("type") == "output_text")


def find_json_in_thoughts(items: Iterable[JsonObject]) -> str:
    """Return the thoughts of a model if they hold an object, else an empty text.

    Some endpoints send an answer of JSON as `reasoning_content`, because the model never ended its thoughts.
    """
    thoughts = (item for item in items if item.get("type") == "reasoning")
    parts = (part for item in thoughts for part in item.get("content") or item.get("summary") or ())
    text = "".join(part.get("text") or "" for part in parts)
    return text if "{" in text else ""


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
