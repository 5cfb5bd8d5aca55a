"""A real database changed behind the service's back: which changes the audit finds, and where."""

import json
import random
import shutil
import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain import events as ev
from agent_runtime.domain.audit_export import export, find_export_faults, parse_export
from agent_runtime.domain.chain import record_hash
from agent_runtime.domain.errors import AgentRuntimeError, ConfigurationError, JournalChangedError, TaskNotFoundError
from agent_runtime.domain.journal_verification import find_journal_faults
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import ToolDefinition
from agent_runtime.storage.sqlite.read_only import open_read_only
from agent_runtime.storage.sqlite.store import SqliteStore
from audits import (
    LAST,
    call,
    database,
    faults,
    places,
    read,
    rechain,
    rewrite,
    spoil_index,
    tamper,
    write_finished_task,
)
from journals import (
    CONTRACT,
    claim,
    plan_approved,
    plan_proposed,
    task_claimed,
    task_submitted,
    tool_returned,
    write_executing_task,
)

FLIP = "UPDATE events SET {column} = CAST(? AS TEXT) WHERE task_id = 't' AND seq = ?"
RENUMBER = "UPDATE events SET seq = ? WHERE task_id = 't' AND seq = ?"
TEXTS = ("at", "type", "data", "hash")


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return await database(tmp_path, "t", "other")


def flip_bit(text: str, place: int, bit: int) -> bytes:
    raw = bytearray(text.encode())
    raw[place % len(raw)] ^= 1 << bit
    return bytes(raw)


async def test_what_nobody_changed_has_no_fault(path: Path) -> None:
    assert faults(path) == faults(path, "other") == []
    with open_read_only(path) as file:
        assert file.ids() == ["other", "t"]
        assert file.damages() == []
        with pytest.raises(TaskNotFoundError):
            file.read("nobody")


@pytest.mark.slow
@pytest.mark.parametrize("column", TEXTS)
@pytest.mark.parametrize("seq", [1, 3, 7, LAST])
@pytest.mark.parametrize("bit", [0, 7])
async def test_one_flipped_bit_of_a_text_is_placed(path: Path, column: str, seq: int, bit: int) -> None:
    """Bit 7 makes the text invalid UTF-8."""
    entry = read(path).entries[seq - 1]
    for place in (0, 9, -1):
        changed = flip_bit(getattr(entry, column), place, bit)
        tamper(path, FLIP.format(column=column), values=(changed, seq))
        found = faults(path)
        # An unreadable type or time is reported twice: by the hash, and as unreadable.
        assert (found[0].seq, found[0].field) == (seq, column)
        assert {fault.seq for fault in found} - {None} == {seq}
        assert faults(path, "other") == []
    tamper(path, FLIP.format(column=column), values=(getattr(entry, column).encode(), seq))
    assert faults(path) == []


@pytest.mark.parametrize(
    ("seq", "epoch"), [(1, 0), (1, 3), (2, 0), (2, None), (7, None), (7, 3), (LAST, 1), (LAST, 9_000_000_000)]
)
async def test_a_changed_epoch_is_placed(path: Path, seq: int, epoch: int | None) -> None:
    tamper(path, "UPDATE events SET epoch = ? WHERE task_id = 't' AND seq = ?", values=(epoch, seq))
    assert places(path)[0] == (seq, "epoch")


@pytest.mark.parametrize(("seq", "other"), [(3, 131), (LAST, 15), (5, 0), (5, -5), (1, 2**62)])
async def test_a_changed_number_is_placed_and_its_old_one_told(path: Path, seq: int, other: int) -> None:
    tamper(path, RENUMBER, values=(other, seq))
    found = faults(path)
    assert any(fault.seq == seq and "missing" in fault.message for fault in found)
    assert any(fault.seq == other and f"it is record {seq}" in fault.message for fault in found)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("head", "'sha256:1'"),
        ("version", "13"),
        ("version", "15"),
        ("epoch", "7"),
        ("status", "'cancelled'"),
        ("prompt", "'say goodbye'"),
        ("prompt", "CAST(x'ff' AS TEXT)"),
        ("plan_revision", "2"),
        ("cancel_requested", "1"),
        ("metadata", '\'{"cell": "8"}\''),
        ("metadata", "'{'"),
        ("created_at", "'2026'"),
        ("updated_at", "'2026'"),
        ("request_key", "'key'"),
        ("submitter", "'bob'"),
        ("submitter", "''"),
        ("thread", "'c'"),
    ],
)
async def test_a_change_of_the_tasks_row_is_placed(path: Path, column: str, value: str) -> None:
    tamper(path, f"UPDATE tasks SET {column} = {value} WHERE task_id = 't'")  # noqa: S608 - no input
    assert places(path) == [(None, f"tasks.{column}")]


