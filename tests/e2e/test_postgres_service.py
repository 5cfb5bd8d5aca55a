"""The service on a PostgreSQL database, over HTTP and the command line."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent_runtime.config import StorageSettings
from agent_runtime.domain.errors import AlreadyOwnedError, ConfigurationError
from agent_runtime.domain.journal_verification import find_journal_faults
from agent_runtime.storage.opening import open_for_reading
from command_line import Folder
from postgres_server import PostgresServer
from serving import Service
from waiting import eventually_sync


def make_service(folder: Path, url: str) -> Service:
    folder.mkdir(exist_ok=True)
    return Service(folder, storage={"url": url}, auth={"mode": "anonymous"})


def test_a_task_goes_its_way_and_is_there_after_a_restart(tmp_path: Path, postgres_url: str) -> None:
    with make_service(tmp_path, postgres_url) as service:
        task_id = service.submit()
        service.approve(task_id)
        assert service.wait_for_end(task_id)["status"] == "completed"
        waiting = service.submit()
        service.restart()
        assert service.task(task_id)["status"] == "completed"
        service.approve(waiting)
        assert service.wait_for_end(waiting)["status"] == "completed"
        assert service.get("/readyz")["status"] == "ready"
        assert not (tmp_path / "data" / "agent-runtime.db").exists()
        with open_for_reading(StorageSettings(url=postgres_url)) as database:
            assert sorted(database.ids()) == sorted([task_id, waiting])
            assert [find_journal_faults(database.read(one)) for one in database.ids()] == [[], []]
            assert database.verify_commits(database.commit_head()).faults == []
            assert database.damages() == []


def test_a_second_service_on_the_database_is_refused_where_one_does_not_share_it(
    tmp_path: Path, postgres_url: str
) -> None:
    (tmp_path / "one").mkdir()
    with (
        make_service(tmp_path / "two", postgres_url) as service,
        pytest.raises(AlreadyOwnedError, match="owned by another process"),
        Service(tmp_path / "one", storage={"url": postgres_url}, auth={"mode": "anonymous"}, runner="local"),
    ):
        pass
    assert service


def test_a_task_of_one_replica_is_seen_and_decided_at_another(tmp_path: Path, postgres_url: str) -> None:
    with make_service(tmp_path / "one", postgres_url) as one, make_service(tmp_path / "two", postgres_url) as two:
        task_ids = [one.submit() for _ in range(3)]
        for task_id in task_ids:
            two.approve(task_id)
        assert {two.wait_for_end(task_id)["status"] for task_id in task_ids} == {"completed"}


def test_who_may_call_must_be_said(tmp_path: Path, postgres_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Set auth\.mode"), Service(tmp_path, storage={"url": postgres_url}):
        pass


@pytest.mark.slow
def test_an_outage_is_answered_with_503_and_ends_without_help(
    tmp_path: Path, postgres_url: str, postgres_server: PostgresServer
) -> None:
    with ThreadPoolExecutor(1) as pool, make_service(tmp_path, postgres_url) as service:
        approved = service.submit()
        assert set(service.get("/readyz")["checks"].values()) == {"ok"}
        following = pool.submit(service.frames, approved)
        eventually_sync(lambda: service.open_streams == 1)
        postgres_server.stop()
        try:
            for path, body in (("/v1/tasks", {"prompt": "Add 1 and 2"}), (f"/v1/tasks/{approved}/approve", None)):
                refused = service.client.post(path, json=body)
                assert (refused.status_code, "Try again later" in refused.text) == (503, True)
                assert int(refused.headers["Retry-After"]) > 0
            not_ready = service.client.get("/readyz")
            assert not_ready.status_code == 503
            assert not_ready.json()["checks"]["listener"] == "the connection that hears of other replicas is lost"
            assert service.open_streams == 1
            assert service.client.get("/healthz").status_code == 200
        finally:
            postgres_server.start()
        eventually_sync(lambda: service.client.get("/readyz").status_code == 200)
        service.approve(approved)
        assert following.result(60)[-1][2] == "[DONE]"
        assert service.task(approved)["status"] == "completed"
        assert len(service.get("/v1/tasks")["tasks"]) == 1


@pytest.mark.slow
def test_the_command_line_works_on_the_database(
    tmp_path: Path, postgres_url: str, postgres_server: PostgresServer
) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "config.yaml").write_text(f"storage: {{url: '{postgres_url}'}}", encoding="utf-8")
    done = folder("run", "Add 15 and 27, then multiply the result by 2", "--yes")
    assert done.returncode == 0, done.stderr
    whole = folder("audit", "verify")
    assert (whole.returncode, whole.stdout) == (0, ""), whole.stderr
    assert "1 task, " in whole.stderr
    head = folder("audit", "head").stdout.strip()
    assert folder("audit", "checkpoint", "--drop").returncode == 0
    assert folder("audit", "verify", "--head", head).returncode in {0, 1}
    task_id = folder.json("tasks")["tasks"][0]["task_id"]
    assert folder.json("audit", "export", task_id)
    postgres_server.execute(
        "UPDATE events SET data = replace(data, '84', '85') WHERE type = 'task.completed'", postgres_url
    )
    changed = folder("audit", "verify")
    assert (changed.returncode, f"{task_id}, record" in changed.stdout) == (1, True)
    assert "postgresql://" in folder("doctor").stdout
    refused = folder("serve")
    assert (refused.returncode, "Set auth.mode" in refused.stderr) == (2, True)


def test_a_service_on_sqlite_does_not_load_the_driver() -> None:
    code = "import sys, agent_runtime.cli.serve, agent_runtime.storage.opening; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
