"""The log at level debug: the events that it shows, and the secrets that it never shows."""

import json
from pathlib import Path

import pytest

from command_line import Folder
from harness import ledger_plan
from hostile_http import hostile_http

SECRET = "tok-8f1c9a7b3e5d"  # noqa: S105 - made up, and searched for in the log


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.add_ledger(0)
    folder.env |= {"LEDGER_TOKEN": SECRET, "LOG_LEVEL": "DEBUG"}
    return folder


@pytest.mark.slow
def test_debug_shows_requests_claims_calls_and_processes_and_no_credentials(folder: Folder) -> None:
    folder.env["OPENAI_BASE_URL"] = f"http://user:{SECRET}@127.0.0.1:9/v1"
    with folder.serve() as serving:
        plan = ledger_plan("a").model_dump(mode="json")
        task_id = serving.submit(plan, approve=True)
        serving.follow_until(task_id, "task.completed")
    lines = [json.loads(line) for line in serving.log.splitlines()]
    shown = {line["event"] for line in lines if line["level"] == "debug"}
    expected = {"request_answered", "task_claimed", "call_sent", "call_answered", "process_started", "process_ended"}
    assert expected <= shown
    (sent,) = [line for line in lines if line["event"] == "call_sent"]
    assert (sent["server"], sent["tool"], sent["attempt"]) == ("ledger", "count", 1)
    assert "arguments" not in sent
    requests = [(line["method"], line["path"], line["status"]) for line in lines if line["event"] == "request_answered"]
    assert ("POST", f"/v1/tasks/{task_id}/approve", 202) in requests
    assert SECRET not in serving.log


@pytest.mark.slow
def test_debug_shows_neither_arguments_nor_results(folder: Folder) -> None:
    with hostile_http() as server:
        config = {"base_url": server.url("good")}
        folder.write_registry({"id": "ledger", "type": "remote_http", "config": config})
        with folder.serve() as serving:
            plan = ledger_plan("told-to-the-server", tool="pay").model_dump(mode="json")
            serving.follow_until(serving.submit(plan, approve=True), "task.completed")
    assert server.find_paths("tools/call")
    assert "call_sent" in serving.log
    assert "told-to-the-server" not in serving.log
    assert "paid" not in serving.log


@pytest.mark.slow
def test_the_usual_level_shows_none_of_it(folder: Folder) -> None:
    del folder.env["LOG_LEVEL"]
    with folder.serve() as serving:
        serving.submit(ledger_plan("a").model_dump(mode="json"))
    assert '"level": "debug"' not in serving.log
