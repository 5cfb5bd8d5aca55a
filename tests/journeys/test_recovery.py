"""G1-G3, G7, G10, G16: stops, crashes, bugs and a full disk at every moment; budgets, repetitions and bad results."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent_runtime.api.views import record_json
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Cancel, Resolve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.contract import Budget, Limits
from agent_runtime.domain.errors import InvalidInputError, StoreUnavailableError
from agent_runtime.domain.events import Event, TaskClaimed, ToolCalled, ToolReturned
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.transitions import replay
from agent_runtime.services.task_manager import Submission
from agent_runtime.storage.sqlite.store import SqliteStore
from crashing import BuggyStore
from harness import PATIENCE_S, House, ledger_plan, names, submit_plan, until, until_settled, until_status
from shifty import ShiftyHouse, plan_of, run_plan, submit_and_approve
from waiting import eventually


@pytest.fixture
def house(tmp_path: Path) -> ShiftyHouse:
    return ShiftyHouse(tmp_path)


def change_first_step(plan: Plan, **step: Any) -> Plan:
    """Return the plan with its first step changed."""
    value = plan.model_dump(mode="json")
    value["steps"][0] |= step
    return Plan.model_validate(value)


async def wait_for_counts(house: House, times: int) -> None:
    await eventually(lambda: len(house.counted) >= times)


# Stops: each leaves the service while the run is at a certain point, and opens it again.


async def left_while_planning(house: ShiftyHouse) -> Task:
    async with house.open() as runtime:
        return await runtime.tasks.submit(Submission("what is 2 + 2"), ANYBODY)


async def left_at_the_start_of_a_server(house: ShiftyHouse) -> Task:
    return await _left_while_it_hangs(house, "initialize")


async def left_at_the_listing_of_a_server(house: ShiftyHouse) -> Task:
    return await _left_while_it_hangs(house, "tools/list")


async def _left_while_it_hangs(house: ShiftyHouse, hang: str) -> Task:
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("count:one", "count:two"))
    house.write_entry(hang=hang)
    async with house.open() as runtime:
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await house.wait_for_hangs(2)  # the catalogue's and ours
        return task


async def left_in_a_pause(house: ShiftyHouse) -> Task:
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, change_first_step(plan_of("later:one"), retries=1))
        await until(runtime, task.task_id, lambda now: bool((c := now.steps["s1"].call) and c.result))
    assert house.counted == ["one"], "a call was started after the stop"
    return task


async def left_before_the_run(house: ShiftyHouse) -> Task:
    async with house.open() as runtime:
        return await submit_and_approve(runtime, plan_of("count:one", "count:two"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "leave",
    [
        left_while_planning,
        left_at_the_start_of_a_server,
        left_at_the_listing_of_a_server,
        left_in_a_pause,
        left_before_the_run,
    ],
)
async def test_a_stop_where_no_call_is_open_is_quick_and_asks_nobody_anything(
    house: ShiftyHouse, leave: Callable[[ShiftyHouse], Awaitable[Task]]
) -> None:
    house.wait(before_repetition=float)  # a second after the first attempt
    (house.folder / "next.json").write_text((house.folder / "tools.json").read_text())
    began = time.monotonic()
    task = await leave(house)
    # A server that hangs has 2 s to exit after its input was closed. Awaiting an open call would take longer.
    assert time.monotonic() - began < 9, "the stop waited for what it need not wait for"
    before = house.counted
    house.write_entry()
    async with house.open() as runtime:
        assert house.counted == before
        now = await runtime.tasks.get(task.task_id, ANYBODY)
        if not now.contract or now.status is TaskStatus.AWAITING_APPROVAL:
            await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
        journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert end.terminal
    assert "step.outcome_unknown" not in names(journal)
    assert len(house.counted) == sum(isinstance(r.event, ToolCalled) and r.event.server == "ledger" for r in journal)


async def test_a_call_that_ends_within_the_grace_of_a_stop_is_not_lost_and_the_next_is_not_started(
    house: ShiftyHouse,
) -> None:
    async with asyncio.TaskGroup() as group:
        async with house.open() as runtime:
            task = await submit_and_approve(runtime, plan_of("gate:one", "count:two"))
            await wait_for_counts(house, 1)
            group.create_task(_open_gate_soon(house))
        assert house.counted == ["one"]
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.COMPLETED
    assert house.counted == ["one", "two"]


async def _open_gate_soon(house: ShiftyHouse) -> None:
    await asyncio.sleep(0.2)  # while the service is stopping
    house.open_gate()


@pytest.mark.slow
async def test_a_call_that_outlasts_the_grace_of_a_stop_is_asked_about(house: ShiftyHouse) -> None:
    house.limit(shutdown_s=0.2)
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, plan_of("gate:one", "count:two"))
        await wait_for_counts(house, 1)
    async with house.open() as runtime:
        asking = await until_settled(runtime, task.task_id)
        assert asking.status is TaskStatus.NEEDS_ATTENTION
        await runtime.tasks.decide(task.task_id, Resolve(step_id="s1", resolution="done"), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED
    assert house.counted == ["one", "two"]


@pytest.mark.slow
async def test_a_restart_settles_a_cancellation_whose_call_was_open(house: ShiftyHouse) -> None:
    house.limit(shutdown_s=0.1)
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, plan_of("gate:one", "count:two"))
        await wait_for_counts(house, 1)
        assert (await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)).status is TaskStatus.EXECUTING
    house.write_entry(hang="initialize")  # the answer needs nothing of it
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.CANCELLED
    assert end.unknown_steps == ("s1",)
    assert house.counted == ["one"]


MIXED = 50


@pytest.mark.slow
async def test_fifty_unfinished_tasks_in_mixed_states_go_on_or_ask_after_a_restart(house: ShiftyHouse) -> None:
    house.limit(shutdown_s=0.3, tasks_on_same_servers=30)
    kinds = ("waiting", "approved", "open", "between", "planning")
    tasks: dict[str, str] = {}
    async with house.open() as runtime:
        for number in range(0, MIXED, len(kinds)):
            opened = await submit_and_approve(runtime, plan_of(f"gate:open{number}", f"count:after{number}"))
            between = await submit_and_approve(runtime, plan_of(f"count:done{number}", f"gate:open-{number}"))
            tasks |= {opened.task_id: "open", between.task_id: "between"}
        await wait_for_counts(house, 3 * MIXED // len(kinds))
        for number in range(0, MIXED, len(kinds)):
            waiting = await submit_plan(runtime, plan_of(f"count:waiting{number}"))
            ready = await submit_and_approve(runtime, plan_of(f"count:ready{number}"))
            planning = await runtime.tasks.submit(Submission("what is 2 + 2"), ANYBODY)
            tasks |= {waiting.task_id: "waiting", ready.task_id: "approved", planning.task_id: "planning"}
    house.open_gate()
    began = time.monotonic()
    async with house.open() as runtime:
        ends = {task_id: await _wait_for_answer(runtime, task_id) for task_id in tasks}
        assert time.monotonic() - began < 5
        states = Counter((tasks[task_id], end.status.value) for task_id, end in ends.items())
        for task_id, end in ends.items():
            assert replay(task_id, await runtime.tasks.records(task_id, ANYBODY)) == end
    each = MIXED // len(kinds)
    assert states == {
        ("waiting", "awaiting_approval"): each,
        ("planning", "awaiting_approval"): each,
        ("approved", "completed"): each,
        ("open", "needs_attention"): each,
        ("between", "needs_attention"): each,
    }
    assert set(Counter(house.counted).values()) == {1}
    assert not [label for label in house.counted if label.startswith(("after", "waiting"))]


async def _wait_for_answer(runtime: Runtime, task_id: str) -> Task:
    return await until(
        runtime, task_id, lambda task: task.terminal or task.status in {"awaiting_approval", "needs_attention"}
    )


# Bugs.


@pytest.mark.sqlite
async def test_a_bug_in_one_run_is_tried_again_and_its_neighbours_go_on(house: ShiftyHouse) -> None:
    house.wait(after_crashes_s=(0.05, 0.05, 0.05))
    lost: list[ToolReturned] = []

    def has_bug(task: Task, events: Sequence[Event]) -> bool:
        answers = [event for event in events if isinstance(event, ToolReturned)]
        if task.prompt != "unlucky" or not answers or len(lost) == 2:
            return False
        lost.extend(answers)
        return True

    house.use_store(partial(BuggyStore, has_bug=has_bug))
    with capture_logs():  # captured, because printing would take longest here
        await _live_through_the_bug(house)
    assert sorted(house.counted) == ["neighbour", "one", "two"]


async def _live_through_the_bug(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        unlucky = await runtime.tasks.submit(Submission("unlucky", plan=plan_of("count:one", "count:two")), ANYBODY)
        await runtime.tasks.decide(unlucky.task_id, Approve(), ANYBODY)
        assert (await run_plan(runtime, plan_of("count:neighbour"))).status is TaskStatus.COMPLETED
        for step_id in ("s1", "s2"):  # the answer was lost with the run
            assert (await until_settled(runtime, unlucky.task_id)).unknown_steps == (step_id,)
            await runtime.tasks.decide(unlucky.task_id, Resolve(step_id=step_id, resolution="done"), ANYBODY)
        assert (await until_settled(runtime, unlucky.task_id)).status is TaskStatus.COMPLETED


@pytest.mark.sqlite
async def test_a_run_that_is_given_up_can_be_cancelled_and_is_taken_up_by_the_next_start(house: ShiftyHouse) -> None:
    house.wait(after_crashes_s=(0.01, 0.01, 0.01))
    crashes = asyncio.Queue[str]()

    def has_bug(task: Task, events: Sequence[Event]) -> bool:
        if not isinstance(events[0], TaskClaimed):
            return False
        crashes.put_nowait(task.task_id)
        return True

    parts = house.parts
    async with house.open() as runtime:
        tasks = [await submit_plan(runtime, plan_of(f"count:{label}")) for label in ("one", "two")]
    house.use_store(partial(BuggyStore, has_bug=has_bug))
    with capture_logs() as logs:  # captured, because printing would take longest here
        async with house.open() as runtime:
            for task in tasks:
                await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
            async with asyncio.timeout(PATIENCE_S):
                assert Counter([await crashes.get() for _ in range(8)]) == {task.task_id: 4 for task in tasks}
            assert (await runtime.tasks.decide(tasks[1].task_id, Cancel(), ANYBODY)).status is TaskStatus.CANCELLED
    said = Counter(entry["event"] for entry in logs)
    assert (said["run_crashed"], said["run_given_up"]) == (8, 2)
    house.parts = parts
    async with house.open() as runtime:
        assert (await until_settled(runtime, tasks[0].task_id)).status is TaskStatus.COMPLETED
    assert house.counted == ["one"]


@pytest.mark.sqlite
async def test_a_cancel_does_not_wait_for_the_next_attempt_of_a_run_that_crashed(house: ShiftyHouse) -> None:
    crashed = asyncio.Event()

    def has_bug(_: Task, events: Sequence[Event]) -> bool:
        if isinstance(events[0], ToolReturned):
            crashed.set()
        return isinstance(events[0], ToolReturned)

    house.use_store(partial(BuggyStore, has_bug=has_bug))
    house.wait(after_crashes_s=(60.0,))
    with capture_logs():
        async with house.open() as runtime, asyncio.timeout(10):
            task = await submit_and_approve(runtime, plan_of("count:one"))
            await crashed.wait()
            await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
            end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.CANCELLED
    assert end.unknown_steps == ("s1",)


@pytest.mark.slow
async def test_an_open_call_that_may_be_repeated_is_asked_about_where_its_server_is_gone(house: ShiftyHouse) -> None:
    house.limit(shutdown_s=0.1)
    house.write_entry(tools={"gate": {"idempotent": True}})
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, plan_of("gate:one"))
        await wait_for_counts(house, 1)
    house.write_entry(enabled=False)
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.NEEDS_ATTENTION
    assert "disabled" in str(end.steps["s1"].message)


# The store.


class FullStore(SqliteStore):
    """A store that is full from the event named by `full_at` on, until it is emptied."""

    full_at: type[Event] | None = None
    refused = 0

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        if self.refused or (self.full_at and any(isinstance(event, self.full_at) for event in events)):
            self.refused += 1
            if self.refused <= 3:
                raise StoreUnavailableError("The disk is full.")
            self.refused, self.full_at = 0, None
        return await super().append(task, events, epoch=epoch)


@pytest.mark.slow
@pytest.mark.sqlite
@pytest.mark.parametrize("full_at", [TaskClaimed, ToolCalled, ToolReturned])
async def test_a_disk_that_was_full_for_a_while_loses_no_result_and_repeats_no_call(
    house: ShiftyHouse, full_at: type[Event]
) -> None:
    house.use_store(FullStore)
    house.wait(store_s=0.05)
    async with house.open() as runtime:
        store = runtime.store
        assert isinstance(store, FullStore)
        task = await submit_plan(runtime, plan_of("count:one", "count:two"))
        store.full_at = full_at
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
        assert store.refused == 0
        assert not store.full_at
    assert end.status is TaskStatus.COMPLETED
    assert end.epoch == 1
    assert house.counted == ["one", "two"]


# Repetitions and budgets.


async def test_an_idempotent_call_whose_server_died_is_repeated_on_a_new_server(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        end = await run_plan(runtime, plan_of("die:one", "count:two"))
    assert end.status is TaskStatus.COMPLETED
    assert house.counted == ["one", "one", "two"]
    call = end.steps["s1"].call
    assert call
    assert call.attempt == 2


async def test_a_call_that_may_not_be_repeated_is_not_when_its_server_died(house: ShiftyHouse) -> None:
    house.write_entry(tools={"die": {"idempotent": False}})
    async with house.open() as runtime:
        end = await run_plan(runtime, plan_of("die:one", "count:two"))
    assert end.status is TaskStatus.NEEDS_ATTENTION
    assert "code 3" in str(end.steps["s1"].message)
    assert house.counted == ["one"]


@pytest.mark.slow
async def test_an_idempotent_call_without_an_answer_is_asked_about_after_three_times_if_no_outage_is_waited_for(
    house: ShiftyHouse,
) -> None:
    house.limit(cancel_grace_s=0.05, outage_s=0)
    house.write_entry(tools={"gate": {"idempotent": True, "timeout_s": 0.2}})
    async with house.open() as runtime:
        end = await run_plan(runtime, plan_of("gate:one"))
    assert end.status is TaskStatus.NEEDS_ATTENTION
    assert house.counted == ["one"] * 3


async def test_retries_repeat_an_error_as_often_as_the_step_says(house: ShiftyHouse) -> None:
    house.write_entry(tools={"fail": {"idempotent": True}})
    async with house.open() as runtime:
        end = await run_plan(runtime, change_first_step(plan_of("fail:one"), retries=2))
    assert end.error
    assert end.error.code == "tool_error"
    assert house.counted == ["one"] * 3


@pytest.mark.slow
async def test_a_budget_holds_over_repetitions_too(house: ShiftyHouse) -> None:
    house.write_entry(tools={"fail": {"idempotent": True}})
    limits = Limits(budget=Budget(tool_calls=2))
    async with house.open() as runtime:
        plan = change_first_step(plan_of("fail:one"), retries=9)
        task = await runtime.tasks.submit(Submission("try", plan=plan, limits=limits), ANYBODY)
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.FAILED
    assert house.counted == ["one"] * 2


@pytest.mark.slow
async def test_a_budget_of_seconds_ends_the_call_that_would_use_it_up(house: ShiftyHouse) -> None:
    house.limit(cancel_grace_s=0.05)
    limits = Limits(budget=Budget(seconds=0.2))
    async with house.open() as runtime:
        task = await runtime.tasks.submit(
            Submission("try", plan=plan_of("gate:one", "count:two"), limits=limits), ANYBODY
        )
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        async with asyncio.timeout(5):
            end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.NEEDS_ATTENTION
    assert house.counted == ["one"]


# Results.


def make_nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


RESULTS: dict[str, str] = {
    "not a number": '{"content": [], "structuredContent": {"a": NaN, "b": Infinity, "c": -Infinity}}',
    "huge integer": f'{{"content": [], "structuredContent": {{"a": {"9" * 400}}}}}',
    "huge float": '{"content": [], "structuredContent": {"a": 1e999}}',
    "long integer": f'{{"content": [], "structuredContent": {{"a": {"9" * 4301}}}}}',
    "surrogate": '{"content": [{"type": "text", "text": "a\\ud800b"}]}',
    "surrogate key": '{"content": [], "structuredContent": {"\\udfff": 1}}',
    "control": '{"content": [{"type": "text", "text": "\\u0000\\u001b[31m\\u2028"}]}',
    "deep": f'{{"content": [], "structuredContent": {make_nested(150)}}}',
    "deep as can be read": f'{{"content": [], "structuredContent": {make_nested(197)}}}',
    "deeper": f'{{"content": [], "structuredContent": {make_nested(5000)}}}',
    "duplicate keys": '{"content": [], "structuredContent": {"a": 1, "a": 2}}',
    "content is a number": '{"content": 5}',
    "content holds nulls": '{"content": [null, 1, "x", {"type": "text", "text": 5}]}',
    "nothing": "{}",
    "binary": '{"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]}',
    "large": f'{{"content": [{{"type": "text", "text": "{"é" * 200_000}"}}]}}',
    "large output": f'{{"content": [], "structuredContent": {{"a": "{"x" * 300_000}"}}}}',
}


def _strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.slow
async def test_no_result_breaks_the_journal_or_what_reads_it(house: ShiftyHouse) -> None:
    house.wait(after_crashes_s=(0.01, 0.01, 0.01))
    house.limit(cancel_grace_s=0.05)
    house.write_entry(tools={"raw": {"timeout_s": 0.5}})
    ends: dict[str, Task] = {}
    async with house.open() as runtime:
        for kind, answer in RESULTS.items():
            (house.folder / "answer.json").write_text(answer, encoding="utf-8")
            ends[kind] = await run_plan(runtime, plan_of("raw:one"))
    async with house.open() as runtime:  # nothing is in memory now
        for end in ends.values():
            journal = await runtime.tasks.records(end.task_id, ANYBODY)
            assert await runtime.tasks.get(end.task_id, ANYBODY) == end == replay(end.task_id, journal)
            for record in journal:
                assert isinstance(_strict(record.data), dict)
                assert _strict(record_json(record))["seq"] == record.seq
                assert "\n" not in record.data
                assert len(record.data) < 300_000
    unreadable = {kind for kind, end in ends.items() if end.error and end.error.code == "result_unreadable"}
    assert unreadable == {"long integer", "deeper"}
    assert {end.status for kind, end in ends.items() if kind not in unreadable} == {TaskStatus.COMPLETED}
    assert house.counted == ["one"] * len(RESULTS)


@pytest.mark.parametrize(
    ("kind", "said"), [("large", "262144"), ("large output", "262144"), ("binary", "binary"), ("deep", "cut")]
)
async def test_a_result_that_was_not_kept_whole_fails_the_step_that_refers_to_it(
    house: ShiftyHouse, kind: str, said: str
) -> None:
    (house.folder / "answer.json").write_text(RESULTS[kind], encoding="utf-8")
    async with house.open() as runtime:
        end = await run_plan(runtime, plan_of("raw:one", "count:${s1.text}"))
    assert end.error
    assert end.error.code == "reference_failed"
    assert said in end.error.message
    assert house.counted == ["one"]


@pytest.mark.slow
async def test_an_output_put_deep_into_arguments_can_still_be_read_back(house: ShiftyHouse) -> None:
    (house.folder / "answer.json").write_text(f'{{"content": [], "structuredContent": {make_nested(100)}}}')
    tools = json.loads((house.folder / "tools.json").read_text())
    tools[0]["inputSchema"] = {"type": "object"}
    house.list_tools(tools)
    deep: Any = "${s1.output}"
    for _ in range(60):
        deep = {"a": deep}
    plan = plan_of("raw:one", "count:two").model_dump(mode="json")
    plan["steps"][1]["arguments"] = {"label": "two", "deep": deep}
    async with house.open() as runtime:
        end = await run_plan(runtime, Plan.model_validate(plan))
        assert end.status is TaskStatus.COMPLETED
    async with house.open() as runtime:
        assert await runtime.tasks.get(end.task_id, ANYBODY) == end


async def test_what_a_person_says_a_call_gave_is_held_to_the_same_bounds(house: ShiftyHouse) -> None:
    house.write_entry(tools={"die": {"idempotent": False}})
    async with house.open() as runtime:
        task = await run_plan(runtime, plan_of("die:one"))
        for output in (json.loads(make_nested(150)), "x" * 300_000, float("nan"), "\ud800"):
            with pytest.raises(InvalidInputError):
                await runtime.tasks.decide(
                    task.task_id, Resolve(step_id="s1", resolution="done", output=output), ANYBODY
                )
        with pytest.raises(InvalidInputError, match="prompt"):
            await runtime.tasks.submit(Submission("\ud800"), ANYBODY)
        assert await runtime.tasks.get(task.task_id, ANYBODY) == task


@pytest.mark.slow
async def test_a_ledger_of_the_ordinary_kind_is_untouched_by_ten_restarts(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one", "two"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    for _ in range(10):
        async with house.open() as runtime:
            assert await runtime.store.list_unfinished() == []
            assert await runtime.tasks.get(task.task_id, ANYBODY) == end
    assert house.counted == ["one", "two"]
