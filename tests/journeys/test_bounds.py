"""G11: the bounds of a task, whatever its plan says, and that no task keeps the service from starting."""

import asyncio
import contextlib
import json
import resource
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.api.catalogue import tools_page
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Cancel, Edit, Resolve, Revise
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.conditions import MOST_REFERENCES
from agent_runtime.domain.contract import Limits
from agent_runtime.domain.errors import DecisionRefusedError
from agent_runtime.domain.events import Event, StepFailed, TaskClaimed, ToolCalled, ToolDenied
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.transitions import replay
from agent_runtime.runners import recovery
from agent_runtime.services.task_manager import Submission
from crashing import Crash, CrashingStore, Fuse, is_crash
from harness import House, ledger_plan, submit_plan, until_settled, until_status
from model_server import ModelServer
from model_server.replies import Calls, Text, by_turn
from pools import HOSTILE_SERVER, Lag
from shifty import ShiftyHouse, plan_of, run_plan, submit_and_approve

TOO_MUCH = "With its references resolved it takes more than 1048576 bytes (limits.argument_bytes)."


def then_count(first: Plan, times: int) -> Plan:
    """Return the plan with a step that counts the words of its first result, repeated as often as one argument can hold
    it.
    """
    steps = first.model_dump(mode="json")["steps"]
    count = {"id": "last", "kind": "tool", "server": "text", "tool": "count_words"}
    return Plan.model_validate({"steps": [*steps, {**count, "arguments": {"text": "${s1.text}" * times}}]})


async def test_a_plan_that_grows_with_its_references_fails_where_it_does(house: House) -> None:
    (house.files / "big.txt").write_text(("x" * 99 + "\n") * 2000)
    plan = then_count(plan_of("filesystem.read_file", path="big.txt"), 3000)
    async with house.open() as runtime:
        task = await run_plan(runtime, plan)
        events = [record.event for record in await runtime.tasks.records(task.task_id, ANYBODY)]
    message = f"text.count_words was not called: {TOO_MUCH}"
    assert (task.status, task.error.code if task.error else None) == (TaskStatus.FAILED, "reference_failed")
    assert [event for event in events if isinstance(event, ToolDenied | StepFailed)] == [
        ToolDenied(step_id="last", server="text", tool="count_words", rule="reference_failed", message=TOO_MUCH),
        StepFailed(step_id="last", code="reference_failed", message=message),
    ]
    assert sum(len(event.model_dump_json()) for event in events) < 1_000_000


async def test_what_a_person_says_came_of_a_call_grows_no_further(shifty: ShiftyHouse) -> None:
    shifty.write_entry(tools={"die": {"idempotent": False}})
    async with shifty.open() as runtime:
        task = await submit_and_approve(runtime, then_count(plan_of("die:one"), 3000))
        await until_status(runtime, task.task_id, TaskStatus.NEEDS_ATTENTION)
        await runtime.tasks.decide(
            task.task_id, Resolve(step_id="s1", resolution="done", output="x" * 250_000), ANYBODY
        )
        task = await until_status(runtime, task.task_id, TaskStatus.FAILED)
    assert task.error
    assert TOO_MUCH in task.error.message


@pytest.fixture
def shifty(house: House) -> ShiftyHouse:
    return ShiftyHouse(house.folder)


def agent(**more: Any) -> Plan:
    step = {"id": "do", "kind": "agent", "instruction": "Count.", "preapproved": True, **more}
    first = plan_of("filesystem.read_file", "filesystem.read_file", path="big.txt").model_dump(mode="json")["steps"]
    return Plan.model_validate({"steps": [*first, {"depends_on": ["s2"], **step}]})


async def test_an_instruction_that_grows_with_its_references_is_never_sent(house: House) -> None:
    (house.files / "big.txt").write_text(("x" * 99 + "\n") * 2000)
    async with ModelServer() as models:
        house.use_model(models.base_url)
        async with house.open() as runtime:
            task = await run_plan(runtime, agent(instruction="${s1.text}" * 3000))
        assert models.requests == []
    assert task.error
    assert (task.error.code, task.error.message) == ("reference_failed", TOO_MUCH)


