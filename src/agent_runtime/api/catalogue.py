"""The catalogue of tools, in pages."""

from pydantic_core import to_json

from agent_runtime.api.service_shapes import ToolView
from agent_runtime.domain.cursors import cursor_of, position_of
from agent_runtime.domain.summaries import PAGE_BYTES
from agent_runtime.domain.tools import Tool
from agent_runtime.services.tool_registry import ToolRegistry


def tools_page(registry: ToolRegistry, limit: int, cursor: str | None) -> bytes:
    """Return a page of the catalogue as JSON (`ToolsView`).

    A page ends after `limit` tools, or with the tool that makes it longer than `PAGE_BYTES`.
    Raises: InvalidInputError for an unknown cursor.
    """
    begin = 0 if cursor is None else position_of(cursor, "tools")
    usable, unusable = list(registry.tools().values()), list(registry.unusable().items())
    shown: list[bytes] = []
    size = 0
    for index in range(begin, min(begin + limit, len(usable) + len(unusable))):
        if size >= PAGE_BYTES:
            break
        known = index < len(usable)
        shown.append(to_json(_tool(usable[index]) if known else _unusable(*unusable[index - len(usable)])))
        size += len(shown[-1])
    end = begin + len(shown)
    more = to_json(cursor_of(end) if 0 < end < len(usable) + len(unusable) else None)
    return b'{"tools":[%b],"next_cursor":%b}' % (b",".join(shown), more)


def _tool(tool: Tool) -> ToolView:
    definition = tool.definition
    return {
        "server": tool.server,
        "tool": tool.name,
        "title": definition.title,
        "description": definition.description,
        "input_schema": definition.inputSchema,
        "output_schema": definition.outputSchema,
        "effect": tool.effect,
        "idempotent": tool.idempotent,
        "open_world": tool.open_world,
        "approval": tool.approval,
        "timeout_s": tool.timeout_s,
        "pin": tool.pin,
        "status": "unavailable" if tool.denied else "available",
        "detail": tool.denied,
    }


def _unusable(key: str, why: str) -> ToolView:
    server, _, tool = key.partition("/")
    return {
        "server": server,
        "tool": tool,
        "title": None,
        "description": None,
        "input_schema": None,
        "output_schema": None,
        "effect": None,
        "idempotent": None,
        "open_world": None,
        "approval": None,
        "timeout_s": None,
        "pin": None,
        "status": "unavailable",
        "detail": why,
    }
