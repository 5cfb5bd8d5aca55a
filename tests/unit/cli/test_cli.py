"""The parts of the command line that do not need a service."""

import argparse
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from agent_runtime.api.views import task_view
from agent_runtime.cli import explaining, output
from agent_runtime.cli.arguments import parse
from agent_runtime.cli.client import Client, Frame, frames_of
from agent_runtime.cli.findings import packages_of
from agent_runtime.domain.tools import StdioConfig, StdioServer
from agent_runtime.text.escaping import escape_hidden
from agent_steps import AGENT, LAST, LOOK, contract_of, make_proposed_task


def test_serve_may_be_left_out() -> None:
    options = parse(["--port", "9", "--data-dir", "d"])
    assert (options.port, str(options.data_dir), options.log_level) == (9, "d", None)
    assert parse([]).port is None


@pytest.mark.parametrize("words", [["run"], ["serve", "extra"], ["--nonsense"], ["tasks", "--limit", "many"]])
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


def test_notes_on_a_plan_stand_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    output.plan_table(_task())
    assert capsys.readouterr().err.rstrip().endswith(r"Look closely: \u3164")


def test_a_long_argument_says_that_it_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.plan_table(_task(content="x" * 5000), to_stdout=True)
    assert "characters more" in " ".join(capsys.readouterr().out.split())


def test_frames_are_read_and_comments_are_not() -> None:
    lines = (
        b': keep-alive\n\nid: 1.0\nevent: task.submitted\ndata: {"a": 1}\n\nid: 1.1\ndata: Hello: you\n\nid: 2.0\nda'
    )
    frames = list(frames_of(lines.splitlines(keepends=True)))
    assert frames == [Frame("1.0", "task.submitted", '{"a": 1}'), Frame("1.1", "message", "Hello: you")]
    assert [frame.seq for frame in frames] == [1, 1]
    assert Frame("2.2", "message", "[DONE]").last


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
        ("uvx mcp-server-time", ["mcp-server-time has no exact version"]),
        ("uvx --from mcp-server-time>=1 mcp-server-time", ["mcp-server-time>=1 has no exact version"]),
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


class CutStreamHandler(BaseHTTPRequestHandler):
    """A stream that is cut after some progress, and that ends at the next request."""

    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.asked.append(self.headers["Last-Event-ID"])
        self.send_response(200)
        self.end_headers()
        if len(self.asked) == 1:
            self.wfile.write(b"id: 2.1\ndata: Planned\n\nevent: progress\ndata: {}\n\n")
        else:
            self.wfile.write(b"id: 3.2\ndata: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        pass


def test_progress_does_not_lose_the_place_in_a_stream_that_is_cut() -> None:
    CutStreamHandler.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), CutStreamHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            client = Client(lambda: f"http://127.0.0.1:{server.server_port}")
            frames = [frame.data for frame in client.follow("task_1")]
        finally:
            server.shutdown()
            thread.join(10)
    assert frames == ["Planned", "{}", "[DONE]"]
    assert CutStreamHandler.asked == [None, "2.1"]


def test_a_plan_is_shown_with_all_that_is_approved_with_it(capsys: pytest.CaptureFixture[str]) -> None:
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