async def test_arguments_of_a_model_that_are_too_long_are_refused_and_the_model_is_told(house: House) -> None:
    (house.files / "big.txt").write_text("x")
    house.limit(argument_bytes=1000)
    async with ModelServer() as models:
        house.use_model(models.base_url)
        models.on("Count.", by_turn(Calls([("ledger__count", {"label": "x" * 1000})]), Text("I could not.")))
        async with house.open() as runtime:
            task = await run_plan(runtime, agent(tools=[{"server": "ledger", "tool": "count"}]))
            events = [record.event for record in await runtime.tasks.records(task.task_id, ANYBODY)]
        said = "over the limit of 1000 (limits.argument_bytes)"
        assert said in next(iter(models.requests[1].results.values()))
    assert task.status is TaskStatus.COMPLETED
    assert [event.tool for event in events if isinstance(event, ToolCalled)] == ["read_file"] * 2
    assert house.counted == []


# The time of the shared event loop


async def longest_stall(runtime: Runtime, plan: Plan) -> float:
    """Run the plan, and return the longest time that everybody else waited meanwhile, in seconds."""
    lag = Lag()
    async with asyncio.TaskGroup() as group:
        task = await runtime.tasks.submit(Submission(prompt="x", plan=plan, limits=Limits(max_steps=100)), ANYBODY)
        watch = group.create_task(lag.measure())
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        ended = await until_settled(runtime, task.task_id)
        watch.cancel()
    assert ended.status is TaskStatus.COMPLETED
    return lag.worst_s


async def test_conditions_that_search_long_outputs_hold_nobody_up(tmp_path: Path) -> None:
    house = ShiftyHouse(tmp_path)
    answer = {"content": [], "structuredContent": {"numbers": [1] * 80_000}}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    search = " or ".join(["0 in ${s1.output.numbers}"] * MOST_REFERENCES)
    step = {"kind": "tool", "server": "ledger", "tool": "count", "arguments": {"label": "x"}, "when": search}
    steps = plan_of("raw:x").model_dump(mode="json")["steps"]
    plan = Plan.model_validate({"steps": [*steps, *({**step, "id": f"when{number}"} for number in range(40))]})
    async with house.open() as runtime:
        assert await longest_stall(runtime, plan) < 2


@pytest.mark.slow
async def test_calls_with_large_arguments_hold_nobody_up(tmp_path: Path) -> None:
    house = ShiftyHouse(tmp_path)
    answer = {"content": [], "structuredContent": {"numbers": [1] * 100_000}}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    arguments = {"label": "x", **dict.fromkeys("abcd", "${s1.output.numbers}")}
    step = {"kind": "tool", "server": "ledger", "tool": "count", "arguments": arguments}
    steps = plan_of("raw:x").model_dump(mode="json")["steps"]
    plan = Plan.model_validate({"steps": [*steps, *({**step, "id": f"large{number}"} for number in range(8))]})
    async with house.open() as runtime:
        assert await longest_stall(runtime, plan) < 2.5


@pytest.mark.slow
async def test_a_plan_of_many_large_steps_holds_nobody_up(tmp_path: Path) -> None:
    house = ShiftyHouse(tmp_path)
    numbers = [str(number) for number in range(1500)]
    step = {"kind": "tool", "server": "ledger", "tool": "count", "arguments": {"label": "x", "numbers": numbers}}
    plan = Plan.model_validate({"steps": [{**step, "id": f"s{number}"} for number in range(80)]})
    async with house.open() as runtime:
        assert await longest_stall(runtime, plan) < 2.5


# What servers list


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def catalogue(house: House) -> tuple[dict[str, str], float, float]:
    """Return the unusable tools of the server and why, the longest stall meanwhile, and the CPU time of other
    processes.
    """
    lag, before = Lag(), cpu_of_children()
    async with house.open() as runtime, asyncio.TaskGroup() as group:
        watch = group.create_task(lag.measure())
        await runtime.registry.ready(["ledger"], 50)
        watch.cancel()
        assert {"ledger/echo", "ledger/many", "ledger/wide"} <= set(runtime.registry.tools(["ledger"]))
        unusable = runtime.registry.unusable()
    return unusable, lag.worst_s, cpu_of_children() - before


