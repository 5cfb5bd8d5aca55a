"""The examples of the documentation, run against a service.

The `sh` blocks of a page run in order in one shell, and so do the `python` blocks of the page of the Python client. A
`json` or `text` block right after one shows its output: all that it contains must be there, and `...` matches anything.
`console` blocks are not run.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from agent_runtime.api.app import create_app
from agent_runtime.config import Secrets, Settings
from command_line import Folder
from serving import PATIENCE_S, Service
from waiting import eventually_sync

ROOT = Path(__file__).parents[2]
LEDGER_SERVER = ROOT / "tests" / "servers" / "ledger_server.py"
ASKING_SERVER = LEDGER_SERVER.with_name("asking_server.py")
PYTHON_CLIENT = ROOT / "docs" / "reference" / "python-client.md"
WRITTEN_FOR = "http://127.0.0.1:8000"
QUIET_S = 0.05

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="the examples need curl and jq"
)

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block to run with its expected output. `kind` is `json`, `text`, or empty if the page shows no output."""

    code: str
    kind: str = ""
    printed: str = ""


def examples_of(page: Path) -> list[Example]:
    """Return the examples of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Example] = []
    end = -1
    for block in _BLOCK.finditer(text):
        kind, body = block.groups()
        if kind == "python" and page == PYTHON_CLIENT:
            body = f"python - <<'END_OF_EXAMPLE'\n{body}END_OF_EXAMPLE"
            kind = "sh"
        if kind == "sh":
            found.append(Example(body))
            end = block.end()
        elif kind in {"json", "text"} and end >= 0 and not text[end : block.start()].strip():
            found[-1] = Example(found[-1].code, kind, body)
            end = -1
    return found


def page_parameter(page: Path) -> Any:
    """Create a test parameter for a page. A page that starts commands is marked slow."""
    starts_commands = any("agent-runtime " in example.code for example in examples_of(page))
    marks = [pytest.mark.slow] if starts_commands else []
    return pytest.param(page, id=page.relative_to(ROOT / "docs").as_posix(), marks=marks)


PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if examples_of(page)]


def describe_api() -> Any:
    """Return the OpenAPI document."""
    with TemporaryDirectory() as folder:
        return create_app(Settings(data_dir=Path(folder)), Secrets()).openapi()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run a service with the servers that the examples use."""
    folder = tmp_path_factory.mktemp("examples")
    service = Service(folder, limits={"cancel_grace_s": QUIET_S})
    (folder / "files" / "notes.txt").write_text("three short words", encoding="utf-8")
    builtin = [
        {"id": name, "type": "builtin", "trust": "annotations", "config": {"server": name}}
        for name in ("calculator", "text", "todo")
    ]
    files = {"type": "builtin", "trust": "annotations", "config": {"server": "filesystem", "root": "files"}}
    ledger = {
        "command": sys.executable,
        "args": ["-S", "-E", str(LEDGER_SERVER)],
        "env": {"LEDGER": str(folder / "ledger.txt"), "DELAY_S": "30"},
    }
    asking = {"command": sys.executable, "args": ["-S", "-E", str(ASKING_SERVER)]}
    entries = [
        *builtin,
        {"id": "filesystem", **files},
        {"id": "reports", **files, "tools": {"write_file": {"approval": "call"}}},
        {"id": "ledger", "type": "local_stdio", "config": ledger},
        {"id": "asking", "type": "local_stdio", "config": asking},
    ]
    (folder / "tool_registry.yaml").write_text(yaml.safe_dump({"tool_registry": entries}), encoding="utf-8")
    with service:
        yield service


@pytest.fixture(scope="module")
def unknown(service: Service) -> str:
    """Return the id of a task with a call of unknown outcome."""
    step = {"id": "s1", "kind": "tool", "server": "ledger", "tool": "count", "arguments": {"label": "one"}}
    task_id = service.submit("Count", {"goal": "Count", "steps": [step | {"timeout_s": QUIET_S}]})
    service.approve(task_id)
    with service.stream(task_id, view="events") as response:
        for line in response.iter_lines():
            if line == "event: step.outcome_unknown":
                break
    return task_id