async def test_a_journal_without_its_row_and_a_row_without_its_journal(path: Path) -> None:
    tamper(path, "DELETE FROM tasks WHERE task_id = 't'", "DELETE FROM events WHERE task_id = 'other'")
    assert places(path) == [(None, "tasks")]
    assert places(path, "other")[0] == (1, "seq")
    assert "records 1 to 14 are missing" in faults(path, "other")[0].message
    with open_read_only(path) as file:
        assert file.ids() == ["other", "t"]


async def test_a_journal_that_was_cut_short_is_reported(path: Path) -> None:
    tamper(path, "DELETE FROM events WHERE task_id = 't' AND seq = 14")
    found = faults(path)
    assert (found[0].seq, found[0].field) == (14, "seq")
    assert "cut short" in found[0].message
    tamper(path, "UPDATE tasks SET version = 13 WHERE task_id = 't'")
    assert places(path)[0] == (None, "tasks.head")


async def test_a_record_that_was_taken_out_is_reported(path: Path) -> None:
    tamper(path, "DELETE FROM events WHERE task_id = 't' AND seq = 7")
    assert places(path)[0] == (7, "seq")


async def test_two_records_that_changed_places_are_reported(path: Path) -> None:
    for old, new in ((6, 99), (9, 6), (99, 9)):
        tamper(path, RENUMBER, values=(new, old))
    assert {(6, "data"), (9, "data")} <= set(places(path))


async def test_a_forged_record_whose_hash_belongs_to_another_chain_is_reported(path: Path) -> None:
    tamper(
        path,
        "INSERT INTO events SELECT 't', 15, epoch, at, type, data, hash FROM events "
        "WHERE task_id = 'other' AND seq = 7",
        "UPDATE tasks SET version = 15, head = (SELECT hash FROM events WHERE seq = 15) WHERE task_id = 't'",
    )
    assert places(path)[0] == (15, "data")


async def test_a_record_added_without_the_head_is_reported(path: Path) -> None:
    tamper(path, "INSERT INTO events SELECT 't', 15, epoch, at, type, data, hash FROM events WHERE seq = 7 LIMIT 1")
    assert {(15, "data"), (None, "tasks.head")} <= set(places(path))


async def test_a_record_replaced_together_with_its_hash_shows_in_the_next(path: Path) -> None:
    data = plan_approved().model_copy(update={"actor": "mallory"}).model_dump_json()
    entries = read(path).entries
    own = record_hash(entries[2].hash, "t", 4, entries[3].epoch, entries[3].at, entries[3].type, data)
    tamper(path, "UPDATE events SET data = ?, hash = ? WHERE task_id = 't' AND seq = 4", values=(data, own))
    assert places(path) == [(5, "data")]


async def test_a_history_that_was_written_anew_as_a_whole_is_not_found(path: Path) -> None:
    """The journal is tamper-evident, no more: only a head stored elsewhere reveals this."""
    head = export(read(path))["head"]
    rewrite(path, 4, plan_approved().model_copy(update={"actor": "mallory"}))
    assert faults(path) == []
    assert export(read(path))["head"] != head


FORGERIES = [
    (call("s2", arguments={"text": "goodbye"}), "data.arguments"),
    (call("s2", arguments_digest="sha256:0"), "data.arguments_digest"),
    (call("s2", tool="delete"), "data.tool"),
    (call("s3"), "data.step_id"),
    (call("s1"), "data"),
]


@pytest.mark.parametrize(("event", "place"), FORGERIES)
async def test_a_call_that_was_not_in_the_plan_is_reported_though_the_chain_fits(
    tmp_path: Path, event: ev.ToolCalled, place: str
) -> None:
    path = await database(tmp_path)
    rewrite(path, 11, event)
    assert (11, place) in places(path)


