"""What servers answer, as the domain keeps it: results uncut, definitions bounded, secrets redacted (G11, G12)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_core import to_json

from agent_runtime.config import LimitSettings
from agent_runtime.domain.tools import StoredResult, ToolDefinition
from agent_runtime.domain.values import JsonValue, canonical
from agent_runtime.text.escaping import is_blank
from agent_runtime.text.redaction import Redactor

log = structlog.get_logger(__name__)

_LONGEST_NAME = 256
"""The longest name of a tool, twice what MCP advises: names are keys in many places, and are kept there."""


def stored_result(raw: Mapping[str, Any], redactor: Redactor) -> StoredResult:
    """A `CallToolResult` in the words of the wire as a whole, uncut result.

    Text, embedded text resources and resource links make the text; anything else only sets `binary`.
    """
    if raw.get("resultType") == "input_required":
        text = "The server asked for further input in the middle of the call, which is not offered here."
        return StoredResult(text=text, is_error=True, size=len(text.encode()))
    blocks = [_block_text(block) for block in raw.get("content") or ()]
    text = redactor.redact("\n".join(block for block in blocks if block is not None))
    output = redactor.redact_json(raw.get("structuredContent"))
    return StoredResult(
        text=text,
        output=output,
        is_error=is_error(raw),
        binary=None in blocks,
        size=len(text.encode()) + (0 if output is None else _size(output)),
    )


def is_error(raw: Mapping[str, Any]) -> bool:
    """Whether a result says that it is an error, with anything but `false` and null."""
    said = raw.get("isError")
    return said is not None and said is not False


def _block_text(block: Mapping[str, Any]) -> str | None:
    """The text of a content block, or None where it has none."""
    match block:
        case {"type": "text", "text": str() as text}:
            return text
        case {"type": "resource", "resource": {"text": str() as text}}:
            return text
        case {"type": "resource_link", "uri": str() as uri, **rest}:
            return f"{rest.get('title') or rest.get('name') or 'resource'}: {uri}"
    return None


def _size(value: JsonValue) -> int:
    try:
        return len(canonical(value))
    except ValueError:
        # RFC 8785 cannot carry it (a huge integer, NaN); its plain JSON has a length all the same.
        return len(to_json(value, inf_nan_mode="constants"))


def tool_definitions(
    server_id: str, raw_tools: Sequence[Mapping[str, Any]], limits: LimitSettings, redactor: Redactor
) -> dict[str, ToolDefinition]:
    """The tools of a listing by name; one that breaks a bound or repeats a name is left out, and logged."""
    names = Counter(tool.get("name") for tool in raw_tools)
    definitions: dict[str, ToolDefinition] = {}
    for raw in raw_tools:
        name = raw.get("name")
        try:
            definition = _definition(raw, limits.definition_bytes, redactor)
        except ValidationError as error:
            _leave_out(server_id, name, f"its definition is invalid: {error.error_count()} faults")
        except ValueError as error:
            _leave_out(server_id, name, str(error))
        else:
            if names[name] > 1:
                _leave_out(server_id, name, "its name is listed more than once")
            else:
                definitions[definition.name] = definition
    return definitions


def _definition(raw: Mapping[str, Any], limit: int, redactor: Redactor) -> ToolDefinition:
    """The definition. Raises: ValueError where it is invalid, or has more than `limit` bytes in its canonical form."""
    wire = {field: raw[field] for field in ToolDefinition.model_fields if field in raw}
    # What is far beyond the limit is not worked through to be measured.
    size = len(to_json(wire, inf_nan_mode="constants"))
    if size <= 2 * limit:
        definition = ToolDefinition.model_validate(redactor.redact_json(wire))
        size = len(canonical(definition.model_dump()))
        if len(definition.name) > _LONGEST_NAME:
            raise ValueError(f"its name has more than {_LONGEST_NAME} characters")
        if is_blank(definition.name):
            raise ValueError("nothing of its name can be read")
        if size <= limit:
            return definition
    raise ValueError(f"its definition has {size} bytes, over {limit}")


def _leave_out(server_id: str, name: object, reason: str) -> None:
    log.warning("tool_left_out", server=server_id, tool=str(name)[:100], reason=reason)
