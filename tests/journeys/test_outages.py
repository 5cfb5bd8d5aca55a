"""G3: a server that is unreachable before anything was sent makes a task wait, not fail."""

import contextlib
import json
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.api.metrics import exposition
from agent_runtime.api.views import task_view
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Cancel
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.contract import Budget, Limits
from agent_runtime.domain.errors import DecisionRefusedError
from agent_runtime.domain.events import TaskWaiting
from agent_runtime.domain.log_lines import log_line
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.services.task_manager import Submission
from crashing import CrashingStore, Fuse, is_crash
from harness import submit_plan, until, until_settled, until_status, until_waiting
from hostile_http import hostile_http
from model_server import ModelServer
from model_server.replies import Calls, Fault, FaultKind, Text
from shifty import ShiftyHouse, list_tools, plan_of
from waiting import eventually

LONG_S = 3600.0
CHANGING = "217 npm error code ENOTEMPTY LETTER"
ALIKE = "217 npm error code ENOTEMPTY (pid PID)"


@pytest.fixture
def house(tmp_path: Path) -> ShiftyHouse:
    house = ShiftyHouse(tmp_path)
    pause(house, 0.01)
    return house


def pause(house: ShiftyHouse, seconds: float) -> None:
    house.wait(in_outage=lambda _: seconds)


async def approve_and_break(house: ShiftyHouse, runtime: Runtime, how: str, *steps: str) -> Task:
    """Return a task that was approved just before its server became unable to start."""
    task = await submit_plan(runtime, plan_of(*(steps or ("count:one",))))
    house.break_down(how)
    return await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)


async def find_waits(runtime: Runtime, task: Task) -> list[TaskWaiting]:
    records = await runtime.tasks.records(task.task_id, ANYBODY)
    return [record.event for record in records if isinstance(record.event, TaskWaiting)]


async def count_waits(runtime: Runtime, task: Task) -> int:
    return len(await find_waits(runtime, task))


