"""`GET /v1/tasks/{task_id}/conversations`: what a model was asked in agent steps is what it was sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import House
from model_server import ModelServer
from model_server.replies import Answer, Calls, Fault, Text, by_turn
from serving import Service

TOOLS = [{"server": "ledger", "tool": "count", "max_calls": 2}]
STEPS: list[dict[str, Any]] = [
    {"id": "s1", "kind": "tool", "server": "calculator", "tool": "add", "arguments": {"a": 1, "b": 2}},
    {"id": "s2", "kind": "agent", "instruction": "Count ${s1.text}", "tools": TOOLS, "preapproved": True},
    {"id": "s3", "kind": "agent", "instruction": "Never", "tools": [], "depends_on": ["s2"]},
]


@pytest.fixture
def models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def run_plan(folder: Path, models: ModelServer, *replies: Answer) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the plan, and return what the model was sent and what the service says about it."""
    house = House(folder)
    house.write_registry(tools={"*": {"open_world": False}})
    registry = house.settings.tool_registry.read_text(encoding="utf-8")
    models.on("Count", by_turn(*replies))
    models.on("Never", Text("Never."))
    service = Service(folder, openai={"base_url": models.base_url, "model": "test-model", "api": "responses"})
    house.settings.tool_registry.write_text(registry, encoding="utf-8")
    with service:
        task_id = service.submit(plan={"goal": "count", "steps": STEPS})
        assert service.get(f"/v1/tasks/{task_id}/conversations")["conversations"] == []
        service.approve(task_id)
        service.wait_for_end(task_id)
        return [request.body for request in models.requests], service.get(f"/v1/tasks/{task_id}/conversations")


def list_items(turns: list[dict[str, Any]]) -> list[Any]:
    return [item for turn in turns for item in (*turn["asked"], *turn["answered"])]


def test_each_turn_of_a_model_shows_what_it_was_sent_and_what_it_answered(tmp_path: Path, models: ModelServer) -> None:
    answers = (Calls([("ledger__count", {"label": "one"})]), Text("One."))
    sent, shown = run_plan(tmp_path, models, *answers)
    first, second = shown["conversations"][0]["turns"]
    assert [one["step_id"] for one in shown["conversations"]] == ["s2", "s3"]
    assert (sent[0]["instructions"], sent[0]["input"]) == (shown["instructions"], first["asked"])
    assert "3" in first["asked"][0]["content"], "the result that the instruction names"
    assert sent[1]["input"] == list_items([first]) + second["asked"]
    assert second["asked"][0]["type"] == "function_call_output"
    assert [one["name"] for one in shown["conversations"][0]["functions"]] == [
        tool["name"] for tool in sent[0]["tools"]
    ]
    assert second["answered"][0]["content"][0]["text"] == "One."


def test_a_question_that_the_model_failed_to_answer_is_shown_too(tmp_path: Path, models: ModelServer) -> None:
    sent, shown = run_plan(tmp_path, models, Fault("refusal", text="I will not."))
    (conversation,) = shown["conversations"]
    assert conversation["turns"] == [{"turn": 1, "asked": sent[0]["input"], "answered": []}]
