"""Converts the answers of servers for the domain: whole results, bounded definitions, redacted secrets (G11, G12)."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_core import to_json

from agent_runtime.config import LimitSettings
from agent_runtime.domain.tools import StoredResult, ToolDefinition
from agent_runtime.domain.values import JsonValue, canonical
from agent_runtime.mcp_servers.images import ImageReader
from agent_runtime.text.escaping import is_blank
from agent_runtime.text.redaction import Redactor

log = structlog.get_logger(__name__)

_MUCH_BYTES = 64 * 1024

_LONGEST_NAME = 256
"""The longest name of a tool in characters, twice what MCP advises: names are stored as keys in many places."""


async def convert_result(raw: Mapping[str, Any], redactor: Redactor, image_bytes: int) -> StoredResult:
    """Convert a result as `to_stored_result`; a large one in a thread, because it would block the event loop (G9)."""
    if len(to_json(raw, inf_nan_mode="constants")) > _MUCH_BYTES:
        return await asyncio.to_thread(to_stored_result, raw, redactor, image_bytes)
    return to_stored_result(raw, redactor, image_bytes)


def to_stored_result(raw: Mapping[str, Any], redactor: Redactor, image_bytes: int) -> StoredResult:
    """Convert a `CallToolResult` into a whole, uncut result, with its images of up to `image_bytes` each.

    A result with none of the fields of MCP becomes structured content as a whole.
    """
    if raw.get("resultType") == "input_required":
        text = "The server asked for more input during the call, which is not supported."
        return StoredResult(text=text, is_error=True, size=len(text.encode()))
    output = raw.get("structuredContent")
    if _FIELDS.isdisjoint(raw):
        old = raw.get("toolResult")  # as of 2024-10-07
        if isinstance(old, Mapping) and not _FIELDS.isdisjoint(old):
            return to_stored_result(old, redactor, image_bytes)
        output = old if old is not None else {name: raw[name] for name in raw if name not in _ENVELOPE} or None
    reader = ImageReader(image_bytes, redactor)
    blocks = [_read_block(block, reader) for block in _read_blocks(raw.get("content"))]
    text = redactor.redact("\n".join(block.text for block in blocks))
    output = redactor.redact_json(output)
    return StoredResult(
        text=text,
        output=output,
        is_error=is_error(raw),
        binary=output is None and bool(blocks) and all(block.named for block in blocks),
        size=len(text.encode()) + (0 if output is None else _measure(output)),
        images=reader.images,
    )


_FIELDS = frozenset({"content", "structuredContent", "isError"})
_ENVELOPE = frozenset({"_meta", "cacheScope", "resultType", "toolResult", "ttlMs"})


def make_unreadable_result(reason: str, redactor: Redactor) -> StoredResult:
    """Return the error result of a call whose answer cannot be read."""
    text = redactor.redact_message(f"the server answered, and its answer cannot be read: {reason}")
    return StoredResult(text=text, is_error=True, unreadable=True, size=len(text.encode()))


def is_error(raw: Mapping[str, Any]) -> bool:
    """Return whether a result is marked as an error: by any value but `false` and `null`."""
    said = raw.get("isError")
    return said is not None and said is not False


def _read_blocks(content: JsonValue) -> list[JsonValue]:
    """Return the blocks of a result; a single block may stand without a list around it."""
    if content is None:
        return []
    return content if isinstance(content, list) else [content]


@dataclass(frozen=True, slots=True)
class _Block:
    """The text of one content block. `named` is True if the text only names data that is no text, such as an image."""

    text: str
    named: bool = False


def _read_block(block: JsonValue, reader: ImageReader) -> _Block:
    """Return the text of a content block; a block that MCP does not define is shown as JSON."""
    match block:
        case str():
            return _Block(block)
        case {"type": "image" | "audio" as kind, "data": str() as data}:
            return _Block(reader.read(kind, block.get("mimeType"), data), named=True)
        case {"type": "resource", "resource": {"text": str() as text}}:
            return _Block(text)
        case {"type": "resource", "resource": {"blob": str() as blob} as resource}:
            kind = to_text(resource.get("uri") or "resource")
            return _Block(reader.read(kind, resource.get("mimeType"), blob), named=True)
        case {"type": "resource_link", "uri": str() as uri}:
            return _Block(f"{to_text(block.get('title') or block.get('name') or 'resource')}: {uri}")
        case {"type": "text", "text": None}:
            return _Block("")
        case {"text": (str() | int() | float()) as text} if block.get("type", "text") in {"text", None}:
            return _Block(to_text(text))
        case None:
            return _Block("")
    return _Block(to_text(block))


def to_text(value: JsonValue) -> str:
    """Return a text unchanged, and any other value as JSON."""
    return value if isinstance(value, str) else to_json(value, inf_nan_mode="constants").decode()


def _measure(value: JsonValue) -> int:
    try:
        return len(canonical(value))
    except ValueError:
        # RFC 8785 cannot express it (a huge integer, NaN); use the length of its plain JSON.
        return len(to_json(value, inf_nan_mode="constants"))


def read_definitions(
    server_id: str, raw_tools: Sequence[Any], limits: LimitSettings, redactor: Redactor
) -> tuple[dict[str, ToolDefinition], dict[str, str]]:
    """Return the usable tools of a listing by name, and for each other tool the reason, which is also logged."""
    names = Counter(tool.get("name") for tool in raw_tools if _has_name(tool))
    definitions: dict[str, ToolDefinition] = {}
    left_out: dict[str, str] = {}
    for number, raw in enumerate(raw_tools, 1):
        try:
            definition = _read_definition(raw, limits.definition_bytes, redactor)
            if names[raw["name"]] > 1:
                raise ValueError("its name is listed more than once, with different definitions")  # noqa: TRY301
        except ValueError as error:
            name = redactor.redact(raw["name"])[:_LONGEST_NAME] if _has_name(raw) else f"(number {number} of the list)"
            fault = (
                f"its definition is invalid: {find_first_fault(error)}"
                if isinstance(error, ValidationError)
                else str(error)
            )
            left_out[name] = fault
            log.warning("tool_left_out", server=server_id, tool=name[:100], reason=fault)
        else:
            definitions[definition.name] = definition
    return definitions, left_out


def _has_name(raw: Any) -> bool:
    return isinstance(raw, dict) and isinstance(raw.get("name"), str) and not is_blank(raw["name"])


def find_first_fault(error: ValidationError) -> str:
    """Return the first fault of a definition, with its place."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _read_definition(raw: Any, limit: int, redactor: Redactor) -> ToolDefinition:
    """Return the definition. Raises: ValueError where it is invalid or has more than `limit` bytes."""
    if not isinstance(raw, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - all that is wrong with a definition is a ValueError
    if not isinstance(raw.get("name"), str):
        raise ValueError("it has no name")  # noqa: TRY004 - likewise
    wire = _read_fields(raw)
    # Far beyond the limit, the definition is not validated and canonicalised to measure it.
    size = len(to_json(wire, inf_nan_mode="constants"))
    if size <= 2 * limit:
        definition = ToolDefinition.model_validate(redactor.redact_json(wire))
        size = len(canonical(definition.model_dump()))
        if len(definition.name) > _LONGEST_NAME:
            raise ValueError(f"its name has more than {_LONGEST_NAME} characters")
        if is_blank(definition.name):
            raise ValueError("its name is blank")
        if size <= limit:
            return definition
    raise ValueError(f"its definition has {size} bytes, over {limit}")


def _read_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields of a definition, without odd ones that do not matter, such as a title that is no text."""
    wire = {field: raw[field] for field in ToolDefinition.model_fields if raw.get(field) is not None}
    for field in ("title", "description"):
        if not isinstance(wire.get(field, ""), str):
            del wire[field]
    for field in ("annotations", "outputSchema"):
        if not isinstance(wire.get(field, {}), dict):
            del wire[field]
    if wire.get("inputSchema") in ([], True):
        del wire["inputSchema"]
    return wire
