"""A journal that was changed behind the service's back: it is neither executed nor extended; all other tasks go on."""

from collections.abc import Awaitable, Callable

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Cancel, Edit, Reject, Resolve, Revise
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import JournalChangedError, TaskNotFoundError
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.services.task_manager import Submission
from harms import FORGED_APPROVAL, HARMS, harm, read_stored
from harness import House, ledger_plan, submit_plan, until, until_settled, until_status
from waiting import eventually

Verb = Callable[[Runtime, Task], Awaitable[object]]

VERBS: dict[str, Verb] = {
    "approve": lambda runtime, task: runtime.tasks.decide(task.task_id, Approve(), ANYBODY),
    "reject": lambda runtime, task: runtime.tasks.decide(task.task_id, Reject(), ANYBODY),
    "revise": lambda runtime, task: runtime.tasks.decide(task.task_id, Revise(feedback="better"), ANYBODY),
    "resolve": lambda runtime, task: runtime.tasks.decide(
        task.task_id, Resolve(step_id="s1", resolution="retry"), ANYBODY
    ),
    "edit": lambda runtime, task: runtime.tasks.decide(
        task.task_id, Edit(plan=ledger_plan("x"), digests=frozenset({task.plan_digest or ""})), ANYBODY
    ),
    "cancel": lambda runtime, task: runtime.tasks.decide(task.task_id, Cancel(), ANYBODY),
}


async def expect_only_deletion(runtime: Runtime, house: House, task: Task) -> None:
    """Expect that every operation is refused with the reason, nothing is written, and the task can be deleted."""
    path, task_id = house.settings.storage.database_path, task.task_id
    before = read_stored(path, task_id)
    for verb in VERBS.values():
        with pytest.raises(JournalChangedError, match=r"changed at record \d+"):
            await verb(runtime, task)
    now = await runtime.tasks.get(task_id, ANYBODY)
    assert now.status is TaskStatus.NEEDS_ATTENTION
    assert now.journal_change
    assert read_stored(path, task_id) == before
    await runtime.tasks.delete(task_id, ANYBODY)
    assert read_stored(path, task_id) == [[], []]
    with pytest.raises(TaskNotFoundError):
        await runtime.tasks.get(task_id, ANYBODY)


async def expect_work(runtime: Runtime) -> None:
    """Expect that the service carries out a task."""
    task = await submit_plan(runtime, ledger_plan("other"))
    await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
    assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED


@pytest.mark.sqlite
@pytest.mark.slow
@pytest.mark.parametrize("name", HARMS)
async def test_a_waiting_task_whose_journal_was_changed_over_a_restart_can_only_be_deleted(
    house: House, name: str
) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    harm(house.settings.storage.database_path, HARMS[name], task.task_id)
    async with house.open() as runtime:
        assert runtime.recovered.is_set()
        await expect_only_deletion(runtime, house, task)
        await expect_work(runtime)
    assert house.counted == ["other"]


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("name", "first"),
    [(name, "approve") for name in HARMS]
    + [("the prompt was changed", verb) for verb in VERBS if verb not in {"approve", "resolve"}],
)
async def test_a_waiting_task_whose_journal_is_changed_while_the_service_runs_can_only_be_deleted(
    house: House, name: str, first: str
) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        harm(house.settings.storage.database_path, HARMS[name], task.task_id)
        before = read_stored(house.settings.storage.database_path, task.task_id)
        with pytest.raises(JournalChangedError):
            await VERBS[first](runtime, task)
        assert read_stored(house.settings.storage.database_path, task.task_id) == before
        await expect_only_deletion(runtime, house, task)
        await expect_work(runtime)
    assert house.counted == ["other"]