@pytest.mark.slow
async def test_schemas_that_take_long_are_judged_elsewhere_and_once(house: House) -> None:
    house.write_registry(config={"command": sys.executable, "args": ["-S", "-E", str(HOSTILE_SERVER), "stalling"]})
    unusable, stalled_s, cpu_s = await catalogue(house)
    assert unusable == {
        "ledger/doubling": "its definition cannot be used: judging its schema takes more than 2 s",
        "ledger/wrong": "its definition cannot be used: 'strng' is not valid under any of the given schemas",
    }
    assert stalled_s < 1.8
    assert cpu_s > 2
    again, stalled_s, cpu_s = await catalogue(house)
    assert again == unusable
    assert stalled_s < 1.8
    assert cpu_s < 1


@pytest.mark.slow
@pytest.mark.sqlite
async def test_kept_definitions_that_cannot_be_read_keep_nothing_from_starting(house: House) -> None:
    await catalogue_of(house)
    for nonsense in ("", "[", "null", '[{"name": 5}]', '[{"name": "echo"}]', '{"rules": 9, "tools": []}'):
        with contextlib.closing(sqlite3.connect(house.settings.storage.database_path)) as database, database:
            database.execute("UPDATE definitions SET definitions = ?", (nonsense,))
        assert "ledger/count" in await catalogue_of(house)


async def catalogue_of(house: House) -> set[str]:
    async with house.open() as runtime:
        await runtime.registry.ready(["ledger"], 50)
        return set(runtime.registry.tools(["ledger"]))


async def test_a_catalogue_within_every_bound_is_given_in_pages(house: House) -> None:
    house.write_registry(config={"command": sys.executable, "args": ["-S", "-E", str(HOSTILE_SERVER), "plump"]})
    async with house.open() as runtime:
        await runtime.registry.refresh(30)
        pages = [tools_page(runtime.registry, 500, None)]
        while cursor := json.loads(pages[-1])["next_cursor"]:
            pages.append(tools_page(runtime.registry, 500, cursor))
    listed = [tool["tool"] for page in pages for tool in json.loads(page)["tools"] if tool["server"] == "ledger"]
    assert listed == [f"plump{number}" for number in range(60)]
    assert len(pages) > 3
    assert max(map(len, pages)) < 1_200_000


# Starting again


class DeadlyStore(CrashingStore):
    """A store with which the service dies as soon as a run of the task `deadly` is claimed."""

    deadly = ""
    fuse = Fuse(0, after=False)

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        if task.task_id == self.deadly and isinstance(events[0], TaskClaimed):
            raise Crash
        return await super().append(task, events, epoch=epoch)


async def dies(house: House, approving: str | None = None) -> None:
    """Open the service, which dies by itself, or once this task is approved."""

    async def live() -> None:
        async with house.open() as runtime, asyncio.timeout(30):
            if approving:
                await runtime.tasks.decide(approving, Approve(), ANYBODY)
            await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup) as end:
        await live()
    assert is_crash(end.value)