async def test_a_server_that_fails_to_start_twice_and_then_starts_completes_the_task(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        task = await approve_and_break(house, runtime, CHANGING)
        assert (await until_waiting(runtime, task.task_id, 2)).status is TaskStatus.EXECUTING
        house.repair()
        end = await until_settled(runtime, task.task_id)
    assert (end.status, end.waiting) == (TaskStatus.COMPLETED, None)
    assert (house.counted, end.tool_calls) == (["one"], 1)


async def test_a_task_that_waits_says_so_and_holds_nothing(house: ShiftyHouse) -> None:
    pause(house, LONG_S)
    async with house.open() as runtime:
        task = await approve_and_break(house, runtime, CHANGING)
        task = await until_waiting(runtime, task.task_id)
        await eventually(lambda: runtime.runner.queue == {"running": 0, "waiting": 0, "resting": 0, "in_outage": 1})
        await eventually(lambda: not runtime.servers.connections["ledger"])
        measured = (await exposition(runtime, streams=0)).decode()
        newest = (await runtime.tasks.records(task.task_id, ANYBODY))[-1]
    waiting = task.waiting
    assert waiting is not None
    assert (waiting.kind, waiting.name, waiting.attempt) == ("server", "ledger", 1)
    assert "exited with code 217" in waiting.reason
    assert waiting.next_try_at - waiting.since > timedelta(seconds=LONG_S - 1)
    assert timedelta(hours=23, minutes=59) < waiting.gives_up_at - waiting.since <= timedelta(hours=24)
    assert 'agent_runtime_runner_tasks{state="in_outage"} 1.0' in measured
    assert 'agent_runtime_mcp_server_circuit_open{server="ledger"} 0.0' in measured
    view = task_view(task)
    assert log_line(newest) == view["result"]
    assert view["waiting_for"] is not None
    assert (view["waiting_for"]["kind"], view["waiting_for"]["name"]) == ("server", "ledger")
    assert str(view["result"]).startswith(f"Waiting for MCP server ledger, next try at {waiting.next_try_at:%Y-%m-%d}")


async def test_a_cancel_ends_the_wait_at_once(house: ShiftyHouse) -> None:
    pause(house, LONG_S)
    async with house.open() as runtime:
        task = await approve_and_break(house, runtime, CHANGING)
        await eventually(lambda: runtime.runner.queue["in_outage"] == 1)
        await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert (end.status, end.waiting, house.counted) == (TaskStatus.CANCELLED, None, [])


async def test_the_wait_ends_as_failed_once_its_bound_is_reached(house: ShiftyHouse) -> None:
    house.limit(outage_s=0.5)
    async with house.open() as runtime:
        task = await approve_and_break(house, runtime, CHANGING)
        end = await until_settled(runtime, task.task_id)
        assert await count_waits(runtime, end) >= 1
    assert (end.status, end.waiting) == (TaskStatus.FAILED, None)
    assert end.error is not None
    assert end.error.code == "server_unavailable"
    assert "exited with code 217" in end.error.message
    assert "It was tried" in end.error.message


@pytest.mark.parametrize("how", [ALIKE, "1", "127 sh: 1: nowhere: not found"])
async def test_the_same_exit_three_times_is_no_outage(house: ShiftyHouse, how: str) -> None:
    async with house.open() as runtime:
        task = await approve_and_break(house, runtime, how)
        end = await until_settled(runtime, task.task_id)
        assert await count_waits(runtime, end) == 2
    assert end.status is TaskStatus.FAILED
    assert end.error is not None
    assert "It was tried 3 times" in end.error.message


async def test_where_no_outage_is_waited_for_the_task_fails_at_once(house: ShiftyHouse) -> None:
    house.limit(outage_s=0)
    async with house.open() as runtime:
        task = await approve_and_break(house, runtime, CHANGING)
        end = await until_settled(runtime, task.task_id)
        assert await count_waits(runtime, end) == 0
    assert end.status is TaskStatus.FAILED


async def test_a_command_that_is_gone_fails_the_task_at_once(house: ShiftyHouse) -> None:
    command = house.folder / "python"
    command.symlink_to(sys.executable)
    house.write_entry(command=str(command))
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("count:one"))
        command.unlink()
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
        assert await count_waits(runtime, end) == 0
    assert end.error is not None
    assert "was not found" in end.error.message


async def test_a_task_waits_on_after_a_restart_and_is_tried_when_its_time_has_come(house: ShiftyHouse) -> None:
    pause(house, 1)
    async with house.open() as runtime:
        task = await approve_and_break(house, runtime, CHANGING)
        task = await until_waiting(runtime, task.task_id)
    house.repair()
    async with house.open() as runtime:
        again = await runtime.tasks.get(task.task_id, ANYBODY)
        end = await until_settled(runtime, task.task_id)
        journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert (again.waiting, again.epoch) == (task.waiting, task.epoch)
    assert (end.status, end.epoch, house.counted) == (TaskStatus.COMPLETED, task.epoch + 1, ["one"])
    assert task.waiting is not None
    assert next(record for record in journal if record.epoch == end.epoch).at >= task.waiting.next_try_at


@pytest.mark.sqlite
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_append_of_a_task_that_waits_makes_it_neither_fail_nor_call_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    crashed = 0
    for at in range(3, 30):
        (place := tmp_path / f"at{at}").mkdir()
        house = ShiftyHouse(place)
        pause(house, 0.01)
        end, fuse = await _live_with_crash(house, monkeypatch, Fuse(at, after=after))
        if end.status is not TaskStatus.COMPLETED:
            assert (end.status, end.unknown_steps) == (TaskStatus.NEEDS_ATTENTION, ("s1",))
        assert len(house.counted) <= 1
        crashed += fuse.blown
        if not fuse.blown:
            break
    assert crashed >= 5, "fewer appends than such a task makes"


