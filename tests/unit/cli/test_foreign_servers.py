"""The servers of another MCP client become entries of the registry, and its comments stay."""

from typing import Any

import pytest
import yaml

from agent_runtime.builtin.servers import SERVERS
from agent_runtime.cli.foreign_servers import convert_servers, read_servers
from agent_runtime.cli.registry_editing import append_entries, format_entries
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.registry.file import load_registry

CLAUDE = """{
  // the servers of Claude Desktop
  "mcpServers": {
    "files": {"command": "npx", "args": ["-y", "server // files", "/srv,}"],}, /* a comma too many */
  },
}"""


@pytest.mark.parametrize(
    "text", [CLAUDE, CLAUDE.replace("mcpServers", "servers"), f'{{"mcp": {CLAUDE.replace("mcpServers", "servers")}}}']
)
def test_comments_and_commas_too_many_are_read_over(text: str) -> None:
    assert read_servers(text, "file") == {"files": {"command": "npx", "args": ["-y", "server // files", "/srv,}"]}}


@pytest.mark.parametrize("text", ["{", "[]", '{"tools": {}}', "3"])
def test_a_file_without_servers_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"mine\.json"):
        read_servers(text, "mine.json")


def convert(server: dict[str, Any], name: str = "github") -> tuple[dict[str, Any], dict[str, str]]:
    imported = convert_servers({name: server}, ())
    assert not imported.skipped
    (entry,) = imported.entries
    return entry, imported.variables


def test_secrets_become_variables_that_are_listed() -> None:
    entry, variables = convert(
        {
            "command": "npx",
            "args": ["-y", "server", "--api-key=abcdefghijklmnop", "--token", "abcdefghijklmnop"],
            "env": {"GITHUB_TOKEN": "ghp_abcdefghijklmnop", "LEVEL": "debug", "PORT": 5},
        }
    )
    assert entry["type"] == "local_stdio"
    assert entry["config"]["env"] == {"GITHUB_TOKEN": "${env:GITHUB_TOKEN}", "LEVEL": "debug", "PORT": "5"}
    assert entry["config"]["args"][2:] == ["--api-key=${env:GITHUB_API_KEY}", "--token", "${env:GITHUB_TOKEN}"]
    assert set(variables) == {"GITHUB_TOKEN", "GITHUB_API_KEY"}
    assert "abcdefghijklmnop" not in format_entries([entry])


def test_a_header_keeps_its_scheme() -> None:
    entry, variables = convert(
        {"type": "sse", "url": "https://example.com/sse", "headers": {"Authorization": "Bearer abcdefghijklmnop"}}
    )
    assert entry["type"] == "remote_http"
    assert entry["config"]["headers"] == {"Authorization": "Bearer ${env:GITHUB_AUTHORIZATION}"}
    assert list(variables) == ["GITHUB_AUTHORIZATION"]
    assert variables["GITHUB_AUTHORIZATION"].endswith("headers.Authorization without 'Bearer'")


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ("${TOKEN}", "${env:TOKEN}"),
        ("${TOKEN:-none}", "${env:TOKEN}"),
        ("$TOKEN", "${env:TOKEN}"),
        ("${env:TOKEN}", "${env:TOKEN}"),
        ("${input:my-token}", "${env:MY_TOKEN}"),
        ("${{ secrets.TOKEN }}", "${env:TOKEN}"),
        ("{env:TOKEN}", "${env:TOKEN}"),
        ("${workspaceFolder}/notes", "./notes"),
        ("costs 5 $ {a}", "costs 5 $ {a}"),
    ],
)
def test_variables_of_other_clients_are_written_our_way(written: str, ours: str) -> None:
    entry, _ = convert({"command": "npx", "env": {"VALUE": written}})
    assert entry["config"]["env"] == {"VALUE": ours}


def test_a_name_that_is_no_id_is_kept_for_people_and_what_is_off_stays_off() -> None:
    entry, _ = convert({"command": "uvx mcp-server-time", "disabled": True}, "My time!")
    assert (entry["id"], entry["name"], entry["enabled"]) == ("My-time", "My time!", False)
    assert entry["config"] == {"command": "uvx", "args": ["mcp-server-time"]}


def test_entries_that_exist_are_left_out_and_so_is_what_is_no_server() -> None:
    imported = convert_servers({"files": {"command": "x"}, "odd": {"foo": 1}, "worse": 3}, ["files"])
    assert imported.entries == []
    assert set(imported.skipped) == {"files", "odd", "worse"}


REGISTRY = """\
# Ours.
tool_registry:   # the list
    # the first
    - id: files   # with a comment
      type: builtin
      config: {server: filesystem}
    # - id: later
"""


@pytest.mark.parametrize("text", [REGISTRY, "# Ours.\ntool_registry: []   # none\n", "tool_registry:\n"])
def test_entries_are_added_at_the_end_and_all_else_stays(text: str) -> None:
    entry, _ = convert({"command": "npx", "args": ["-y", "server"]})
    new = append_entries(text, [entry], "registry")
    before = yaml.safe_load(text)["tool_registry"] or []
    assert yaml.safe_load(new) == {"tool_registry": [*before, entry]}
    assert [line for line in text.splitlines() if "#" in line and "none" not in line] == [
        line for line in new.splitlines() if "#" in line
    ]


def test_a_list_that_cannot_be_continued_is_refused_with_what_to_add() -> None:
    entry, _ = convert({"command": "npx"})
    with pytest.raises(ConfigurationError, match="Add this by hand"):
        append_entries("tool_registry: [{id: a, type: builtin, config: {server: text}}]\n", [entry], "registry")


def test_what_is_converted_can_be_read(tmp_path: Any) -> None:
    entries = [
        convert({"command": "npx", "args": ["x"], "env": {"A": "b"}, "cwd": "."}, "one")[0],
        convert({"url": "https://example.com/mcp", "headers": {"X-Api-Key": "abcdefghijklmnop"}}, "two")[0],
    ]
    loaded = load_registry(tmp_path / "registry.yaml", SERVERS, append_entries("tool_registry:\n", entries, "x"))
    assert [entry.id for entry in loaded] == ["one", "two"]
