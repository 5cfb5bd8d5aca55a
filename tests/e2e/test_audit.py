"""The audit for operators and third parties: over the command line, the API, and an exported file."""

import asyncio
import json
from pathlib import Path

import pytest

from agent_runtime.domain.events import ToolCalled
from agent_runtime.domain.values import digest
from agent_runtime.storage.owner import acquire
from audits import database, read_kept_head, rewrite, spoil_index, tamper
from command_line import Folder
from serving import Service, sums

DATABASE = Path("data") / "agent-runtime.db"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    here = tmp_path / "here"
    here.mkdir()
    return Folder(here)


@pytest.mark.slow
def test_a_task_that_went_its_way_is_verified_and_one_that_was_changed_is_not(folder: Folder) -> None:
    assert folder("run", "Add 15 and 27, then multiply the result by 2", "--yes").returncode == 0
    task_id = folder.json("tasks")["tasks"][0]["task_id"]
    whole = folder("audit", "verify")
    assert (whole.returncode, whole.stdout) == (0, ""), whole.stderr
    assert "1 task, " in whole.stderr
    assert ", 2 calls, " in whole.stderr
    assert " commits: no change was found." in whole.stderr
    assert "This cannot detect:\n- a history written anew together with the commits" in whole.stderr

    tamper(folder.path / DATABASE, "UPDATE events SET data = replace(data, '84', '85') WHERE type = 'task.completed'")
    spoil_index(folder.path / DATABASE)
    seq = folder.json("audit", "verify", task_id, code=1)["faults"][0]["seq"]
    changed = folder("audit", "verify")
    assert changed.returncode == 1
    assert changed.stdout.startswith("the database file: ")
    assert f"{task_id}, record {seq}, data: " in changed.stdout
    assert folder("audit", "verify", "nobody").returncode == 1
    assert folder("audit", "verify", "--data-dir", "elsewhere").returncode == 2


@pytest.fixture
def with_tasks(folder: Folder) -> Path:
    """The database in the data directory, with two finished tasks."""
    (folder.path / DATABASE).parent.mkdir(mode=0o700)
    return asyncio.run(database((folder.path / DATABASE).parent, "t", "other"))


@pytest.mark.slow
def test_a_head_that_was_kept_elsewhere_shows_what_was_cut_with_its_commits(folder: Folder, with_tasks: Path) -> None:
    head = folder("audit", "head").stdout.strip()
    whole = folder.json("audit", "verify", "--head", head)
    assert (whole["commits"], whole["faults"]) == (16, [])
    assert whole["cannot_detect"][0].startswith("what came after the head")
    tamper(with_tasks, *(f"DELETE FROM {table} WHERE task_id = 'other'" for table in ("tasks", "events")))  # noqa: S608
    tamper(with_tasks, "DELETE FROM commits WHERE position > 8")
    assert folder("audit", "verify").returncode == 0
    cut = folder("audit", "verify", "--head", head)
    assert (cut.returncode, cut.stdout[:31]) == (1, "head 16: there is no such row, ")
    assert "- a history written anew together with the commits" in cut.stderr  # the head was of no use


@pytest.mark.slow
def test_a_checkpoint_stands_for_the_commits_that_it_drops(folder: Folder, with_tasks: Path) -> None:
    before = read_kept_head(with_tasks)
    dropped = folder("audit", "checkpoint", "--drop")
    assert (dropped.returncode, dropped.stdout) == (0, f"{read_kept_head(with_tasks)}\n"), dropped.stderr
    assert "Keep this head elsewhere" in dropped.stderr
    assert folder.json("audit", "verify", "--head", before)["commits"] == 1
    gone = folder("audit", "verify", "--head", f"15:{before.partition(':')[2]}")
    assert (gone.returncode, "its row is gone" in gone.stdout) == (1, True)

    tamper(with_tasks, "DELETE FROM tasks", "DELETE FROM events")
    refused = folder("audit", "checkpoint", "--drop")
    assert (refused.returncode, "Nothing was written" in refused.stderr) == (1, True)
    assert f"{read_kept_head(with_tasks)}\n" == dropped.stdout


@pytest.mark.slow
def test_what_a_head_and_a_checkpoint_need_is_said(folder: Folder, with_tasks: Path) -> None:
    malformed = folder("audit", "verify", "--head", "12")
    assert (malformed.returncode, "it must be POSITION:HASH" in malformed.stderr) == (2, True)
    elsewhere = folder("audit", "verify", "--head", read_kept_head(with_tasks), "--server", "http://127.0.0.1:9")
    assert (elsewhere.returncode, "leave out --server" in elsewhere.stderr) == (2, True)
    with acquire(with_tasks.parent, with_tasks):
        owned = folder("audit", "checkpoint")
    assert (owned.returncode, "is owned by process" in owned.stderr) == (2, True)