async def test_a_call_without_an_approval_is_reported_though_the_chain_fits(tmp_path: Path) -> None:
    path = await database(tmp_path)
    tamper(path, "DELETE FROM events WHERE seq IN (4, 5)", "UPDATE events SET seq = seq - 100 WHERE seq > 5")
    tamper(path, "UPDATE events SET seq = seq + 98 WHERE seq < 0")
    rechain(path)
    assert places(path)[0] == (4, "data")
    assert "it may not follow" in faults(path)[0].message


async def test_a_call_in_the_place_of_the_approval_is_said_to_have_none(tmp_path: Path) -> None:
    path = await database(tmp_path)
    tamper(path, "UPDATE events SET type = 'tool.called', epoch = 1 WHERE seq = 4")
    rewrite(path, 4, call("s1"))
    assert [str(fault) for fault in faults(path)] == ["t, record 4, data: the call was made without an approved plan."]


async def test_a_plan_that_was_changed_after_it_was_approved_is_reported(tmp_path: Path) -> None:
    path = await database(tmp_path)
    other = CONTRACT.model_copy(update={"goal": "say something else"})
    rewrite(path, 3, plan_proposed().model_copy(update={"contract": other}))
    assert (3, "data.digest") in places(path)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"definitions": {"text/echo": ToolDefinition(name="echo", description="Says nothing.")}}, "data.definitions"),
        ({"identities": {"text": {"type": "builtin", "root": "/elsewhere"}}}, "data.identities"),
    ],
)
async def test_what_is_shown_of_a_plan_and_is_not_what_it_has_pinned_is_reported(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    path = await database(tmp_path)
    rewrite(path, 3, plan_proposed().model_copy(update=change))
    assert places(path) == [(3, field)]


async def test_a_reference_to_a_result_that_was_changed_is_reported(tmp_path: Path) -> None:
    path = await database(tmp_path)
    event = tool_returned("call-s1", "s1")
    changed = event.result.model_copy(update={"text": "hi"})
    rewrite(path, 8, event.model_copy(update={"result": changed}))
    assert places(path) == [(11, "data.arguments")]


async def test_a_late_answer_and_an_answer_of_a_person_are_part_of_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "agent-runtime.db"
    async with SqliteStore(path) as store:
        task = await store.append(Task("t"), [task_submitted()])
        task = await claim(store, task)
        task = await store.append(task, [plan_proposed()], epoch=1)
        task = await store.append(task, [plan_approved()])
        task = await claim(store, task)
        task = await store.append(task, [ev.StepStarted(step_id="s1", title=""), call("s1")], epoch=2)
        task = await claim(store, task)
        task = await store.append(task, [tool_returned("call-s1", "s1")], epoch=2)
        lost = ev.StepOutcomeUnknown(step_id="s1", call_id="call-s1", reason="lost")
        task = await store.append(task, [lost], epoch=3)
        said = ev.StepResolved(step_id="s1", call_id="call-s1", resolution="done", output="bye")
        task = await store.append(task, [said])
        task = await claim(store, task)
        second = [ev.StepStarted(step_id="s2", title=""), call("s2", arguments={"text": "bye"})]
        await store.append(task, second, epoch=4)
    assert faults(path) == []
    document = export(read(path))
    assert [made["decision"] for made in document["approvals"]] == ["plan.approved", "step.resolved"]
    assert [(made["seq"], made["returned_seq"]) for made in document["calls"]] == [(7, 9), (14, None)]


async def test_a_database_from_before_the_chain_is_brought_up_to_date_and_verifies(path: Path) -> None:
    first = files("agent_runtime.storage.sqlite").joinpath("migrations", "0001_journal.sql").read_text(encoding="utf-8")
    old = path.parent / "old.db"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(first)
        connection.execute("ATTACH ? AS new", (str(path),))
        connection.execute("INSERT INTO events SELECT task_id, seq, epoch, at, type, data FROM new.events")
        names = [name for _, name, *_ in connection.execute("PRAGMA main.table_info(tasks)")]
        connection.execute(f"INSERT INTO tasks SELECT {', '.join(names)} FROM new.tasks")  # noqa: S608
        connection.execute("PRAGMA user_version = 1")
        connection.execute("UPDATE events SET data = CAST(x'ff' AS TEXT) WHERE task_id = 'other' AND seq = 3")
        connection.commit()
    with pytest.raises(ConfigurationError, match="before journals had hashes"), open_read_only(old):
        pass
    async with SqliteStore(old) as store:
        assert (await store.load("t")).version == LAST
        await write_finished_task(store, "new")
    assert read(old).entries == read(path).entries  # the same hashes as if written by this version
    assert faults(old) == faults(old, "new") == []
    assert places(old, "other") == [(3, "data")]  # an earlier fault is not hidden, and does not stop the migration


@pytest.fixture
async def before_submitters(path: Path) -> Path:
    return without_submitters(path)


def without_submitters(path: Path) -> Path:
    """Copy a database into one of the version that did not store submitters beside their journals."""
    scripts = files("agent_runtime.storage.sqlite").joinpath("migrations")
    old = path.parent / "old.db"
    with closing(sqlite3.connect(old)) as connection:
        for name in ("0001_journal.sql", "0002_chain.sql"):
            connection.executescript(scripts.joinpath(name).read_text(encoding="utf-8"))
        connection.execute("ATTACH ? AS new", (str(path),))
        connection.execute("INSERT INTO events SELECT * FROM new.events")
        names = [name for _, name, *_ in connection.execute("PRAGMA main.table_info(tasks)")]
        connection.execute(f"INSERT INTO tasks SELECT {', '.join(names)} FROM new.tasks")  # noqa: S608
        connection.execute("PRAGMA user_version = 2")
        connection.commit()
    return old


async def test_a_database_without_submitters_is_audited_as_it_is_and_then_brought_up_to_date(
    path: Path, before_submitters: Path
) -> None:
    tamper(before_submitters, "UPDATE events SET data = '{' WHERE task_id = 'other' AND seq = 1")
    tamper(before_submitters, "UPDATE sqlite_sequence SET seq = 50")
    assert faults(before_submitters) == []
    exported = json.loads(json.dumps(export(read(before_submitters))))
    assert "submitter" not in exported["index"]
    assert find_export_faults(exported) == []
    async with SqliteStore(before_submitters) as store:
        assert [row.task_id for row in (await store.page()).tasks] == ["other", "t"]
        await store.append(Task("new"), [task_submitted(request_key="k", actor="ann")])
        found = await store.find_request("ann", "k")
        assert found
        assert found.task_id == "new"
    assert faults(before_submitters) == faults(before_submitters, "new") == []
    assert read(before_submitters) == read(path)
    with closing(sqlite3.connect(before_submitters)) as connection:
        assert connection.execute("SELECT position, submitter FROM tasks ORDER BY position").fetchall() == [
            (1, "anonymous"),
            (2, "anonymous"),
            (51, "ann"),
        ]


async def test_an_idempotency_key_of_an_earlier_version_is_still_its_callers(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "new.db") as store:
        await store.append(Task("t"), [task_submitted(request_key="k", actor="ann")])
    async with SqliteStore(without_submitters(tmp_path / "new.db")) as store:
        found = await store.find_request("ann", "k")
        assert found
        assert found.task_id == "t"
        assert await store.find_request("anonymous", "k") is None


async def test_an_approval_by_an_author_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "agent-runtime.db"
    async with SqliteStore(path) as store:
        task = await store.append(Task("t"), [task_submitted(actor="ann")])
        task = await store.append(task, [task_claimed(task)], epoch=1)
        task = await store.append(task, [plan_proposed()], epoch=1)
        await store.append(task, [plan_approved().model_copy(update={"scopes": ("approve", "submit")})])
    assert faults(path) == []
    document = export(read(path))
    assert [made["scopes"] for made in document["approvals"]] == [["approve", "submit"]]
    rewrite(path, 4, plan_approved().model_copy(update={"scopes": ("approve",)}))
    (fault,) = [fault for fault in faults(path) if "is an author of the task" in fault.message]
    assert fault.seq == 4


async def test_a_broken_journal_stops_neither_the_store_nor_the_other_tasks(path: Path) -> None:
    tamper(path, "UPDATE events SET data = '{' WHERE task_id = 't' AND seq = 3")
    tamper(path, "UPDATE events SET data = CAST(x'ff' AS TEXT) WHERE task_id = 't' AND seq = 5")
    async with SqliteStore(path) as store:
        assert await store.list_unfinished() == []
        assert (await store.load("other")).version == LAST
        broken = await store.load("t")
        assert broken.journal_change
        assert broken.journal_change.record == 3
        kept = await store.load_stored_journal("t")
    assert [(fault.seq, fault.field) for fault in find_journal_faults(kept)] == [(3, "data"), (5, "data")] * 2
    assert [(one.seq, one.field) for one in find_export_faults(json.loads(json.dumps(export(kept))))] == [
        (3, "data"),
        (5, "data"),
    ] * 2


@pytest.mark.slow
@pytest.mark.parametrize("column", TEXTS)
@pytest.mark.parametrize("bit", [0, 7])
async def test_one_flipped_bit_of_an_open_task_is_noticed_when_it_is_read(
    tmp_path: Path, column: str, bit: int
) -> None:
    path = tmp_path / "agent-runtime.db"
    async with SqliteStore(path) as store:
        whole = await write_executing_task(store, "t")
    for entry in read(path).entries:
        for place in (0, 9, -1):
            tamper(path, FLIP.format(column=column), values=(flip_bit(getattr(entry, column), place, bit), entry.seq))
            async with SqliteStore(path) as store:
                broken = await store.load("t")
                assert broken.journal_change
                assert broken.journal_change.record == entry.seq
                with pytest.raises(JournalChangedError, match=f"at record {entry.seq}"):
                    await store.append(broken, [ev.TaskCancelRequested()])
        tamper(path, FLIP.format(column=column), values=(getattr(entry, column).encode(), entry.seq))
    async with SqliteStore(path) as store:
        assert await store.load("t") == whole


async def test_an_id_that_is_no_text_does_not_keep_the_store_from_starting(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.append(Task("open"), [task_submitted()])
    tamper(path, "UPDATE tasks SET task_id = CAST(x'ff' AS TEXT), status = 'pending' WHERE task_id = 't'")
    async with SqliteStore(path) as store:
        assert await store.list_unfinished() == ["open"]
    assert places(path) == [(None, "tasks")]
    with open_read_only(path) as file:
        (renamed,) = {*file.ids()} - {"open", "other", "t"}
        assert find_journal_faults(file.read(renamed))[0].seq == 1


async def test_appending_in_a_run_after_a_changed_record_leaves_the_fault_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "agent-runtime.db"
    async with SqliteStore(path) as store:
        task = await claim(store, await store.append(Task("t"), [task_submitted()]))
        tamper(path, "UPDATE events SET data = replace(data, 'say hello', 'say hullo')")
        await store.append(task, [plan_proposed()], epoch=task.epoch)
    assert places(path)[0] == (1, "data")
    assert set(places(path)) == {(1, "data"), (None, "tasks.prompt")}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_byte_of_the_file_itself_is_reported_wherever_it_changes_a_journal(path: Path, seed: int) -> None:
    whole, before = path.read_bytes(), {name: read(path, name) for name in ("t", "other")}
    chosen = random.Random(seed)  # noqa: S311 - nothing is secret here
    filled = [place for place in range(100, len(whole)) if whole[place]]  # most of a small file is empty
    told = 0
    for _ in range(75):
        place = chosen.choice(filled)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << chosen.randrange(8))]) + whole[place + 1 :])
        found = _everything_wrong(path)
        told += bool(found)
        if not found:  # the change is in free space or another table
            assert {name: read(path, name) for name in ("t", "other")} == before
    assert told > 20


