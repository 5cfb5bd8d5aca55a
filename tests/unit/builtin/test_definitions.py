"""Rules for every tool of every built-in server."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import TextContent, Tool

from agent_runtime.builtin.servers import SERVERS, create
from agent_runtime.builtin.serving import make_mcp_server
from agent_runtime.builtin.toolbox import READS, Answer, Output, Toolbox, make_tool, make_toolbox
from agent_runtime.domain.builtin_sentences import SENTENCES
from agent_runtime.domain.tools import BuiltinConfig, BuiltinServer, Effect, ToolDefinition, describe_tool

Ask = Callable[..., Awaitable[Any]]

EFFECTS = {
    "filesystem/read_file": (Effect.READ, True),
    "filesystem/write_file": (Effect.DESTRUCTIVE, True),
    "filesystem/append_file": (Effect.WRITE, False),
    "filesystem/read_files": (Effect.READ, True),
    "filesystem/copy_file": (Effect.WRITE, False),
    "filesystem/move_file": (Effect.WRITE, False),
    "filesystem/delete_file": (Effect.DESTRUCTIVE, False),
    "filesystem/list_directory": (Effect.READ, True),
    "filesystem/create_directory": (Effect.WRITE, True),
    "filesystem/search_files": (Effect.READ, True),
    "filesystem/file_info": (Effect.READ, True),
    "calculator/add": (Effect.READ, True),
    "calculator/subtract": (Effect.READ, True),
    "calculator/multiply": (Effect.READ, True),
    "calculator/divide": (Effect.READ, True),
    "calculator/evaluate": (Effect.READ, True),
    "todo/add": (Effect.WRITE, False),
    "todo/list": (Effect.READ, True),
    "todo/complete": (Effect.WRITE, False),
    "todo/delete": (Effect.DESTRUCTIVE, False),
    "todo/complete_all": (Effect.WRITE, False),
    "todo/delete_all": (Effect.DESTRUCTIVE, False),
    "text/summarize": (Effect.READ, True),
    "text/count_words": (Effect.READ, True),
    "text/find": (Effect.READ, True),
    "text/head": (Effect.READ, True),
    "text/tail": (Effect.READ, True),
    "text/today": (Effect.READ, True),
}


def make_builtin(name: str, folder: Path) -> Toolbox:
    return create(BuiltinConfig.model_validate({"server": name}), base_dir=folder, data_dir=folder)


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


async def tools_of(server: Toolbox) -> list[Tool]:
    async with Client(make_mcp_server(server)) as client:
        return (await client.list_tools()).tools


async def test_every_tool_has_the_effect_that_it_claims(tmp_path: Path) -> None:
    found = {}
    for name in SERVERS:
        entry = BuiltinServer(id=name, type="builtin", config=BuiltinConfig(server=name))
        for tool in await tools_of(make_builtin(name, tmp_path)):
            definition = ToolDefinition.model_validate(tool.model_dump(by_alias=True, exclude_none=True))
            described = describe_tool(entry, definition)
            found[described.key] = (described.effect, described.idempotent)
            assert described.open_world is False
    assert found == EFFECTS


@pytest.mark.parametrize("name", SERVERS)
async def test_every_schema_is_valid_closed_and_described(name: str, tmp_path: Path) -> None:
    for tool in await tools_of(make_builtin(name, tmp_path)):
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.output_schema is not None
        Draft202012Validator.check_schema(tool.output_schema)
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema["additionalProperties"] is False
        assert tool.description
        assert all(each["description"] for each in tool.input_schema["properties"].values())


@pytest.mark.parametrize("name", SERVERS)
async def test_making_a_server_touches_nothing(name: str, tmp_path: Path) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    make_builtin(name, tmp_path / "absent")
    assert (list(root.handlers), root.level) == before
    assert names_in(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
async def test_every_server_answers_on_standard_streams(name: str, tmp_path: Path) -> None:
    options = {"filesystem": ["--root", str(tmp_path)], "todo": ["--data-dir", str(tmp_path)]}.get(name, [])
    parameters = StdioServerParameters(command=sys.executable, args=["-m", f"agent_runtime.builtin.{name}", *options])
    calls: dict[str, tuple[str, dict[str, object], str]] = {
        "filesystem": ("write_file", {"path": "a.txt", "content": "x"}, "Wrote 1 byte to a.txt."),
        "calculator": ("add", {"a": 40, "b": 2}, "42"),
        "todo": ("add", {"text": "buy milk"}, "Added todo 1: buy milk"),
        "text": ("count_words", {"text": "one two"}, "2"),
    }
    tool, arguments, expected = calls[name]
    async with asyncio.timeout(30), Client(parameters, mode="legacy") as client:
        result = await client.call_tool(tool, arguments)
    assert [block.text for block in result.content if isinstance(block, TextContent)] == [expected]


async def test_an_unknown_argument_is_refused_and_the_known_ones_are_named(ask: Ask, tmp_path: Path) -> None:
    answer = await ask(make_builtin("text", tmp_path), "head", txet="a")
    assert answer.is_error
    assert answer.text == "head needs the argument 'text'. head has no argument 'txet'; it has: text, lines."


@pytest.mark.parametrize("wrong", ["1", True, None, [1]])
async def test_an_argument_of_another_type_is_refused_and_not_converted(
    wrong: object, ask: Ask, tmp_path: Path
) -> None:
    answer = await ask(make_builtin("calculator", tmp_path), "add", a=wrong, b=1)
    assert answer.is_error
    assert answer.text == "a: Input should be a valid number."


async def test_text_over_one_mebibyte_is_refused(ask: Ask, tmp_path: Path) -> None:
    answer = await ask(make_builtin("text", tmp_path), "count_words", text="x" * (1024 * 1024 + 1))
    assert answer.is_error
    assert "1048576" in answer.text


async def test_what_a_crash_says_stays_on_the_server(
    ask: Ask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down() -> Answer[Output]:
        """Break."""
        raise RuntimeError(str(tmp_path))

    server = make_toolbox("broken", "", [make_tool(break_down, READS)])
    answer = await ask(server, "break_down")
    assert answer.is_error
    assert answer.text == "The tool break_down failed unexpectedly; see the log."
    assert any(record.exc_info and record.exc_info[0] is RuntimeError for record in caplog.records)


async def test_a_tool_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    answer = await make_builtin("calculator", tmp_path).call("power", {})
    assert answer["isError"]
    said = "There is no tool 'power'; there are: add, subtract, multiply, divide, evaluate."
    assert answer["content"] == [{"type": "text", "text": said}]


async def test_the_root_is_relative_to_the_base_folder(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    config = BuiltinConfig(server="filesystem", root="./files")
    server = create(config, base_dir=tmp_path, data_dir=tmp_path / "data")
    await ask(server, "write_file", path="a.txt", content="a")
    assert (tmp_path / "files" / "a.txt").read_text(encoding="utf-8") == "a"


def test_every_tool_has_a_sentence_of_its_own() -> None:
    assert {"/".join(named) for named in SENTENCES} == set(EFFECTS)