async def _live_with_crash(house: ShiftyHouse, monkeypatch: pytest.MonkeyPatch, fuse: Fuse) -> tuple[Task, Fuse]:
    house.use_store(CrashingStore)
    monkeypatch.setattr(CrashingStore, "fuse", Fuse(0, after=False), raising=False)
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("count:one"))
    house.break_down(CHANGING)
    monkeypatch.setattr(CrashingStore, "fuse", fuse)
    with contextlib.suppress(DecisionRefusedError):
        try:
            async with house.open() as runtime:
                await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
                return await _repair_and_settle(house, runtime, task.task_id), fuse
        except BaseException as error:
            if not is_crash(error):
                raise
    monkeypatch.setattr(CrashingStore, "fuse", Fuse(0, after=False))
    async with house.open() as runtime:
        with contextlib.suppress(DecisionRefusedError):
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        return await _repair_and_settle(house, runtime, task.task_id), fuse


async def _repair_and_settle(house: ShiftyHouse, runtime: Runtime, task_id: str) -> Task:
    """Repair the server after two failed attempts, and return the settled task."""

    def has_waited(task: Task) -> bool:
        return task.terminal or task.tool_calls > 0 or (task.waiting is not None and task.waiting.attempt > 1)

    await until(runtime, task_id, has_waited)
    house.repair()
    return await until_settled(runtime, task_id)


@pytest.mark.slow
async def test_an_idempotent_call_is_repeated_once_its_server_can_be_started_again(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("die:one"))
        (house.folder / "down-after-death").write_text(CHANGING)
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        waiting = await until_waiting(runtime, task.task_id, 2)
        house.repair()
        end = await until_settled(runtime, task.task_id)
    assert list(waiting.open_calls) == ["s1"]
    assert (end.status, house.counted) == (TaskStatus.COMPLETED, ["one", "one"])


async def test_an_idempotent_call_is_asked_about_where_its_server_stays_away(house: ShiftyHouse) -> None:
    house.limit(outage_s=0.2)
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("die:one"))
        (house.folder / "down-after-death").write_text(CHANGING)
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert (end.status, end.unknown_steps, house.counted) == (TaskStatus.NEEDS_ATTENTION, ("s1",), ["one"])


# Over HTTP.


def write_remote(house: ShiftyHouse, url: str) -> None:
    house.write_registry(type="remote_http", config={"base_url": url}, tools={"*": {"open_world": False}})


async def test_a_server_that_refuses_connections_for_a_while_is_waited_for(house: ShiftyHouse) -> None:
    with hostile_http() as state:
        write_remote(house, state.url("good"))
        async with house.open() as runtime:
            task = await submit_plan(runtime, plan_of("ledger.pay"))
    async with house.open() as runtime:
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        waiting = (await until_waiting(runtime, task.task_id, 3)).waiting
        assert waiting is not None
        assert "cannot be reached" in waiting.reason
        with hostile_http(state.port):
            end = await until_settled(runtime, task.task_id)
    assert (end.status, end.result) == (TaskStatus.COMPLETED, "paid")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_server_that_says_that_it_cannot_answer_now_is_waited_for(house: ShiftyHouse, status: int) -> None:
    with hostile_http() as state:
        write_remote(house, state.url("good"))
        async with house.open() as runtime:
            task = await submit_plan(runtime, plan_of("ledger.pay"))
            state.outage = status
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
            waiting = (await until_waiting(runtime, task.task_id, 2)).waiting
            state.outage = None
            end = await until_settled(runtime, task.task_id)
    assert waiting is not None
    assert f"HTTP {status}" in waiting.reason
    assert (end.status, end.result) == (TaskStatus.COMPLETED, "paid")


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_a_server_that_turns_everybody_away_fails_the_task_at_once(house: ShiftyHouse, status: int) -> None:
    with hostile_http() as state:
        write_remote(house, state.url("good"))
        async with house.open() as runtime:
            task = await submit_plan(runtime, plan_of("ledger.pay"))
            state.outage = status
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
            end = await until_settled(runtime, task.task_id)
            assert await count_waits(runtime, end) == 0
    assert end.status is TaskStatus.FAILED
    assert end.error is not None
    assert f"HTTP {status}" in end.error.message


