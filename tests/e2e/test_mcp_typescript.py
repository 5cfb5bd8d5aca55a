"""The service as an MCP server for clients of the TypeScript SDK: version 1, and version 2 in both protocol eras."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from callers import serve_with_keys
from command_line import AGENT_RUNTIME
from mcp_node_clients import SDKS, RefusedError, node_client
from serving import Service, free_port, sums
from waiting import eventually

pytestmark = pytest.mark.slow
each_sdk = pytest.mark.parametrize("sdk", SDKS)

APPROVE = {"action": "accept", "content": {"decision": "approve"}}
SUBMISSION = {"prompt": "Add up", "plan": sums(2)}
FAILING = {
    "goal": "fail",
    "steps": [
        {"id": "s1", "kind": "tool", "server": "calculator", "tool": "evaluate", "arguments": {"expression": "1/0"}}
    ],
}


@each_sdk
async def test_a_person_approves_and_the_client_gets_the_result(service: Service, sdk: str) -> None:
    async with node_client(sdk, service.url, answer=APPROVE) as client:
        assert "submit_task" in await client.do("list")
        done = await client.call("submit_task", **SUBMISSION)
        failed = await client.call("submit_task", prompt="Fail", plan=FAILING)
        (question, _) = await client.do("asked")
        assert await client.do("read", uri=f"task://{done['task']['task_id']}")
        wrong = await client.call("get_task", task_id="none")
        with pytest.raises(RefusedError, match="There is no tool 'approve_task'"):
            await client.call("approve_task")
    task = service.task(done["task"]["task_id"])
    assert (task["status"], done["task"]["result"], done["isError"]) == ("completed", "42", False)
    assert task["approvals"][0]["digest"] == task["plan_digest"]
    assert f"plan digest {task['plan_digest']}" in question
    assert "Step s2 completed." in done["lines"]
    assert (failed["task"]["status"], failed["task"]["error"]["step_id"]) == ("failed", "s1")
    assert (wrong["isError"], wrong["text"]) == (True, "There is no task 'none'.")


@each_sdk
@pytest.mark.parametrize("answer", [{"action": "decline"}, {"action": "accept", "content": {"decision": "reject"}}])
async def test_a_person_says_no(service: Service, sdk: str, answer: Mapping[str, Any]) -> None:
    async with node_client(sdk, service.url, answer=answer) as client:
        ended = await client.call("submit_task", **SUBMISSION)
    assert ended["task"]["status"] == "rejected"


@each_sdk
async def test_without_elicitation_the_page_decides_while_the_client_comes_and_goes(service: Service, sdk: str) -> None:
    async with node_client(sdk, service.url) as client:
        waiting = (await client.call("submit_task", **SUBMISSION))["task"]
        assert waiting["status"] == "awaiting_approval"
        assert waiting["decide"]["page"] == f"{service.url}/#/tasks/{waiting['task_id']}"
        other = (await client.call("submit_task", **SUBMISSION))["task"]["task_id"]
        assert (await client.call("cancel_task", task_id=other))["task"]["status"] == "cancelled"
        task_id = waiting["task_id"]
        interrupted = asyncio.gather(
            client.call("wait_for_task", task_id=task_id, until="ended"), return_exceptions=True
        )
        await eventually(lambda: service.open_streams > 0)
        await client.do("close")
        await interrupted
        await client.do("connect")
        again = asyncio.gather(client.call("wait_for_task", task_id=task_id, until="ended", wait_s=30))
        await asyncio.to_thread(service.approve, task_id)
        (ended,) = await again
    assert (ended["task"]["status"], ended["task"]["result"]) == ("completed", "42")


@each_sdk
async def test_a_task_outlives_a_restart_of_the_service(tmp_path: Path, sdk: str) -> None:
    with Service(tmp_path, server={"port": free_port()}) as service:
        async with node_client(sdk, service.url) as client:
            task_id = (await client.call("submit_task", **SUBMISSION))["task"]["task_id"]
            lost = asyncio.gather(
                client.call("wait_for_task", task_id=task_id, until="ended", wait_s=60), return_exceptions=True
            )
            await eventually(lambda: service.open_streams > 0)
            await asyncio.to_thread(service.restart)
            await client.do("close")
            await client.do("connect")
            await asyncio.to_thread(service.approve, task_id)
            ended = await client.call("wait_for_task", task_id=task_id, until="ended", wait_s=30)
            lost.cancel()
    assert (ended["task"]["status"], ended["task"]["result"]) == ("completed", "42")


async def test_a_key_that_may_only_read_is_told_so(tmp_path: Path) -> None:
    with serve_with_keys(tmp_path, {"reader": ("read",)}) as keyed_service:
        key = keyed_service.keys["reader"]
        async with node_client("sdk 1.32", keyed_service.service.url, key=key, answer=APPROVE) as client:
            refused = await client.call("submit_task", **SUBMISSION)
    assert (refused["isError"], "does not have the scope 'submit'" in refused["text"]) == (True, True)


@each_sdk
async def test_a_client_starts_the_command(service: Service, sdk: str) -> None:
    words = [*AGENT_RUNTIME[1:], "mcp", "serve", "--url", service.url]
    env = {"HOME": str(service.settings.data_dir), "PATH": os.environ["PATH"]}
    command = {"command": sys.executable, "args": words, "cwd": str(service.settings.data_dir), "env": env}
    async with node_client(sdk, command=command, answer=APPROVE) as client:
        done = await client.call("submit_task", **SUBMISSION)
    assert (done["task"]["status"], done["task"]["result"]) == ("completed", "42")
