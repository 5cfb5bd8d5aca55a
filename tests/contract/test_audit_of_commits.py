"""A database with cut, changed or added tasks, records or commits: what the audit finds with and without
a stored head.
"""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain.chain import GENESIS
from agent_runtime.domain.commits import CHANGES, Change, CommitHead, Deletion, chain_commit, encode_changes, parse_head
from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.events import StepCompleted, TaskCancelRequested, TaskCompleted
from agent_runtime.domain.task import Task
from agent_runtime.storage.sqlite.read_only import open_read_only
from agent_runtime.storage.sqlite.store import SqliteStore
from audits import (
    LAST,
    database,
    faults,
    find_commit_places,
    read,
    read_kept_head,
    rechain,
    rechain_commits,
    rewrite,
    tamper,
    write_finished_task,
)
from journals import claim, plan_approved, task_submitted

COMMITS = 16
"""The number of commits of two tasks by `write_finished_task`: the first eight are of `t`, the rest of `other`."""

REMOVE_T = ("DELETE FROM tasks WHERE task_id = 't'", "DELETE FROM events WHERE task_id = 't'")
HEAD_12 = "(SELECT hash FROM events WHERE task_id = 't' AND seq = 12)"
CUT_T = (
    "DELETE FROM events WHERE task_id = 't' AND seq > 12",
    f"UPDATE tasks SET version = 12, status = 'executing', head = {HEAD_12} WHERE task_id = 't'",  # noqa: S608
)
ELSEWHERE = f"{COMMITS}:sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(database(tmp_path_factory.mktemp("original"), "t", "other"))


@pytest.fixture
def path(tmp_path: Path, original: Path) -> Path:
    """A copy of an unchanged database."""
    copied = tmp_path / original.name
    shutil.copy(original, copied)
    return copied