@pytest.mark.slow
def test_a_database_without_commits_is_of_an_earlier_version_or_was_changed(folder: Folder, with_tasks: Path) -> None:
    head = read_kept_head(with_tasks)
    tamper(with_tasks, "DROP TABLE commits")
    changed = folder("audit", "verify")
    assert (changed.returncode, changed.stdout[:39]) == (1, "commits: The database cannot be read he")
    tamper(with_tasks, "PRAGMA user_version = 4")
    assert folder("audit", "verify").returncode == 0
    for words in (("head",), ("verify", "--head", head)):
        early = folder("audit", *words)
        assert (early.returncode, "before stores recorded their commits" in early.stderr) == (2, True)


@pytest.mark.slow
def test_an_export_is_verified_where_there_is_nothing_else(folder: Folder, tmp_path: Path) -> None:
    assert folder("run", "Add 15 and 27", "--yes").returncode == 0
    task_id = folder.json("tasks")["tasks"][0]["task_id"]
    exported = folder("audit", "export", task_id)
    assert exported.returncode == 0, exported.stderr
    file = tmp_path / "export.json"
    file.write_text(exported.stdout, encoding="utf-8")
    (folder.path / DATABASE).unlink()
    assert folder("audit", "verify", "--file", str(file)).returncode == 0

    document = json.loads(exported.stdout)
    assert document["calls"][0]["arguments_digest"].startswith("sha256:")
    document["calls"][0]["arguments_digest"] = "sha256:0"
    file.write_text(json.dumps(document), encoding="utf-8")
    edited = folder("audit", "verify", "--file", str(file))
    assert edited.returncode == 1
    assert f"{task_id}, calls[0].arguments_digest: " in edited.stdout

    for content, code in (("{}", 1), ("{", 2)):
        file.write_text(content, encoding="utf-8")
        assert folder("audit", "verify", "--file", str(file)).returncode == code


@pytest.mark.slow
def test_the_export_over_http_says_what_was_approved_and_called(service: Service) -> None:
    task_id = service.complete_task(plan=sums(3))
    document = service.get(f"/v1/tasks/{task_id}/audit")
    task = service.task(task_id)
    assert (document["prompt"], document["plan_digest"]) == (task["prompt"], task["plan_digest"])
    assert document["plan"] == task["plan_object"]
    assert [call["arguments"]["expression"] for call in document["calls"]] == ["40 + 1", "41 + 1", "42 + 1"]
    assert document["head"] == document["journal"][-1]["hash"]
    assert service.client.get("/v1/tasks/nobody/audit").status_code == 404


@pytest.mark.slow
def test_a_running_service_is_verified_beside_it_and_over_http(own_service: Service, folder: Folder) -> None:
    first, second = own_service.complete_task(plan=sums(2)), own_service.complete_task(plan=sums(2))
    data = str(own_service.settings.data_dir)
    assert folder("audit", "verify", "--data-dir", data).returncode == 0
    assert folder("audit", "verify", "--server", own_service.url).returncode == 0

    path = own_service.settings.storage.database_path
    tamper(path, f"UPDATE events SET data = CAST(x'ff' AS TEXT) WHERE task_id = '{first}' AND seq = 3")  # noqa: S608
    for where in (("--data-dir", data), ("--server", own_service.url)):
        found = folder.json("audit", "verify", *where, code=1)
        assert found["tasks"] == 2
        assert {(fault["task_id"], fault["seq"], fault["field"]) for fault in found["faults"]} == {(first, 3, "data")}
    assert folder("audit", "verify", second, "--server", own_service.url).returncode == 0
    assert folder("audit", "export", first, "--server", own_service.url).returncode == 0
    assert folder("audit", "verify", "nobody", "--server", own_service.url).returncode == 1

    own_service.restart()
    assert own_service.get(f"/v1/tasks/{first}/audit")["journal"][2]["data"] == "\udcff"
    assert own_service.task(second)["status"] == "completed"


@pytest.mark.slow
def test_a_call_that_nobody_approved_is_reported_though_its_chain_fits(folder: Folder) -> None:
    assert folder("run", "Add 15 and 27", "--yes").returncode == 0
    task_id = folder.json("tasks")["tasks"][0]["task_id"]
    journal = folder.json("audit", "export", task_id)["journal"]
    called = next(entry for entry in journal if entry["type"] == "tool.called")
    event = ToolCalled.model_validate_json(called["data"])
    forged = event.model_copy(update={"arguments": {"a": 1}, "arguments_digest": digest({"a": 1})})
    rewrite(folder.path / DATABASE, called["seq"], forged, task_id)
    found = folder("audit", "verify")
    assert found.returncode == 1
    assert f"{task_id}, record {called['seq']}, data.arguments: they are not those of the approved step" in found.stdout
