"""G6: a tool that differs from the one in the plan is not called, whenever it changed; its own ledger proves it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Resolve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.events import Event, ToolCalled, ToolReturned
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.storage.sqlite.store import SqliteStore
from harness import names, submit_plan, until_settled
from shifty import SCHEMA, ShiftyHouse, list_tools, plan_of, run_plan, submit_and_approve

CHANGES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "description": (list_tools(description="count, and tell the world"), "tell the world"),
    "schema": (list_tools(inputSchema={**SCHEMA, "additionalProperties": True}), "additionalProperties"),
    "annotations": (list_tools(annotations={"readOnlyHint": True}), "readOnlyHint"),
    "title": (list_tools(title="Count"), "title was None"),
    "name": (list_tools(name="count_all"), "no longer has this tool"),
    "dropped": (list_tools()[1:], "no longer has this tool"),
    "twice": ([*list_tools(), {**list_tools()[0], "title": "another"}], "no longer has this tool"),
    "number": (list_tools(inputSchema={**SCHEMA, "maxProperties": 2**60}), "maxProperties"),
}


@pytest.fixture
def house(tmp_path: Path) -> ShiftyHouse:
    return ShiftyHouse(tmp_path)


async def expect_refused(runtime: Runtime, task: Task, difference: str) -> None:
    """Expect that the task names the difference, and that its journal holds the denial and no call after it."""
    task = await until_settled(runtime, task.task_id)
    assert task.status is TaskStatus.FAILED
    assert task.error
    assert task.error.code == "definition_changed"
    assert difference in task.error.message
    journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert journal[-2:] == ["tool.denied", "task.failed"]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_while_a_person_thinks_is_never_called(house: ShiftyHouse, change: str) -> None:
    tools, difference = CHANGES[change]
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("count:one"))
        house.list_tools(tools)
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await expect_refused(runtime, task, difference)
    assert house.counted == []


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_in_the_middle_of_a_task_is_never_called(house: ShiftyHouse, change: str) -> None:
    tools, difference = CHANGES[change]
    house.list_tools(tools, "next.json")
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, plan_of("shift:first", "count:second"))
        await expect_refused(runtime, task, difference)
    assert house.counted == ["first"]


async def test_after_a_change_the_next_plan_is_made_with_what_the_server_lists_now(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("count:one"))
        house.list_tools(list_tools(description="new"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await expect_refused(runtime, task, "new")
        again = await run_plan(runtime, plan_of("count:two"))
        assert again.definitions["ledger/count"].description == "new"
    assert again.status is TaskStatus.COMPLETED
    assert house.counted == ["two"]


async def test_a_listing_that_says_it_changed_and_did_not_is_no_reason_to_stop(house: ShiftyHouse) -> None:
    house.list_tools(list_tools(), "next.json")
    async with house.open() as runtime:
        task = await run_plan(runtime, plan_of("shift:first", "count:second"))
    assert task.status is TaskStatus.COMPLETED
    assert house.counted == ["first", "second"]


async def test_a_change_of_a_tool_that_the_plan_does_not_name_is_no_reason_to_stop(house: ShiftyHouse) -> None:
    house.list_tools(list_tools(description="another"), "next.json")
    async with house.open() as runtime:
        task = await run_plan(runtime, plan_of("shift:first", "fail:second"))
    assert task.error
    assert task.error.code == "tool_error"
    assert house.counted == ["first", "second"]


async def test_a_change_during_the_pause_before_a_repetition_is_noticed(house: ShiftyHouse) -> None:
    tools = list_tools()
    tools[3]["description"] = "later, and more"
    house.list_tools(tools, "next.json")
    plan = plan_of("later:once").model_dump(mode="json")
    plan["steps"][0]["retries"] = 3
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, Plan.model_validate(plan))
        await expect_refused(runtime, task, "later, and more")
    assert house.counted == ["once"]


class HaltingStore(SqliteStore):
    """A store that is unavailable for a moment, just when the second call is to be written."""

    refusals = 0

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        calls = [event for event in events if isinstance(event, ToolCalled)]
        if calls and calls[0].step_id == "s2" and self.refusals < 3:
            self.refusals += 1
            raise StoreUnavailableError("The disk is full.")
        return await super().append(task, events, epoch=epoch)


@pytest.mark.sqlite
async def test_a_change_while_the_intent_waits_for_the_store_is_noticed(house: ShiftyHouse) -> None:
    house.use_store(HaltingStore)
    house.list_tools(list_tools(description="new"), "next.json")
    (house.folder / "shift-soon").touch()
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, plan_of("count:first", "count:second"))
        await expect_refused(runtime, task, "new")
        events = [record.event for record in await runtime.tasks.records(task.task_id, ANYBODY)]
    (unsent,) = [event for event in events if isinstance(event, ToolReturned) and event.step_id == "s2"]
    assert unsent.result.is_error
    assert unsent.result.text.startswith("A tool is not what the plan was made with, so it was not called. ")
    assert unsent.duration_ms == 0
    assert house.counted == ["first"]


@pytest.mark.slow
async def test_a_change_between_an_unknown_outcome_and_its_retry_is_not_called(house: ShiftyHouse) -> None:
    house.limit(cancel_grace_s=0.1)
    house.write_entry(client_session_timeout_seconds=0.3)
    async with house.open() as runtime:
        task = await run_plan(runtime, plan_of("gate:one"))
        assert task.status is TaskStatus.NEEDS_ATTENTION
        tools = list_tools()
        tools[1]["description"] = "another gate"
        house.list_tools(tools)
        await runtime.tasks.decide(task.task_id, Resolve(step_id="s1", resolution="retry"), ANYBODY)
        await expect_refused(runtime, task, "another gate")
    assert house.counted == ["one"]