def rows(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT position, at, type, data, hash FROM commits ORDER BY position").fetchall()


def add_commit(path: Path, changes: Sequence[Change | Deletion]) -> None:
    """Add a row that follows from the newest one, as the service would write it."""
    position, at, _, _, hash_ = rows(path)[-1]
    row = chain_commit(CommitHead(position, hash_), at, CHANGES, encode_changes(changes))
    tamper(path, "INSERT INTO commits VALUES (?, ?, ?, ?, ?)", values=row)


async def test_what_nobody_changed_has_no_fault_with_any_head_that_it_ever_had(path: Path) -> None:
    heads = [f"{position}:{hash_}" for position, _, _, _, hash_ in rows(path)]
    assert heads[-1] == read_kept_head(path)
    async with SqliteStore(path) as store:
        await store.append(Task("third"), [task_submitted()])
        await store.delete(await store.load("t"))
        await store.checkpoint()
        await write_finished_task(store, "fourth")
    for head in (None, f"0:{GENESIS}", *heads, read_kept_head(path)):
        assert find_commit_places(path, head) == []


async def test_a_store_without_tasks_has_a_head_that_it_is_verified_with(tmp_path: Path) -> None:
    path = tmp_path / "agent-runtime.db"
    async with SqliteStore(path):
        pass
    assert read_kept_head(path) == f"0:{GENESIS}"
    assert find_commit_places(path, read_kept_head(path)) == []
    assert find_commit_places(path, f"0:sha256:{'1' * 64}") == ["head 0"]


async def test_a_journal_that_was_written_anew_with_hashes_that_fit_is_found(path: Path) -> None:
    rewrite(path, 4, plan_approved().model_copy(update={"actor": "mallory"}))
    assert faults(path) == []
    assert find_commit_places(path) == ["t, record 4, hash"]


async def test_so_it_is_where_the_service_has_added_to_it_since(tmp_path: Path) -> None:
    path = tmp_path / "agent-runtime.db"
    async with SqliteStore(path) as store:
        await store.append(Task("t"), [task_submitted()])
    rewrite(path, 1, task_submitted("say goodbye"))
    tamper(path, "UPDATE tasks SET prompt = 'say goodbye'")
    async with SqliteStore(path) as store:
        task = await store.load("t")
        assert task.journal_change is None
        await store.append(task, [TaskCancelRequested()])
    assert faults(path) == []
    assert find_commit_places(path) == ["t, record 1, hash"]


async def test_a_journal_that_was_cut_together_with_its_row_is_found(path: Path) -> None:
    tamper(path, *CUT_T)
    assert faults(path) == []
    assert find_commit_places(path) == ["t, record 14, hash"]


async def test_so_it_is_where_the_service_has_written_the_records_anew_since(path: Path) -> None:
    tamper(path, *CUT_T)
    async with SqliteStore(path) as store:
        task = await claim(store, await store.load("t"))
        done = [StepCompleted(step_id="s2"), TaskCompleted(result="hello")]
        await store.append(task, done, epoch=task.epoch)
    assert faults(path) == []
    assert find_commit_places(path) == ["t, record 13, commits[17].data", "t, record 14, hash"]


async def test_records_that_were_added_with_hashes_that_fit_are_found(path: Path) -> None:
    tamper(path, "INSERT INTO events SELECT task_id, 15, epoch, at, type, data, hash FROM events WHERE seq = 14")
    rechain(path)
    assert find_commit_places(path) == ["other, record 15, seq", "t, record 15, seq"]


async def test_a_task_that_was_removed_is_found(path: Path) -> None:
    tamper(path, *REMOVE_T)
    assert find_commit_places(path) == ["t, tasks"]


async def test_a_task_that_was_added_is_found(path: Path) -> None:
    columns = "epoch, at, type, data, hash"
    tamper(
        path,
        f"INSERT INTO events (task_id, seq, {columns}) SELECT 'new', seq, {columns} FROM events WHERE task_id = 't'",  # noqa: S608
    )
    rechain(path, "new")
    assert find_commit_places(path) == ["new, tasks"]


async def test_the_tombstone_of_a_task_that_is_still_there_is_found(path: Path) -> None:
    head = read(path).entries[-1].hash
    add_commit(path, [Deletion("t", LAST, head)])
    with open_read_only(path) as file:
        (fault,) = file.verify_commits().faults
    assert str(fault).startswith("t, tasks: commit 17 says that it was deleted")


@pytest.mark.parametrize("deletion", [Deletion("t", 13, GENESIS), Deletion("t", LAST, GENESIS)])
async def test_the_tombstone_of_another_journal_is_found(path: Path, deletion: Deletion) -> None:
    tamper(path, *REMOVE_T)
    add_commit(path, [deletion])
    assert find_commit_places(path) == [f"t, record {deletion.last}, commits[17].data"]


async def test_the_tombstone_of_a_task_that_never_was_is_found(path: Path) -> None:
    add_commit(path, [Deletion("nobody", 1, GENESIS)])
    assert find_commit_places(path) == ["nobody, record 1, commits[17].data"]


async def test_a_forged_tombstone_after_the_kept_head_looks_like_a_deletion(path: Path) -> None:
    """A known limit, stated in the documentation."""
    head = read_kept_head(path)
    tombstone = Deletion("t", LAST, read(path).entries[-1].hash)
    tamper(path, *REMOVE_T)
    add_commit(path, [tombstone])
    assert find_commit_places(path, head) == []
    assert find_commit_places(path, ELSEWHERE) == ["commits[16].hash"]


async def test_a_task_whose_changed_journal_the_service_has_deleted_is_no_fault(path: Path) -> None:
    tamper(path, "UPDATE events SET data = '{' WHERE task_id = 't' AND seq = 3")
    async with SqliteStore(path) as store:
        await store.delete(await store.load("t"))
    assert find_commit_places(path) == []


CHANGED_ROWS: list[tuple[str, list[str]]] = [
    ("DELETE FROM commits WHERE position = 5", ["commits[6]"]),
    ("DELETE FROM commits WHERE position < 5", ["commits[5]"]),
    ("DELETE FROM commits WHERE position > 13", ["other, record 6, seq"]),
    ("UPDATE commits SET position = 99 WHERE position = 16", ["commits[99]"]),
    ("UPDATE commits SET at = '2020-01-01T00:00:00.000000Z' WHERE position = 5", ["commits[5].hash"]),
    ("UPDATE commits SET type = 'other' WHERE position = 5", ["commits[5].data", "commits[5].hash"]),
    ("UPDATE commits SET data = '{' WHERE position = 5", ["commits[5].data", "commits[5].hash"]),
    ("UPDATE commits SET data = '[1]' WHERE position = 5", ["commits[5].data", "commits[5].hash"]),
    ("UPDATE commits SET data = CAST(x'ff' AS TEXT) WHERE position = 5", ["commits[5].data", "commits[5].hash"]),
    ("UPDATE commits SET data = replace(data, '}', ' }') WHERE position = 5", ["commits[5].hash"]),
    ("UPDATE commits SET hash = 'sha256:0' WHERE position = 5", ["commits[5].hash"]),
    ("UPDATE commits SET hash = 'sha256:0' WHERE position = 16", ["commits[16].hash"]),
]


@pytest.mark.parametrize(("statement", "expected"), CHANGED_ROWS)
async def test_a_commit_that_was_changed_or_cut_is_placed_once(path: Path, statement: str, expected: list[str]) -> None:
    tamper(path, statement)
    assert find_commit_places(path) == expected


async def test_what_missing_rows_may_have_named_is_not_called_forged(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.delete(await store.load("t"))
    tamper(path, "DELETE FROM commits WHERE position BETWEEN 3 AND 9")
    assert find_commit_places(path) == ["commits[10]"]
    tamper(path, "DELETE FROM commits WHERE position < 12")
    assert find_commit_places(path) == ["commits[12]"]


async def test_a_row_that_was_replaced_together_with_its_hash_shows_in_the_next(path: Path) -> None:
    _, at, kind, data, _ = rows(path)[4]
    whole = rows(path)[5:]
    tamper(path, "UPDATE commits SET at = ? WHERE position = 5", values=(at.replace("T", "t"),))
    rechain_commits(path)
    for position, *_, hash_ in whole:
        tamper(path, "UPDATE commits SET hash = ? WHERE position = ?", values=(hash_, position))
    assert find_commit_places(path) == ["commits[6].hash"]
    assert (kind, json.loads(data)[0]["task_id"]) == (CHANGES, "t")


REWRITTEN: list[tuple[str, ...]] = [
    (*REMOVE_T, "DELETE FROM commits WHERE position <= 8"),
    ("UPDATE commits SET at = '2020-01-01T00:00:00.000000Z' WHERE position = 5",),
    ("DELETE FROM commits WHERE position > 8", *[line.replace("'t'", "'other'") for line in REMOVE_T]),
]


@pytest.mark.parametrize("statements", REWRITTEN)
async def test_a_chain_that_was_computed_anew_is_found_with_a_head_and_without_one_is_not(
    path: Path, statements: tuple[str, ...]
) -> None:
    """The chain is tamper-evident, no more: so the command lists what it cannot detect."""
    head = read_kept_head(path)
    tamper(path, *statements)
    rechain_commits(path)
    assert find_commit_places(path) == []
    assert find_commit_places(path, head) in (["head 16"], ["commits[16].hash"])


async def test_a_history_that_fits_itself_and_its_commits_is_found_with_a_head(path: Path) -> None:
    head = read_kept_head(path)
    before = {entry.seq: entry.hash for entry in read(path).entries}
    rewrite(path, 4, plan_approved().model_copy(update={"actor": "mallory"}))
    for entry in read(path).entries:
        swap = "UPDATE commits SET data = replace(data, ?, ?)"
        tamper(path, swap, values=(before[entry.seq], entry.hash))
    rechain_commits(path)
    assert faults(path) == []
    assert find_commit_places(path) == []
    assert find_commit_places(path, head) == ["commits[16].hash"]


@pytest.fixture
async def with_checkpoint(path: Path) -> Path:
    """A database whose row 17 is a checkpoint, followed by one more commit."""
    async with SqliteStore(path) as store:
        await store.checkpoint()
        await store.append(Task("third"), [task_submitted()])
    return path


async def test_the_rows_before_a_checkpoint_may_be_dropped_and_not_cut(with_checkpoint: Path) -> None:
    before = read_kept_head(with_checkpoint)
    tamper(with_checkpoint, "DELETE FROM commits WHERE position < 17")
    assert find_commit_places(with_checkpoint) == ["commits[17]"]
    async with SqliteStore(with_checkpoint) as store:
        await store.checkpoint(drop=True)
        await store.append(Task("fourth"), [task_submitted()])
    after = read_kept_head(with_checkpoint)
    assert after.startswith("20:")
    assert find_commit_places(with_checkpoint) == find_commit_places(with_checkpoint, after) == []
    assert find_commit_places(with_checkpoint, before) == []  # the checkpoint names the row before it
    assert find_commit_places(with_checkpoint, f"18:sha256:{'0' * 64}") == ["head 18"]
    assert find_commit_places(with_checkpoint, f"17:sha256:{'0' * 64}") == ["head 17"]
    assert find_commit_places(with_checkpoint, f"21:sha256:{'0' * 64}") == ["head 21"]


CHANGED_CHECKPOINTS: list[tuple[str, str, list[str]]] = [
    ('"last":14,"task_id":"t"', '"last":13,"task_id":"t"', ["t, record 13, commits[17].data.heads"]),
    ('"task_id":"t"', '"task_id":"u"', ["u, record 14, commits[17].data.heads", "t, commits[17].data.heads"]),
    ('"entries":3', '"entries":4', ["commits[17].data.previous"]),
]


@pytest.mark.parametrize(("old", "new", "expected"), CHANGED_CHECKPOINTS)
async def test_a_checkpoint_that_was_changed_is_found(
    with_checkpoint: Path, old: str, new: str, expected: list[str]
) -> None:
    head = read_kept_head(with_checkpoint)
    tamper(with_checkpoint, "UPDATE commits SET data = replace(data, ?, ?) WHERE position = 17", values=(old, new))
    assert "commits[17].hash" in find_commit_places(with_checkpoint)
    rechain_commits(with_checkpoint)
    found = find_commit_places(with_checkpoint)
    assert found[: len(expected)] == expected
    assert "commits[18].hash" in find_commit_places(with_checkpoint, head)


async def test_after_a_checkpoint_it_does_not_matter_what_missing_rows_have_named(with_checkpoint: Path) -> None:
    tamper(with_checkpoint, "DELETE FROM commits WHERE position = 5")
    add_commit(with_checkpoint, [Deletion("nobody", 1, GENESIS)])
    assert find_commit_places(with_checkpoint) == ["commits[6]", "nobody, record 1, commits[19].data"]


async def test_rows_before_a_checkpoint_that_were_computed_anew_are_found_where_it_was_not(
    with_checkpoint: Path,
) -> None:
    tamper(with_checkpoint, "UPDATE commits SET at = '2020-01-01T00:00:00.000000Z' WHERE position = 5")
    rechain_commits(with_checkpoint)
    assert find_commit_places(with_checkpoint) == ["commits[17].data.previous"]


async def test_a_checkpoint_that_names_what_was_changed_before_it_is_found(path: Path) -> None:
    tamper(path, *REMOVE_T)
    async with SqliteStore(path) as store:
        await store.checkpoint()
    assert find_commit_places(path) == ["t, commits[17].data.heads"]


async def test_a_database_that_had_commits_and_has_none_is_found(path: Path) -> None:
    head = read_kept_head(path)
    tamper(path, "DELETE FROM commits")
    assert find_commit_places(path) == ["other, tasks", "t, tasks"]
    assert find_commit_places(path, head) == ["head 16", "other, tasks", "t, tasks"]


async def test_a_database_without_the_table_of_commits_is_told_from_one_of_an_earlier_version(path: Path) -> None:
    tamper(path, "DROP TABLE commits")
    with open_read_only(path) as file:
        assert file.has_commits  # or should have
        with pytest.raises(StoreUnavailableError, match="no such table: commits"):
            file.verify_commits()
        with pytest.raises(StoreUnavailableError, match="no such table: commits"):
            file.commit_head()
    tamper(path, "PRAGMA user_version = 4")
    with open_read_only(path) as file:
        assert not file.has_commits


@pytest.mark.parametrize("text", ["", "12", "12:", "012:sha256:" + "0" * 64, "12:sha256:0", "x:sha256:" + "0" * 64])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="POSITION:HASH"):
        parse_head(text)
