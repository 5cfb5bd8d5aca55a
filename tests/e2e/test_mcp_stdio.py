"""`agent-runtime mcp serve`: MCP clients that start their servers hand work to the service over standard input."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequestFormParams, ElicitResult

from callers import serve_with_keys
from command_line import AGENT_RUNTIME, PATIENCE_S, Folder, ledger_call
from mcp_clients import ERAS, call, make_person, refusal_of, stdio
from serving import Service, free_port, sums
from waiting import eventually

pytestmark = pytest.mark.slow
eras = pytest.mark.parametrize("era", ERAS)
SUBMISSION = {"prompt": "Add up", "plan": sums(2)}


@eras
async def test_a_client_that_starts_the_command_hands_work_to_the_service(service: Service, era: str) -> None:
    asked, person = make_person("approve")
    lines: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - as above
        lines.append(message or "")

    async with stdio(service.settings.data_dir, era, "--url", service.url, person=person) as client:
        result = await client.call_tool("submit_task", SUBMISSION, progress_callback=hear)
        done = result.structured_content
        (content,) = (await client.read_resource(f"task://{done['task_id']}")).contents
        with pytest.raises(MCPError, match="There is no resource"):
            await client.read_resource("task://")
        assert "There is no task 'none'" in await refusal_of(client, "get_task", task_id="none")
    assert (done["status"], done["result"], len(asked)) == ("completed", "42", 1)
    assert json.loads(content.text) == service.task(done["task_id"])  # type: ignore[union-attr]
    assert "Step s2 completed." in lines


@eras
async def test_the_service_may_restart_while_a_client_waits(tmp_path: Path, era: str) -> None:
    with Service(tmp_path, server={"port": free_port()}) as service:
        async with stdio(tmp_path, era, "--server", service.url) as client:
            task_id = (await call(client, "submit_task", **SUBMISSION))["task_id"]
            ended: list[Any] = []

            async def wait() -> None:
                ended.append(await call(client, "wait_for_task", task_id=task_id, until="ended", wait_s=60))

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await eventually(lambda: service.open_streams > 0)
                await anyio.to_thread.run_sync(service.restart)
                await anyio.to_thread.run_sync(service.approve, task_id)
    assert (ended[0]["status"], ended[0]["result"]) == ("completed", "42")


async def test_without_a_service_the_command_runs_one_itself(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    _, person = make_person("approve")
    async with stdio(folder.path, "legacy", person=person) as client:
        done = await call(client, "submit_task", prompt="Add 40 and 2")
        assert (done["status"], done["result"]) == ("completed", "42")
        waiting = await call(client, "submit_task", **SUBMISSION | {"prompt": "Another"}, wait_s=0)
        shown = await anyio.to_thread.run_sync(folder.json, "show", waiting["task_id"])
        assert shown["task_id"] == waiting["task_id"]  # other commands find it meanwhile
    assert folder.json("show", done["task_id"])["status"] == "completed"


async def test_a_service_of_its_own_continues_what_another_left_unfinished(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.add_ledger(delay_s=30)
    with folder.serve() as earlier:
        task_id = earlier.submit(ledger_call("look"), approve=True)
        earlier.follow_until(task_id, "tool.called")
        earlier.process.kill()
        earlier.process.wait(PATIENCE_S)
    folder.add_ledger(delay_s=0)
    async with stdio(folder.path, "legacy", env=folder.env) as client:
        ended = await call(client, "wait_for_task", task_id=task_id, wait_s=60)
    assert (ended["status"], ended["result"]) == ("completed", "counted one")


async def test_a_question_is_withdrawn_once_the_page_has_answered_it(service: Service) -> None:
    async def person(params: ElicitRequestFormParams) -> ElicitResult:
        task_id = params.message.partition("of task ")[2].partition(" run?")[0]
        await asyncio.to_thread(service.approve, task_id)
        await anyio.sleep_forever()
        raise AssertionError

    async with stdio(service.settings.data_dir, "legacy", "--url", service.url, person=person) as client:
        result = await call(client, "submit_task", **SUBMISSION)
    assert "came too late" in result["notes"][0]
    assert len(service.task(result["task_id"])["approvals"]) == 1


@eras
async def test_the_key_says_what_the_client_may_do(tmp_path: Path, era: str) -> None:
    with serve_with_keys(tmp_path, {"reader": ("read",)}) as keyed_service:
        url = keyed_service.service.url
        async with stdio(tmp_path, era, "--url", url, key=keyed_service.keys["reader"]) as client:
            assert (await call(client, "list_tasks"))["tasks"] == []
            assert "does not have the scope 'submit'" in await refusal_of(client, "submit_task", prompt="x")
        async with stdio(tmp_path, era, "--url", url) as client:
            with pytest.raises(MCPError, match="key"):
                await client.call_tool("list_tasks", {})


def run(service: Service, lines: Sequence[bytes]) -> subprocess.CompletedProcess[bytes]:
    words = [*AGENT_RUNTIME, "mcp", "serve", "--url", service.url]
    return subprocess.run(
        words, input=b"".join(line + b"\n" for line in lines), capture_output=True, timeout=PATIENCE_S, check=False
    )


def test_malformed_lines_get_errors_of_json_rpc_and_nothing_else_is_printed(service: Service) -> None:
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    lines = [b"{", b"\xff\xfe", b"[1, 2]", b'{"jsonrpc": "1.0"}', json.dumps(initialize).encode(), b"also not JSON"]
    lines += [json.dumps(message).encode() for message in (initialized, listing)]
    done = run(service, lines)
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    errors = [message["error"]["code"] for message in messages if "error" in message]
    assert errors == [-32700, -32700, -32600, -32600, -32700]
    assert [message["id"] for message in messages if "result" in message] == [1, 2]


def test_a_signal_ends_the_command_while_its_input_is_open(service: Service) -> None:
    words = [*AGENT_RUNTIME, "mcp", "serve", "--url", service.url]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"{\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["error"]["code"] == -32700
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
