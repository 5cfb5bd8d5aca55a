"""The parts of the command line that do not need a service."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.api.views import task_view
from agent_runtime.cli import explaining, output
from agent_runtime.cli.arguments import parse
from agent_runtime.cli.findings import packages_of
from agent_runtime.cli.task_ids import complete_id
from agent_runtime.domain.errors import InvalidInputError
from agent_runtime.domain.tools import StdioConfig, StdioServer
from agent_runtime.text.escaping import escape_hidden
from agent_steps import AGENT, LAST, LOOK, contract_of, make_proposed_task
from command_line import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_serve_may_be_left_out() -> None:
    options = parse(["--port", "9", "--data-dir", "d"])
    assert (options.port, str(options.data_dir), options.log_level) == (9, "d", None)
    assert parse([]).port is None


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "Add 1 and 2", "--plan", "x"],
        ["serve", "extra"],
        ["--nonsense"],
        ["tasks", "--limit", "many"],
        ["tasks", "--status", "x"],
    ],
)
def test_wrong_usage_ends_with_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("other", [["task"], ["--file", "export.json"]])
def test_a_head_is_of_a_whole_store(other: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["audit", "verify", "--head", "1:sha256:0", *other])
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["['--version']", "['--help']", "['run', '--help']"])
def test_asking_for_help_imports_no_library(words: str) -> None:
    heavy = "{'agents', 'mcp', 'fastapi', 'pydantic', 'rich', 'uvicorn', 'structlog'} & set(sys.modules)"
    code = f"""
import sys
from agent_runtime.cli import main
try:
    main({words})
except SystemExit as ended:
    assert ended.code == 0, ended.code
assert not {heavy}, {heavy}
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=30)


HEAVY = frozenset({"mcp", "mcp_types", "fastapi", "uvicorn", "httpx2", "agents", "openai"})
"""The libraries that take long to import: of MCP, of the web and of language models."""


@pytest.mark.parametrize("words", [["tasks"], ["show", "last"], ["planning", "last"], ["reject", "last"]])
def test_a_command_without_a_service_imports_neither_mcp_nor_the_web_framework(
    words: list[str], folder: Folder
) -> None:
    folder.propose_task()
    assert import_in(folder, *words) & HEAVY == set()


def test_a_task_of_built_in_tools_is_run_without_mcp_and_the_web_framework(folder: Folder) -> None:
    brought = {"uvicorn"}  # by sse-starlette, which writes the frames of the task
    assert import_in(folder, "run", "Add 15 and 27", "--yes") & HEAVY == brought


def import_in(folder: Folder, *words: str) -> set[str]:
    """Run a command to its end, and return the modules that it has imported."""
    code = (
        f"import sys; from agent_runtime.cli import main; code = main({list(words)}); "
        "print('modules:', *sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder.path,
        env=folder.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.slow
def test_no_part_of_the_command_line_imports_the_model_library() -> None:
    code = (
        "import sys, agent_runtime.cli.commands, agent_runtime.cli.doctor, agent_runtime.cli.serve; "
        "import agent_runtime.api.server; assert 'agents' not in sys.modules; "
        "assert not [name for name in sys.modules if name.startswith('agent_runtime.models')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ☕ text", "plain ☕ text"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("evil\u202etxt.exe", "evil\\u202etxt.exe"),
        ("a\u200bb\x00c\x9b", "a\\u200bb\\x00c\\x9b"),
        ("two\nlines\ttab", "two\\nlines\\ttab"),
        ("\ud800", "\\ud800"),
    ],
)
def test_a_terminal_is_shown_nothing_that_it_would_obey(text: str, shown: str) -> None:
    assert escape_hidden(text) == shown
    assert escape_hidden("a\nb", keep="\n") == "a\nb"


def _task(**arguments: Any) -> dict[str, Any]:
    step = {
        "id": "s1",
        "title": "Do \x1b[1mit",
        "kind": "tool",
        "server": "files",
        "tool": "write",
        "arguments": arguments,
        "depends_on": [],
    }
    contract = {"goal": "goal", "steps": [step]}
    preview = {"effect": "write", "idempotent": False, "asks": None}
    task = {"task_id": "task_1", "plan_revision": 1, "plan_object": contract, "steps": [{"preview": preview}]}
    return {**task, "plan_notes": ["Look closely: \u3164"]}


