"""The built-in filesystem server refuses the files of the service, even if they are below its root (G12)."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from serving import Service

ROOT = {"id": "filesystem", "type": "builtin", "config": {"server": "filesystem", "root": "."}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("project")
    keys = folder / "keys"
    keys.write_text("# nobody yet\n", encoding="utf-8")
    (folder / "shortcut").symlink_to("data")
    (folder / "notes.txt").write_text("tool_registry, as everybody may know", encoding="utf-8")
    service = Service(folder, auth={"mode": "anonymous", "keys_file": keys})
    registry = yaml.safe_dump({"tool_registry": [ROOT]})
    service.settings.tool_registry.write_text(registry, encoding="utf-8")
    with service:
        yield service


def run_call(service: Service, tool: str, **arguments: Any) -> Any:
    """Run a task with this call, and return its only step."""
    step = {"id": "s1", "kind": "tool", "server": "filesystem", "tool": tool, "arguments": arguments}
    task_id = service.submit(plan={"steps": [step]})
    service.approve(task_id)
    return service.wait_for_end(task_id)["steps"][0]


@pytest.mark.parametrize(
    "path",
    [
        *("tool_registry.yaml", "keys", ".env", "data", "data/agent-runtime.db", "data/agent-runtime.db-journal"),
        *("data/stream-tickets.secret", "data/new.txt", "shortcut", "shortcut/new.txt", "files/../keys"),
    ],
)
def test_the_files_of_the_service_are_neither_read_nor_written(service: Service, path: str) -> None:
    for tool, more in {"read_file": {}, "write_file": {"content": "x"}, "list_directory": {}, "file_info": {}}.items():
        step = run_call(service, tool, path=path, **more)
        assert "belongs to the service itself" in step["error"]["message"]


@pytest.mark.slow
def test_they_are_not_found_either(service: Service) -> None:
    assert run_call(service, "search_files", pattern="*", content="tool_registry")["output"] == "notes.txt"
    listed = run_call(service, "list_directory", path=".")["output"].splitlines()
    assert "notes.txt" in listed
    assert not {"tool_registry.yaml", "keys", "data/"} & set(listed)


@pytest.mark.slow
def test_all_else_in_the_root_is_served(service: Service) -> None:
    assert run_call(service, "write_file", path="files/a.txt", content="x")["error"] is None
    assert run_call(service, "read_file", path="files/a.txt")["output"] == "x"
