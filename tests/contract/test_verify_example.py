"""`examples/verify_audit.py`, which uses none of our code, on real exports: unchanged and changed ones."""

import copy
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agent_runtime.domain import events as ev
from agent_runtime.domain.audit_export import DecisionEvent, export, find_export_faults
from agent_runtime.domain.chain import record_hash
from agent_runtime.domain.contract import Contract, Limits, PinnedPolicy
from agent_runtime.domain.drafting import draw_up
from agent_runtime.domain.plan import Plan, ToolStep
from agent_runtime.domain.schema_sets import with_sorted_sets
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import BuiltinConfig, BuiltinServer, ToolDefinition, describe_tool
from agent_runtime.domain.values import canonical, digest
from agent_runtime.storage.sqlite.store import SqliteStore
from agent_steps import (
    AGENT,
    LOOK,
    begin_journal,
    contract_of,
    edit_journal,
    model_answered,
    step_started,
    tool_called,
    tool_returned,
)
from audits import database, read, rechain, rewrite, tamper

EXAMPLE = Path(__file__).parents[2] / "examples" / "verify_audit.py"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "audit-format.md"
ROWS: dict[type[BaseModel], str] = {Contract: "the contract", PinnedPolicy: "each policy"}
EXIT_CODES = {"whole": 0, "changed": 1, "none": 2}
verifier = SimpleNamespace(**runpy.run_path(str(EXAMPLE)))

NUMBERS = {
    "integers": [0, -1, 2**53, 2**80, -(2**80)],
    "floats": [5.0, -0.0, 0.1, 1e20, 1e21, 1.5e300, 1e-6, 1e-7, 5e-324, -123.456],
    "texts": ["é \u2028 \x00 \x7f \ufeff 😀", '\t\n"\\/'],
    "\ufb33": 1,
    "😀": 2,
    "a": {"": None, "nested": [[], {}, True, False]},
}
SCHEMA = {
    "type": ["object", "null"],
    "properties": {"required": {"enum": ["b", "a", "a", 1.0], "default": ["b", "a"]}},
    "required": ["x", "a", "x"],
}


def make_contract_with_numbers() -> tuple[Contract, dict[str, ToolDefinition], dict[str, Any]]:
    """Return a plan of one step with odd numbers, its definitions, and the facts of its server."""
    facts = {"type": "builtin", "root": "/data", "limit": 2.0}
    definition = ToolDefinition(name="echo", inputSchema=SCHEMA, annotations={"readOnlyHint": True})
    tool = describe_tool(
        BuiltinServer(id="text", type="builtin", config=BuiltinConfig(server="text")), definition, digest(facts)
    )
    arguments = {"x": 1, "a": NUMBERS}
    step = ToolStep(id="s1", kind="tool", server="text", tool="echo", arguments=arguments, timeout_s=2.5, retries=0)
    step = step.model_copy(update={"preapproved": True, "reasoning": "to count \u2028"})
    contract = draw_up(Plan(goal="count", steps=(step,)), Limits(), {"text/echo": tool}, model=None)
    return contract, {"text/echo": definition}, {"text": facts}


def numbers_events() -> Sequence[ev.Event]:
    """Return the events of a task that a key edited and approved, with odd numbers in its call and a question to a
    person.
    """
    contract, definitions, identities = make_contract_with_numbers()
    plan: dict[str, Any] = {
        "digest": contract.digest,
        "contract": contract,
        "definitions": definitions,
        "identities": identities,
    }
    signed: dict[str, Any] = {"actor": "ann", "via": "key"}
    called = tool_called("s1", "echo", contract.steps[0].templates, "c1").model_copy(update={"server": "text"})
    return (
        ev.TaskSubmitted(prompt="é \u2028 \x00", metadata={"cell": "7"}, **signed),
        ev.TaskClaimed(runner="r", epoch=1),
        ev.PlanProposed(revision=1, planner="rules", **plan),
        ev.PlanEdited(revision=2, **plan, **signed),
        ev.PlanApproved(revision=2, digest=contract.digest, scopes=("approve", "submit"), comment="yes", **signed),
        ev.TaskClaimed(runner="r", epoch=2),
        step_started("s1"),
        called,
        ev.InputRequested(
            step_id="s1", call_id="c1", question_id="q1", server="text", tool="echo", message="?", requested_schema={}
        ),
        ev.InputAnswered(step_id="s1", question_id="q1", action="accept", content={"n": 5.0}, **signed),
        ev.StepOutcomeUnknown(step_id="s1", call_id="c1", reason="lost"),
        ev.StepResolved(step_id="s1", call_id="c1", resolution="done", output=NUMBERS, **signed),
    )


