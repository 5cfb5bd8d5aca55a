"""The metrics for Prometheus, over the real server."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agent_runtime.api.keys import new_key
from agent_runtime.api.metrics import exposition
from agent_runtime.domain.approval import Approve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.events import ToolReturned, make_record
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Call, StepState, Task
from agent_runtime.domain.tools import StoredResult
from agent_runtime.services.task_manager import Submission
from agent_runtime.storage.sqlite.store import SqliteStore
from agent_runtime.telemetry.metrics import MOST_TOOLS, Metrics
from harness import House, until_settled
from model_server import ModelServer
from model_server.replies import Calls, Text, by_turn
from serving import Service, sums
from waiting import eventually_sync

LEDGER_SERVER = Path(__file__).parents[1] / "servers" / "ledger_server.py"

Measures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def measures(service: Service) -> Measures:
    """Scrape once, and return all samples, parsed as Prometheus does."""
    response = service.client.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(response.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(found: Measures, name: str, **labels: str) -> float:
    return found[f"agent_runtime_{name}", frozenset(labels.items())]


def test_tasks_are_counted_by_the_status_they_have_now(own_service: Service) -> None:
    own_service.submit()
    own_service.complete_task()
    own_service.complete_task()
    found = measures(own_service)
    assert value(found, "tasks", status="awaiting_approval") == 1
    assert value(found, "tasks", status="completed") == 2
    assert value(found, "tasks", status="failed") == 0
    own_service.restart()
    assert value(measures(own_service), "tasks", status="completed") == 2


def test_calls_steps_and_appends_are_timed_once_each(own_service: Service) -> None:
    own_service.complete_task(plan=sums(3))
    found = measures(own_service)
    of_calls = {"server": "calculator", "tool": "evaluate"}
    assert value(found, "call_duration_seconds_count", **of_calls, outcome="ok") == 3
    assert value(found, "call_duration_seconds_count", **of_calls, outcome="error") == 0
    assert 0 < value(found, "call_duration_seconds_sum", **of_calls, outcome="ok") < 10
    assert value(found, "step_duration_seconds_count", outcome="completed") == 3
    assert value(found, "step_duration_seconds_count", outcome="failed") == 0
    assert value(found, "step_duration_seconds_sum", outcome="completed") > 0
    assert value(found, "store_append_duration_seconds_count") >= 6
    assert value(found, "store_append_duration_seconds_bucket", le="+Inf") >= 6


def test_a_call_that_the_server_refuses_is_an_error_and_its_step_a_failure(own_service: Service) -> None:
    plan = sums(1)
    plan["steps"][0]["arguments"]["expression"] = "1 / 0"
    task_id = own_service.submit(plan=plan)
    own_service.approve(task_id)
    assert own_service.wait_for_end(task_id)["status"] == "failed"
    found = measures(own_service)
    labels = {"server": "calculator", "tool": "evaluate", "outcome": "error"}
    assert value(found, "call_duration_seconds_count", **labels) == 1
    assert value(found, "step_duration_seconds_count", outcome="failed") == 1


def test_an_open_stream_is_counted_until_it_ends(own_service: Service) -> None:
    task_id = own_service.submit()
    with own_service.stream(task_id) as response:
        frames = response.iter_bytes()
        next(frames)
        assert value(measures(own_service), "stream_clients") == 1
        own_service.approve(task_id)
        list(frames)
    found = measures(own_service)
    assert value(found, "stream_clients") == 0
    assert value(found, "stream_clients_limit") == own_service.settings.limits.stream_clients


@contextmanager
def service_with_a_process(folder: Path) -> Iterator[Service]:
    service = Service(folder)
    config = {
        "command": sys.executable,
        "args": ["-S", "-E", str(LEDGER_SERVER)],
        "env": {"LEDGER": str(folder / "ledger.txt"), "DELAY_S": "30"},
    }
    registry = {"tool_registry": [{"id": "ledger", "type": "local_stdio", "config": config}]}
    service.settings.tool_registry.write_text(yaml.safe_dump(registry), encoding="utf-8")
    with service:
        yield service


def busy(service: Service) -> float:
    found = measures(service)
    return value(found, "runner_tasks", state="running") + value(found, "mcp_processes", server="ledger")


@pytest.mark.slow
def test_a_task_under_way_shows_in_the_runner_and_as_a_process_and_neither_is_left(tmp_path: Path) -> None:
    step = {"id": "s1", "kind": "tool", "server": "ledger", "tool": "count", "arguments": {"label": "a"}}
    with service_with_a_process(tmp_path) as service:
        task_id = service.submit(plan={"goal": "count", "steps": [step]})
        service.approve(task_id)
        with service.stream(task_id, view="log") as response:
            for line in response.iter_lines():
                if "calls ledger.count" in line:
                    break
        found = measures(service)
        assert value(found, "runner_tasks", state="running") == 1
        assert value(found, "runner_tasks", state="waiting") == 0
        assert value(found, "mcp_processes", server="ledger") == 1
        assert value(found, "mcp_server_connected", server="ledger", type="local_stdio") == 1
        service.client.post(f"/v1/tasks/{task_id}/cancel")
        service.wait_for_end(task_id)
        give_up_at = time.monotonic() + 10
        while busy(service):
            assert time.monotonic() < give_up_at
        # The spare for the next task is none of these.
        assert eventually_sync(lambda: value(measures(service), "mcp_spares", server="ledger")) == 1
        assert busy(service) == 0


def test_no_label_names_a_task_and_a_disabled_server_is_not_shown(service: Service) -> None:
    task_ids = [service.complete_task(), service.submit()]
    text = service.client.get("/metrics").text
    assert not any(task_id in text for task_id in task_ids)
    assert "unused" not in text
    assert "process_resident_memory_bytes" in text


def test_a_scrape_grows_with_the_tools_and_not_with_the_tasks(service: Service) -> None:
    service.complete_task()
    before = set(measures(service))
    for _ in range(5):
        service.complete_task()
    assert set(measures(service)) == before


def test_two_services_in_one_process_measure_apart(service: Service, own_service: Service) -> None:
    service.complete_task()
    assert value(measures(own_service), "store_append_duration_seconds_count") == 0


def test_with_keys_the_measures_need_the_scope_read(tmp_path: Path) -> None:
    made = {scope: new_key(scope, [scope]) for scope in ("read", "submit")}
    file = tmp_path / "keys"
    file.write_text("\n".join(key.line for _, key in made.values()))
    service = Service(tmp_path, auth={"keys_file": file})
    service.start()
    try:
        with httpx2.Client(base_url=service.url, timeout=20) as client:
            assert client.get("/metrics").status_code == 401
            for scope, status in (("submit", 403), ("read", 200)):
                headers = {"Authorization": f"Bearer {made[scope][0]}"}
                assert client.get("/metrics", headers=headers).status_code == status
    finally:
        service.client.close()
        service.stop()


@pytest.mark.sqlite
async def test_a_store_that_cannot_be_read_hides_the_tasks_and_nothing_else(tmp_path: Path) -> None:
    async with asyncio.timeout(20), House(tmp_path).open() as runtime:
        assert b"agent_runtime_tasks{" in await exposition(runtime, streams=3)
        assert isinstance(runtime.store, SqliteStore)
        await runtime.store.close()
        text = await exposition(runtime, streams=3)
    assert b"agent_runtime_tasks{" not in text
    assert b"agent_runtime_stream_clients 3.0" in text
    assert b"agent_runtime_store_append_duration_seconds_count 0.0" in text


@pytest.mark.parametrize("more", [1, 500])
def test_a_server_that_renames_its_tools_for_ever_adds_no_more_than_so_many_labels(more: int) -> None:
    metrics = Metrics()
    at = datetime.now(UTC)
    for number in range(MOST_TOOLS + more):
        call = Call("call_1", 1, "shifty", f"tool_{number}", {}, "", 1)
        task = Task("task_1", steps={"s1": StepState(call=call)})
        event = ToolReturned(step_id="s1", call_id="call_1", result=StoredResult(text="ok"), duration_ms=1.0)
        metrics.record_append(task, [make_record("task_1", 1, 1, at, event)], 0.001)
    calls = [
        s
        for family in metrics.registry.collect()
        for s in family.samples
        if s.name.endswith("call_duration_seconds_count")
    ]
    assert len(calls) == 2 * (MOST_TOOLS + 1)
    assert [s.value for s in calls if s.labels["tool"] == "other" and s.labels["outcome"] == "ok"] == [more]


async def test_the_answers_the_calls_and_the_tokens_of_a_model_are_counted(house: House) -> None:
    tools = [{"server": "ledger", "tool": "look", "max_calls": 2}]
    step = {"id": "do", "kind": "agent", "instruction": "Look.", "tools": tools}
    plan = Plan.model_validate({"goal": "look", "steps": [step]})
    look = Calls([("ledger__look", {"label": "one"}), ("ledger__look", {"label": "two"})], usage=(100, 10))
    async with ModelServer() as models:
        models.on("Look.", by_turn(look, Text("Seen.", usage=(200, 20))))
        house.use_model(models.base_url)
        async with house.open() as runtime:
            task = await runtime.tasks.submit(Submission(prompt="look", plan=plan), ANYBODY)
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
            assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED
            text = (await exposition(runtime, streams=0)).decode()
    found = {
        (s.name, frozenset(s.labels.items())): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }
    called = {"server": "ledger", "tool": "look", "outcome": "ok"}
    assert value(found, "call_duration_seconds_count", **called) == 2
    assert value(found, "model_answer_duration_seconds_count") == 2
    assert value(found, "model_tokens_total", direction="input") == 300
    assert value(found, "model_tokens_total", direction="output") == 30
    assert value(found, "model_circuit_open") == 0