# Language models.


PROMPT = "Count what there is."
AGENT = {
    "id": "do",
    "kind": "agent",
    "instruction": PROMPT,
    "tools": [{"server": "ledger", "tool": "count"}],
    "preapproved": True,
}
PLAN = json.dumps({"goal": "count", "steps": [AGENT]})
DOWN = Fault("unavailable")


@pytest.fixture
async def models(house: ShiftyHouse) -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        house.use_model(server.base_url, max_retries=0)
        yield server


FETCH = {
    "name": "fetch",
    "inputSchema": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]},
}
PAGE = "Fetch http://127.0.0.1/x"


async def test_a_prompt_is_planned_once_the_server_of_its_tool_is_back(house: ShiftyHouse) -> None:
    house.list_tools([FETCH])
    house.break_down(CHANGING)
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission(prompt=PAGE), ANYBODY)
        waiting = (await until_waiting(runtime, task.task_id, 2)).waiting
        house.repair()
        planned = await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
    assert waiting is not None
    assert (waiting.kind, waiting.name, planned.waiting) == ("server", "ledger", None)
    assert "exited with code 217" in waiting.reason
    assert timedelta(seconds=100) < waiting.gives_up_at - waiting.since <= timedelta(minutes=2)


@pytest.mark.parametrize("how", ["command", "alike", "disabled", "well"])
async def test_a_prompt_whose_tool_is_missing_without_an_outage_fails(house: ShiftyHouse, how: str) -> None:
    house.list_tools([FETCH] if how != "well" else list_tools())
    entries: dict[str, dict[str, Any]] = {"command": {"command": "no-such-command"}, "disabled": {"enabled": False}}
    house.write_entry(**entries.get(how, {}))
    if how == "alike":
        house.break_down(ALIKE)
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission(prompt=PAGE), ANYBODY)
        end = await until_settled(runtime, task.task_id)
        assert await count_waits(runtime, end) == (2 if how == "alike" else 0)
    assert end.error is not None
    assert (end.status, end.error.code) == (TaskStatus.FAILED, "tool_missing")


async def test_planning_fails_once_a_server_was_down_for_too_long(house: ShiftyHouse) -> None:
    house.limit(planning_outage_s=0.5)
    house.list_tools([FETCH])
    house.break_down(CHANGING)
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission(prompt=PAGE), ANYBODY)
        end = await until_settled(runtime, task.task_id)
        assert await count_waits(runtime, end)
    assert end.error is not None
    assert (end.status, end.error.code) == (TaskStatus.FAILED, "tool_missing")
    assert "It was tried" in end.error.message


async def test_a_model_that_declines_is_asked_again_only_once_a_server_is_back(
    house: ShiftyHouse, models: ModelServer
) -> None:
    house.break_down(CHANGING)
    plan = json.dumps({"goal": "count", "steps": [plan_of("count:one").steps[0].model_dump(mode="json")]})
    models.on("", Text(json.dumps({"cannot": "There is no such tool."})), Text(plan))
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission(prompt="count"), ANYBODY)
        await until_waiting(runtime, task.task_id, 3)
        asked = len(models.requests)
        house.repair()
        planned = await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
    assert (asked, len(models.requests), planned.waiting) == (1, 2, None)


def plan_with(*steps: dict[str, Any]) -> Plan:
    return Plan.model_validate({"goal": "count", "steps": [AGENT, *steps]})


