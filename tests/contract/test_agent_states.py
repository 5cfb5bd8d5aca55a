"""The contract of every store of states: revisions, conditions, expiry; and the verbs on it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from agent_runtime.domain import events as ev
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import (
    InvalidInputError,
    StateChangedError,
    StateNotFoundError,
    StateTooLargeError,
)
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import JsonValue
from agent_runtime.services.ports import TaskStore
from agent_runtime.states.agent_states import AgentStates
from agent_runtime.states.saved import require_absent, require_present, require_revision
from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.store import PostgresStore
from journals import task_submitted
from store_adapters import ADAPTERS, OpenStore
from waiting import eventually

WRITERS = 12


@pytest.fixture(params=list(ADAPTERS))
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    return ADAPTERS[request.param](request)


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[TaskStore]:
    async with asyncio.timeout(60), open_store() as opened:
        yield opened


def in_a_day() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


async def test_a_state_is_kept_for_its_agent_and_its_thread_over_a_restart(open_store: OpenStore) -> None:
    async with open_store() as store:
        first = await store.states.save("a", "t", '{"text":"é \\u0000"}')
        await store.states.save("a", "other", "{}")
        second = await store.states.save("a", "t", '{"n":2}')
    assert (first.number, second.number) == (1, 2)
    assert first.revision != second.revision
    async with open_store() as store:
        assert await store.states.load("a", "t") == second
        assert await store.states.load("b", "t") is None


async def test_a_state_is_replaced_only_where_the_condition_allows_it(store: TaskStore) -> None:
    states = store.states
    with pytest.raises(StateChangedError):
        await states.save("a", "t", "{}", require_present)
    first = await states.save("a", "t", "{}", require_absent)
    with pytest.raises(StateChangedError) as refused:
        await states.save("a", "t", '{"n":1}', require_absent)
    assert refused.value.revision == first.revision
    second = await states.save("a", "t", '{"n":1}', require_revision(first.revision, "another"))
    with pytest.raises(StateChangedError):
        await states.save("a", "t", '{"n":2}', require_revision(first.revision))
    with pytest.raises(StateChangedError):
        await states.delete("a", "t", require_revision(first.revision))
    assert await states.load("a", "t") == second
    assert await states.delete("a", "t", require_revision(second.revision))
    assert not await states.delete("a", "t")
    again = await states.save("a", "t", '{"n":3}')
    assert (again.number, again.revision == first.revision) == (1, False)


async def test_of_writers_that_have_read_the_same_revision_one_wins(store: TaskStore) -> None:
    first = await store.states.save("a", "t", "{}")

    async def save(number: int) -> bool:
        try:
            await store.states.save("a", "t", f'{{"writer":{number}}}', require_revision(first.revision))
        except StateChangedError:
            return False
        return True

    assert sum(await asyncio.gather(*map(save, range(WRITERS)))) == 1
    state = await store.states.load("a", "t")
    assert state
    assert state.number == 2


async def test_of_replicas_that_save_a_first_state_one_wins_and_none_is_lost(postgres_url: str) -> None:
    database = Database(postgres_url)
    async with PostgresStore(database, exclusive=False) as one, PostgresStore(database, exclusive=False) as other:

        async def create(store: TaskStore) -> bool:
            try:
                await store.states.save("a", "first", "{}", require_absent)
            except StateChangedError:
                return False
            return True

        stores = (one, other) * 8
        assert sum(await asyncio.gather(*map(create, stores))) == 1
        await asyncio.gather(*(store.states.save("a", "counted", "{}") for store in stores))
        state = await one.states.load("a", "counted")
        assert state
        assert state.number == len(stores)


async def test_an_expired_state_counts_as_absent_and_is_deleted(store: TaskStore) -> None:
    states = store.states
    for number in range(3):
        await states.save("a", f"t{number}", "{}")
    assert await states.load("a", "t0", in_a_day()) is None
    with pytest.raises(StateChangedError):
        await states.save("a", "t0", "{}", require_present, in_a_day())
    assert not await states.delete("a", "t0", horizon=in_a_day())
    assert await states.delete_expired(datetime.now(UTC) - timedelta(days=1), 10) == 0
    assert [await states.delete_expired(in_a_day(), 2) for _ in range(2)] == [2, 0]


async def test_the_states_of_a_thread_go_with_its_last_task(store: TaskStore) -> None:
    for agent, thread in (("a", "t"), ("b", "t"), ("a", "other")):
        await store.states.save(agent, thread, "{}")
    for number in range(2):
        task = await store.append(Task(f"task{number}"), [task_submitted().model_copy(update={"thread": "t"})])
        await store.append(task, [ev.TaskCancelRequested(), ev.TaskCancelled()])
    await store.delete(await store.load("task0"))
    assert await store.states.load("a", "t")
    await store.delete(await store.load("task1"))
    found = [await store.states.load(agent, thread) for agent, thread in (("a", "t"), ("b", "t"), ("a", "other"))]
    assert [state is not None for state in found] == [False, False, True]


async def test_expired_states_are_deleted_in_the_background(store: TaskStore) -> None:
    verbs = AgentStates(store.states, 1000, keep_s=0.2)
    await verbs.save("a", "t", {}, ANYBODY)

    async def is_gone() -> bool:
        return await store.states.load("a", "t") is None

    async with asyncio.TaskGroup() as group:
        watch = group.create_task(verbs.watch())
        await eventually(is_gone)
        watch.cancel()
    with pytest.raises(StateNotFoundError):
        await verbs.load("a", "t", ANYBODY)


async def test_what_is_no_state_or_too_large_is_refused_and_changes_nothing(store: TaskStore) -> None:
    verbs = AgentStates(store.states, 100, None)
    with pytest.raises(StateTooLargeError, match=r"has 111 bytes; the limit is 100 \(limits.state_bytes\)"):
        await verbs.save("a", "t", {"text": "x" * 100}, ANYBODY)
    wrong: list[JsonValue] = [[], "text", None, {"n": float("inf")}, {"half": "\ud800"}]
    for value in wrong:
        with pytest.raises(InvalidInputError):
            await verbs.save("a", "t", value, ANYBODY)
    for agent, thread in (("", "t"), ("a", "t" * 257), ("a\x00", "t"), ("a", "t\n")):
        with pytest.raises(InvalidInputError):
            await verbs.save(agent, thread, {}, ANYBODY)
        with pytest.raises(InvalidInputError):
            await verbs.load(agent, thread, ANYBODY)
    assert await store.states.load("a", "t") is None
