"""The first hour at the command line: a folder of one's own, tools by hand, plans from files, servers of others."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Folder, terminal


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    """Return a folder without a registry; the home of its user is elsewhere."""
    folder = Folder(tmp_path)
    (tmp_path / "tool_registry.yaml").unlink()
    folder.files.rmdir()
    home = tmp_path / "home"
    home.mkdir()
    folder.path = tmp_path / "here"
    folder.path.mkdir()
    folder.env["HOME"] = str(home)
    return folder


@pytest.mark.slow
def test_init_makes_a_project_that_works_and_overwrites_nothing(empty: Folder) -> None:
    (empty.path / "config.yaml").write_text("data_dir: mine\n", encoding="utf-8")
    assert empty.json("init")["kept"] == ["config.yaml"]
    assert (empty.path / "config.yaml").read_text(encoding="utf-8") == "data_dir: mine\n"
    done = empty("run", "Write a message saying hello to a file called hello.txt", "--yes")
    assert done.returncode == 0, done.stderr
    assert (empty.path / "files" / "hello.txt").read_text(encoding="utf-8") == "hello"
    assert (empty.path / "mine").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("state", [None, "state"])
def test_outside_a_project_tasks_are_kept_in_the_state_folder_of_the_user(empty: Folder, state: str | None) -> None:
    kept = Path(empty.env["HOME"]) / ".local" / "state"
    if state:
        kept = empty.path.parent / state
        empty.env["XDG_STATE_HOME"] = str(kept)
    done = empty("run", "Add 15 and 27", "--yes")
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    assert list(empty.path.iterdir()) == []
    assert (kept / "agent-runtime" / "agent-runtime.db").is_file()
    assert [task["status"] for task in empty.json("tasks")["tasks"]] == ["completed"]


def test_a_tool_is_called_by_hand_and_its_plan_is_shown_and_approved(folder: Folder) -> None:
    shown = folder("tools", "show", "calculator.add")
    assert "call calculator.add a=A b=B" in shown.stderr
    assert folder.json("tools", "show", "calculator.add")["effect"] == "read"
    assert "calculator.divide" in folder("tools", "show", "calculator").stdout
    with terminal(folder, "call", "calculator.add", "a=15", "b=27") as called:
        called.wait_for("[y/n/r]")
        assert "b = 27" in called.shown
        called.type("y\n")
        assert called.finish() == (0, "42\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("calculator.ad", "a=1"), "did you mean calculator.add"),
        (("add", "a=1", "b=2"), "did you mean calculator.add?"),
        (("calculater.add", "a=1", "b=2"), "did you mean calculator.add?"),
        (("calculator", "a=1", "b=2"), "`agent-runtime tools show calculator` lists"),
        (("nothing", "a=1"), "write SERVER.TOOL. The servers are calculator, filesystem, text."),
        (("calculator.add", "a=1"), "agent-runtime: b: This is required"),
        (("calculator.add", "a=one", "b=2"), "'one' is not of type 'number'"),
        (("calculator.add", "a"), "Write name=value"),
        (("text.summarize", "text=x"), "There is no tool 'text.summarize'"),
    ],
)
def test_a_call_that_cannot_be_made_is_refused_with_what_to_do(folder: Folder, words: list[str], said: str) -> None:
    done = folder("call", *words, "--yes")
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.slow
def test_a_plan_is_run_from_a_file_taken_out_edited_and_put_back(folder: Folder) -> None:
    step = "{id: s1, kind: tool, server: calculator, tool: add, arguments: {a: 15, b: 27}}"
    proposed = folder("run", "--plan", "-", says=f"goal: Add\nsteps: [{step}]\n")
    task_id = proposed.stdout.strip()
    assert proposed.returncode == 3, proposed.stderr
    text = folder("plan", task_id).stdout
    assert text.startswith(f"# Plan of {task_id}, revision 1: sha256:")
    file = folder.path / "plan.yaml"
    file.write_text(text.replace("27", "1"), encoding="utf-8")
    edited = folder("edit", task_id, str(file))
    assert edited.returncode == 3
    assert "b = 1" in edited.stderr
    outdated = folder("edit", task_id, str(file))
    assert outdated.returncode == 1
    digest = folder.json("show", task_id)["plan_digest"]
    assert folder.json("approve", task_id, "--digest", digest)["result"] == "16"


def test_the_faults_of_a_plan_are_told_one_on_each_line_by_their_places_in_the_file(folder: Folder) -> None:
    step = "{id: s1, kind: tool, server: calculator, tool: ad, arguments: {a: 15}}"
    refused = folder("run", "--plan", "-", says=f"goal: Add\nlimit: 1\nsteps: [{step}, {{id: s2}}]\n")
    assert refused.returncode == 1
    kind, limit = refused.stderr.splitlines()
    assert kind == "agent-runtime: -: steps[1].kind: This field is required: 'tool' or 'agent'."
    assert limit.startswith("agent-runtime: -: limit: ")


@pytest.mark.parametrize(
    ("words", "shown", "printed"),
    [
        (("tools",), "Asking the servers for their tools", "calculator.add"),
        (("tools", "show", "slow"), "Asking for the tools", ""),
        (("doctor",), "Checking", "server slow"),
    ],
)
def test_a_person_who_waits_for_a_server_sees_what_goes_on(
    folder: Folder, words: tuple[str, ...], shown: str, printed: str
) -> None:
    waiting = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    config = {"command": sys.executable, "args": ["-S", "-E", "-c", waiting], "cwd": str(folder.path)}
    folder.write_registry({"id": "slow", "type": "local_stdio", "config": config})
    with terminal(folder, *words) as waits:
        waits.wait_for(shown)
        (folder.path / "go").touch()
        _, result = waits.finish()
    assert printed in result
    assert shown not in result


@pytest.mark.slow
def test_the_server_of_the_documentation_works(folder: Folder) -> None:
    start = (Path(__file__).parents[2] / "docs" / "start.md").read_text(encoding="utf-8")
    (folder.path / "weather.py").write_text(start.split("```python\n")[1].partition("```")[0], encoding="utf-8")
    config = {"command": sys.executable, "args": ["weather.py"]}
    folder.write_registry({"id": "weather", "type": "local_stdio", "config": config})
    done = folder("call", "weather.forecast", "city=Berlin", "days=3", "--yes")
    assert done.stdout == "Berlin: sun for 3 days\n", done.stderr


@pytest.mark.slow
def test_servers_of_another_client_are_shown_and_then_added(folder: Folder) -> None:
    registry = folder.path / "tool_registry.yaml"
    registry.write_text(f"# ours\n{registry.read_text(encoding='utf-8')}", encoding="utf-8")
    servers = {"calculator": {"command": "x"}, "web": {"url": "http://127.0.0.1:9/mcp", "headers": {"X-Key": "s" * 20}}}
    file = folder.path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    before = registry.read_text(encoding="utf-8")
    shown = folder("tools", "import", str(file))
    assert (shown.returncode, registry.read_text(encoding="utf-8")) == (3, before)
    assert "id: web" in shown.stdout
    assert "export WEB_X_KEY=" in shown.stderr
    assert "s" * 20 not in shown.stdout + shown.stderr
    assert folder.json("tools", "import", str(file), "--yes")["written"]
    assert registry.read_text(encoding="utf-8").startswith(before.rstrip())
    again = folder.json("tools", "import", str(file), "--yes")
    assert (again["entries"], set(again["skipped"])) == ([], {"calculator", "web"})


@pytest.mark.slow
def test_what_cannot_be_imported_is_refused_with_the_file_that_it_is_about(folder: Folder) -> None:
    file, registry = folder.path / "mcp.json", folder.path / "tool_registry.yaml"
    before = registry.read_bytes()
    file.write_text(json.dumps({"mcpServers": {"a": {"url": "ftp://127.0.0.1/"}}}), encoding="utf-8")
    refused = folder("tools", "import", str(file), "--yes")
    assert refused.returncode == 2
    assert f"{registry}: entry 'a': " in refused.stderr
    assert registry.read_bytes() == before
    file.write_text(json.dumps({"mcpServers": {"a": {"command": "true"}}}), encoding="utf-8")
    unwritten = folder("tools", "import", str(file), "--yes", "--registry", "missing/registry.yaml")
    assert unwritten.returncode == 2
    assert "missing/registry.yaml: cannot be written: No such file" in unwritten.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(folder: Folder, shell: str) -> None:
    script = folder("completion", shell).stdout
    for word in ("doctor", "import", "--from-failed-step"):
        assert word in script or word.removeprefix("--") in script
    if shell == "bash":
        code = f"{script}\nCOMP_WORDS=(agent-runtime do); COMP_CWORD=1; _shtab_agent_runtime; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=30, check=True)
        assert "doctor" in done.stdout.split()
