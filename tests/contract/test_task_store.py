"""The contract of every task store, tested adapter by adapter. A new adapter adds one factory to `ADAPTERS`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from agent_runtime.api import searching
from agent_runtime.api.searching import find_tasks
from agent_runtime.domain import events as ev
from agent_runtime.domain.chain import GENESIS
from agent_runtime.domain.commits import CommitHead
from agent_runtime.domain.errors import (
    AgentRuntimeError,
    ConflictError,
    IllegalTransitionError,
    InvalidInputError,
    StaleEpochError,
    TaskNotFoundError,
)
from agent_runtime.domain.feed import NEWEST, FeedCheckpoint, FeedEntry, Tombstone
from agent_runtime.domain.planning_attempts import MOST_KEPT, AttemptMessage, PlanningAttempt
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.stored_journal import chain_faults
from agent_runtime.domain.summaries import Page
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import JudgedDefinition
from agent_runtime.domain.transitions import replay
from agent_runtime.services.ports import TaskStore
from journals import (
    DEFINITION,
    claim,
    input_requested,
    plan_approved,
    plan_proposed,
    some_step,
    task_claimed,
    task_submitted,
    tool_called,
    tool_returned,
    write_cancelled_task,
    write_executing_task,
)
from store_adapters import ADAPTERS, OpenStore


@pytest.fixture(params=list(ADAPTERS))
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    return ADAPTERS[request.param](request)


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[TaskStore]:
    async with asyncio.timeout(30), open_store() as opened:
        yield opened


async def attempts(store: TaskStore, task: Task, event: ev.Event, count: int) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(_attempt(store, task, event)) for _ in range(count)]
    return [one.result() for one in tries]


async def _attempt(store: TaskStore, task: Task, event: ev.Event) -> str:
    try:
        await store.append(task, [event])
    except AgentRuntimeError as error:
        return type(error).__name__
    return "written"


async def test_what_was_appended_is_loaded(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted("say hello\x00 é")])
    assert task.version == 1
    assert await store.load("t") == task
    (record,) = await store.records("t")
    assert record.event == task_submitted("say hello\x00 é")
    assert record.data == record.event.model_dump_json()
    assert (record.seq, record.epoch, record.at) == (1, None, task.created_at)


async def test_a_task_that_does_not_exist_is_not_found(store: TaskStore) -> None:
    with pytest.raises(TaskNotFoundError):
        await store.load("nobody")
    with pytest.raises(TaskNotFoundError):
        await store.records("nobody")
    async with asyncio.timeout(5):
        await store.wait_for_change("nobody", 0)


async def test_several_events_are_one_append(store: TaskStore) -> None:
    task = await write_executing_task(store, "t")
    events = [
        tool_returned("call-s1-1", "s1"),
        ev.StepCompleted(step_id="s1"),
        ev.StepStarted(step_id="s2", title="two"),
    ]
    task = await store.append(task, [*events, tool_called("s2")], epoch=task.epoch)
    journal = await store.records("t")
    assert [record.seq for record in journal] == list(range(1, task.version + 1))
    assert replay("t", journal) == task == await store.load("t")


async def test_an_append_of_nothing_changes_nothing(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted()])
    assert await store.append(task, []) is task
    assert len(await store.records("t")) == 1


async def test_an_illegal_event_is_refused_with_all_that_came_with_it(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted()])
    with pytest.raises(IllegalTransitionError):
        await store.append(task, [ev.TaskCancelRequested(), plan_approved()])
    assert await store.load("t") == task


async def test_an_append_to_an_old_version_is_a_conflict(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted()])
    newer = await store.append(task, [ev.TaskCancelRequested()])
    with pytest.raises(ConflictError):
        await store.append(task, [ev.TaskCancelRequested()])
    assert await store.load("t") == newer


async def test_of_many_appends_to_the_same_version_one_is_written(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted()])
    task = await claim(store, task)
    task = await store.append(task, [plan_proposed()], epoch=1)
    results = await attempts(store, task, plan_approved(), 50)
    assert sorted(results) == ["ConflictError"] * 49 + ["written"]
    assert [record.type for record in await store.records("t")].count("plan.approved") == 1


async def test_a_conflict_spares_the_appends_that_share_its_transaction(store: TaskStore) -> None:
    tasks = [await store.append(Task(f"t{number}"), [task_submitted()]) for number in range(20)]
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(_attempt(store, task, ev.TaskCancelRequested())) for task in tasks for _ in range(2)]
    assert [one.result() for one in tries] == ["written", "ConflictError"] * 20
    assert all([(await store.load(task.task_id)).cancel_requested for task in tasks])


async def test_a_task_is_created_once(store: TaskStore) -> None:
    results = await attempts(store, Task("t"), task_submitted(), 10)
    assert sorted(results) == ["ConflictError"] * 9 + ["written"]


async def test_a_request_key_creates_one_task(store: TaskStore) -> None:
    assert await store.find_request("anonymous", "k") is None
    first = await store.append(Task("t1"), [task_submitted(request_key="k")])
    with pytest.raises(ConflictError):
        await store.append(Task("t2"), [task_submitted(request_key="k")])
    assert await store.find_request("anonymous", "k") == first
    with pytest.raises(TaskNotFoundError):
        await store.load("t2")
    with pytest.raises(TaskNotFoundError):
        await store.records("t2")


async def test_a_request_key_belongs_to_its_submitter(store: TaskStore) -> None:
    tasks = {
        name: await store.append(Task(name), [task_submitted(request_key="k", actor=name)]) for name in ("ann", "bob")
    }
    for name, task in tasks.items():
        assert await store.find_request(name, "k") == task
        with pytest.raises(ConflictError):
            await store.append(Task("t2"), [task_submitted(request_key="k", actor=name)])
    assert await store.find_request("anonymous", "k") is None


async def test_tasks_without_a_request_key_do_not_collide(store: TaskStore) -> None:
    await store.append(Task("t1"), [task_submitted()])
    await store.append(Task("t2"), [task_submitted()])
    assert len((await store.page()).tasks) == 2


async def test_a_superseded_run_is_told_so(store: TaskStore) -> None:
    old = await write_executing_task(store, "t")
    newer = await claim(store, old)
    with pytest.raises(StaleEpochError):
        await store.append(old, [ev.StepFailed(step_id="s2", code="x", message="y")], epoch=old.epoch)
    with pytest.raises(StaleEpochError):
        await store.append(newer, [ev.StepFailed(step_id="s2", code="x", message="y")], epoch=old.epoch)
    assert await store.load("t") == newer


async def test_of_two_claims_of_one_epoch_the_second_is_a_conflict(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted()])
    await claim(store, task)
    with pytest.raises(ConflictError):
        await claim(store, task)


async def test_a_late_answer_is_kept_as_evidence_and_changes_nothing(store: TaskStore) -> None:
    old = await write_executing_task(store, "t")
    newer = await claim(store, old)
    late = [tool_returned("call-s1-1", "s1")]
    with pytest.raises(StaleEpochError):
        await store.append(old, late, epoch=old.epoch)
    kept = await store.append(await store.load("t"), late, epoch=old.epoch)
    assert kept.steps == newer.steps
    assert (await store.records("t", newer.version))[0].epoch == old.epoch
    with pytest.raises(StaleEpochError):
        await store.append(kept, [*late, ev.StepCompleted(step_id="s1")], epoch=old.epoch)
    assert replay("t", await store.records("t")) == kept


async def test_records_come_in_parts(store: TaskStore) -> None:
    task = await write_executing_task(store, "t")
    journal = await store.records("t")
    assert await store.records("t", 2) == journal[2:]
    assert await store.records("t", 2, 3) == journal[2:5]
    assert await store.records("t", task.version) == []
    assert await store.records("t", 999) == []


@pytest.mark.parametrize("seed", range(5))
async def test_any_legal_journal_replays_to_the_state_that_is_loaded(open_store: OpenStore, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - a repeatable choice, not a secret
    tasks = [Task(f"t{number}") for number in range(8)]
    async with asyncio.timeout(30), open_store() as store:
        for _ in range(25):
            for number, task in enumerate(tasks):
                chosen = some_step(task, random)
                if chosen is not None:
                    tasks[number] = await store.append(task, chosen[0], epoch=chosen[1])
        for task in tasks:
            assert await store.load(task.task_id) == task
            assert replay(task.task_id, await store.records(task.task_id)) == task
        shown = {summary.task_id: summary for summary in (await store.page(limit=100)).tasks}
    async with asyncio.timeout(30), open_store() as store:
        for task in tasks:
            assert await store.load(task.task_id) == task
            summary = shown[task.task_id]
            assert (summary.status, summary.plan_revision) == (task.status, task.plan_revision)
            assert (summary.cancel_requested, summary.metadata) == (task.cancel_requested, task.metadata)
            assert (summary.created_at, summary.updated_at) == (task.created_at, task.updated_at)


async def test_a_cancelled_caller_does_not_lose_the_write(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted()])
    async with asyncio.TaskGroup() as group:
        caller = group.create_task(store.append(task, [ev.TaskCancelRequested()]))
        following = group.create_task(store.wait_for_change("t", 1))
        await asyncio.sleep(0)
        caller.cancel()
        await following
    assert (await store.load("t")).cancel_requested
    await store.append(await store.load("t"), [ev.TaskCancelled()])


async def test_pages_are_newest_first_and_stable_while_tasks_arrive(store: TaskStore) -> None:
    for number in range(25):
        await store.append(Task(f"t{number}"), [task_submitted(f"prompt {number}")])
    seen: list[str] = []
    page = await store.page(limit=10)
    while True:
        seen += [summary.task_id for summary in page.tasks]
        await store.append(Task(f"later{len(seen)}"), [task_submitted()])
        if page.next_cursor is None:
            break
        page = await store.page(limit=10, cursor=page.next_cursor)
    assert seen == [f"t{number}" for number in reversed(range(25))]


async def test_the_last_page_has_no_cursor(store: TaskStore) -> None:
    assert await store.page() == await store.page(TaskStatus.FAILED)
    for number in range(4):
        await store.append(Task(f"t{number}"), [task_submitted()])
    assert (await store.page(limit=4)).next_cursor is None
    assert (await store.page(limit=3)).next_cursor is not None


async def test_a_page_ends_with_the_task_that_makes_it_too_long(store: TaskStore) -> None:
    for number in range(20):
        long = task_submitted("p" * 60_000).model_copy(update={"metadata": {"label": "x" * 100_000}})
        await store.append(Task(f"t{number}"), [long])
    page = await store.page(limit=200)
    assert [summary.task_id for summary in page.tasks] == [f"t{number}" for number in range(19, 12, -1)]
    seen = len(page.tasks)
    while page.next_cursor is not None:
        page = await store.page(limit=200, cursor=page.next_cursor)
        seen += len(page.tasks)
    assert seen == 20


async def test_a_page_of_one_status_skips_the_others(store: TaskStore) -> None:
    for number in range(6):
        task = await store.append(Task(f"t{number}"), [task_submitted()])
        if number % 2:
            await store.append(task, [ev.TaskCancelRequested(), ev.TaskCancelled()])
    page = await store.page(TaskStatus.CANCELLED, limit=2)
    assert [summary.task_id for summary in page.tasks] == ["t5", "t3"]
    page = await store.page(TaskStatus.CANCELLED, limit=2, cursor=page.next_cursor)
    assert [summary.task_id for summary in page.tasks] == ["t1"]
    assert all(summary.terminal for summary in page.tasks)


async def test_a_search_finds_all_words_in_any_case_and_its_pages_miss_and_repeat_none(store: TaskStore) -> None:
    for number in range(230):
        prompt = f"Zähle die WÖRTER in datei{number}.txt" if number % 3 == 0 else f"Add {number}"
        event = task_submitted(prompt).model_copy(update={"metadata": {"Customer": f"acme-{number % 2}"}})
        await store.append(Task(f"t{number}"), [event])

    async def read(limit: int, cursor: str | None) -> Page:
        return await store.page(limit=limit, cursor=cursor)

    async def search(query: str, limit: int) -> list[str]:
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await find_tasks(read, query, limit, cursor)
            assert len(page.tasks) <= limit
            found += [task.task_id for task in page.tasks]
            cursor = page.next_cursor
            if cursor is None:
                return found

    expected = [f"t{number}" for number in range(229, -1, -1) if number % 3 == 0 and number % 2]
    for limit in (1, 7, 38, 200):
        assert await search("customer wörter ACME-1 zähle", limit) == expected
    assert await search("t228", 5) == ["t228"]
    assert await search("nothing has this", 50) == []


async def test_a_search_returns_after_a_bounded_scan_with_where_to_go_on(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "MOST_SCANNED", 200)
    await store.append(Task("first"), [task_submitted("the needle")])
    for number in range(250):
        await store.append(Task(f"t{number}"), [task_submitted("hay")])

    async def read(limit: int, cursor: str | None) -> Page:
        return await store.page(limit=limit, cursor=cursor)

    page = await find_tasks(read, "needle", 10)
    assert page.tasks == ()
    page = await find_tasks(read, "needle", 10, page.next_cursor)
    assert ([task.task_id for task in page.tasks], page.next_cursor) == (["first"], None)


async def test_a_page_of_a_thread_has_its_tasks_alone(store: TaskStore) -> None:
    for number in range(60):
        event = task_submitted().model_copy(
            update={"thread": "c\x00é" if number % 2 else None if number % 4 else "other"}
        )
        task = await store.append(Task(f"t{number}"), [event])
        if number > 50:
            await store.append(task, [ev.TaskCancelRequested(), ev.TaskCancelled()])
    page = await store.page(thread="c\x00é", limit=2)
    assert [(summary.task_id, summary.thread) for summary in page.tasks] == [("t59", "c\x00é"), ("t57", "c\x00é")]
    page = await store.page(thread="c\x00é", cursor=page.next_cursor)
    assert [summary.task_id for summary in page.tasks] == [f"t{number}" for number in range(55, 0, -2)]
    page = await store.page(TaskStatus.PENDING, thread="c\x00é", limit=1)
    assert [summary.task_id for summary in page.tasks] == ["t49"]
    assert (await store.page(thread="unknown")).tasks == ()
    await store.delete(await store.load("t59"))
    page = await store.page(thread="c\x00é", limit=1)
    assert [summary.task_id for summary in page.tasks] == ["t57"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "MA", "LTE", "0", "A" * 10_000, "OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "\x00"]
)
async def test_a_foreign_cursor_is_bad_input(store: TaskStore, cursor: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await store.page(cursor=cursor)
    assert [fault.field for fault in caught.value.faults] == ["cursor"]


async def test_unfinished_tasks_are_those_that_no_person_is_asked_about(store: TaskStore) -> None:
    await store.append(Task("pending"), [task_submitted()])
    await write_cancelled_task(store, "cancelled")
    await write_executing_task(store, "executing")
    for name in ("waiting", "waiting-cancelled"):
        task = await claim(store, await store.append(Task(name), [task_submitted()]))
        task = await store.append(task, [plan_proposed()], epoch=1)
    await store.append(task, [ev.TaskCancelRequested()])
    task = await write_executing_task(store, "asked")
    await store.append(task, [input_requested("s1")], epoch=task.epoch)
    # Whether its call still runs is for its run to say: after a crash nobody would hear an answer.
    assert await store.list_unfinished() == ["pending", "executing", "waiting-cancelled", "asked"]


async def test_a_follower_wakes_when_the_journal_grows(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted()])
    async with asyncio.TaskGroup() as group:
        following = group.create_task(store.wait_for_change("t", 1))
        beyond = group.create_task(store.wait_for_change("t", 2))
        task = await store.append(task, [ev.TaskCancelRequested()])
        await following
        assert not beyond.done()
        await store.append(task, [ev.TaskCancelled()])
        await beyond
    await store.wait_for_change("t", 2)


async def test_whoever_waits_for_a_cancellation_hears_of_it_and_of_nothing_else(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted()])
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(store.wait_for_cancellation("t"))
        task = await claim(store, task)
        await asyncio.sleep(0)
        assert not waiting.done()
        task = await store.append(task, [ev.TaskCancelRequested()])
        await waiting
        await store.wait_for_cancellation("t")
        await store.append(task, [ev.TaskCancelled()])
        await store.wait_for_cancellation("t")


async def test_whoever_waits_for_the_cancellation_of_a_task_that_is_gone_waits_no_longer(store: TaskStore) -> None:
    task = await claim(store, await store.append(Task("t"), [task_submitted()]))
    task = await store.append(task, [ev.TaskFailed(code="model_error", message="no")], epoch=1)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(store.wait_for_cancellation("t"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await store.delete(task)
        await waiting
    await store.wait_for_cancellation("t")


async def test_no_follower_misses_an_event_however_the_writes_fall(store: TaskStore) -> None:
    async def follow(task_id: str) -> list[int]:
        seen: list[int] = []
        while True:
            await store.wait_for_change(task_id, len(seen))
            records = await store.records(task_id, len(seen))
            seen += [record.seq for record in records]
            if records[-1].type == "task.cancelled":
                return seen

    async def write(task_id: str) -> None:
        task = await store.load(task_id)
        for _ in range(20):
            task = await claim(store, task)
        await store.append(task, [ev.TaskCancelRequested(), ev.TaskCancelled()])

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            await store.append(Task(f"t{number}"), [task_submitted()])
        readers = [group.create_task(follow(f"t{number % 10}")) for number in range(50)]
        for number in range(10):
            group.create_task(write(f"t{number}"))
    assert all(reader.result() == list(range(1, 24)) for reader in readers)


async def test_a_thousand_followers_all_wake(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted()])
    async with asyncio.TaskGroup() as group:
        for _ in range(1000):
            group.create_task(store.wait_for_change("t", 1))
        await asyncio.sleep(0)
        await store.append(task, [ev.TaskCancelRequested()])


async def test_a_deleted_task_is_gone_and_its_followers_wake(store: TaskStore) -> None:
    task = await write_cancelled_task(store, "t")
    async with asyncio.TaskGroup() as group:
        group.create_task(store.wait_for_change("t", task.version))
        await asyncio.sleep(0)
        await store.delete(task)
    for reading in (store.load, store.records):
        with pytest.raises(TaskNotFoundError):
            await reading("t")
    with pytest.raises(TaskNotFoundError):
        await store.delete(task)
    assert (await store.page()).tasks == ()


async def test_a_task_that_has_grown_is_not_deleted(store: TaskStore) -> None:
    task = await store.append(Task("t"), [task_submitted()])
    newer = await store.append(task, [ev.TaskCancelRequested()])
    with pytest.raises(ConflictError):
        await store.delete(task)
    assert await store.load("t") == newer


async def test_a_request_key_is_free_after_its_task_was_deleted(store: TaskStore) -> None:
    task = await store.append(
        Task("t"), [task_submitted(request_key="k"), ev.TaskCancelRequested(), ev.TaskCancelled()]
    )
    await store.delete(task)
    assert await store.find_request("anonymous", "k") is None
    await store.append(Task("t2"), [task_submitted(request_key="k")])


async def test_starts_are_counted_until_a_task_gets_on_or_all_are_forgotten(store: TaskStore) -> None:
    task = await write_executing_task(store, "t")
    other = await write_executing_task(store, "u")
    for count in range(1, 4):
        await store.note_starts(["t", "u"])
        task = await store.append(task, [task_claimed(task)], epoch=task.epoch + 1)
        assert await store.starts() == {"t": count, "u": count}
    await store.append(other, [ev.TaskCancelRequested()])
    assert await store.starts() == {"t": 3}
    await store.note_starts(["t", "u"])
    assert await store.starts() == {"t": 4, "u": 1}
    await store.forget_starts()
    assert await store.starts() == {}


async def test_definitions_are_kept_by_identity(store: TaskStore) -> None:
    assert await store.load_definitions("a") is None
    echo = JudgedDefinition(definition=DEFINITION)
    shout = JudgedDefinition(definition=DEFINITION.model_copy(update={"name": "shout"}), fault="too loud")
    await store.save_definitions("a", [echo])
    await store.save_definitions("b", [])
    assert await store.load_definitions("a") == [echo]
    assert await store.load_definitions("b") == []
    await store.save_definitions("a", [echo, shout])
    assert await store.load_definitions("a") == [echo, shout]


async def test_all_is_there_after_a_restart(open_store: OpenStore) -> None:
    async with open_store() as store:
        task = await write_executing_task(store, "t")
        journal = await store.records("t")
        await store.save_definitions("a", [JudgedDefinition(definition=DEFINITION)])
    async with open_store() as store:
        assert await store.load("t") == task
        assert await store.records("t") == journal
        assert await store.load_definitions("a") == [JudgedDefinition(definition=DEFINITION)]
        assert await store.list_unfinished() == ["t"]
        await store.append(task, [task_claimed(task)], epoch=task.epoch + 1)


async def test_a_healthy_store_passes_its_check(store: TaskStore) -> None:
    await store.check()
    await store.check()


async def test_tasks_are_counted_by_status(store: TaskStore) -> None:
    assert dict(await store.count()) == {}
    await store.append(Task("pending"), [task_submitted()])
    await write_cancelled_task(store, "one")
    await write_cancelled_task(store, "two")
    assert dict(await store.count()) == {TaskStatus.PENDING: 1, TaskStatus.CANCELLED: 2}


async def test_what_is_kept_of_a_task_passes_the_audit(store: TaskStore) -> None:
    task = await write_executing_task(store, "t")
    kept = await store.load_stored_journal("t")
    assert [entry.seq for entry in kept.entries] == list(range(1, task.version + 1))
    assert list(chain_faults(kept)) == []
    with pytest.raises(TaskNotFoundError):
        await store.load_stored_journal("nobody")


async def test_the_tasks_that_await_approval_come_in_the_order_of_their_plans(store: TaskStore) -> None:
    plans = {}
    for name in ("first", "second", "cancelled"):
        task = await claim(store, await store.append(Task(name), [task_submitted()]))
        plans[name] = await store.append(task, [plan_proposed()], epoch=1)
    await store.append(plans["cancelled"], [ev.TaskCancelRequested()])
    assert await store.list_awaiting_approval(10) == [(name, plans[name].updated_at) for name in ("first", "second")]
    assert await store.list_awaiting_approval(1) == [("first", plans["first"].updated_at)]


async def test_the_tasks_that_ended_before_a_time_are_found_by_status(store: TaskStore) -> None:
    await store.append(Task("open"), [task_submitted()])
    names = ["one", "two", "three"]
    ended = [await write_cancelled_task(store, name) for name in names]
    last = ended[-1].updated_at
    assert last is not None
    assert await store.list_ended(TaskStatus.CANCELLED, last, 10) == names[:2]
    assert await store.list_ended(TaskStatus.CANCELLED, last + timedelta(seconds=1), 2) == names[:2]
    assert await store.list_ended(TaskStatus.CANCELLED, last + timedelta(seconds=1), 10) == names
    assert await store.list_ended(TaskStatus.FAILED, last + timedelta(seconds=1), 10) == []


Shown = tuple[str, str, int]
"""Cursor, task id and number of an event; the number is 0 for a tombstone or a checkpoint."""


def show(entry: FeedEntry) -> Shown:
    content = entry.content
    if isinstance(content, FeedCheckpoint):
        return str(entry.position), "restart" if content.restarts else "checkpoint", 0
    return str(entry.position), content.task_id, 0 if isinstance(content, Tombstone) else content.seq


async def feed(store: TaskStore, after: str | None = None) -> list[Shown]:
    """Read the whole stored feed."""
    found: list[Shown] = []
    async with aclosing(await store.subscribe(after, idle_s=0.05)) as pages:
        async for page in pages:
            if not page:
                break
            found += map(show, page)
    return found


async def test_a_feed_from_now_on_begins_with_a_cursor_and_has_only_what_comes_later(open_store: OpenStore) -> None:
    async with asyncio.timeout(30), open_store() as store:
        assert await feed(store, NEWEST) == []
        first = await store.append(Task("a"), [task_submitted(), ev.TaskCancelRequested()])
        assert await feed(store, NEWEST) == [("1.2", "checkpoint", 0)]
        async with aclosing(await store.subscribe(NEWEST)) as pages:
            assert [show(entry) for entry in await anext(pages)] == [("1.2", "checkpoint", 0)]
            await store.append(first, [ev.TaskCancelled()])
            assert [show(entry) for entry in await anext(pages)] == [("2.1", "a", 3)]
        await store.checkpoint(drop=True)
        ((cursor, kind, _),) = await feed(store, NEWEST)
        assert kind == "checkpoint"
        assert await feed(store, cursor) == []


async def test_the_feed_has_every_event_and_a_tombstone_for_each_deleted_task(open_store: OpenStore) -> None:
    async with asyncio.timeout(30), open_store() as store:
        first = await store.append(Task("a"), [task_submitted(), ev.TaskCancelRequested()])
        await store.append(Task("b"), [task_submitted()])
        first = await store.append(first, [ev.TaskCancelled()])
        assert await feed(store) == [("1.1", "a", 1), ("1.2", "a", 2), ("2.1", "b", 1), ("3.1", "a", 3)]
        await store.delete(first)
    async with asyncio.timeout(30), open_store() as store:
        assert await feed(store) == [("2.1", "b", 1), ("4.1", "a", 0)]
        assert await feed(store, "1.1") == [("2.1", "b", 1), ("4.1", "a", 0)]
        assert await feed(store, "3.1") == [("4.1", "a", 0)]
        assert await feed(store, "4.1") == []


async def test_a_feed_goes_on_after_any_of_its_cursors(store: TaskStore) -> None:
    for number in range(60):
        await store.append(Task(f"t{number}"), [task_submitted(), ev.TaskCancelRequested(), ev.TaskCancelled()])
    whole = await feed(store)
    assert [seq for _, _, seq in whole] == [1, 2, 3] * 60
    for place in (0, 1, 2, 98, 99, 100, 179):
        assert await feed(store, whole[place][0]) == whole[place + 1 :]


async def test_no_subscriber_misses_a_live_event_and_none_sees_one_twice(store: TaskStore) -> None:
    async def read() -> list[Shown]:
        found: list[Shown] = []
        async with aclosing(await store.subscribe()) as pages:
            async for page in pages:
                found += map(show, page)
                if len(found) == 300:
                    break
        return found

    async def write(task_id: str) -> None:
        task = await store.append(Task(task_id), [task_submitted()])
        for _ in range(29):
            task = await claim(store, task)

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read()) for _ in range(5)]
        for number in range(10):
            group.create_task(write(f"t{number}"))
    seen = readers[0].result()
    assert all(reader.result() == seen for reader in readers)
    for number in range(10):
        assert [seq for _, task_id, seq in seen if task_id == f"t{number}"] == list(range(1, 31))


@pytest.mark.parametrize("cursor", ["", "x", "1", "1.", "01.1", "1.01", "-1.1", "0.0", "9.1", "1.2", "1.1\n", "é.1"])
async def test_a_foreign_cursor_of_the_feed_is_bad_input(store: TaskStore, cursor: str) -> None:
    await store.append(Task("t"), [task_submitted()])
    with pytest.raises(InvalidInputError) as caught:
        await store.subscribe(cursor)
    assert [fault.field for fault in caught.value.faults] == ["after"]


async def test_rows_before_a_checkpoint_may_be_dropped_and_older_cursors_start_anew(open_store: OpenStore) -> None:
    async with asyncio.timeout(30), open_store() as store:
        gone = await write_cancelled_task(store, "gone")
        kept = await store.append(Task("kept"), [task_submitted()])
        await store.delete(gone)
        last = (await feed(store))[-1][0]
        await store.checkpoint()
        assert (await feed(store, last)) == [(f"{int(last.split('.')[0]) + 1}.1", "checkpoint", 0)]
        await store.checkpoint(drop=True)
        position = (await store.commit_head()).position
        await store.append(kept, [ev.TaskCancelRequested()])
    async with asyncio.timeout(30), open_store() as store:
        after = [(f"{position + 1}.1", "kept", 2)]
        anew = [(f"{position}.0", "restart", 0), (f"{position}.1", "kept", 1), *after]
        assert await feed(store) == await feed(store, last) == anew
        assert await feed(store, f"{position}.0") == anew[1:]
        assert await feed(store, f"{position}.1") == after
        assert await feed(store, f"{position - 1}.1") == [
            (f"{position}.1", "checkpoint", 0),
            *after,
        ]  # it missed nothing


def attempt_of(answer: str) -> PlanningAttempt:
    said = AttemptMessage(role="user", content="Add \x00 é.")
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return PlanningAttempt(
        revision=1, at=now, duration_ms=1.5, instructions="Plan.", messages=(said,), answer=answer, outcome="planned"
    )


async def test_attempts_at_a_plan_outlive_a_restart_and_go_with_their_task(open_store: OpenStore) -> None:
    async with asyncio.timeout(30), open_store() as store:
        task = await write_cancelled_task(store, "t")
        other = await store.append(Task("u"), [task_submitted()])
        for number in range(1, MOST_KEPT + 3):
            await store.save_planning_attempt("t", attempt_of(f"{number}"))
        await store.save_planning_attempt("u", attempt_of("another"))
    async with asyncio.timeout(30), open_store() as store:
        kept = [(number, attempt_of(f"{number}")) for number in range(3, MOST_KEPT + 3)]
        assert await store.load_planning_attempts("t") == kept, "the oldest are dropped"
        await store.delete(task)
        await store.save_planning_attempt("t", attempt_of("too late"))
        with pytest.raises(TaskNotFoundError):
            await store.load_planning_attempts("t")
        assert await store.load_planning_attempts("u") == [(1, attempt_of("another"))]
        assert await store.load("u") == other, "an attempt is no event"
        again = await store.append(Task("t"), [task_submitted()])
        assert await store.load_planning_attempts(again.task_id) == []


async def test_closing_the_store_ends_its_feeds(open_store: OpenStore) -> None:
    async def read(store: TaskStore, ready: asyncio.Event) -> None:
        async for _ in await store.subscribe():
            ready.set()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group, open_store() as store:
        ready = asyncio.Event()
        await store.append(Task("t"), [task_submitted()])
        group.create_task(read(store, ready))
        await ready.wait()


async def test_each_commit_is_chained_to_the_one_before(store: TaskStore) -> None:
    assert await store.commit_head() == CommitHead()
    await store.append(Task("t"), [task_submitted()])
    first = await store.commit_head()
    await store.append(Task("u"), [task_submitted()])
    second = await store.commit_head()
    assert (first.position, second.position) == (1, 2)
    assert len({GENESIS, first.hash, second.hash}) == 3
