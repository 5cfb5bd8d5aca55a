"""One process serves a database, under any name, and acknowledges nothing after its file is replaced (G1, G16)."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from command_line import Folder
from serving import Service
from waiting import eventually_sync


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path) as service:
        yield service


@pytest.mark.slow
def test_a_second_service_on_the_same_database_is_refused_and_commands_find_the_first(folder: Folder) -> None:
    folder.env["AGENT_RUNTIME_STORAGE__URL"] = f"sqlite:///{folder.path / 'shared.db'}"
    with folder.serve() as service:
        folder.env["AGENT_RUNTIME_DATA_DIR"] = str(folder.path / "other")
        refused = folder("serve", "--port", "0")
        assert refused.returncode == 2
        assert f"shared.db is owned by process {service.process.pid}" in refused.stderr
        assert service.url in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        done = folder("run", "Add 15 and 27", "--yes")
        assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
        listed = httpx2.get(f"{service.url}/v1/tasks").json()["tasks"]
        assert [task["status"] for task in listed] == ["completed"]
        (folder.path / "link.db").hardlink_to(folder.path / "shared.db")
        folder.env["AGENT_RUNTIME_STORAGE__URL"] = f"sqlite:///{folder.path / 'link.db'}"
        refused = folder("serve", "--port", "0")
        assert refused.returncode == 2
        assert "link.db is owned by another process" in refused.stderr
        (folder.path / "link.db").unlink()
    folder.env["AGENT_RUNTIME_STORAGE__URL"] = f"sqlite:///{folder.path / 'shared.db'}"
    with folder.serve():
        pass


@pytest.mark.slow
def test_a_service_whose_lock_was_removed_still_owns_its_database(folder: Folder) -> None:
    with folder.serve():
        (folder.path / "data" / "agent-runtime.lock").unlink()
        refused = folder("serve", "--port", "0")
    assert refused.returncode == 2
    assert "agent-runtime.db is owned by another process" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["agent-runtime.db", "agent-runtime.db-wal"])
def test_a_replaced_database_makes_the_service_unready_and_refuses_every_write(
    service: Service, tmp_path: Path, name: str
) -> None:
    task_id = service.submit()
    eventually_sync(lambda: service.client.get("/readyz").status_code == 200)
    file = tmp_path / "data" / name
    (tmp_path / "kept").hardlink_to(file)
    shutil.copy(file, tmp_path / "spare")
    (tmp_path / "spare").replace(file)
    ready = service.client.get("/readyz")
    assert ready.status_code == 503
    assert "replaced or deleted" in ready.json()["detail"]
    posts = {
        "/v1/tasks": {"prompt": "Add 1 and 2"},
        f"/v1/tasks/{task_id}/approve": {},
        f"/v1/tasks/{task_id}/cancel": {},
    }
    for path, body in posts.items():
        refused = service.client.post(path, json=body)
        assert refused.status_code == 503, refused.text
        assert refused.headers["Retry-After"]
        assert "replaced or deleted" in refused.json()["detail"]
    assert service.client.get("/healthz").status_code == 200
    assert service.task(task_id)["status"] == "awaiting_approval"
    (tmp_path / "kept").replace(file)
    eventually_sync(lambda: service.client.get("/readyz").status_code == 200)
    service.approve(task_id)
    assert service.wait_for_end(task_id)["status"] == "completed"