def test_a_plan_is_shown_whole_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    output.plan_table(_task(path="[bold]a[/bold].txt", content="x\u202ey"), to_stdout=True)
    shown = capsys.readouterr().out
    assert 'path = "[bold]a[/bold].txt"' in shown
    assert "x\\u202ey" in shown
    assert "\x1b" not in shown
    assert "files.write" in shown


def test_a_call_is_shown_on_lines_that_it_cannot_forge(capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {
        "step_id": "s1",
        "server": "f",
        "tool": "to\nol\ufe0f",
        "reason": "why",
        "arguments": {"a\nb\u3164": "\u115f"},
    }
    explaining.show_call(asked)
    assert capsys.readouterr().err.splitlines() == [
        r"Step s1 asks before it calls f.to\nol\ufe0f: why",
        r'  a\nb\u3164 = "\u115f"',
    ]


def test_a_table_is_readable_where_there_is_little_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    output.plan_table(_task(path="a" * 70 + ".txt", content="x"), to_stdout=True)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert next(line for line in lines if line.startswith("Tool")).split() == ["Tool", "files.write"]
    assert sum(line.startswith("Arguments") for line in lines) == 1
    output.table("", ("", ""), [("Task", "t"), ("Status", "completed")])
    assert "Task     t" in capsys.readouterr().out


@pytest.mark.parametrize(("width", "first"), [("60", "Step  s1"), ("80", "")])
def test_the_name_of_a_tool_is_never_broken(
    width: str, first: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    name = f"files.{'write_' * 5}"
    output.table("", ("Step", "What", "Tool"), [("s1", "words of a title " * 9, name)], whole={"Tool"})
    shown = capsys.readouterr().out
    assert name in shown
    assert shown.partition("\n")[0].strip() == first


def test_the_names_of_facts_are_whole_however_long_the_facts_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    output.table("", ("", ""), [("Plan digest", "sha256:" + "0" * 64), ("What it does", "words " * 40)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "Plan digest sha256:0" in shown
    assert "What it does words" in shown
    assert shown.count("0") == 64
    assert shown.count("words") == 40


def test_a_finding_is_shown_whole_where_there_is_little_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    output.print_finding("config", "ok", "/folder" * 9)
    assert "/folder" * 9 in "".join(capsys.readouterr().out.split())


def test_every_command_that_prints_facts_has_json() -> None:
    for words in (
        "run x",
        "tasks",
        "show x",
        "watch x",
        "planning x",
        "approve x",
        "reject x",
        "revise x y",
        "rerun x",
    ):
        assert parse([*words.split(), "--json"]).json
    for words in (
        "rerun x",
        "cancel x",
        "answer x --question q --decline",
        "answer x --question q --dismiss",
        "resolve x --step s --as done",
        "tools",
        "reload",
    ):
        assert parse([*words.split(), "--json"]).json
    for words in ("doctor", "audit verify", "audit head", "audit checkpoint", "audit export x", "migrate"):
        assert parse([*words.split(), "--json"]).json


def test_notes_on_a_plan_stand_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    output.plan_table(_task())
    assert capsys.readouterr().err.rstrip().endswith(r"Look closely: \u3164")


def test_a_long_argument_says_that_it_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.plan_table(_task(content="x" * 5000), to_stdout=True)
    assert "characters more" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("command", "warned"),
    [
        ("node server.js", []),
        ("npx @scope/server@1.2.3 ./data", []),
        ("npx -y @scope/server@1.2.3 ./data", ["-y may download"]),
        ("npx @scope/server ./data", ["@scope/server has no exact version"]),
        ("/usr/bin/npx -y server", ["server has no exact version"]),
        ("npx server@latest", ["server@latest has no exact version"]),
        ("npx server@^1.2.3", ["server@^1.2.3 has no exact version"]),
        ("npx --package=tool@1.0.0 -p other run", ["other has no exact version"]),
        ("npx -c something server", ["server has no exact version"]),
        ("npm exec server@1.0.0-beta.2", []),
        ("uvx mcp-server-time==2026.10", []),
        ("uvx mcp-server-time@2026.10", []),
        ("uvx mcp-server-time", ["write NAME@VERSION"]),
        ("uvx --from mcp-server-time>=1 mcp-server-time", ["mcp-server-time>=1 has no exact version"]),
        ("uvx --with mcp python server.py", ["write NAME==VERSION"]),
        ("uvx --with=mcp python server.py", ["write NAME==VERSION"]),
        ("uvx --python 3.11 mcp-server-time@latest", ["mcp-server-time@latest has no exact version"]),
        ("uv tool run mcp-server-time", ["mcp-server-time has no exact version"]),
        ("uv run server.py", []),
        ("pipx run mcp-server-time", ["mcp-server-time has no exact version"]),
        ("uvx ./local", []),
    ],
)
def test_packages_without_an_exact_version_are_named(command: str, warned: list[str]) -> None:
    name, *args = command.split()
    entry = StdioServer(id="x", type="local_stdio", config=StdioConfig(command=name, args=tuple(args)))
    details = [finding.detail for finding in packages_of(entry)]
    assert len(details) == len(warned)
    assert all(part in detail for part, detail in zip(warned, details, strict=True))


def test_the_name_of_an_argument_cannot_forge_another_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.plan_table(_task(**{"a\nb\u202e": "x"}), to_stdout=True)
    assert r'a\nb\u202e = "x"' in capsys.readouterr().out


@pytest.mark.parametrize(("needed_by", "times"), [(["s2", "s4"], 1), ([], 0)])
def test_who_is_asked_about_a_step_is_told_what_a_skip_takes_along(
    needed_by: list[str], times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {
        "kind": "outcome_unknown",
        "step_id": "s1",
        "server": "files",
        "tool": "write",
        "reason": "the answer was lost",
        "needed_by": needed_by,
        "actions": ["done", "skip"],
    }
    task = {"task_id": "t", "error": None, "terminal": False, "status": "needs_attention", "attention": [asked]}
    options = argparse.Namespace(server=None, config=None, registry=None, data_dir=None, key_file=None)
    explaining.explain(options, task)
    assert capsys.readouterr().err.count("Skipping it also skips the steps that need it: s2, s4.") == times


@pytest.mark.parametrize(
    ("variables", "started", "words"),
    [
        ({"UV_RUN_RECURSION_DEPTH": "1"}, "/x/bin/agent-runtime", ["uv", "run", "agent-runtime"]),
        ({}, "/x/agent_runtime/__main__.py", [sys.executable, "-m", "agent_runtime"]),
        ({"PATH": "/nowhere"}, "/x/bin/agent-runtime", ["/x/bin/agent-runtime"]),
    ],
)
def test_a_hint_begins_as_the_command_was_started(
    variables: dict[str, str], started: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", [started])
    assert explaining.command_words() == words


def test_a_prefix_that_only_one_task_has_becomes_its_id() -> None:
    ids = [f"task_{'ab' * 15}{end}" for end in ("22", "11")]
    for typed, whole in ((ids[1][:-1], ids[1]), ("last", ids[0]), (ids[0][5:-1], ids[0]), ("../x", "../x")):
        options = argparse.Namespace(task_id=typed)
        complete_id(options, lambda: iter(ids))
        assert options.task_id == whole
    with pytest.raises(InvalidInputError, match="2 tasks begin with 'task_ab'"):
        complete_id(argparse.Namespace(task_id="task_ab"), lambda: iter(ids))
    complete_id(argparse.Namespace(), lambda: iter(ids))


def test_a_plan_is_shown_with_all_that_is_approved_with_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no cell is broken into lines
    free = {**AGENT, "id": "free", "preapproved": True, "max_turns": 7}
    text = {**AGENT, "id": "text", "tools": [], "when": '${look.text} != "none"'}
    last = {**LAST, "depends_on": ["do", "free"], "preapproved": True}
    task = dict(task_view(make_proposed_task(contract_of(LOOK, AGENT, free, text, last))))
    output.plan_table(task, to_stdout=True)
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("f.read x2", "f.write x1", "write, asks for each call", "write, preapproved", "at most 7 turns"):
        assert part in shown
    assert "only when ${look.text}" in shown
    assert "after do, free" in shown
    assert "destructive, preapproved" in shown