def _everything_wrong(path: Path) -> list[Any]:
    try:
        with open_read_only(path) as file:
            found: list[Any] = file.damages()
            for task_id in file.ids():
                try:
                    found += find_journal_faults(file.read(task_id))
                except AgentRuntimeError as error:
                    found.append(error)
            return found
    except AgentRuntimeError as error:
        return [error]


async def test_an_export_is_whole_and_verifies_with_nothing_else_at_hand(path: Path) -> None:
    document = json.loads(json.dumps(export(read(path))))
    assert find_export_faults(document) == []
    assert parse_export(document) == read(path)
    assert document["prompt"] == "say hello"
    assert (document["plan_digest"], document["plan"]["goal"]) == (CONTRACT.digest, "say it")
    assert [(made["actor"], made["digest"]) for made in document["approvals"]] == [("ann", CONTRACT.digest)]
    assert [(made["step_id"], made["arguments"], made["returned_seq"]) for made in document["calls"]] == [
        ("s1", {"text": "hello"}, 8),
        ("s2", {"text": "hello"}, 12),
    ]


def _edits(document: Any) -> list[tuple[str, Any, Any, Any]]:
    return [
        ("prompt", document, "prompt", "say goodbye"),
        ("calls[0].arguments.text", document["calls"][0]["arguments"], "text", "goodbye"),
        ("calls", document, "calls", []),
        ("approvals[0].actor", document["approvals"][0], "actor", "bob"),
        ("plan.goal", document["plan"], "goal", "another"),
        ("note", document, "note", "all is well"),
        ("plan_revision", document, "plan_revision", True),
        ("journal[2].note", document["journal"][2], "note", "all is well"),
    ]


