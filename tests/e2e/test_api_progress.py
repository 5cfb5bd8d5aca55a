"""Progress reports of a call over the wire: on the stream in each view, and not in the journal."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import Service, journal_of
from waiting import eventually_sync

SERVER = Path(__file__).parents[1] / "servers" / "working_server.py"
WORKING = {
    "id": "working",
    "type": "local_stdio",
    "config": {"command": sys.executable, "args": ["-S", "-E", str(SERVER)]},
    "tools": {"*": {"effect": "read", "open_world": False, "timeout_s": 0.6, "max_timeout_s": 30}},
}
LINE = "Step s1 reports progress: 1 of 8, part 1 with None"


def plan_of(tool: str, times: int, **limits: Any) -> dict[str, Any]:
    step = {"id": "s1", "kind": "tool", "server": "working", "tool": tool, "arguments": {"label": str(times)}}
    return {"plan": {"goal": "work", "steps": [step]}, **limits}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"), limits={"cancel_grace_s": 0.1})
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [WORKING]}), encoding="utf-8")
    with service:
        service.refresh_tools()
        yield service


def test_reports_of_a_call_are_on_the_stream_and_not_in_the_journal(service: Service) -> None:
    task_id = service.submit("Work", **plan_of("work", 8))
    contract = service.task(task_id)["plan_object"]
    assert contract["policy"]["working/work"]["max_timeout_s"] == 30
    with ThreadPoolExecutor(3) as pool:
        views = {view: pool.submit(service.frames, task_id, **view_of(view)) for view in ("all", "events", "log")}
        service.approve(task_id)
        frames = {view: future.result() for view, future in views.items()}
    assert service.task(task_id)["status"] == "completed"
    events, lines = frames["events"], frames["log"]
    (first, *_) = [json.loads(data) for kind, frame_id, data in events if kind == "call.progress" and not frame_id]
    said = {"progress": 1, "total": 8, "message": "part 1 with None", "text": LINE}
    assert first == {"task_id": task_id, "step_id": "s1", **said}
    assert ("message", "", LINE) in lines
    assert {kind for kind, _, _ in lines} == {"message"}
    assert LINE not in [data for kind, _, data in events if kind == "message"]
    assert {kind for kind, frame_id, _ in frames["all"] if not frame_id} == {"call.progress", "message"}
    assert "call.progress" not in {event["type"] for event in journal_of(service, task_id)}
    assert [kind for kind, frame_id, _ in service.frames(task_id) if not frame_id] == [], "it is over"


def view_of(view: str) -> dict[str, str]:
    return {} if view == "all" else {"view": view}


def test_progress_uses_no_more_seconds_than_the_budget_has(service: Service) -> None:
    task_id = service.submit("Work", **plan_of("work", 100, budget={"seconds": 1.5}))
    service.approve(task_id)
    eventually_sync(lambda: service.task(task_id)["status"] == "needs_attention")
    (asked,) = service.task(task_id)["attention"]
    assert "there was progress, but no answer within 1.5 s, and it may take no longer" in asked["reason"]
