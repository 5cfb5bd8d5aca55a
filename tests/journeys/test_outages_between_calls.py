"""G2, G3: between the repetitions of an idempotent call, a task waits for the end of an outage of its server."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from agent_runtime.api.views import task_view
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Cancel
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.events import TaskWaiting, ToolCalled
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task, Waiting
from harness import submit_plan, until_settled, until_waiting
from hostile_http import HostileHttp, hostile_http
from model_server import ModelServer
from model_server.replies import Calls, Text
from shifty import ShiftyHouse, plan_of
from waiting import eventually

LONG_S = 3600.0
AGENT = {"id": "do", "kind": "agent", "instruction": "Pay.", "tools": [{"server": "ledger", "tool": "pay"}]}
HOW = [429, 503, "reset", "silence"]
How = int | Literal["reset", "silence"]


@pytest.fixture
def server() -> Iterator[HostileHttp]:
    with hostile_http() as state:
        yield state


@pytest.fixture
def house(tmp_path: Path, server: HostileHttp) -> ShiftyHouse:
    house = ShiftyHouse(tmp_path)
    house.wait(in_outage=lambda _: 0.01, before_repetition=lambda _: 0.01)
    house.limit(cancel_grace_s=0.05)
    write_entry(house, server)
    return house


def write_entry(house: ShiftyHouse, server: HostileHttp, *, idempotent: bool = True) -> None:
    pay = {"open_world": False, "idempotent": idempotent, "timeout_s": 0.5}
    house.write_registry(type="remote_http", config={"base_url": server.url("good")}, tools={"*": pay})


def plan_to_pay(retries: int = 0) -> Plan:
    (step,) = plan_of("ledger.pay").steps
    return Plan.model_validate({"goal": "pay", "steps": [{**step.model_dump(exclude_none=True), "retries": retries}]})


@asynccontextmanager
async def run_in_outage(
    house: ShiftyHouse, server: HostileHttp, how: How, plan: Plan | None = None
) -> AsyncIterator[tuple[Runtime, Task]]:
    """Yield a task that was approved just before its server stopped to answer calls."""
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan or plan_to_pay())
        server.call_outage = how
        yield runtime, await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)


async def read_events(runtime: Runtime, task: Task, *kinds: type[Any]) -> list[Any]:
    return [one.event for one in await runtime.tasks.records(task.task_id, ANYBODY) if isinstance(one.event, kinds)]


def wait_of(task: Task) -> Waiting:
    assert task.waiting is not None
    return task.waiting


@pytest.mark.parametrize("how", HOW)
async def test_an_idempotent_call_is_repeated_once_its_server_answers_again(
    house: ShiftyHouse, server: HostileHttp, how: How
) -> None:
    async with run_in_outage(house, server, how) as (runtime, task):
        await until_waiting(runtime, task.task_id, 2)
        server.call_outage = None
        end = await until_settled(runtime, task.task_id)
        waits = await read_events(runtime, task, TaskWaiting)
        calls = await read_events(runtime, task, ToolCalled)
    assert (end.status, end.result, end.waiting) == (TaskStatus.COMPLETED, "paid", None)
    assert {(wait.kind, wait.name) for wait in waits} == {("server", "ledger")}
    assert [wait.attempt for wait in waits] == [*range(1, len(waits) + 1)]
    assert {wait.gives_up_at - waits[0].gives_up_at < timedelta(seconds=1) for wait in waits} == {True}
    assert len(calls) == len(waits) + (1 if how == 429 else 3)


async def test_a_task_that_waits_between_two_calls_says_so_and_holds_nothing(
    house: ShiftyHouse, server: HostileHttp
) -> None:
    house.wait(in_outage=lambda _: LONG_S)
    async with run_in_outage(house, server, 429) as (runtime, task):
        view = task_view(await until_waiting(runtime, task.task_id))
        await eventually(lambda: runtime.runner.queue == {"running": 0, "waiting": 0, "resting": 0, "in_outage": 1})
        await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert view["waiting_for"] is not None
    assert (view["waiting_for"]["kind"], view["waiting_for"]["name"]) == ("server", "ledger")
    assert "HTTP 429" in str(view["result"])
    assert (end.status, server.find_paths("tools/call")) == (TaskStatus.CANCELLED, ["/good/mcp"])


async def test_the_repetitions_of_a_plan_come_before_the_wait(house: ShiftyHouse, server: HostileHttp) -> None:
    house.wait(in_outage=lambda _: LONG_S)
    async with run_in_outage(house, server, 429, plan_to_pay(retries=2)) as (runtime, task):
        await until_waiting(runtime, task.task_id)
    assert len(server.find_paths("tools/call")) == 3


@pytest.mark.parametrize("how", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_server_that_names_a_later_time_is_left_alone_until_then(
    house: ShiftyHouse, server: HostileHttp, how: How, form: str
) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1000)
    server.retry_after = "1000" if form == "seconds" else format_datetime(at, usegmt=True)
    async with run_in_outage(house, server, how, plan_to_pay(retries=2)) as (runtime, task):
        waiting = wait_of(await until_waiting(runtime, task.task_id))
    assert timedelta(seconds=980) < waiting.next_try_at - waiting.since <= timedelta(seconds=1001)
    assert (waiting.attempt, len(server.find_paths("tools/call"))) == (1, 1)


async def test_a_server_that_cannot_be_connected_to_names_the_time_too(house: ShiftyHouse, server: HostileHttp) -> None:
    server.retry_after = "1000"
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_to_pay())
        server.outage = 503
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        waiting = wait_of(await until_waiting(runtime, task.task_id))
    assert timedelta(seconds=999) < waiting.next_try_at - waiting.since <= timedelta(seconds=1001)


async def test_no_server_makes_a_task_wait_longer_than_the_settings_allow(
    house: ShiftyHouse, server: HostileHttp
) -> None:
    server.retry_after = "9" * 30
    async with run_in_outage(house, server, 429) as (runtime, task):
        waiting = wait_of(await until_waiting(runtime, task.task_id))
    assert waiting.next_try_at == waiting.gives_up_at


@pytest.mark.parametrize("how", HOW)
async def test_a_call_that_may_not_be_repeated_is_never_waited_for(
    house: ShiftyHouse, server: HostileHttp, how: How
) -> None:
    write_entry(house, server, idempotent=False)
    async with run_in_outage(house, server, how) as (runtime, task):
        end = await until_settled(runtime, task.task_id)
        assert await read_events(runtime, task, TaskWaiting) == []
    assert end.status is (TaskStatus.FAILED if how == 429 else TaskStatus.NEEDS_ATTENTION)
    assert len(server.find_paths("tools/call")) == 1


@pytest.mark.parametrize("how", [429, "reset"])
async def test_the_call_ends_as_ever_once_the_bound_is_reached(
    house: ShiftyHouse, server: HostileHttp, how: How
) -> None:
    house.limit(outage_s=0.4)
    async with run_in_outage(house, server, how) as (runtime, task):
        end = await until_settled(runtime, task.task_id)
        waits = await read_events(runtime, task, TaskWaiting)
    assert waits
    if how == 429:
        assert end.error is not None
        assert (end.status, end.error.code, end.error.step_id) == (TaskStatus.FAILED, "tool_error", "s1")
    else:
        assert (end.status, end.unknown_steps) == (TaskStatus.NEEDS_ATTENTION, ("s1",))
        assert "It was tried" in str(end.steps["s1"].message)


async def test_the_repetition_is_made_after_a_restart_and_not_before_its_time(
    house: ShiftyHouse, server: HostileHttp
) -> None:
    house.wait(in_outage=lambda _: 1.0)
    async with run_in_outage(house, server, 503) as (runtime, task):
        waiting = wait_of(await until_waiting(runtime, task.task_id))
    server.call_outage = None
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
        journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert end.status is TaskStatus.COMPLETED
    repeated = [one for one in journal if isinstance(one.event, ToolCalled) and one.epoch == end.epoch]
    assert [one.at >= waiting.next_try_at for one in repeated] == [True]


async def test_a_server_that_dies_of_the_call_each_time_is_no_outage(tmp_path: Path) -> None:
    house = ShiftyHouse(tmp_path)
    house.wait(before_repetition=lambda _: 0.01)
    (tmp_path / "always-dies").touch()
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("die:one"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
        assert await read_events(runtime, task, TaskWaiting) == []
    assert (end.status, house.counted) == (TaskStatus.NEEDS_ATTENTION, ["one"] * 3)


# Agent steps.


@pytest.fixture
async def models(house: ShiftyHouse) -> AsyncIterator[ModelServer]:
    async with ModelServer() as models:
        house.use_model(models.base_url, max_retries=0)
        yield models


AGENT_PLAN = Plan.model_validate({"goal": "pay", "steps": [AGENT | {"preapproved": True}]})


async def test_a_model_is_told_the_answer_after_the_outage(
    house: ShiftyHouse, server: HostileHttp, models: ModelServer
) -> None:
    models.on("Pay.", Calls([("ledger__pay", {})]), Text("done"))
    async with run_in_outage(house, server, 429, AGENT_PLAN) as (runtime, task):
        await until_waiting(runtime, task.task_id, 2)
        server.call_outage = None
        end = await until_settled(runtime, task.task_id)
    assert (end.status, end.result) == (TaskStatus.COMPLETED, "done")
    (reply,) = end.steps["do"].turns[0].replies
    assert (reply.text, len(models.requests)) == ("paid", 2)


async def test_a_model_is_told_that_the_server_stayed_away(
    house: ShiftyHouse, server: HostileHttp, models: ModelServer
) -> None:
    house.limit(outage_s=0.3)
    models.on("Pay.", Calls([("ledger__pay", {})]), Text("given up"))
    async with run_in_outage(house, server, 429, AGENT_PLAN) as (runtime, task):
        end = await until_settled(runtime, task.task_id)
        assert await read_events(runtime, task, TaskWaiting)
    assert (end.status, end.result) == (TaskStatus.COMPLETED, "given up")
    (reply,) = end.steps["do"].turns[0].replies
    assert "HTTP 429" in reply.text
    assert "It was tried" in reply.text