@pytest.mark.sqlite
async def test_a_forged_approval_is_not_executed(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    harm(house.settings.storage.database_path, FORGED_APPROVAL, task.task_id)
    async with house.open() as runtime:
        await until(runtime, task.task_id, lambda now: now.journal_change is not None)
        await expect_only_deletion(runtime, house, task)
        await expect_work(runtime)
    assert house.counted == ["other"]


@pytest.mark.sqlite
@pytest.mark.parametrize("name", ["the prompt was changed", "the last record was deleted", "the row was deleted"])
async def test_a_task_whose_journal_was_changed_before_its_claim_is_not_executed(house: House, name: str) -> None:
    """It is approved and waits for its turn. A change meanwhile is found by the claim itself."""
    house.limit(concurrent_tasks=1)
    house.write_registry(delay_s=1)
    async with house.open() as runtime:
        first = await submit_plan(runtime, ledger_plan("first"))
        await runtime.tasks.decide(first.task_id, Approve(), ANYBODY)
        await until(runtime, first.task_id, lambda now: now.tool_calls > 0)
        task = await submit_plan(runtime, ledger_plan("one"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        harm(house.settings.storage.database_path, HARMS[name], task.task_id)
        before = read_stored(house.settings.storage.database_path, task.task_id)
        await until_settled(runtime, first.task_id)
        await expect_work(runtime)  # submitted later, and so run later
        assert read_stored(house.settings.storage.database_path, task.task_id) == before
        await expect_only_deletion(runtime, house, task)
    assert house.counted == ["first", "other"]


@pytest.mark.sqlite
async def test_a_task_whose_journal_was_changed_in_the_middle_of_its_work_does_not_go_on(house: House) -> None:
    house.limit(shutdown_s=0.1)
    house.write_registry(delay_s=30, tools={"*": {"idempotent": True, "effect": "read"}})
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await until(runtime, task.task_id, lambda now: now.tool_calls > 0)
    house.write_registry(tools={"*": {"idempotent": True, "effect": "read"}})
    sent = house.counted
    harm(house.settings.storage.database_path, HARMS["the plan was changed"], task.task_id)
    async with house.open() as runtime:
        await until(runtime, task.task_id, lambda now: now.journal_change is not None)
        await expect_only_deletion(runtime, house, task)
    assert house.counted == sent


@pytest.mark.sqlite
@pytest.mark.parametrize("name", ["the row counts too many", "a record was added", "the row was deleted"])
async def test_a_change_under_a_run_ends_the_run_without_a_word_in_the_journal(house: House, name: str) -> None:
    """The run does not try for ever to append what it cannot, and the service stops in order."""
    house.write_registry(delay_s=1)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one", "two"))
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await until(runtime, task.task_id, lambda now: now.tool_calls > 0)
        harm(house.settings.storage.database_path, HARMS[name], task.task_id)
        before = read_stored(house.settings.storage.database_path, task.task_id)
        await idle(runtime)
        assert read_stored(house.settings.storage.database_path, task.task_id) == before
        await expect_only_deletion(runtime, house, task)
    assert house.counted == ["one"]


async def idle(runtime: Runtime) -> None:
    """Wait until the runner has no task."""
    await eventually(lambda: not any(runtime.runner.queue.values()))


@pytest.mark.sqlite
async def test_changed_journals_neither_hold_up_the_expiry_of_others_nor_grow(house: House) -> None:
    async with house.open() as runtime:
        changed = [await submit_plan(runtime, ledger_plan("one")) for _ in range(101)]  # more than one query returns
        late = await submit_plan(runtime, ledger_plan("one"))
    path = house.settings.storage.database_path
    for task in changed:
        harm(path, HARMS["the prompt was changed"], task.task_id)
    before = [read_stored(path, task.task_id) for task in changed]
    house.set_approval(expires_after_s=0.001)
    async with house.open() as runtime:
        await until_status(runtime, late.task_id, TaskStatus.EXPIRED)
    assert [read_stored(path, task.task_id) for task in changed] == before


@pytest.mark.sqlite
async def test_a_row_that_was_made_older_neither_ends_the_task_nor_stops_the_sweep(house: House) -> None:
    house.set_approval(expires_after_s=3600)
    async with house.open() as runtime:
        tasks = [await submit_plan(runtime, ledger_plan("one")) for _ in range(2)]
    path = house.settings.storage.database_path
    harm(path, ("UPDATE tasks SET updated_at = '2001-01-01T00:00:00.000000Z' WHERE task_id = :id",), tasks[0].task_id)
    harm(path, ("UPDATE tasks SET updated_at = 'long ago' WHERE task_id = :id",), tasks[1].task_id)
    async with house.open() as runtime:
        await expect_work(runtime)
        for task in tasks:
            assert (await runtime.tasks.get(task.task_id, ANYBODY)).status is TaskStatus.AWAITING_APPROVAL


@pytest.mark.sqlite
async def test_the_key_of_a_changed_task_makes_no_second_one(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"), key="k")
    harm(house.settings.storage.database_path, HARMS["the prompt was changed"], task.task_id)
    async with house.open() as runtime:
        with pytest.raises(JournalChangedError, match="record 1"):
            await submit_plan(runtime, ledger_plan("one"), key="k")
        assert [found.task_id for found in (await runtime.tasks.page(ANYBODY)).tasks] == [task.task_id]
        await runtime.tasks.delete(task.task_id, ANYBODY)
        await runtime.tasks.submit(
            Submission("count", ledger_plan("one"), request_key="k", request_digest="k"), ANYBODY
        )