def agent_events() -> Sequence[ev.Event]:
    """Return the events of a task with an agent step, whose model asked for two calls."""
    contract = contract_of(LOOK, {**AGENT, "preapproved": True})
    return (
        *begin_journal(contract),
        model_answered(1, ("f__read", {"x": 7})),
        tool_called("do", "read", {"x": 7}, "c1", turn=1, index=0),
        tool_returned("do", "c1"),
        ev.TaskCancelRequested(),
    )


async def export_events(folder: Path, events: Sequence[ev.Event]) -> Any:
    """Write a journal, and return its export as a client gets it."""
    path = folder / "agent-runtime.db"
    async with SqliteStore(path) as store:
        task = Task("t")
        for event in events:
            by_run = event.writer == "run" or isinstance(event, ev.PlanProposed)
            epoch = event.epoch if isinstance(event, ev.TaskClaimed) else task.epoch if by_run else None
            task = await store.append(task, [event], epoch=epoch)
    return export_of(path)


def export_of(path: Path) -> Any:
    return json.loads(json.dumps(export(read(path))))


def find_faults(document: Any, kept_hash: str | None = None) -> list[str]:
    return [*verifier.read_journal(json.dumps(document)).verify(kept_hash)]


@pytest.fixture
async def exports(tmp_path: Path) -> list[Any]:
    """The exports of a finished task, and of those with odd numbers, an agent step, edited calls, and no plan."""
    folders = [tmp_path / name for name in ("numbers", "agent", "edited", "new")]
    for folder in folders:
        folder.mkdir()
    edited = [*edit_journal(contract_of(LOOK, AGENT)), ev.TaskCancelRequested()]
    events = [numbers_events(), agent_events(), edited, [ev.TaskSubmitted(prompt="p")]]
    made = [await export_events(folder, one) for folder, one in zip(folders, events, strict=True)]
    return [export_of(await database(tmp_path)), *made]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the path of each value in a document that contains no other value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    empty = True
    for name, item in inner:
        empty = False
        yield from leaves(item, (*path, name))
    if empty:
        yield path


def with_other(document: Any, path: tuple[Any, ...]) -> Any:
    """Return the document with another value at this path."""
    changed = copy.deepcopy(document)
    holder = changed
    for name in path[:-1]:
        holder = holder[name]
    found = holder[path[-1]]
    holder[path[-1]] = -found - 1 if type(found) in {int, float} else f"{found}x"
    return changed


CHECKED_BY_US_ALONE = (
    {("status",)}
    | {
        ("index", name)
        for name in ("epoch", "status", "plan_revision", "cancel_requested", "metadata", "created_at", "updated_at")
    }
    | {("index", "request_key"), ("index", "submitter")}
)
"""Faults that follow only from folding the whole journal, as the documentation says."""


async def test_whole_exports_are_found_whole(exports: list[Any]) -> None:
    for document in exports:
        assert find_export_faults(document) == []
        assert find_faults(document) == []
        assert find_faults(document, document["journal"][0]["hash"]) == []
    assert exports[1]["calls"][0]["arguments"]["a"]["integers"][3] == 2**80
    assert exports[1]["approvals"][1]["scopes"] == ["approve", "submit"]


async def test_each_value_that_is_changed_in_an_export_is_found(exports: list[Any]) -> None:
    for document in exports:
        unnoticed = set()
        for path in leaves(document):
            if path[0] == "format":
                continue
            try:
                found = find_faults(with_other(document, path))
            except ValueError:  # it is not the type that it must be
                continue
            if not found:
                unnoticed.add(path)
        assert unnoticed == CHECKED_BY_US_ALONE


async def test_entries_that_are_taken_out_are_found(exports: list[Any]) -> None:
    for name in ("calls", "approvals", "journal"):
        document = copy.deepcopy(exports[0])
        document[name].pop()
        assert find_faults(document)
    del exports[1]["approvals"][1]["scopes"]
    assert find_faults(exports[1]) == ["approvals[1]: record 5 says something else."]


FORGERIES: list[tuple[int, dict[str, Any], str]] = [
    (7, {"arguments": {"text": "bye"}, "arguments_digest": digest({"text": "bye"})}, "arguments are not those"),
    (7, {"arguments": {"text": "bye"}}, "digest is not that of the arguments"),
    (7, {"tool": "delete"}, "does not call text/delete"),
    (7, {"step_id": "s3"}, "has no step s3"),
    (4, {"digest": "sha256:0"}, "without an approved plan"),
    (3, {"digest": "sha256:0"}, "digest is not that of the plan"),
    (3, {"definitions": {"text/echo": ToolDefinition(name="echo", description="other")}}, "is not the definition"),
    (3, {"identities": {"text": {"type": "builtin"}}}, "is not the server"),
]


