"""A process at the other end of its standard streams."""

import asyncio
import math
from pathlib import Path

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest

from agent_runtime.config import LimitSettings
from agent_runtime.mcp_servers.sandbox import Confined
from agent_runtime.mcp_servers.spawn import Spawn
from agent_runtime.mcp_servers.stdio import StdioTransport
from agent_runtime.text.redaction import Redactor
from waiting import eventually

REQUEST = SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=1, method="initialize"))


async def test_a_process_that_is_gone_before_it_is_written_to_has_exited_by_itself(tmp_path: Path) -> None:
    command = Confined(("/bin/sh", "-c", "echo no cache >&2; exit 7"))
    spawn = Spawn(command, tmp_path, {}, "sh", stop_s=10)
    transport = StdioTransport(spawn, LimitSettings(), Redactor(), asyncio.Event(), lambda: math.inf)
    async with asyncio.timeout(20), transport as (_, write):
        await eventually(lambda: transport.pipes.stdin is not None and transport.pipes.stdin.is_closing())
        with pytest.raises(anyio.BrokenResourceError):
            await write.send(REQUEST)
    assert transport.find_exit_mark() == "7: no cache"
    assert transport.describe_end() == "its process exited with code 7; stderr ends with: no cache"
