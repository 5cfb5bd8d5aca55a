"""Reload of a changed tool registry without a restart: by a call, a signal or a command."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from command_line import Folder, Terminal, terminal
from serving import BUILTINS, Service
from waiting import eventually_sync

ENTRIES: Sequence[Any] = BUILTINS
TEXT = {"id": "words", "type": "builtin", "config": {"server": "text"}}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path) as service:
        yield service


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def write(service: Service, *entries: dict[str, Any]) -> None:
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": entries}), encoding="utf-8")


def test_a_call_reads_the_registry_again_and_says_what_it_changed(service: Service) -> None:
    filesystem, calculator, _ = ENTRIES
    write(service, filesystem, {**calculator, "name": "Sums"}, TEXT)
    answer = service.client.post("/v1/tools/reload")
    assert answer.status_code == 200
    assert answer.json() == {"added": ["words"], "changed": ["calculator"], "removed": ["unused"]}
    servers = {server["id"]: server["name"] for server in service.get("/v1/tools/status")}
    assert servers == {"filesystem": "filesystem", "calculator": "Sums", "words": "words"}
    assert service.client.post("/v1/tools/reload").json() == {"added": [], "changed": [], "removed": []}
    assert {tool["server"] for tool in service.refresh_tools()["tools"]} == {"filesystem", "calculator", "words"}


def test_faults_are_answered_by_file_and_field_and_the_registry_before_stays(service: Service) -> None:
    write(service, *ENTRIES, {"id": "broken", "type": "local_stdio", "config": {"command": "x", "args": "-y"}})
    answer = service.client.post("/v1/tools/reload")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:agent-runtime:problem:invalid_registry"
    assert problem["errors"] == [{"field": "entry 'broken': config.args", "message": "must be a list"}]
    assert f"{service.settings.tool_registry}: entry 'broken': config.args: must be a list." in problem["detail"]
    assert "still in force" in problem["detail"]
    assert [server["id"] for server in service.get("/v1/tools/status")] == ["filesystem", "calculator", "unused"]
    assert service.task(service.complete_task())["status"] == "completed"


@pytest.mark.slow
def test_a_hangup_signal_reads_the_registry_again_and_a_fault_in_it_ends_nothing(folder: Folder) -> None:
    with folder.serve() as serving, httpx2.Client(base_url=serving.url) as client:

        def ids() -> list[str]:
            return [server["id"] for server in client.get("/v1/tools/status").json()]

        (folder.path / "tool_registry.yaml").write_text("tool_registry: 5", encoding="utf-8")
        serving.process.send_signal(signal.SIGHUP)
        eventually_sync(lambda: "registry_not_reloaded" in serving.log)
        assert "tool_registry: must be a list of servers" in serving.log
        folder.write_registry(TEXT)
        serving.process.send_signal(signal.SIGHUP)
        eventually_sync(lambda: "words" in ids())
        assert "registry_reloaded" in serving.log


@pytest.mark.slow
def test_the_hangup_of_a_terminal_that_was_closed_ends_the_service(folder: Folder) -> None:
    with terminal(folder, "serve", "--port", "0") as shown:
        shown.wait_for("started")
        close(shown)
        shown.process.send_signal(signal.SIGHUP)
        assert shown.process.wait(20) in {0, 120}  # the rest of its output could not be written


def close(shown: Terminal) -> None:
    """Close the window of a terminal, and leave a descriptor for the helper to close."""
    hidden = os.open(os.devnull, os.O_RDWR)
    os.dup2(hidden, shown._master)  # noqa: SLF001 - only this test closes a window
    os.close(hidden)


@pytest.mark.slow
def test_a_command_has_the_running_service_read_the_registry_again(folder: Folder) -> None:
    with folder.serve():
        folder.write_registry(TEXT)
        assert folder("reload").stdout == "added: words\n"
        assert folder.json("reload") == {"added": [], "changed": [], "removed": []}
        (folder.path / "tool_registry.yaml").write_text("tool_registry: 5", encoding="utf-8")
        refused = folder("reload")
        assert refused.returncode == 1
        assert "tool_registry: must be a list of servers" in refused.stderr