@pytest.fixture(scope="module")
def asking_task(service: Service) -> str:
    """Return the id of a task in which a server asks something."""
    step = {"id": "s1", "kind": "tool", "server": "asking", "tool": "form"}
    task_id = service.submit("Ask", {"goal": "Ask", "steps": [step]})
    service.approve(task_id)
    eventually_sync(lambda: service.task(task_id)["attention"])
    return task_id


def run(examples: list[Example], service: Service, folder: Path, **variables: str) -> list[str]:
    """Run the examples in one shell, and return the output of each."""
    parts = [f"{{\n{example.code}\n}} > printed.{number}" for number, example in enumerate(examples)]
    script = "\n".join(["set -eu", *parts]).replace(WRITTEN_FOR, service.url)
    done = subprocess.run(
        ["bash"],
        input=script,
        cwd=folder,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(folder / f"printed.{number}").read_text(encoding="utf-8") for number in range(len(examples))]


def difference(shown: Any, given: Any, place: str = "$") -> str:
    """Describe the first difference of an answer from the example; empty if there is none."""
    if isinstance(shown, dict):
        if not isinstance(given, dict):
            return f"{place}: {given!r} is no object"
        missing = [name for name in shown if name not in given]
        found = (difference(shown[name], given[name], f"{place}.{name}") for name in shown if name in given)
        return f"{place}: {missing} missing in {sorted(given)}" if missing else next(filter(None, found), "")
    if isinstance(shown, list):
        if not isinstance(given, list) or len(given) < len(shown) or bool(given) != bool(shown):
            return f"{place}: {given!r} is not {shown!r}"
        found = (difference(*pair, f"{place}[{number}]") for number, pair in enumerate(zip(shown, given, strict=False)))
        return next(filter(None, found), "")
    if isinstance(shown, str) and "..." in shown:
        return "" if given is None or matches(shown, str(given)) else f"{place}: {given!r} is not {shown!r}"
    return "" if shown == given and type(shown) is type(given) else f"{place}: {given!r} is not {shown!r}"


def matches(shown: str, given: str) -> bool:
    """Return True if a text matches that of an example, in which `...` matches anything."""
    return re.fullmatch(".*".join(map(re.escape, shown.strip().split("..."))), given.strip(), re.DOTALL) is not None


def fault_of(example: Example, printed: str) -> str:
    """Describe the difference of the output from the example; empty if there is none."""
    found = ""
    if example.kind == "json":
        found = difference(json.loads(example.printed), json.loads(printed))
    elif example.kind == "text" and not matches(example.printed, printed):
        found = f"it printed {printed}"
    return found and f"{example.code}{found}"


@pytest.mark.parametrize("page", [page_parameter(page) for page in PAGES])
def test_the_examples_of_a_page_print_what_it_shows(
    page: Path, service: Service, unknown: str, asking_task: str, tmp_path: Path
) -> None:
    examples = examples_of(page)
    printed = run(examples, service, tmp_path, UNKNOWN=unknown, ASKED=asking_task)
    if faults := [fault for fault in map(fault_of, examples, printed) if fault]:
        pytest.fail("\n\n".join(faults))


def test_the_first_request_of_the_readme_is_answered(service: Service, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    request = text[text.index("curl -X POST") :].partition("```")[0].replace("http://localhost:8000", WRITTEN_FOR)
    (printed,) = run([Example(request)], service, tmp_path)
    assert json.loads(printed)["status"] == "pending"


@pytest.mark.slow
def test_the_first_command_of_the_readme_does_what_it_says(folder: Folder) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"<!-- the main job -->.*?run --no-dev agent-runtime (run .*?)\n```", text, re.DOTALL)
    assert command
    done = folder(*shlex.split(command[1]))
    assert done.returncode == 0, done.stderr
    assert (folder.files / "uv_verification.txt").read_text(encoding="utf-8") == "UV SETUP VERIFIED"


def test_every_call_has_an_example() -> None:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    text = "\n## \n".join(page.read_text(encoding="utf-8") for page in pages)
    sections = dict(re.findall(r"^### (\w+ /\S*)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    operations = {f"{method.upper()} {path}" for path, methods in describe_api()["paths"].items() for method in methods}
    assert set(sections) == operations
    for name, section in sections.items():
        assert "```sh\n" in section, name
        assert f"<!-- generated: operation {name} -->" in section
