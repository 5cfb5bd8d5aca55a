"""The effects of public MCP servers that are known without settings of the operator."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_runtime.builtin.servers import ALWAYS
from agent_runtime.domain.deny import find_denial
from agent_runtime.domain.tools import BuiltinConfig, BuiltinServer, Effect, StdioConfig, StdioServer, ToolPolicy
from agent_runtime.registry.known_servers import add_known_servers, may_install

PROJECT = Path(__file__).parents[3]


def stdio(command: str, *args: str, **more: Any) -> StdioServer:
    return StdioServer(id="s", type="local_stdio", config=StdioConfig(command=command, args=args), **more)


def builtin(server_id: str, server: str, **more: Any) -> BuiltinServer:
    config = BuiltinConfig.model_validate({"server": server})
    return BuiltinServer(id=server_id, type="builtin", config=config, **more)


def ids(*entries: StdioServer | BuiltinServer) -> list[str]:
    return [entry.id for entry in add_known_servers(entries, ALWAYS)]


def test_calculator_and_text_exist_without_being_listed() -> None:
    assert ids() == ["calculator", "text"]
    assert ids(stdio("x")) == ["s", "calculator", "text"]


def test_what_is_listed_is_not_added_again_and_may_be_turned_off() -> None:
    off = builtin("calculator", "calculator", enabled=False)
    assert [entry.enabled for entry in add_known_servers([off], ALWAYS)] == [False, True]
    assert ids(builtin("sums", "calculator")) == ["sums", "text"]
    assert ids(builtin("text", "todo")) == ["text", "calculator"]


@pytest.mark.parametrize(
    "entry",
    [
        stdio("npx", "@modelcontextprotocol/server-filesystem", "src"),
        stdio("npx", "-y", "@modelcontextprotocol/server-filesystem@2026.8.31", "src"),
        stdio("/usr/bin/npx", "--yes", "@modelcontextprotocol/server-filesystem", "src"),
        stdio("mcp-server-filesystem", "src"),
    ],
    ids=["npx", "pinned", "by path", "installed"],
)
def test_the_files_package_is_known_however_it_is_run(entry: StdioServer) -> None:
    (known, *_) = add_known_servers([entry], ALWAYS)
    assert known.policy_for("write_file") == ToolPolicy(effect=Effect.WRITE, idempotent=True, open_world=False)
    assert known.policy_for("read_text_file").effect is Effect.READ
    assert known.policy_for("move_file") == ToolPolicy(open_world=False)


def test_the_fetch_package_reads_what_strangers_write() -> None:
    (known, *_) = add_known_servers([stdio("npx", "@kazuph/mcp-fetch")], ALWAYS)
    assert known.policy_for("imageFetch") == ToolPolicy(effect=Effect.READ, open_world=True)


@pytest.mark.parametrize(
    "registry", ["tool_registry.yaml", "container/tool_registry.yaml", "k8s/base/tool_registry.yaml"]
)
def test_the_fetch_package_writes_no_files_by_the_shipped_registries_either(registry: str) -> None:
    entries = yaml.safe_load((PROJECT / registry).read_text(encoding="utf-8"))["tool_registry"]
    (fetch,) = [StdioServer.model_validate(entry) for entry in entries if entry["id"] == "fetch"]
    (known, *_) = add_known_servers([stdio("mcp-fetch")], ALWAYS)
    assert fetch.deny == known.deny


@pytest.mark.parametrize(
    ("arguments", "writes"),
    [
        ({}, False),
        ({"images": True}, False),
        ({"images": {"output": "base64", "layout": "both"}}, False),
        ({"enableFetchImages": False, "saveImages": "false"}, False),
        ({"images": {"output": "file"}}, True),
        ({"images": {"output": "both"}}, True),
        ({"saveImages": True}, True),
        ({"saveImages": "TRUE"}, True),
        ({"enableFetchImages": True}, True),
        ({"enableFetchImages": "true"}, True),
    ],
)
def test_the_fetch_package_is_kept_from_writing_files(arguments: dict[str, Any], *, writes: bool) -> None:
    (known, *_) = add_known_servers([stdio("npx", "@kazuph/mcp-fetch@1.6.3")], ALWAYS)
    told = find_denial(known.deny, "imageFetch", {"url": "https://example.com/", **arguments})
    assert bool(told) == writes
    assert not told or "it writes files of images" in told


@pytest.mark.parametrize(
    "entry",
    [
        stdio("npx", "@modelcontextprotocol/server-filesystem", tools={"write_file": ToolPolicy(idempotent=False)}),
        stdio("npx", "@somebody/server-filesystem"),
        stdio("npx", "something", "@modelcontextprotocol/server-filesystem"),
        stdio("node", "@modelcontextprotocol/server-filesystem"),
        stdio("npx"),
    ],
    ids=["the operator speaks", "another package", "an argument", "no runner", "nothing"],
)
def test_nothing_is_assumed_of_other_entries(entry: StdioServer) -> None:
    assert add_known_servers([entry], ALWAYS)[0] == entry


@pytest.mark.parametrize("command", ["npx", "/usr/bin/npx", "uvx", "docker"])
def test_a_command_that_fetches_what_it_runs_may_install_it_first(command: str) -> None:
    assert may_install(stdio(command, "package"))


def test_other_servers_have_nothing_to_install() -> None:
    assert not may_install(stdio("node", "npx"))
    assert not may_install(builtin("npx", "text"))
