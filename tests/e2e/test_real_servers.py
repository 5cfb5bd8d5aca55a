"""Whole tasks over third-party MCP servers: npm packages over stdio, and one over streamable HTTP."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.plan import Plan, ToolStep
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import Effect
from agent_runtime.services.task_manager import Submission
from harness import House, submit_plan, until_settled, until_status
from node_servers import NODE, install
from serving import free_port
from waiting import eventually

pytestmark = pytest.mark.timeout(400)

HTTP_SERVER = Path(__file__).parent.parent / "servers" / "http_server.py"


def register(house: House, *entries: dict[str, Any]) -> None:
    registry = yaml.safe_dump({"tool_registry": list(entries)})
    house.settings.tool_registry.write_text(registry, encoding="utf-8")


def node_server(server_id: str, package: str, *arguments: str, **more: Any) -> dict[str, Any]:
    config = {"command": NODE or "node", "args": [str(install(package)), *arguments]}
    return {"id": server_id, "type": "local_stdio", "config": config, **more}


def plan(*steps: tuple[str, str, dict[str, Any]]) -> Plan:
    return Plan.model_validate(
        {
            "goal": "real servers",
            "steps": [
                {
                    "id": f"s{number}",
                    "kind": "tool",
                    "server": server,
                    "tool": tool,
                    "arguments": arguments,
                    "depends_on": [f"s{number - 1}"] if number > 1 else [],
                }
                for number, (server, tool, arguments) in enumerate(steps, 1)
            ],
        }
    )


async def run_to_completion(runtime: Runtime, wanted: Plan) -> Task:
    task = await submit_plan(runtime, wanted)
    await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
    ended = await until_settled(runtime, task.task_id)
    assert ended.status is TaskStatus.COMPLETED, ended.error
    return ended


@pytest.mark.slow
async def test_the_npm_everything_server_works_over_stdio(house: House) -> None:
    vouched = {"*": {"open_world": False}}
    register(house, node_server("everything", "@modelcontextprotocol/server-everything", "stdio", tools=vouched))
    async with house.open() as runtime:
        task = await run_to_completion(
            runtime,
            plan(
                ("everything", "echo", {"message": "hello"}),
                ("everything", "get-sum", {"a": 15, "b": 27}),
                ("everything", "get-structured-content", {"location": "New York"}),
                ("everything", "echo", {"message": "${s3.output.temperature} there, ${s1.text}"}),
            ),
        )
    assert "hello" in task.results["s1"].text
    assert "42" in task.results["s2"].text
    assert task.results["s3"].output
    assert f"{task.results['s3'].output['temperature']} there" in task.results["s4"].text


@pytest.mark.slow
async def test_the_npm_filesystem_server_works_over_stdio_and_its_refusal_is_an_ordinary_failure(house: House) -> None:
    entry = node_server("files", "@modelcontextprotocol/server-filesystem", str(house.files))
    register(house, entry)
    async with house.open() as runtime:
        place = str(house.files / "note.txt")
        await run_to_completion(
            runtime,
            plan(
                ("files", "write_file", {"path": place, "content": "from a plan"}),
                ("files", "read_text_file", {"path": place}),
            ),
        )
        assert (house.files / "note.txt").read_text() == "from a plan"
        outside = plan(("files", "read_text_file", {"path": "/etc/hostname"}))
        task = await submit_plan(runtime, outside)
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        ended = await until_settled(runtime, task.task_id)
    assert ended.status is TaskStatus.FAILED
    assert ended.error
    assert ended.error.code == "tool_error"


@pytest.mark.slow
async def test_an_environment_of_the_service_does_not_reach_a_server(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-secret-of-the-service")
    monkeypatch.setenv("PLANTED", "declared-and-therefore-known")
    entry = node_server("everything", "@modelcontextprotocol/server-everything", "stdio")
    entry["config"]["env"] = {"GIVEN": "${env:PLANTED}"}
    register(house, entry)
    async with house.open() as runtime:
        task = await run_to_completion(runtime, plan(("everything", "get-env", {})))
        journal = "".join(record.data for record in await runtime.tasks.records(task.task_id, ANYBODY))
    assert "GIVEN" in task.results["s1"].text
    assert "sk-planted-secret" not in journal
    assert "declared-and-therefore-known" not in journal


@pytest.fixture
def http_server() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(HTTP_SERVER), str(port)], env={**os.environ}, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait(10)


async def until_it_listens(url: str) -> None:
    port = int(url.rpartition(":")[2].partition("/")[0])

    async def connects() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await eventually(connects)


@pytest.mark.slow
async def test_a_server_over_streamable_http_works_and_gets_its_headers(
    house: House, http_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_TOKEN", "token-for-the-test")
    headers = {"X-Token": "Bearer ${env:HTTP_TOKEN}"}
    register(house, {"id": "remote", "type": "remote_http", "config": {"base_url": http_server, "headers": headers}})
    await until_it_listens(http_server)
    async with house.open() as runtime:
        task = await run_to_completion(
            runtime, plan(("remote", "echo", {"message": "over HTTP"}), ("remote", "who", {}))
        )
        journal = "".join(record.data for record in await runtime.tasks.records(task.task_id, ANYBODY))
    assert task.results["s1"].text == "over HTTP"
    assert task.results["s2"].text == "Bearer [redacted]"
    assert "token-for-the-test" not in journal


@pytest.mark.slow
async def test_a_server_over_http_that_is_not_there_is_unavailable_and_says_so(house: House) -> None:
    register(house, {"id": "remote", "type": "remote_http", "config": {"base_url": "http://127.0.0.1:9/mcp"}})
    async with house.open() as runtime:
        await runtime.registry.ready(["remote"], 20)
        status, *_ = runtime.registry.statuses()
    assert not status.connected
    assert "127.0.0.1" in status.detail or "connect" in status.detail


@pytest.mark.slow
async def test_the_npm_filesystem_server_serves_the_offline_planner(house: House) -> None:
    (house.files / "notes.txt").write_text("One line about tea.\nAnd one about coffee.\n", encoding="utf-8")
    local = {"*": {"open_world": False}}
    register(house, node_server("files", "@modelcontextprotocol/server-filesystem", str(house.files), tools=local))
    async with house.open() as runtime:
        submission = Submission(prompt="Read a file and summarize its contents, then write the summary to sum.txt")
        task = await runtime.tasks.submit(submission, ANYBODY)
        task = await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
        assert task.contract is not None
        assert [step.server for step in task.contract.steps if isinstance(step, ToolStep)] == [
            "files",
            "text",
            "files",
            "text",
            "files",
        ]
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        ended = await until_settled(runtime, task.task_id)
    assert ended.status is TaskStatus.COMPLETED, ended.error
    assert "tea" in (house.files / "sum.txt").read_text(encoding="utf-8")


@pytest.mark.slow
async def test_the_npm_filesystem_server_is_judged_as_the_package_that_it_is(house: House) -> None:
    start = install("@modelcontextprotocol/server-filesystem")
    command = house.folder / "mcp-server-filesystem"
    command.write_text(f'#!/bin/sh\nexec {NODE} {start} "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    config = {"command": str(command), "args": [str(house.files)]}
    register(house, {"id": "files", "type": "local_stdio", "config": config})
    async with house.open() as runtime:
        await runtime.registry.ready(["files"], 20)
        tools = runtime.registry.tools(["files"])
    effects = {tool.name: (tool.effect, tool.idempotent, tool.open_world) for tool in tools.values()}
    assert effects["read_text_file"] == (Effect.READ, False, False)
    assert effects["search_files"] == (Effect.READ, False, False)
    assert effects["write_file"] == (Effect.WRITE, True, False)
    assert effects["move_file"] == (Effect.DESTRUCTIVE, False, False)