@pytest.mark.sqlite
async def test_a_task_with_which_the_service_dies_keeps_it_neither_down_nor_from_other_work(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.use_store(DeadlyStore)
    house.wait(first_start_s=2.0)
    async with house.open() as runtime:
        deadly = await submit_plan(runtime, ledger_plan("deadly"))
        other = await submit_plan(runtime, ledger_plan("other"))
    monkeypatch.setattr(DeadlyStore, "deadly", deadly.task_id)
    await dies(house, approving=deadly.task_id)
    for _ in range(recovery.MOST_STARTS):
        await dies(house)
    async with house.open() as runtime:
        assert runtime.recovered.is_set()
        await runtime.tasks.decide(other.task_id, Approve(), ANYBODY)
        assert (await until_settled(runtime, other.task_id)).status is TaskStatus.COMPLETED
        assert (await runtime.tasks.get(deadly.task_id, ANYBODY)).status is TaskStatus.APPROVED
        monkeypatch.setattr(DeadlyStore, "deadly", "")
        assert (await until_settled(runtime, deadly.task_id)).status is TaskStatus.COMPLETED
    assert house.counted == ["other", "deadly"]


@pytest.mark.sqlite
async def test_a_task_that_waits_and_cannot_even_be_read_ends_nothing(house: House) -> None:
    house.wait(first_start_s=0.001, longest_start_s=0.001)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("broken"))
        other = await submit_plan(runtime, ledger_plan("other"))
    with contextlib.closing(sqlite3.connect(house.settings.storage.database_path)) as database, database:
        database.execute("UPDATE tasks SET status = 'executing' WHERE task_id = ?", (task.task_id,))
        database.execute("UPDATE events SET data = '[' WHERE task_id = ? AND seq > 1", (task.task_id,))
        select = "SELECT count(*) FROM events WHERE task_id = ? AND type <> 'task.claimed'"
        facts = database.execute(select, (task.task_id,)).fetchone()[0]
        database.execute("INSERT INTO starts VALUES (?, ?, 5000)", (task.task_id, facts))
    async with house.open() as runtime:
        await runtime.tasks.decide(other.task_id, Approve(), ANYBODY)
        assert (await until_settled(runtime, other.task_id)).status is TaskStatus.COMPLETED


@pytest.mark.sqlite
async def test_after_a_stop_in_order_every_task_is_taken_up_at_once(house: House) -> None:
    house.use_store(DeadlyStore)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        await runtime.store.note_starts([task.task_id])
        assert await runtime.store.starts() == {task.task_id: 1}
    async with house.open() as runtime:
        assert await runtime.store.starts() == {}


# The journal


async def test_a_plan_is_edited_and_revised_only_as_long_as_the_journal_has_room(house: House) -> None:
    house.limit(journal_bytes=20_000)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("0" * 5000))
        for number in range(1, 100):
            if task.journal_bytes > 20_000:
                break
            task = await runtime.tasks.decide(
                task.task_id,
                Edit(plan=ledger_plan(str(number % 10) * 5000), digests=frozenset({task.plan_digest or ""})),
                ANYBODY,
            )
        assert task.journal_bytes < 35_000
        with pytest.raises(DecisionRefusedError, match=r"over the limit of 20000 \(limits\.journal_bytes\)"):
            await runtime.tasks.decide(
                task.task_id, Edit(plan=ledger_plan("x"), digests=frozenset({task.plan_digest or ""})), ANYBODY
            )
        with pytest.raises(DecisionRefusedError, match=r"limits\.journal_bytes"):
            await runtime.tasks.decide(task.task_id, Revise(feedback="shorter"), ANYBODY)
        await runtime.tasks.decide(task.task_id, Cancel(), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.CANCELLED


async def test_a_task_whose_journal_is_full_calls_no_more(house: House) -> None:
    house.limit(journal_bytes=20_000)
    (house.files / "big.txt").write_text("x" * 15_000)
    async with house.open() as runtime:
        task = await run_plan(runtime, plan_of(*["filesystem.read_file"] * 5, path="big.txt"))
        assert task.error
        assert (task.status, task.error.code) == (TaskStatus.FAILED, "journal_full")
        assert task.tool_calls < 4  # events of one write are counted together
        assert replay(task.task_id, await runtime.tasks.records(task.task_id, ANYBODY)) == task


async def test_a_model_is_asked_no_more_once_the_journal_is_full(house: House) -> None:
    house.limit(journal_bytes=20_000)
    (house.files / "big.txt").write_text("x" * 19_000)
    async with ModelServer() as models:
        house.use_model(models.base_url)
        async with house.open() as runtime:
            task = await run_plan(runtime, agent())
        assert models.requests == []
    assert task.error
    assert task.error.code == "journal_full"
