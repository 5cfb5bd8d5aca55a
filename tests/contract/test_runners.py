"""The promises of every runner: of that for one process, and of that on a queue of jobs which several share."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from agent_runtime.config import LimitSettings
from agent_runtime.domain.entries import Entries
from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.events import TaskCancelRequested
from agent_runtime.domain.pauses import Pauses
from agent_runtime.domain.task import Task
from agent_runtime.live.interruption import run_until
from agent_runtime.runners.local import JobOwner, LocalRunner
from agent_runtime.runners.opening import make_local_runner
from agent_runtime.runners.queued import QueuedRunner
from agent_runtime.services.ports import Runner, TaskStore
from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.queue import PostgresJobQueue
from agent_runtime.storage.postgres.store import PostgresStore
from journals import task_submitted
from memory_store import Memory, MemoryStore
from postgres_server import PostgresServer
from waiting import eventually

LATER = "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = 'later'"
PAUSES = Pauses(after_crashes_s=(0.05, 0.05), store_s=0.05, longest_start_s=600, heartbeat_s=0.1, look_s=600)


@dataclass
class Script:
    """A run of a task that does what a test says. `runs` are those so far, `open` the number of those that last."""

    runs: list[str] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    lasts: bool = False
    until: asyncio.Event = field(default_factory=asyncio.Event)
    answers: list[float | Exception | None] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def run(self, task_id: str, cancel: asyncio.Event, stop: asyncio.Event) -> float | None:
        self.runs.append(task_id)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.lasts:
                await run_until(self.until.wait(), cancel, stop)
            if cancel.is_set():
                self.cancelled.append(task_id)
            elif stop.is_set():
                return 0
            answer = self.answers.pop(0) if self.answers else None
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            self.open -= 1

    async def servers_of(self, task_id: str) -> frozenset[str]:
        return frozenset({task_id})

    def make_runner(self, owner: JobOwner | None = None) -> LocalRunner:
        limits = LimitSettings(concurrent_tasks=2, tasks_on_same_servers=2, shutdown_s=0.2)
        return make_local_runner(limits, self.run, self.servers_of, PAUSES, owner)


OpenRunner = Callable[[Script], AbstractAsyncContextManager[tuple[Runner, TaskStore]]]


@asynccontextmanager
async def _open_local(script: Script) -> AsyncIterator[tuple[Runner, TaskStore]]:
    async with MemoryStore(Memory()) as store, script.make_runner() as runner:
        yield runner, store


class _CountingStore(PostgresStore):
    """Counts how often a sweep has asked for the unfinished tasks."""

    sweeps = 0

    async def list_unfinished(self) -> list[str]:
        found = await super().list_unfinished()
        self.sweeps += 1
        return found


def _open_queued_on(database: Database, pauses: Pauses = PAUSES, sweeps: int = 2) -> OpenRunner:
    """Return what opens a runner that has swept so often: at its start, and once it is elected. A sweep that comes
    between an append and its wake has the task run once more, which is safe, but would be counted.
    """

    @asynccontextmanager
    async def open_queued(script: Script) -> AsyncIterator[tuple[QueuedRunner, TaskStore]]:
        async with (
            _CountingStore(database, exclusive=False) as store,
            PostgresJobQueue(database) as queue,
            QueuedRunner(queue, store, script.make_runner, only_own=False, sweeps=(), pauses=pauses) as runner,
        ):
            await eventually(lambda: store.sweeps >= sweeps)
            yield runner, store

    return open_queued


@pytest.fixture(params=["local", "queued"])
def open_runner(request: pytest.FixtureRequest) -> OpenRunner:
    if request.param == "local":
        return _open_local
    return _open_queued_on(Database(request.getfixturevalue("postgres_url")))


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def pair(open_runner: OpenRunner, script: Script) -> AsyncIterator[tuple[Runner, TaskStore]]:
    async with asyncio.timeout(30), open_runner(script) as (runner, store):
        yield runner, store


async def test_a_woken_task_runs_and_one_that_is_woken_meanwhile_runs_once_more(
    pair: tuple[Runner, TaskStore], script: Script
) -> None:
    runner, store = pair
    await store.append(Task("t"), [task_submitted()])
    script.lasts = True
    await runner.wake("t")
    await eventually(lambda: script.runs == ["t"])
    await runner.wake("t")
    await runner.wake("t")
    script.until.set()
    await eventually(lambda: script.runs == ["t", "t"])
    await eventually(lambda: runner.queue["running"] == 0)
    assert script.most_open == 1


async def test_no_more_tasks_run_at_once_than_the_limit_says(pair: tuple[Runner, TaskStore], script: Script) -> None:
    runner, store = pair
    names = [f"t{number}" for number in range(5)]
    script.lasts = True
    for name in names:
        await store.append(Task(name), [task_submitted()])
        await runner.wake(name)
    await eventually(lambda: script.open == 2)
    script.until.set()
    await eventually(lambda: sorted(script.runs) == names)
    assert script.most_open == 2


async def test_the_figures_of_the_queue_say_what_runs_and_how_long_the_oldest_job_waits(
    postgres_url: str, script: Script
) -> None:
    script.lasts = True
    async with asyncio.timeout(50), _open_queued_on(Database(postgres_url))(script) as (runner, store):
        for name in (f"t{number}" for number in range(5)):
            await store.append(Task(name), [task_submitted()])
            await runner.wake(name)
        await eventually(lambda: script.open == 2)
        await runner.wake(script.runs[0])  # it waits for its own run, and is not late
        found = await store.measure_fleet()
        assert found is not None
        assert (found.waiting, found.running, found.later, found.workers, found.replicas) == (3, 2, 0, 1, 1)
        later = await store.measure_fleet()
        assert later is not None
        assert 0 < found.oldest_s < later.oldest_s
        script.until.set()
        await eventually(lambda: len(script.runs) == 6)
        assert await eventually(partial(_is_empty, store))


async def _is_empty(store: TaskStore) -> bool:
    found = await store.measure_fleet()
    return found is not None and (found.waiting, found.running, found.oldest_s) == (0, 0, 0)


async def test_a_cancellation_reaches_the_run(pair: tuple[Runner, TaskStore], script: Script) -> None:
    runner, store = pair
    task = await store.append(Task("t"), [task_submitted()])
    script.lasts = True
    await runner.wake("t")
    await eventually(lambda: script.open == 1)
    await store.append(task, [TaskCancelRequested()])
    await runner.cancel("t")
    await eventually(lambda: "t" in script.cancelled)


async def test_a_pause_ends_by_itself_and_a_bug_is_tried_again(pair: tuple[Runner, TaskStore], script: Script) -> None:
    runner, store = pair
    await store.append(Task("t"), [task_submitted()])
    script.answers = [0.1, RuntimeError("a bug"), None]
    await runner.wake("t")
    await eventually(lambda: script.runs == ["t"] * 3)


# The queue alone


@pytest.fixture
def database(postgres_url: str) -> Database:
    return Database(postgres_url)


async def test_an_earlier_wake_ends_a_pause_at_once(database: Database, script: Script) -> None:
    async with asyncio.timeout(30), _open_queued_on(database)(script) as (runner, store):
        await store.append(Task("t"), [task_submitted()])
        script.answers = [600.0]
        await runner.wake("t")
        await eventually(lambda: script.runs == ["t"] and runner.queue["running"] == 0)
        await runner.wake("t")
        await eventually(lambda: script.runs == ["t", "t"])


async def test_a_sweep_finds_the_tasks_that_nobody_was_told_of(database: Database, script: Script) -> None:
    async with asyncio.timeout(30), PostgresStore(database, exclusive=False) as other:
        await other.append(Task("before"), [task_submitted()])
        async with _open_queued_on(database, replace(PAUSES, look_s=0.3), sweeps=1)(script):
            await eventually(lambda: "before" in script.runs)
            await other.append(Task("after"), [task_submitted()])
            await eventually(lambda: "after" in script.runs)


@pytest.mark.slow
async def test_a_task_whose_workers_die_is_taken_up_and_waits_when_it_gets_nowhere(
    database: Database, script: Script, postgres_server: PostgresServer, postgres_url: str
) -> None:
    pauses = Pauses(heartbeat_s=0.2, silence_s=2.0, look_s=600, first_start_s=600)
    async with asyncio.timeout(50), AsyncExitStack() as stack:
        store = await stack.enter_async_context(PostgresStore(database, exclusive=False))
        queue = await stack.enter_async_context(PostgresJobQueue(database))
        await store.append(Task("t"), [task_submitted()])
        await store.note_starts(["t"])
        await store.note_starts(["t"])
        await queue.defer(["t"])
        for taken_up in (True, False):
            dead = await queue.register()
            held = await queue.fetch(dead, 1, only_own=False)
            assert held
            script.lasts = False
            async with _open_queued_on(database, pauses, sweeps=1)(script):
                if taken_up:
                    await eventually(lambda: script.runs)
                    await queue.defer(["t"])
                    await eventually(lambda: len(script.runs) >= 2)
                else:
                    await eventually(lambda: postgres_server.execute(LATER, postgres_url) == [(1,)])
            if taken_up:
                runs = len(script.runs)
            await queue.defer(["t"])
        assert len(script.runs) == runs, "it waits"


async def test_a_worker_that_was_declared_dead_finishes_nothing(database: Database) -> None:
    async with asyncio.timeout(30), PostgresStore(database, exclusive=False), PostgresJobQueue(database) as queue:
        stopped, heir = await queue.register(), await queue.register()
        await queue.defer(["t"])
        (job,) = await queue.fetch(stopped, 2, only_own=False)
        await asyncio.sleep(0.2)
        assert await queue.beat(heir)
        assert await queue.bury(heir, 0.2) == [job]
        assert not await queue.beat(stopped)
        await queue.finish(stopped, [job])
        await queue.give_back(stopped, [job])
        assert await queue.list_held(heir) == [job]
        await queue.defer(["t"])  # one that waits does the work of one that is given back
        await queue.give_back(heir, [job])
        (following,) = await queue.fetch(heir, 2, only_own=False)
        assert following.id != job.id
        assert not await queue.fetch(heir, 2, only_own=False)


async def test_a_worker_to_which_a_task_is_handed_over_hears_of_it_once_the_other_lets_go(database: Database) -> None:
    async with asyncio.timeout(30), PostgresStore(database, exclusive=False), PostgresJobQueue(database) as queue:
        await queue.defer(["t"])
        giver, taker = await queue.register(), await queue.register()
        held = await queue.fetch(giver, 1, only_own=False)
        await queue.defer(["t"], taker)
        told = asyncio.Event()
        async with queue.open_session(taker) as session, asyncio.TaskGroup() as group:
            hearing = group.create_task(session.listen(told.set, 20))
            assert not await queue.fetch(taker, 1, only_own=False)  # the other one holds the task
            await queue.finish(giver, held)
            await told.wait()
            hearing.cancel()
        (taken,) = await queue.fetch(taker, 1, only_own=False)
        assert taken.task_id == "t"


async def test_a_lost_session_leaves_its_descriptor_to_others(
    database: Database, postgres_server: PostgresServer
) -> None:
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %procrastinate%'"

    async def lose_session(queue: PostgresJobQueue) -> None:
        async with queue.open_session(1) as session:
            await asyncio.to_thread(postgres_server.execute, cut)
            await session.listen(lambda: None, 20)

    async with asyncio.timeout(30), PostgresJobQueue(database) as queue, AsyncExitStack() as kept:
        with pytest.raises(StoreUnavailableError):
            await lose_session(queue)
        loop = asyncio.get_running_loop()
        for _ in range(5):  # they get the lowest numbers that are free, as the pipes of an MCP server do
            end, other = os.pipe()
            os.close(other)
            transport, _ = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(end, "rb", 0))
            kept.callback(transport.close)


async def test_a_worker_is_found_by_the_entries_that_it_has_while_it_lives(database: Database) -> None:
    needed = Entries(servers={"a": "1"}, model="m")
    async with asyncio.timeout(30), PostgresStore(database, exclusive=False), PostgresJobQueue(database) as queue:
        one, two = await queue.register(), await queue.register()
        await queue.announce(one, "all", Entries(servers={"a": "1", "b": "2"}, model="m"))
        await queue.announce(two, "all", Entries(servers={"a": "1"}))
        assert await queue.find_worker(needed, None, 60) == one
        assert await queue.find_worker(needed, one, 60) is None
        assert await queue.find_worker(needed, None, 0) is None  # its heart has been silent for longer
        await queue.announce(one, "all", Entries(servers={"a": "2"}, model="m"))
        assert await queue.find_worker(needed, None, 60) is None
        await queue.unregister(two)
        await queue.announce(two, "all", needed)
        assert await queue.find_worker(needed, None, 60) is None
