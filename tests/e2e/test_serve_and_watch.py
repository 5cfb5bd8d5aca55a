"""The script of the development image, which restarts the service when its source or configuration changes."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest
import yaml

from command_line import PATIENCE_S, ServiceProcess
from serving import free_port
from waiting import eventually_sync

ROOT = Path(__file__).parents[2]
REGISTRY = [{"id": "filesystem", "type": "builtin", "config": {"server": "filesystem", "root": "sample_data"}}]
WRITE = {"server": "filesystem", "tool": "write_file", "arguments": {"path": "written.txt", "content": "hello"}}


class Watched(ServiceProcess):
    """The script and its service. `reasons` are the messages of its restarts."""

    def has_started(self, times: int) -> bool:
        return self.log.count('"event": "started"') == times

    @property
    def reasons(self) -> list[str]:
        return [line for line in self.log.splitlines() if line.startswith("Restarting")]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with the layout of /app in the image."""
    (tmp_path / "container").mkdir()
    shutil.copy(ROOT / "container" / "serve_and_watch.py", tmp_path / "container")
    (tmp_path / "src" / "agent_runtime").mkdir(parents=True)
    (tmp_path / "sample_data").mkdir()
    (tmp_path / "src" / "agent_runtime" / "sample_data").symlink_to("../../sample_data")
    (tmp_path / "config.yaml").write_text(f"server: {{port: {free_port()}}}", encoding="utf-8")
    write_registry(tmp_path)
    return tmp_path


def write_registry(app: Path, *more: Mapping[str, object]) -> None:
    """Replace the registry by another file, as editors and `docker cp` do."""
    new = app / "new.yaml"
    new.write_text(yaml.safe_dump({"tool_registry": [*REGISTRY, *more]}), encoding="utf-8")
    new.replace(app / "tool_registry.yaml")


def begin(app: Path) -> subprocess.Popen[str]:
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(app), "LANG": "C.UTF-8"}
    command = [sys.executable, "container/serve_and_watch.py"]
    return subprocess.Popen(command, cwd=app, env=env, stderr=subprocess.PIPE, text=True)


@contextmanager
def run_watched(app: Path) -> Iterator[Watched]:
    watched = Watched(begin(app))
    try:
        watched.wait_for_start()
        yield watched
    finally:
        watched.stop()


@pytest.mark.slow
def test_a_change_of_the_source_starts_it_again_and_a_file_that_a_task_writes_does_not(app: Path) -> None:
    with run_watched(app) as watched:
        task = watched.submit({"goal": "write", "steps": [{"id": "s1", "kind": "tool", **WRITE}]}, approve=True)
        watched.follow_until(task, "task.completed")
        assert (app / "src/agent_runtime/sample_data/written.txt").read_text(encoding="utf-8") == "hello"
        code = app / "src" / "agent_runtime" / "new.py"
        code.write_text("NEW = 1\n", encoding="utf-8")
        eventually_sync(partial(watched.has_started, 2))
        (reason,) = watched.reasons
        assert str(code) in reason
        assert "sample_data" not in reason


@pytest.mark.slow
def test_a_registry_that_is_replaced_is_what_runs_each_time(app: Path) -> None:
    with run_watched(app) as watched:
        for number in (2, 3):
            added = f"sums{number}"
            write_registry(app, {"id": added, "type": "builtin", "config": {"server": "calculator"}})
            eventually_sync(partial(watched.has_started, number))
            status = httpx2.get(f"{watched.url}/v1/tools/status").json()
            assert added in [server["id"] for server in status]


@pytest.mark.slow
def test_a_wrong_setting_ends_it_with_the_exit_code_of_the_service(app: Path) -> None:
    (app / "config.yaml").write_text("server: {prot: 0}", encoding="utf-8")
    process = begin(app)
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "server.prot" in log


@pytest.mark.slow
def test_it_stops_with_its_service_when_it_is_told_to(app: Path) -> None:
    with run_watched(app) as watched:
        watched.process.send_signal(signal.SIGTERM)
        assert watched.process.wait(PATIENCE_S) == 0
        assert '"event": "stopped"' in watched.log
