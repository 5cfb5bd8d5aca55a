"""Promises of the SQLite store beyond the contract: it survives a kill, a full disk and a wrong file."""

import asyncio
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_runtime.domain import events as ev
from agent_runtime.domain.chain import format_time, parse_time
from agent_runtime.domain.errors import ConfigurationError, ConflictError, StoreUnavailableError
from agent_runtime.domain.events import make_record
from agent_runtime.domain.status import TERMINAL, WAITING, TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.transitions import evolve, replay
from agent_runtime.storage.cache import RECORD_OVERHEAD, Cache
from agent_runtime.storage.followers import Followers
from agent_runtime.storage.sqlite import rows
from agent_runtime.storage.sqlite.database_file import DatabaseFile
from agent_runtime.storage.sqlite.readers import Readers
from agent_runtime.storage.sqlite.store import SqliteStore
from agent_runtime.storage.sqlite.writer import Writer
from journals import claim, task_submitted, write_cancelled_task, write_executing_task

APPENDER = """
import asyncio, sys
from pathlib import Path
from agent_runtime.domain.events import TaskClaimed, TaskSubmitted
from agent_runtime.domain.task import Task
from agent_runtime.storage.sqlite.readers import Readers
from agent_runtime.storage.sqlite.store import SqliteStore

async def append_for_ever(store, task_id):
    task = await store.append(Task(task_id), [TaskSubmitted(prompt="x")])
    while True:
        print(task.task_id, task.version, flush=True)
        claimed = TaskClaimed(runner="r", epoch=task.epoch + 1)
        task = await store.append(task, [claimed], epoch=task.epoch + 1)

async def main():
    async with SqliteStore(Path(sys.argv[1])) as store, asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(append_for_ever(store, f"t{number}"))

asyncio.run(main())
"""