@pytest.mark.parametrize("number", range(8))
async def test_an_edited_export_is_reported_with_its_place(path: Path, number: int) -> None:
    document = json.loads(json.dumps(export(read(path))))
    place, holder, name, value = _edits(document)[number]
    holder[name] = value
    assert [(fault.seq, fault.field) for fault in find_export_faults(document)] == [(None, place)]


async def test_an_edited_journal_of_an_export_is_reported(path: Path) -> None:
    document = json.loads(json.dumps(export(read(path))))
    document["journal"][6]["data"] = document["journal"][6]["data"].replace("hello", "hullo")
    found = [(fault.seq, fault.field) for fault in find_export_faults(document)]
    assert found[0] == (7, "data")
    assert (7, "data.arguments") in found
    twice = json.loads(json.dumps(export(read(path))))
    twice["journal"].append(twice["journal"][3])
    assert find_export_faults(twice)[0].message.startswith("there is another record of this number")


NO_EXPORTS: list[tuple[Any, str]] = [
    ([], "format"),
    ({"format": "other/1"}, "format"),
    ({"task_id": 1}, "task_id"),
    ({"journal": {}}, "journal"),
    ({"journal": [1]}, r"journal\[0\]"),
    ({"journal": [{"seq": True}]}, r"journal\[0\].seq"),
    ({"index": {"version": 1}}, "index.epoch"),
]