async def test_a_task_is_planned_once_the_model_answers_again(house: ShiftyHouse, models: ModelServer) -> None:
    models.on("", DOWN, DOWN, Text(PLAN))
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission(prompt="count"), ANYBODY)
        planned = await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
        first, second = await find_waits(runtime, task)
    assert (first.kind, first.name, first.attempt, second.attempt) == ("planner", "openai", 1, 2)
    assert timedelta(seconds=110) < first.gives_up_at - first.next_try_at <= timedelta(minutes=2)
    assert second.gives_up_at - first.gives_up_at < timedelta(seconds=1)
    assert (planned.waiting, len(models.requests)) == (None, 3)


async def test_a_task_that_waits_for_its_plan_can_be_cancelled(house: ShiftyHouse, models: ModelServer) -> None:
    pause(house, LONG_S)
    models.on("", DOWN)
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission(prompt="count"), ANYBODY)
        assert (await until_waiting(runtime, task.task_id)).status is TaskStatus.PENDING
        await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.CANCELLED


async def test_planning_fails_once_the_model_was_away_for_too_long(house: ShiftyHouse, models: ModelServer) -> None:
    house.limit(planning_outage_s=0.1)
    models.on("", DOWN)
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission(prompt="count"), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.error is not None
    assert (end.status, end.error.code in {"model_overloaded", "model_unavailable"}) == (TaskStatus.FAILED, True)
    assert "It was tried" in end.error.message


@pytest.mark.parametrize("kind", ["wrong_key", "unknown_model", "out_of_quota", "refusal"])
async def test_a_model_that_refuses_fails_the_plan_at_once(
    house: ShiftyHouse, models: ModelServer, kind: FaultKind
) -> None:
    models.on("", Fault(kind))
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission(prompt="count"), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.FAILED
        assert await count_waits(runtime, task) == 0


async def test_an_agent_step_goes_on_from_its_turn_once_the_model_answers_again(
    house: ShiftyHouse, models: ModelServer
) -> None:
    count = Calls([("ledger__count", {"label": "one"})])
    models.on(PROMPT, count, DOWN, Fault("rate_limited"), Fault("drop"), Text("done"))
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_with())
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
        waits = await find_waits(runtime, task)
    assert [(wait.kind, wait.name, wait.attempt) for wait in waits] == [("model", "test-model", n) for n in (1, 2, 3)]
    assert (end.status, end.result, house.counted) == (TaskStatus.COMPLETED, "done", ["one"])


async def test_what_needs_no_model_is_done_before_the_task_waits_for_it(
    house: ShiftyHouse, models: ModelServer
) -> None:
    pause(house, LONG_S)
    models.on(PROMPT, DOWN)
    first, second = plan_of("count:one", "count:two").steps
    others = [step.model_dump(mode="json", exclude_defaults=True) | {"kind": "tool"} for step in (first, second)]
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_with(*others))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        task = await until_waiting(runtime, task.task_id)
        assert house.counted == ["one", "two"]
        await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.CANCELLED


async def test_an_agent_step_fails_once_its_model_was_away_for_too_long(
    house: ShiftyHouse, models: ModelServer
) -> None:
    house.limit(outage_s=0.1)
    models.on(PROMPT, DOWN)
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_with())
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
        assert await count_waits(runtime, end) >= 1
    assert end.error is not None
    assert (end.status, end.error.step_id) == (TaskStatus.FAILED, "do")


@pytest.mark.usefixtures("library")
async def test_waiting_uses_up_no_seconds_of_the_budget(house: ShiftyHouse, models: ModelServer) -> None:
    pause(house, 0.4)
    models.on(PROMPT, DOWN, DOWN, Text("done"))
    async with house.open() as runtime:
        budget = Limits(budget=Budget(seconds=0.7))
        task = await runtime.tasks.submit(Submission(prompt="count", plan=plan_with(), limits=budget), ANYBODY)
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.COMPLETED
    assert end.call_seconds < 0.7
