"""Reads the whole list of a server's tools, page by page, within its limits (G11)."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from mcp import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types import ListToolsRequest, PaginatedRequestParams
from pydantic_core import to_json

from agent_runtime.config import LimitSettings
from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.values import JsonObject
from agent_runtime.mcp_servers.call import RAW
from agent_runtime.mcp_servers.reading import find_names_with_headers, read_page, unwrap_answer


class ToolPages:
    """The list of the tools of a server. `wrong_headers`: why tools are unusable that want headers for arguments."""

    def __init__(self, server_id: str, session: ClientSession, limits: LimitSettings, *, remote: bool) -> None:
        self._server_id = server_id
        self._session = session
        self._limits = limits
        self._remote = remote
        self.wrong_headers: dict[str, str] = {}

    async def read_all(self) -> tuple[list[Any], str, int]:
        """Return all tools of the list without repetitions, the digest of what was sent, and its size in bytes.

        Raises: ServerUnavailableError where the list is over a limit.
        """
        limits = self._limits
        tools: dict[bytes, Any] = {}
        size, wire = 0, hashlib.sha256()
        async with aclosing(self._read_pages()) as pages:
            async for page in pages:
                for tool in page:
                    raw = to_json(tool, inf_nan_mode="constants")
                    if raw in tools:
                        continue
                    size += len(raw)
                    wire.update(raw)
                    tools[raw] = tool
                if len(tools) > limits.tools_per_server:
                    raise self._make_limit_error(f"more than {limits.tools_per_server} tools (limits.tools_per_server)")
                if size > limits.definitions_bytes:
                    raise self._make_limit_error(
                        f"tools of more than {limits.definitions_bytes} bytes in all (limits.definitions_bytes)"
                    )
        return list(tools.values()), wire.hexdigest(), size

    def _make_limit_error(self, what: str) -> ServerUnavailableError:
        return ServerUnavailableError(self._server_id, f"it lists {what}")

    async def _read_pages(self) -> AsyncGenerator[list[Any], None]:
        """Yield the pages of the list, until one names no next page or one that was read already."""
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(self._limits.list_pages):
            try:
                page = await self._read_page(cursor)
            except MCPError:
                if cursor == "":  # most servers mean by it that there is no next page
                    return
                raise
            tools, cursor = read_page(page)
            yield tools
            if cursor is None or cursor in seen:
                return
            seen.add(cursor)
        raise self._make_limit_error(f"its tools on more than {self._limits.list_pages} pages (limits.list_pages)")

    async def _read_page(self, cursor: str | None) -> JsonObject:
        params = None if cursor is None else PaginatedRequestParams(cursor=cursor)
        if not self._remote:
            answer: JsonObject = await self._session.send_request(ListToolsRequest(params=params), RAW)
            return unwrap_answer(answer)
        # The SDK's own listing learns which arguments a 2026-07-28 server wants mirrored in headers.
        listed = await self._session.list_tools(params=params)
        page = unwrap_answer({"_meta": listed.meta})
        usable = {tool.name for tool in listed.tools}
        for name in find_names_with_headers(page) - usable:
            self.wrong_headers[name] = "its schema names headers for arguments (x-mcp-header) against the rules of MCP"
        return page