@pytest.mark.parametrize(("seq", "change", "said"), FORGERIES)
async def test_what_nobody_approved_is_found_though_the_hashes_fit(
    tmp_path: Path, seq: int, change: dict[str, Any], said: str
) -> None:
    path = await database(tmp_path)
    entry = read(path).entries[seq - 1]
    rewrite(path, seq, ev.EVENTS[entry.type].model_validate_json(entry.data).model_copy(update=change))
    document = export_of(path)
    assert any(said in fault for fault in find_faults(document))
    assert find_export_faults(document)


async def test_a_history_that_was_written_anew_is_found_with_a_hash_that_was_kept(tmp_path: Path) -> None:
    path = await database(tmp_path)
    kept = export_of(path)["head"]
    tamper(path, """UPDATE events SET data = replace(data, '"actor":"ann"', '"actor":"mallory"')""")
    rechain(path)
    assert find_faults(export_of(path)) == []
    assert find_faults(export_of(path), kept) == [
        "the hash that was kept is not in the journal: the history was written anew, or cut."
    ]


async def test_the_export_of_a_broken_journal_is_read(tmp_path: Path) -> None:
    path = await database(tmp_path)
    tamper(path, "UPDATE events SET data = CAST(x'ff' AS TEXT) WHERE seq = 8")
    document = export_of(path)
    assert document["journal"][7]["data"] == "\udcff"  # a lone surrogate stands for a byte that is no UTF-8
    found = find_faults(document)
    assert found[0].startswith("record 8: its hash is another")
    assert "record 8: its data is no JSON." in found


def test_it_runs_where_there_is_nothing_but_python(tmp_path: Path, exports: list[Any]) -> None:
    contents = {
        "whole": json.dumps(exports[1]),
        "changed": json.dumps(with_other(exports[1], ("calls", 0, "arguments", "x"))),
        "none": "[]",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        command = [sys.executable, "-I", "-S", str(EXAMPLE), str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == EXIT_CODES[name], done.stderr
        assert bool(done.stdout) == (name == "changed")


def test_it_knows_every_event_that_it_must_look_at() -> None:
    assert {event.type for event in get_args(DecisionEvent)} == verifier.DECISIONS
    assert {name for name, event in ev.EVENTS.items() if "contract" in event.model_fields} == verifier.PLANS


@pytest.mark.parametrize("model", [Contract, PinnedPolicy])
def test_its_page_names_each_field_that_a_digest_leaves_out(model: type[BaseModel]) -> None:
    (row,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {ROWS[model]} ")]
    left_out = {name for name, field in model.model_fields.items() if field.exclude_if is not None}
    assert left_out == {*re.findall(r"`([a-z_]+)`", row)}


def outcome(of: Any, *arguments: Any) -> Any:
    """Return the result of a function, or that it refuses."""
    try:
        return of(*arguments)
    except ValueError:
        return ValueError


texts = st.text(max_size=6) | st.text(st.characters(categories=["Cs", "Cc", "Lu"]), max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_its_canonical_form_is_ours(value: Any) -> None:
    assert outcome(lambda: verifier.write_canonically(value).encode()) == outcome(canonical, value)


KEYWORDS = st.sampled_from(["enum", "required", "type", "properties", "items", "anyOf", "const", "$defs", "x"])
schemas = st.recursive(
    st.lists(st.sampled_from(["b", "a", 1, 1.0, True, 0.5]), max_size=4) | st.booleans() | st.just("object"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=3),
    max_leaves=10,
)


@given(schemas)
def test_it_sorts_the_sets_of_a_schema_as_we_do(schema: Any) -> None:
    assert json.dumps(verifier.sort_sets(schema)) == json.dumps(with_sorted_sets(schema))


@given(texts, st.integers(), st.none() | st.integers(), texts, texts, texts)
def test_its_hash_of_a_record_is_ours(task_id: str, seq: int, epoch: int | None, at: str, kind: str, data: str) -> None:
    entry = {"seq": seq, "epoch": epoch, "at": at, "type": kind, "data": data}
    assert verifier.hash_record("sha256:0", task_id, entry) == record_hash(
        "sha256:0", task_id, seq, epoch, at, kind, data
    )
