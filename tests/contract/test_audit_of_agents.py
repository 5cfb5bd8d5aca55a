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
    path = tmp_path / "agent-runtime.db"
    async with SqliteStore(path) as store:
        task = Task("t")
        for event in EVENTS:
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
