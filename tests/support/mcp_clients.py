"""The client of the MCP Python SDK against the service, in both protocol eras."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ElicitRequestFormParams, ElicitResult

from agent_runtime.client.requests import transport_options
from command_line import AGENT_RUNTIME
from serving import PATIENCE_S, Service

ERAS = ("legacy", "2026-07-28")
"""The modes of the client: sessions up to 2025-11-25, and the stateless era."""

Person = Callable[[ElicitRequestFormParams], Awaitable[ElicitResult]]
"""Answers the questions that a client shows."""


@asynccontextmanager
async def mcp_client(service: Service, era: str, person: Person | None = None, key: str = "") -> AsyncIterator[Client]:
    """Connect to the service. With a `person` the client offers elicitation."""

    async def ask(context: Any, params: Any) -> ElicitResult:  # noqa: ARG001 - the shape of a callback
        assert person is not None
        assert isinstance(params, ElicitRequestFormParams)
        return await person(params)

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S * 2, **transport_options(service.url)) as http:
        transport = streamable_http_client(f"{service.url}/mcp", http_client=http)
        async with Client(transport, mode=era, elicitation_callback=ask if person else None) as client:
            yield client


@asynccontextmanager
async def stdio(
    folder: Path,
    era: str,
    *words: str,
    person: Person | None = None,
    key: str = "",
    env: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Client]:
    """Start `agent-runtime mcp serve` as a client does, and connect to it."""

    async def ask(context: Any, params: Any) -> ElicitResult:  # noqa: ARG001 - the shape of a callback
        assert person is not None
        return await person(params)

    server = StdioServerParameters(
        command=sys.executable,
        args=[*AGENT_RUNTIME[1:], "mcp", "serve", *words],
        cwd=folder,
        env={"HOME": str(folder), **env, **({"AGENT_RUNTIME_API_KEY": key} if key else {})},
    )
    async with Client(stdio_client(server), mode=era, elicitation_callback=ask if person else None) as client:
        yield client


def make_person(decision: str | None = None, *, action: Any = "accept", **more: Any) -> tuple[list[str], Person]:
    """Return what a person is asked, and the person, who always gives this answer."""
    asked: list[str] = []
    content = {**({"decision": decision} if decision else {}), **more}

    async def person(params: ElicitRequestFormParams) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action=action, content=content if action == "accept" else None)

    return asked, person


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool that must succeed, and return its structured result."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text_of(result)
    return result.structured_content


async def refusal_of(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool that must refuse, and return what it says."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    return text_of(result)


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert content.type == "text"
    return content.text