def acknowledged_before_a_kill(path: Path) -> dict[str, int]:
    """Return the last version of each task that a process had acknowledged when it was killed while writing."""
    acknowledged: dict[str, int] = {}
    with subprocess.Popen([sys.executable, "-c", APPENDER, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for count, line in enumerate(process.stdout):
            if not line.endswith("\n"):  # the kill cut it short
                break
            task_id, version = line.split()
            acknowledged[task_id] = int(version)
            if count == 300:
                process.kill()  # its output so far is still read
    return acknowledged


async def test_whatever_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    acknowledged = acknowledged_before_a_kill(tmp_path / "tasks.db")
    assert len(acknowledged) == 5
    async with asyncio.timeout(20), SqliteStore(tmp_path / "tasks.db") as store:
        for task_id, acknowledged_version in acknowledged.items():
            task = await store.load(task_id)
            assert task.version >= acknowledged_version
            journal = await store.records(task_id, limit=10_000)
            assert [one.seq for one in journal] == list(range(1, task.version + 1))


async def append_until_refused(store: SqliteStore, name: str, size: int) -> None:
    for number in range(200):
        await store.append(Task(f"{name}{number}"), [task_submitted("x" * size)])


@contextmanager
def small_file_system(folder: Path) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """A disk of 2 MiB that can really be full. Only root can make one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, timeout=10)
    if mounted.returncode:
        pytest.skip("NOT TESTED HERE: a full disk needs the right to mount a tmpfs; the file size limit is tested")

    @contextmanager
    def full() -> Iterator[None]:
        filler = folder / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        yield
        filler.unlink()

    try:
        yield full
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=10)


@contextmanager
def limited_file_size(folder: Path) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Make the kernel refuse every write beyond the first page of a file."""
    folder.mkdir()

    @contextmanager
    def full() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    yield full


@pytest.mark.parametrize("disk", [small_file_system, limited_file_size])
async def test_a_full_disk_refuses_and_the_store_recovers_with_it(
    tmp_path: Path,
    disk: Callable[[Path], AbstractContextManager[Callable[[], AbstractContextManager[None]]]],
) -> None:
    with disk(tmp_path / "disk") as full:
        async with asyncio.timeout(30), SqliteStore(tmp_path / "disk" / "tasks.db") as store:
            task = await store.append(Task("t"), [task_submitted()])
            with full():
                with pytest.raises(StoreUnavailableError, match="disk"):
                    await append_until_refused(store, "large", 60_000)
                with pytest.raises(StoreUnavailableError, match="disk"):
                    await append_until_refused(store, "small", 6_000)
                results = await asyncio.gather(
                    *(store.append(Task(f"together{number}"), [task_submitted("x" * 60_000)]) for number in range(5)),
                    return_exceptions=True,
                )
                assert all(isinstance(result, StoreUnavailableError) for result in results)
                assert await store.load("t") == task
            task = await store.append(task, [ev.TaskCancelRequested()])
            await store.check()
            listed = {summary.task_id for summary in (await store.page(limit=200)).tasks}
            assert not any(name.startswith("together") for name in listed)
        async with asyncio.timeout(20), SqliteStore(tmp_path / "disk" / "tasks.db") as store:
            assert await store.load("t") == task


async def test_the_check_fails_while_nothing_can_be_written(tmp_path: Path) -> None:
    with limited_file_size(tmp_path / "disk") as full:
        async with asyncio.timeout(20), SqliteStore(tmp_path / "disk" / "tasks.db") as store:
            await store.check()
            with full():
                with pytest.raises(StoreUnavailableError):
                    await store.append(Task("t"), [task_submitted()])
                with pytest.raises(StoreUnavailableError):
                    await store.check()
            await store.check()


async def test_a_refused_append_does_not_count_as_a_write(tmp_path: Path) -> None:
    async with asyncio.timeout(20):
        writer = Writer(DatabaseFile(tmp_path / "tasks.db"))
        await writer.start()

        def refuse(_: sqlite3.Connection) -> None:
            raise ConflictError("no")

        with pytest.raises(ConflictError):
            await writer.write(refuse, lambda: None)
        assert writer.last_success < 0
        await writer.stop()


async def test_a_job_that_breaks_does_not_take_its_neighbours_along(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    heard: list[int] = []

    def insert(connection: sqlite3.Connection, number: int) -> None:
        connection.execute("INSERT INTO definitions VALUES (?, '[]')", (str(number),))
        if number % 3 == 0:
            raise ValueError("broken after it wrote")
        if number % 3 == 1:
            connection.execute("INSERT INTO nonsense VALUES (1)")

    def note_durable(number: int) -> Callable[[], None]:
        return lambda: heard.append(number)

    async with asyncio.timeout(20):
        writer = Writer(DatabaseFile(path))
        await writer.start()
        jobs = [writer.write(lambda c, n=number: insert(c, n), note_durable(number)) for number in range(9)]  # type: ignore[misc]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        await writer.stop()
    assert [type(result) for result in results] == [ValueError, StoreUnavailableError, type(None)] * 3
    assert heard == [2, 5, 8]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT identity FROM definitions").fetchall() == [("2",), ("5",), ("8",)]
    connection.close()


async def test_what_was_asked_for_before_closing_is_written(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "tasks.db")
    async with asyncio.timeout(20):
        async with store, asyncio.TaskGroup() as group:
            appends = [group.create_task(store.append(Task(f"t{number}"), [task_submitted()])) for number in range(50)]
            await asyncio.sleep(0)
            await store.close()
        assert all(append.result().version == 1 for append in appends)
        for use in (store.append(Task("late"), [task_submitted()]), store.load("t1"), store.check()):
            with pytest.raises(StoreUnavailableError, match="closed"):
                await use
    assert os.listdir(tmp_path) == ["tasks.db"]  # noqa: PTH208 - nothing is waiting for this event loop


async def test_times_are_utc_and_never_run_backwards(tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, 12, 0, 0, 1, tzinfo=UTC)
    times = iter([now, now - timedelta(hours=1), now + timedelta(hours=1)])
    async with SqliteStore(tmp_path / "tasks.db", clock=lambda: next(times)) as store:
        task = await store.append(Task("t"), [task_submitted()])
        task = await store.append(task, [ev.TaskCancelRequested()])
        await store.append(task, [ev.TaskCancelled()])
        assert [record.at for record in await store.records("t")] == [now, now, now + timedelta(hours=1)]


async def test_a_reader_recovers_from_an_error_and_cannot_write(tmp_path: Path) -> None:
    async with asyncio.timeout(20), SqliteStore(tmp_path / "tasks.db") as store:
        await store.append(Task("t"), [task_submitted()])
        readers = Readers(DatabaseFile(tmp_path / "tasks.db"))
        readers.start()
        for statement in ("SELECT nonsense", "DELETE FROM events"):
            with pytest.raises(StoreUnavailableError):
                await readers.read(lambda connection, sql=statement: connection.execute(sql))  # type: ignore[misc]
        assert await readers.read(lambda connection: rows.select_version(connection, "t")) == 1
        await readers.stop()


async def test_closing_lets_go_of_the_followers(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "tasks.db")
    async with asyncio.timeout(20), store:
        await store.append(Task("t"), [task_submitted()])
        async with asyncio.TaskGroup() as group:
            group.create_task(store.wait_for_change("t", 1))
            await asyncio.sleep(0)
            await store.close()


async def test_the_files_are_closed_to_other_users(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "new" / "tasks.db") as store:
        await store.append(Task("t"), [task_submitted()])
        for path in (tmp_path / "new").iterdir():
            assert path.stat().st_mode & 0o077 == 0
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    async with SqliteStore(path) as store:
        await store.append(Task("t"), [task_submitted()])
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigurationError, match="newer version"):
        await SqliteStore(path).__aenter__()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)
    connection.close()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_text("This is a letter, not a database. " * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        await SqliteStore(path).__aenter__()
    assert path.read_text().startswith("This is a letter")


@pytest.mark.parametrize("path", ["/proc/tasks.db", "/proc/nowhere/tasks.db"])
async def test_a_place_that_cannot_be_written_is_refused_by_name(path: str) -> None:
    with pytest.raises(ConfigurationError, match=path):
        await SqliteStore(Path(path)).__aenter__()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() == 0:
        pytest.skip("NOT TESTED HERE: root may write any directory; a place in /proc is tested")
    tmp_path.chmod(0o500)
    yield tmp_path
    tmp_path.chmod(0o700)


async def test_a_read_only_directory_is_refused(read_only: Path) -> None:
    with pytest.raises(ConfigurationError):
        await SqliteStore(read_only / "tasks.db").__aenter__()


async def test_an_event_of_an_unknown_type_harms_only_its_task(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    async with SqliteStore(path) as store:
        await store.append(Task("good"), [task_submitted()])
        await store.append(Task("bad"), [task_submitted()])
    connection = sqlite3.connect(path)
    connection.execute("UPDATE events SET type = 'task.danced' WHERE task_id = 'bad'")
    connection.commit()
    connection.close()
    async with SqliteStore(path) as store:
        bad = await store.load("bad")
        assert bad.status is TaskStatus.NEEDS_ATTENTION
        assert bad.journal_change
        assert (bad.version, bad.journal_change.record) == (0, 1)
        assert (await store.load("good")).version == 1


def test_the_statuses_that_a_runner_takes_up_are_those_of_the_domain() -> None:
    assert {TaskStatus(name) for name in ("pending", "approved", "executing")} == set(TaskStatus) - TERMINAL - WAITING
    assert format_time(parse_time("2026-01-02T03:04:05.000006Z")) == "2026-01-02T03:04:05.000006Z"


def _journal(task_id: str, length: int) -> list[ev.EventRecord]:
    at = parse_time("2026-01-02T03:04:05.000006Z")
    claims = [make_record(task_id, n, n - 1, at, ev.TaskClaimed(runner="r", epoch=n - 1)) for n in range(2, length + 1)]
    return [make_record(task_id, 1, None, at, task_submitted()), *claims]


def test_a_read_that_a_write_has_overtaken_is_not_kept() -> None:
    cache = Cache(capacity=10**6)
    journal = _journal("t", 3)
    old, new = replay("t", journal[:2]), replay("t", journal)
    with cache.begin_read("t") as slow, cache.begin_read("t") as other:
        cache.note_commit(new, journal[2:])
        cache.forget("t")
        slow.keep(old, journal[:2])
        assert cache.task("t") is None
        other.keep(old, journal[:2])
    assert cache.task("t") is None
    with cache.begin_read("t") as undisturbed:
        undisturbed.keep(new, journal)
    assert cache.task("t") is new


def test_a_commit_that_the_disk_has_shown_already_is_taken_up_once() -> None:
    cache = Cache(capacity=10**6)
    journal = _journal("t", 3)
    new = replay("t", journal)
    with cache.begin_read("t") as reading:
        reading.keep(new, journal)
    cache.note_commit(new, journal[2:])
    assert cache.records("t", 0, 10) == journal


def test_a_task_that_came_back_to_memory_by_its_last_event_has_no_earlier_ones_there() -> None:
    cache = Cache(capacity=10**6)
    journal = _journal("t", 4)
    cache.note_commit(replay("t", journal), journal[3:])
    assert cache.records("t", 2, 10) is None
    assert cache.records("t", 3, 10) == journal[3:]
    assert cache.records("t", 4, 10) == []


def test_memory_is_bounded_and_ended_tasks_make_room_first() -> None:
    journal = _journal("x", 1)
    cost = len(journal[0].data) + RECORD_OVERHEAD
    cache = Cache(capacity=10 * cost + 500)
    for number in range(8):
        events = _journal(f"live{number}", 1)
        cache.put(replay(f"live{number}", events), events)
    task = replay("ended", _journal("ended", 1))
    for event in (ev.TaskCancelRequested(), ev.TaskCancelled()):
        task = evolve(task, make_record("ended", task.version + 1, None, journal[0].at, event))
    cache.put(task, _journal("ended", 1))
    assert cache.task("ended") is task
    for number in range(8, 11):
        events = _journal(f"live{number}", 1)
        cache.put(replay(f"live{number}", events), events)
    kept = [name for name in ["ended", *(f"live{number}" for number in range(11))] if cache.task(name)]
    assert kept == [f"live{number}" for number in range(1, 11)]


async def test_memory_and_disk_agree_while_tasks_come_and_go(tmp_path: Path) -> None:
    async with asyncio.timeout(30), SqliteStore(tmp_path / "tasks.db", cache_bytes=20_000) as store:

        async def live(task_id: str) -> None:
            task = await write_executing_task(store, task_id)
            for _ in range(5):
                assert await store.load(task_id) == task
                task = await claim(store, task)
                assert replay(task_id, await store.records(task_id)) == task
            await store.append(task, [ev.TaskCancelRequested()])

        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(live(f"t{number}"))
        for number in range(30):
            assert (await store.load(f"t{number}")).cancel_requested


async def test_a_task_that_nobody_follows_costs_no_memory() -> None:
    followers = Followers()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        with followers.watch("t") as watch:
            waiting = group.create_task(watch.wait_beyond(1))
            await asyncio.sleep(0)
            waiting.cancel()
        followers.advance("t", 2)
    assert len(followers) == 0


async def test_ended_tasks_are_still_read_and_paged(tmp_path: Path) -> None:
    async with asyncio.timeout(20), SqliteStore(tmp_path / "tasks.db", cache_bytes=5_000) as store:
        ended = [await write_cancelled_task(store, f"t{number}") for number in range(20)]
        assert [await store.load(task.task_id) for task in ended] == ended
        assert await store.list_unfinished() == []


async def test_a_conflict_with_the_disk_makes_the_store_read_it_again(tmp_path: Path) -> None:
    """A retry must see what is on disk, and not always what this process had cached."""
    async with asyncio.timeout(20), SqliteStore(tmp_path / "tasks.db") as store:
        known = await store.append(Task("t"), [task_submitted()])
        async with SqliteStore(tmp_path / "tasks.db") as other:
            newer = await other.append(await other.load("t"), [ev.TaskCancelRequested()])
        assert await store.load("t") == known
        with pytest.raises(ConflictError):
            await store.append(known, [ev.TaskCancelRequested()])
        assert await store.load("t") == newer
        with pytest.raises(ConflictError):
            await store.append(known, [ev.TaskCancelRequested()])
        assert (await store.append(newer, [ev.TaskCancelled()])).terminal


async def test_a_conflict_within_the_process_reads_nothing_again(tmp_path: Path) -> None:
    async with asyncio.timeout(20), SqliteStore(tmp_path / "tasks.db") as store:
        old = await store.append(Task("t"), [task_submitted()])
        newer = await store.append(old, [ev.TaskCancelRequested()])
        with pytest.raises(ConflictError):
            await store.append(old, [ev.TaskCancelRequested()])
        assert await store.load("t") is newer


async def test_a_row_that_was_changed_keeps_no_list_from_being_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    async with asyncio.timeout(20), SqliteStore(path) as store:
        for name in ("good", "status", "metadata", "time", "text"):
            await store.append(Task(name), [task_submitted()])
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE tasks SET status = 'dancing' WHERE task_id = 'status'")
            connection.execute("UPDATE tasks SET metadata = '[' WHERE task_id = 'metadata'")
            connection.execute("UPDATE tasks SET created_at = 'noon', updated_at = '' WHERE task_id = 'time'")
            connection.execute("UPDATE tasks SET prompt = CAST(x'ff' AS TEXT) WHERE task_id = 'text'")
        page = await store.page()
        assert [task.task_id for task in page.tasks] == ["text", "time", "metadata", "status", "good"]
        assert {task.task_id: task.status for task in page.tasks}["status"] is TaskStatus.NEEDS_ATTENTION
        assert await store.count() == {TaskStatus.PENDING: 4, TaskStatus.NEEDS_ATTENTION: 1}


FILES = ("tasks.db", "tasks.db-wal")


def delete(file: Path, _: Path) -> None:
    file.unlink()


def replace_by_a_copy(file: Path, spare: Path) -> None:
    shutil.copy(file, spare)
    spare.replace(file)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [delete, replace_by_a_copy])
async def test_nothing_is_acknowledged_once_the_database_was_replaced(
    tmp_path: Path, name: str, harm: Callable[[Path, Path], None]
) -> None:
    async with asyncio.timeout(20), SqliteStore(tmp_path / "tasks.db") as store:
        task = await store.append(Task("t"), [task_submitted()])
        await store.check()
        (tmp_path / "kept").hardlink_to(tmp_path / name)
        harm(tmp_path / name, tmp_path / "spare")
        with pytest.raises(StoreUnavailableError, match="replaced or deleted"):
            await store.check()  # a write has succeeded within the last second
        for append in (
            store.append(task, [ev.TaskCancelRequested()]),
            store.append(Task("new"), [task_submitted()]),
        ):
            with pytest.raises(StoreUnavailableError, match="replaced or deleted"):
                await append
        with pytest.raises(StoreUnavailableError, match="replaced or deleted"):
            await store.load("unknown")  # by a new connection, which would open the other file
        assert await store.load("t") == task
        (tmp_path / "kept").replace(tmp_path / name)
        await store.check()
        task = await store.append(task, [ev.TaskCancelRequested()])
    async with asyncio.timeout(20), SqliteStore(tmp_path / "tasks.db") as store:
        assert await store.load("t") == task


async def test_a_write_that_went_to_a_replaced_file_is_not_acknowledged(tmp_path: Path) -> None:
    def replace_meanwhile(_: sqlite3.Connection) -> None:
        replace_by_a_copy(tmp_path / "tasks.db", tmp_path / "spare")

    async with asyncio.timeout(20):
        writer = Writer(DatabaseFile(tmp_path / "tasks.db"))
        await writer.start()
        with pytest.raises(StoreUnavailableError, match="replaced or deleted"):
            await writer.write(replace_meanwhile, lambda: None)
        assert writer.last_success < 0
        await writer.stop()


async def test_a_database_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    async with asyncio.timeout(20), SqliteStore(tmp_path / "tasks.db") as store:
        (tmp_path / "tasks.db").unlink()
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await store.append(Task("t"), [task_submitted()])
            with pytest.raises(StoreUnavailableError):
                await store.page()
        assert not (tmp_path / "tasks.db").exists()


async def test_a_journal_that_somebody_laid_beside_the_database_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with SqliteStore(path):
        pass
    planted = tmp_path / "journal.db-journal"
    planted.write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(504))
    with pytest.raises(ConfigurationError, match=r"journal\.db-journal lies beside it"):
        async with SqliteStore(path):
            pass
    assert planted.exists()
    planted.unlink()
    async with SqliteStore(path):
        pass
