from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from jsonschema import validate
from mcp.client import Client
from mcp_types import TextContent

from agent_runtime.builtin.serving import make_mcp_server
from agent_runtime.builtin.toolbox import Toolbox


@dataclass(frozen=True)
class Answer:
    text: str
    output: Any
    is_error: bool


@pytest.fixture
def ask() -> Callable[..., Awaitable[Answer]]:
    """Call a tool through a real client session, and check the answer against its declared schema."""

    async def call(server: Toolbox, tool: str, **arguments: object) -> Answer:
        async with Client(make_mcp_server(server)) as client:
            result = await client.call_tool(tool, arguments)
            definitions = {each.name: each for each in (await client.list_tools()).tools}
        (block,) = result.content
        assert isinstance(block, TextContent)
        if not result.is_error:
            declared = definitions[tool].output_schema
            assert declared is not None
            validate(result.structured_content, declared)
        return Answer(block.text, result.structured_content, bool(result.is_error))

    return call
