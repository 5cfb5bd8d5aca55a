"""The audit of agent steps in a real database: the model's requests, and the calls made for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain import events as ev
from agent_runtime.domain.audit_export import export, find_export_faults
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import digest
from agent_runtime.storage.sqlite.store import SqliteStore
from agent_steps import (
    AGENT,
    LOOK,
    begin_journal,
    contract_of,
    edit_journal,
    model_answered,
    tool_called,
    tool_returned,
)
from audits import faults, places, read, rewrite

CONTRACT = contract_of(LOOK, {**AGENT, "preapproved": True})
EVENTS: Sequence[ev.Event] = (
    *begin_journal(CONTRACT),
    model_answered(1, ("f__read", {"x": 7}), ("f__write", {"x": 8})),
    tool_called("do", "read", {"x": 7}, "c1", turn=1, index=0),
    tool_returned("do", "c1"),
    tool_called("do", "write", {"x": 8}, "c2", turn=1, index=1),
    tool_returned("do", "c2"),
    model_answered(2, text="done"),
    ev.StepCompleted(step_id="do"),
    ev.TaskCompleted(result="done"),
)
CALLED = 12
"""The number of the record of the model's first call."""


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return await write_journal(tmp_path, EVENTS)


async def write_journal(folder: Path, events: Sequence[ev.Event]) -> Path:
    path = folder / "agent-runtime.db"
    async with SqliteStore(path) as store:
        task = Task("t")
        for event in events:
            epoch = event.epoch if isinstance(event, ev.TaskClaimed) else None
            if event.writer == "run" or isinstance(event, ev.PlanProposed):
                epoch = task.epoch
            task = await store.append(task, [event], epoch=epoch)
    return path


async def test_the_calls_of_a_model_are_audited_with_the_answers_that_propose_them(path: Path) -> None:
    assert faults(path) == []
    document = export(read(path))
    assert find_export_faults(document) == []
    calls = [(call["step_id"], call.get("turn"), call.get("index")) for call in document["calls"]]
    assert calls == [("look", None, None), ("do", 1, 0), ("do", 1, 1)]


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ({"tool": "write"}, "data"),
        ({"tool": "wipe"}, "data.tool"),
        ({"arguments": {"x": 9}, "arguments_digest": digest({"x": 9})}, "data.arguments"),
        ({"arguments": {"x": 9}}, "data.arguments_digest"),
        ({"index": 1}, "data.arguments"),
        ({"turn": 2}, "data.arguments"),
    ],
)
async def test_a_call_that_the_model_did_not_ask_for_is_reported_though_the_chain_fits(
    path: Path, other: dict[str, Any], place: str
) -> None:
    event = EVENTS[CALLED - 1].model_copy(update=other)
    rewrite(path, CALLED, event)
    assert (CALLED, place) in places(path)


FORGED: list[tuple[int, dict[str, Any], str]] = [
    (10, {"arguments": {"x": 1}, "arguments_digest": digest({"x": 1})}, "data.arguments"),  # what was shown
    (10, {"arguments": {"x": 3}, "arguments_digest": digest({"x": 3})}, "data.arguments"),
    (18, {"arguments": {"x": 8}, "arguments_digest": digest({"x": 8})}, "data.arguments"),  # what the model gave
    (18, {"arguments": {"x": 2}, "arguments_digest": digest({"x": 2})}, "data.arguments"),
    (7, {"edited_arguments": {"x": 3}}, "data.edited_digest"),
    (16, {"edited_digest": digest({"x": 3})}, "data.edited_digest"),
    (7, {"scopes": ("approve",)}, "data"),
    (16, {"scopes": ()}, "data"),
    (16, {"edited_arguments": None, "edited_digest": None}, "data.arguments"),
]


@pytest.mark.parametrize(("seq", "other", "place"), FORGED)
async def test_an_edited_call_is_audited_with_its_editor_and_what_was_sent(
    tmp_path: Path, seq: int, other: dict[str, Any], place: str
) -> None:
    events = edit_journal(contract_of(LOOK, AGENT))
    path = await write_journal(tmp_path, events)
    assert faults(path) == []
    document = export(read(path))
    assert find_export_faults(document) == []
    edits = [(made["actor"], made["edited_arguments"]) for made in document["approvals"] if "edited_arguments" in made]
    assert edits == [("ann", {"x": 2}), ("ann", {"x": 9})]
    assert [call["arguments"] for call in document["calls"]] == [{"x": 2}, {"x": 9}]
    rewrite(path, seq, events[seq - 1].model_copy(update=other))
    assert place in [field for _, field in places(path)]
