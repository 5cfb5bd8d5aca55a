"""Promises of the PostgreSQL store beyond the contract: several processes, lost connections, and a server that stops.

Each store here stands for a process: it has its own connections, threads and memory.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from agent_runtime.config import StorageSettings, load_settings
from agent_runtime.domain import events as ev
from agent_runtime.domain.commit_verification import verify_commits
from agent_runtime.domain.commits import Change, Deletion
from agent_runtime.domain.errors import (
    AlreadyOwnedError,
    ConfigurationError,
    ConflictError,
    StoreUnavailableError,
    TaskNotFoundError,
)
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.task import Task
from agent_runtime.services.ports import TaskStore
from agent_runtime.storage.opening import open_store, read_secret
from agent_runtime.storage.postgres.commits import select_stored_commits
from agent_runtime.storage.postgres.connecting import Connection, Database, read_database
from agent_runtime.storage.postgres.journals import JournalEnds
from agent_runtime.storage.postgres.listener import CATCH_UP_S
from agent_runtime.storage.postgres.locks import CHAIN, try_lock
from agent_runtime.storage.postgres.migrating import MIGRATIONS, Migration, migrate
from agent_runtime.storage.postgres.notices import make_payloads, read_payload
from agent_runtime.storage.postgres.queue import PostgresJobQueue
from agent_runtime.storage.postgres.readers import Readers
from agent_runtime.storage.postgres.session import SessionOpener
from agent_runtime.storage.postgres.shared_secret import read_shared_secret
from agent_runtime.storage.postgres.store import PostgresStore
from agent_runtime.storage.secret_file import read_secret as read_data_secret
from journals import claim, task_submitted, tool_returned, write_cancelled_task, write_executing_task
from postgres_server import LossyProxy, PostgresServer
from waiting import eventually


@pytest.fixture
def database(postgres_url: str) -> Database:
    return Database(postgres_url)


@pytest.fixture
async def replicas(database: Database) -> AsyncIterator[list[PostgresStore]]:
    """Three processes that share a database. The first one writes the chain."""
    async with asyncio.timeout(40), AsyncExitStack() as opened:
        yield [await opened.enter_async_context(PostgresStore(database, exclusive=False, retry_s=5)) for _ in range(3)]


def run(database: Database, statement: str, *values: object) -> list[tuple[object, ...]]:
    with database.connect() as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def faults(database: Database) -> list[str]:
    """Return what an audit finds in the commits and the journals that they name."""
    with database.connect(read_only=True) as connection:
        found = verify_commits(select_stored_commits(connection), JournalEnds(connection), None)
        return [str(fault) for fault in found.faults]


def numbers(records: list[EventRecord]) -> list[int]:
    return [record.seq for record in records]


async def follow_feed(store: TaskStore, count: int) -> list[tuple[str, str]]:
    """Return the first entries of the feed: the cursor and the task of each."""
    found: list[tuple[str, str]] = []
    async with aclosing(await store.subscribe()) as pages:
        async for page in pages:
            found += [(str(entry.position), getattr(entry.content, "task_id", "")) for entry in page]
            if len(found) >= count:
                break
    return found


async def test_three_processes_start_at_once_on_an_empty_database(database: Database) -> None:
    stores = [PostgresStore(database, exclusive=False) for _ in range(3)]
    async with asyncio.timeout(30), AsyncExitStack() as opened:
        async with asyncio.TaskGroup() as group:
            for store in stores:
                group.create_task(opened.enter_async_context(store))
        for number, store in enumerate(stores):
            await store.append(Task(f"t{number}"), [task_submitted()])
        assert len((await stores[0].page()).tasks) == 3
    assert run(database, "SELECT max(number) FROM schema_migrations") == [(len(MIGRATIONS),)]


async def test_each_process_says_its_part_and_one_of_all_writes_the_chain(replicas: list[PostgresStore]) -> None:
    await replicas[1].append(Task("t"), [task_submitted()])
    parts = [store.sharing for store in replicas]
    assert [part.writes_chain for part in parts if part] == [True, False, False]
    assert all(0 <= part.listener_age_s < CATCH_UP_S for part in parts if part)


async def test_all_processes_on_a_database_have_one_secret(database: Database, tmp_path: Path) -> None:
    settings = [StorageSettings(url=database.url, folder=tmp_path / str(number)) for number in range(3)]
    own = read_data_secret(settings[0].folder)
    secrets = await asyncio.gather(*(asyncio.to_thread(read_secret, one) for one in settings[1:]))
    assert secrets[0] == secrets[1] == read_secret(settings[0]) != own
    assert len(secrets[0]) == 32
    assert not settings[1].folder.exists()


async def test_a_database_takes_over_the_secret_of_the_first_data_directory(database: Database, tmp_path: Path) -> None:
    own = read_data_secret(tmp_path / "a")
    assert read_secret(StorageSettings(url=database.url, folder=tmp_path / "a")) == own
    assert read_secret(StorageSettings(url=database.url, folder=tmp_path / "b")) == own


async def test_of_two_appends_at_once_from_two_processes_one_wins(replicas: list[PostgresStore]) -> None:
    task = await replicas[0].append(Task("t"), [task_submitted()])
    for _ in range(5):
        tries = [
            store.append(task, [ev.TaskClaimed(runner="r", epoch=task.epoch + 1)], epoch=task.epoch + 1)
            for store in replicas
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
        (task,) = [result for result in results if isinstance(result, Task)]
        assert [type(result) for result in results].count(ConflictError) == 2
    running = await write_executing_task(replicas[0], "running")
    answers = [store.append(running, [tool_returned("call-s1-1", "s1")], epoch=running.epoch) for store in replicas]
    results = await asyncio.gather(*answers, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ConflictError", "ConflictError", "Task"]
    created = [store.append(Task("u"), [task_submitted(request_key="k")]) for store in replicas]
    results = await asyncio.gather(*created, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ConflictError", "ConflictError", "Task"]


async def test_a_process_sees_at_once_what_another_has_written(replicas: list[PostgresStore]) -> None:
    first, second, _ = replicas
    task = await first.append(Task("t"), [task_submitted()])
    assert await second.load("t") == task
    following = asyncio.gather(second.wait_for_change("t", 1), first.wait_for_change("t", 2))
    task = await first.append(task, [ev.TaskCancelRequested()])
    assert (await second.load("t")).cancel_requested
    task = await second.append(task, [ev.TaskCancelled()])
    await following
    deleted = asyncio.gather(first.wait_for_change("t", 3))
    await asyncio.sleep(0)
    await second.delete(task)
    await deleted
    with pytest.raises(TaskNotFoundError):
        await first.load("t")


async def test_a_task_in_memory_is_continued_with_what_others_have_written(
    replicas: list[PostgresStore], database: Database
) -> None:
    first, second, third = replicas
    task = await write_executing_task(first, "t")
    assert await second.load("t") == task
    run(database, "UPDATE events SET data = '{}' WHERE task_id = 't' AND seq = 1")  # a load of all would find it
    answered = await first.append(task, [tool_returned("call-s1-1", "s1")], epoch=task.epoch)
    assert await asyncio.gather(*(store.load("t") for store in [second] * 3 + [first])) == [answered] * 4
    assert numbers(await second.records("t")) == list(range(1, answered.version + 1))
    assert numbers(await second.records("t", after=task.version)) == [answered.version]
    assert (await third.load("t")).journal_change
    with pytest.raises(ConflictError, match="not as it was written"):  # a claim reads all, whatever is in memory
        await claim(second, answered)
    assert (await second.load("t")).journal_change


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET data = replace(data, 'r2', 'r3') WHERE task_id = 't' AND seq = 3",
        "UPDATE events SET hash = 'sha256:0' WHERE task_id = 't' AND seq = 3",
        "UPDATE tasks SET head = 'sha256:0' WHERE task_id = 't'",
        "UPDATE tasks SET version = 2 WHERE task_id = 't'",
        "DELETE FROM events WHERE task_id = 't' AND seq = 3",
    ],
)
async def test_a_change_by_somebody_else_is_seen_behind_what_is_in_memory(
    replicas: list[PostgresStore], database: Database, change: str
) -> None:
    writing, reading, _ = replicas
    task = await claim(writing, await writing.append(Task("t"), [task_submitted()]))
    assert await reading.load("t") == task
    await writing.append(task, [ev.TaskClaimed(runner="r2", epoch=task.epoch + 1)], epoch=task.epoch + 1)
    run(database, change)
    assert (await reading.load("t")).journal_change
    for _ in range(2):  # deleted whatever is left of it; nothing of it stays in memory
        await writing.delete(await reading.load("t"))
        with pytest.raises(TaskNotFoundError):
            await reading.load("t")
        with pytest.raises(TaskNotFoundError):
            await reading.records("t")
        await writing.append(Task("t"), [task_submitted(prompt="another")])
        assert (await reading.load("t")).prompt == "another"
        run(database, "DELETE FROM events WHERE task_id = 't'")
        run(database, "UPDATE tasks SET head = 'sha256:0' WHERE task_id = 't'")


async def test_every_process_has_the_same_feed(replicas: list[PostgresStore], database: Database) -> None:
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(follow_feed(store, 60)) for store in replicas]
        for number in range(30):
            store = replicas[number % 3]
            task = await store.append(Task(f"t{number}"), [task_submitted()])
            await replicas[(number + 1) % 3].append(task, [ev.TaskCancelRequested()])
    feeds = [reader.result() for reader in readers]
    assert feeds[0] == feeds[1] == feeds[2]
    assert sorted(task_id for _, task_id in feeds[0]) == sorted(f"t{number}" for number in [*range(30), *range(30)])
    assert faults(database) == []


async def test_a_lost_listener_catches_up_from_the_tables(
    replicas: list[PostgresStore], postgres_server: PostgresServer
) -> None:
    writing, following, _ = replicas
    task = await writing.append(Task("t"), [task_submitted()])
    for _ in range(5):
        waiting = asyncio.gather(following.wait_for_change("t", task.version), follow_beyond(following, task.version))
        await asyncio.sleep(0)
        await end_listeners(postgres_server)
        task = await claim(writing, task)
        await waiting


async def test_a_cancellation_reaches_another_process_even_if_its_listener_was_cut(
    replicas: list[PostgresStore], postgres_server: PostgresServer
) -> None:
    writing, running, _ = replicas
    for task_id, cuts in (("heard", False), ("caught up", True)):
        task = await writing.append(Task(task_id), [task_submitted()])
        waiting = asyncio.gather(running.wait_for_cancellation(task_id))
        await asyncio.sleep(0.05)
        if cuts:
            await end_listeners(postgres_server)
        await writing.append(task, [ev.TaskCancelRequested()])
        await waiting


async def test_a_process_says_when_it_does_not_hear_of_others(
    replicas: list[PostgresStore], postgres_server: PostgresServer
) -> None:
    elsewhere = postgres_server.url.replace("@/postgres?", "@/template1?")
    assert all(store.sharing and store.sharing.hears for store in replicas)
    await asyncio.to_thread(postgres_server.execute, "ALTER DATABASE postgres ALLOW_CONNECTIONS false", elsewhere)
    try:
        await end_listeners(postgres_server, elsewhere)
        await eventually(lambda: not any(store.sharing and store.sharing.hears for store in replicas))
    finally:
        await asyncio.to_thread(postgres_server.execute, "ALTER DATABASE postgres ALLOW_CONNECTIONS true", elsewhere)
    await eventually(lambda: all(store.sharing and store.sharing.hears for store in replicas))


async def follow_beyond(store: PostgresStore, count: int) -> None:
    await follow_feed(store, count + 1)


async def end_listeners(server: PostgresServer, url: str | None = None) -> None:
    """End the sessions that wait for notices, once there is one: those that were ended before may not be back yet."""
    queries = "'{LISTEN%,%EXISTS%pending%,%FROM catalogue}'"
    listening = f"pid <> pg_backend_pid() AND query LIKE ANY ({queries})"
    ending = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {listening}"  # noqa: S608
    await eventually(lambda: asyncio.to_thread(server.execute, ending, url))


@contextmanager
def hold_commits_of(database: Database, task_id: str) -> Iterator[None]:
    """Keep each transaction of another process that changes this task from ending, once all its rows are written."""
    with database.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(42)")
        connection.execute(
            f"""
            CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER held AFTER INSERT ON pending_commits DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW WHEN (NEW.data LIKE '%"{task_id}"%') EXECUTE FUNCTION hold();
        """.encode()
        )
        yield


async def test_the_feed_waits_for_no_open_transaction_and_passes_none(
    replicas: list[PostgresStore], database: Database
) -> None:
    leader, slow, quick = replicas
    with hold_commits_of(database, "held"):
        holding = asyncio.gather(slow.append(Task("held"), [task_submitted()]))
        await eventually(lambda: run(database, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
        await quick.append(Task("later"), [task_submitted()])
        (seen, task_id) = (await follow_feed(leader, 1))[0]
        assert task_id == "later"
        assert not holding.done()
    await holding
    async with aclosing(await quick.subscribe(seen)) as pages:
        page = await anext(pages)
    assert [entry.content.task_id for entry in page if isinstance(entry.content, EventRecord)] == ["held"]
    assert faults(database) == []


async def test_another_process_writes_the_chain_when_the_one_that_did_is_gone(
    replicas: list[PostgresStore], database: Database
) -> None:
    leader, second, third = replicas
    await leader.append(Task("t1"), [task_submitted()])
    assert [store.leads for store in replicas] == [True, False, False]
    await leader.close()
    await second.append(Task("t2"), [task_submitted()])
    assert [task_id for _, task_id in await follow_feed(third, 2)] == ["t1", "t2"]
    assert second.leads or third.leads
    async with PostgresStore(database, exclusive=False) as back:
        assert not back.leads
        await back.append(Task("t3"), [task_submitted()])
        assert [task_id for _, task_id in await follow_feed(back, 3)] == ["t1", "t2", "t3"]
    assert faults(database) == []


async def test_the_chain_goes_on_when_the_session_that_writes_it_is_ended(
    replicas: list[PostgresStore], database: Database, postgres_server: PostgresServer
) -> None:
    for number in range(6):
        (leader,) = [store for store in replicas if store.leads]
        postgres_server.execute(f"SELECT pg_terminate_backend({leader.session_pid})")
        await replicas[number % 3].append(Task(f"t{number}"), [task_submitted()])
        feed = await follow_feed(replicas[(number + 1) % 3], number + 1)
        assert [task_id for _, task_id in feed] == [f"t{one}" for one in range(number + 1)]
        await eventually(lambda: [store.leads for store in replicas].count(True) == 1)
    assert faults(database) == []


async def test_what_dead_processes_left_pending_is_chained_by_the_next(database: Database) -> None:
    with database.connect() as connection:
        assert try_lock(connection, CHAIN)  # nobody else can write the chain
        async with asyncio.timeout(20), PostgresStore(database, exclusive=False) as store:
            await store.append(Task("t"), [task_submitted()])
    assert run(database, "SELECT count(*) FROM commits") == [(0,)]
    async with asyncio.timeout(20), PostgresStore(database) as store:
        assert [task_id for _, task_id in await follow_feed(store, 1)] == ["t"]
    assert run(database, "SELECT count(*) FROM pending_commits") == [(0,)]
    assert faults(database) == []


async def test_a_second_process_is_refused_where_one_owns_the_database(database: Database) -> None:
    async with asyncio.timeout(30), PostgresStore(database) as store:
        others = [PostgresStore(database, exclusive=exclusive).__aenter__() for exclusive in (True, False)]
        for refusal in await asyncio.gather(*others, return_exceptions=True):
            assert isinstance(refusal, AlreadyOwnedError)
            assert "owned by another process (agent-runtime " in str(refusal)
            assert "stop it, or set another storage.url" in str(refusal)
        await store.append(Task("t"), [task_submitted()])
    async with asyncio.timeout(30), PostgresStore(database) as store:
        assert (await store.load("t")).version == 1


async def test_a_process_that_lost_the_database_to_another_writes_nothing(
    database: Database, postgres_server: PostgresServer
) -> None:
    async with asyncio.timeout(30), PostgresStore(database, retry_s=5) as old:
        task = await old.append(Task("t"), [task_submitted()])
        following = asyncio.gather(old.wait_for_change("t", 1))
        await asyncio.sleep(0)
        postgres_server.execute(f"SELECT pg_terminate_backend({old.session_pid})")
        async with PostgresStore(database) as new:
            newer = await new.append(task, [ev.TaskCancelRequested()])
            with pytest.raises(StoreUnavailableError, match="owned by another process"):
                await old.append(task, [ev.TaskCancelRequested()])
            with pytest.raises(StoreUnavailableError):
                await old.check()
        await eventually(lambda: writes(old))
        await following
        assert await old.load("t") == newer


async def writes(store: TaskStore) -> bool:
    try:
        await store.check()
    except StoreUnavailableError:
        return False
    return True


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGQUIT, marks=pytest.mark.slow)])
async def test_nothing_is_lost_and_nothing_written_twice_while_the_server_restarts(
    database: Database, postgres_server: PostgresServer, how: signal.Signals
) -> None:
    stop = asyncio.Event()

    async def write(store: TaskStore, task_id: str) -> Task:
        task = await store.append(Task(task_id), [task_submitted()])
        while not stop.is_set():
            task = await claim(store, task)
        return task

    async with asyncio.timeout(50), PostgresStore(database, retry_s=20) as store:
        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(write(store, f"t{number}")) for number in range(5)]
            for _ in range(2):
                await asyncio.sleep(0.1)
                await asyncio.to_thread(postgres_server.restart, how)
            await eventually(lambda: writes(store))
            stop.set()
        for task in [writer.result() for writer in writers]:
            assert numbers(await store.records(task.task_id, limit=100_000)) == list(range(1, task.version + 1))
    assert faults(database) == []


async def test_a_write_whose_answer_is_lost_is_written_once_and_acknowledged(
    database: Database, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    async with LossyProxy(postgres_server, tmp_path) as proxy:
        url = database.url.replace(quote(str(postgres_server.folder), safe=""), quote(str(tmp_path), safe=""))
        async with asyncio.timeout(30), PostgresStore(Database(url), retry_s=10) as store:
            for lost in range(1, 3):
                proxy.to_lose = 1
                task = await store.append(Task(f"t{lost}"), [task_submitted(request_key=f"k{lost}")])
                proxy.to_lose = 1
                task = await claim(store, task)
                proxy.to_lose = 1
                both = [store.append(task, [ev.TaskCancelRequested()]) for _ in range(2)]
                results = await asyncio.gather(*both, return_exceptions=True)
                assert sorted(type(result).__name__ for result in results) == ["ConflictError", "Task"]
                assert numbers(await store.records(f"t{lost}")) == [1, 2, 3]
                assert (await store.load(f"t{lost}")).version == 3
                gone = await store.append(await store.load(f"t{lost}"), [ev.TaskCancelled()])
                proxy.to_lose = 1
                await store.delete(gone)
            assert proxy.lost == 8
            assert len(await follow_feed(store, 2)) == 2
    assert faults(database) == []


async def test_an_outage_is_an_error_and_ends_by_itself(database: Database, postgres_server: PostgresServer) -> None:
    async with asyncio.timeout(50), PostgresStore(database, retry_s=0.3) as store:
        task = await store.append(Task("t"), [task_submitted()])
        await asyncio.to_thread(postgres_server.stop)
        try:
            with pytest.raises(StoreUnavailableError, match="Try again later"):
                await store.append(task, [ev.TaskCancelRequested()])
            with pytest.raises(StoreUnavailableError):
                await store.check()
            with pytest.raises(StoreUnavailableError):
                await store.page()
        finally:
            await asyncio.to_thread(postgres_server.start)
        await store.check()
        assert (await store.append(task, [ev.TaskCancelRequested()])).version == 2
        assert len((await store.page()).tasks) == 1


async def test_a_journal_that_was_changed_is_not_run(database: Database) -> None:
    async with PostgresStore(database) as store:
        task = await write_executing_task(store, "t")
        other = await write_executing_task(store, "u")
    run(database, "UPDATE events SET data = replace(data, 'echo', 'scream') WHERE task_id = 't' AND seq = 3")
    async with asyncio.timeout(20), PostgresStore(database) as store:
        with pytest.raises(ConflictError, match="not as it was written"):
            await claim(store, task)
        assert (await store.load("t")).journal_change
        await claim(store, other)
    assert faults(database) == []


async def test_a_task_that_was_removed_without_a_tombstone_is_reported(database: Database) -> None:
    async with PostgresStore(database) as store:
        await store.delete(await write_cancelled_task(store, "gone"))
        await write_cancelled_task(store, "stolen")
    assert faults(database) == []
    run(database, "DELETE FROM events WHERE task_id = 'stolen'")
    run(database, "DELETE FROM tasks WHERE task_id = 'stolen'")
    assert any("stolen" in fault for fault in faults(database))


def test_an_older_program_works_beside_a_newer_one_unless_that_says_otherwise(database: Database) -> None:
    empty = Migration("0001_journal.sql", oldest=1)
    with database.connect() as connection:
        migrate(connection, (empty,))
        run(database, "INSERT INTO schema_migrations (number, oldest) VALUES (2, 1)")
        migrate(connection, (empty,))
        run(database, "INSERT INTO schema_migrations (number, oldest) VALUES (3, 2)")
        with pytest.raises(ConfigurationError, match="its schema is 3, this version knows 1"):
            migrate(connection, (empty,))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("&options=-csearch_path%3Dnowhere", "search_path names does not exist"),
        ("&application=x", "libpq cannot read this URL"),
        ("&dbname=nowhere", 'database "nowhere" does not exist'),
    ],
)
async def test_a_url_that_leads_nowhere_is_refused_at_once(
    postgres_server: PostgresServer, parameters: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        async with asyncio.timeout(10), PostgresStore(Database(postgres_server.url + parameters)):
            pass


async def test_the_password_comes_from_the_url_the_environment_or_a_file(
    postgres_url: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    postgres_server.create_role("ann", "p@ss:word")
    bare = postgres_url.replace("postgres@", "ann@")
    file = tmp_path / "pgpass"
    file.write_text("*:*:*:ann:p@ss\\:word\n", encoding="utf-8")
    file.chmod(0o600)
    ways = [
        (bare.replace("ann@", "ann:p%40ss%3Aword@"), {}),
        (bare, {"PGPASSWORD": "p@ss:word"}),
        (f"{bare}&passfile={quote(str(file))}", {}),
    ]
    for url, environ in ways:
        settings = load_settings(environ={"AGENT_RUNTIME_STORAGE__URL": url, **environ}).storage
        async with asyncio.timeout(20), open_store(settings) as store:
            await store.check()
    for url in (bare, bare.replace("ann@", "ann:wrong@")):
        with pytest.raises(ConfigurationError, match=r"(no password supplied|authentication failed).*See storage\.url"):
            async with asyncio.timeout(10), open_store(StorageSettings(url=url)):
                pass


async def test_the_connection_comes_from_a_service_file(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = conninfo_to_dict(postgres_url)
    lines = [f"{name}={value}" for name, value in parameters.items()]
    (tmp_path / "services.conf").write_text("\n".join(["[ours]", *lines, ""]), encoding="utf-8")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services.conf"))
    settings = load_settings(environ={"AGENT_RUNTIME_STORAGE__URL": "postgresql://?service=ours"}).storage
    async with asyncio.timeout(20), open_store(settings) as store, PostgresJobQueue(read_database(settings)) as queue:
        await store.append(Task("t"), [task_submitted()])
        await queue.defer(["t"])
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT task_id, lock FROM tasks, procrastinate_jobs").fetchall() == [("t", "t")]


def test_notices_of_any_length_arrive_whole() -> None:
    changes = [Change(f"task {number}" + "x" * 100, 1, number + 1, "") for number in range(200)]
    payloads = list(make_payloads([*changes, Deletion("gone", 1, "")], 7, pending=True, cancelled=["not any more"]))
    assert max(len(payload.encode()) for payload in payloads) < 8000
    news = [read_payload(payload) for payload in payloads]
    assert {task_id: version for one in news for task_id, version in one.grown.items()} == {
        change.task_id: change.last for change in changes
    }
    assert (news[-1].deleted, news[-1].position, news[-1].pending) == (frozenset({"gone"}), 7, True)
    assert news[-1].cancelled == {"not any more"}


async def test_counts_of_starts_are_deleted_once_their_tasks_have_made_progress_or_are_gone(
    database: Database, replicas: list[PostgresStore]
) -> None:
    first, second, _ = replicas
    stuck, moving = await write_executing_task(first, "stuck"), await write_executing_task(first, "moving")
    gone = await write_cancelled_task(first, "gone")
    await first.note_starts(["stuck", "moving", "gone"])
    await first.append(moving, [ev.TaskCancelRequested()])
    await first.delete(gone)
    await claim(first, stuck)
    await second.note_starts(["new"])
    assert sorted(run(database, "SELECT task_id, count FROM starts")) == [("new", 1), ("stuck", 1)]


@pytest.mark.parametrize("step", ["_make_durable", "_open"])
async def test_a_start_outlasts_the_loss_of_its_first_session(
    database: Database, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The session is lost after this step of its opening, as when the server restarts."""
    original, cut = getattr(SessionOpener, step), [0]

    def cut_after(*arguments: Any, **more: Any) -> Any:
        session = original(*arguments, **more)
        if not cut[0]:
            connection = arguments[1] if session is None else session.connection
            cut[0] = connection.info.backend_pid
            postgres_server.execute(f"SELECT pg_terminate_backend({cut[0]}, 5000)")
        return session

    monkeypatch.setattr(SessionOpener, step, cut_after)
    async with asyncio.timeout(40), PostgresStore(database) as store:
        assert store.session_pid not in (0, *cut)
        await store.append(Task("t"), [task_submitted()])
    cut[0] = 0
    assert len(await asyncio.to_thread(read_shared_secret, database, None)) == 32
    assert cut[0]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each read from the database."""
    noted: list[str] = []

    def note(reader: Readers, work: Callable[[Connection], Any]) -> "asyncio.Future[Any]":
        noted.append(repr(work))
        return submit(reader, work)

    submit = Readers.submit
    monkeypatch.setattr(Readers, "submit", note)
    return noted


async def test_a_watched_task_is_followed_without_asking_the_database_where_its_journal_ends(
    replicas: list[PostgresStore], reads: list[str]
) -> None:
    here, there, _ = replicas
    task = await here.append(Task("t"), [task_submitted()])
    with here.watch("t"):
        await here.wait_for_change("t", 0)
        reads.clear()
        for _ in range(5):
            task = await claim(here, task)
            await here.wait_for_change("t", task.version - 1)
            assert numbers(await here.records("t", task.version - 1, newest=False)) == [task.version]
        assert not reads
        grown = await there.append(task, [ev.TaskCancelRequested()])
        await here.wait_for_change("t", task.version)
        assert numbers(await here.records("t", task.version, newest=False)) == [grown.version]
        assert len(reads) == 2  # where it ends, and what is new


async def test_those_who_wait_for_cancellations_at_one_time_share_a_query(
    replicas: list[PostgresStore], reads: list[str]
) -> None:
    waiting, other, _ = replicas
    tasks = [await other.append(Task(f"t{number}"), [task_submitted()]) for number in range(20)]
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(waiting.wait_for_cancellation(task.task_id)) for task in tasks]
        await eventually(lambda: bool(reads))
        await other.append(tasks[0], [ev.TaskCancelRequested()])
        await waits[0]
        assert not any(wait.done() for wait in waits[1:])
        for wait in waits[1:]:
            wait.cancel()
    assert len(reads) <= 2