@pytest.mark.parametrize(("change", "place"), NO_EXPORTS)
async def test_what_is_no_export_is_refused_with_its_place(path: Path, change: Any, place: str) -> None:
    document = change if isinstance(change, list) else export(read(path)) | change
    with pytest.raises(ValueError, match=place):
        find_export_faults(document)


async def test_the_audit_changes_nothing_and_works_beside_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "agent-runtime.db"
    async with SqliteStore(path) as store:
        await write_executing_task(store, "t")
        assert places(path)[0] == (7, "data.arguments")  # the helper uses its own arguments
        await write_finished_task(store, "u")
        assert faults(path, "u") == []
    before = path.read_bytes()
    faults(path, "u")
    assert path.read_bytes() == before


async def test_what_a_crash_left_behind_is_audited_and_left_as_it_is(tmp_path: Path) -> None:
    copied = tmp_path / "copy.db"
    async with SqliteStore(tmp_path / "agent-runtime.db") as store:
        await write_finished_task(store, "t")
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"agent-runtime.db{suffix}", f"{copied}{suffix}")
    before = [copied.read_bytes(), copied.with_name("copy.db-wal").read_bytes()]
    assert faults(copied) == []
    assert [copied.read_bytes(), copied.with_name("copy.db-wal").read_bytes()] == before


async def test_a_byte_that_is_no_text_is_not_taken_for_the_sign_that_stands_for_it(tmp_path: Path) -> None:
    path = tmp_path / "agent-runtime.db"
    async with SqliteStore(path) as store:
        await store.append(Task("t"), [task_submitted("odd \ufffd")])
    assert faults(path) == []
    tamper(path, "UPDATE events SET data = CAST(replace(data, char(0xfffd), CAST(x'ff' AS TEXT)) AS TEXT)")
    assert places(path)[0] == (1, "data")


async def test_damage_of_the_file_is_told_where_no_journal_was_hit(path: Path) -> None:
    spoil_index(path)
    assert faults(path) == []
    with open_read_only(path) as file:
        assert "tasks_by_status" in file.damages()[0].message


async def test_a_trigger_is_reported(path: Path) -> None:
    tamper(path, "CREATE TRIGGER extra AFTER INSERT ON events BEGIN DELETE FROM definitions; END")
    with open_read_only(path) as file:
        assert [damage.message for damage in file.damages()] == ["it has a trigger, extra."]


async def test_a_file_that_cannot_be_audited_is_named(tmp_path: Path) -> None:
    for name, content in (("none.db", None), ("letter.db", b"This is a letter. " * 400)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigurationError, match=name), open_read_only(tmp_path / name):
            pass
