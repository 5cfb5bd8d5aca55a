"""Whole tasks with model servers that nobody here wrote: llama.cpp with a small model, LiteLLM's proxy, and aimock."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.cli.model_check import check_model
from agent_runtime.config import OpenAISettings, Secrets, Settings
from agent_runtime.models.model import OpenAIModel
from agent_runtime.text.redaction import Redactor
from real_models import ModelProcess, Scripted, run_aimock, run_litellm, run_llama, unpack_model
from serving import PATIENCE_S, Service
from waiting import eventually_sync

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

KEY = "sk-only-for-the-tests-0f3c"
MOST_S = 240.0
"""How long the small model may take for one plan on a busy machine. No answer may hold a task for longer."""

WRITE = {"server": "filesystem", "tool": "write_file"}
FIRST = {"id": "s1", "title": "Greet Kim", "kind": "tool", **WRITE, "arguments": {"path": "a.txt", "content": "hello"}}
SECOND = {
    "id": "s1",
    "title": "Greet Kim",
    "kind": "agent",
    "instruction": "Write the greeting for Kim to b.txt.",
    "tools": [{**WRITE, "max_calls": 2}],
}
SCRIPT = [
    Scripted("into b.txt", {"content": json.dumps({"goal": "Greet Kim", "steps": [SECOND]})}),
    Scripted("Greet Kim in a file", {"content": json.dumps({"goal": "Greet Kim", "steps": [FIRST]})}),
    Scripted(
        "the greeting for Kim",
        {"toolCalls": [{"name": "filesystem__write_file", "arguments": {"path": "b.txt", "content": "hello Kim"}}]},
        after_call=False,
    ),
    Scripted("the greeting for Kim", {"content": "Kim was greeted."}, after_call=True),
]


TO_THE_DOCTOR = [
    Scripted("Answer with the JSON object", {"content": json.dumps({"word": "hello"})}),
    Scripted(
        "How warm is it in the kitchen?",
        {"toolCalls": [{"name": "read_thermometer", "arguments": {"room": "kitchen"}}]},
    ),
    Scripted("This only tests how much you can read.", {"content": "ok"}),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_model(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def llama(weights: Path) -> Iterator[ModelProcess]:
    with run_llama(weights, context_tokens=8192, key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def narrow_llama(weights: Path) -> Iterator[ModelProcess]:
    """The small model with a context that is too short for any plan."""
    with run_llama(weights, context_tokens=512, key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelProcess]:
    """A scripted model, of which each piece of a stream takes a moment."""
    with run_aimock(tmp_path_factory.mktemp("aimock"), [*SCRIPT, *TO_THE_DOCTOR], key=KEY, pause_ms=20) as server:
        yield server


@pytest.fixture(scope="module")
def litellm(
    tmp_path_factory: pytest.TempPathFactory, aimock: ModelProcess, narrow_llama: ModelProcess
) -> Iterator[ModelProcess]:
    """A proxy in front of a scripted model, of one that speaks Claude's API, and of one with a short context."""
    claude = aimock.base_url.removesuffix("/v1")
    behind = {
        "scripted": {"model": "openai/any", "api_base": aimock.base_url, "api_key": KEY},
        "claude": {"model": "anthropic/claude-sonnet-4-5", "api_base": claude, "api_key": KEY},
        "narrow": {"model": "openai/local", "api_base": narrow_llama.base_url, "api_key": KEY},
    }
    with run_litellm(tmp_path_factory.mktemp("litellm"), behind, key=KEY) as server:
        yield server


@dataclass(frozen=True)
class Door:
    """A way to a model: the fixture of its server, the API, and the model's name there."""

    server: str
    api: str
    model: str

    def settings(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        server: ModelProcess = request.getfixturevalue(self.server)
        return {"base_url": server.base_url, "api": self.api, "model": self.model, "api_key": KEY}

    def __str__(self) -> str:
        return f"{self.server}-{self.model}-{self.api}"


LOCAL = Door("llama", "chat_completions", "local")
SCRIPTED = [
    Door("aimock", "responses", "any"),
    Door("aimock", "chat_completions", "any"),
    Door("litellm", "chat_completions", "scripted"),
    Door("litellm", "chat_completions", "claude"),
]


class Customer:
    """A client of a service that fails the test if a request is refused."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def ask(self, path: str, **body: Any) -> Any:
        response = self.service.client.post(f"/v1/tasks{path}", json=body)
        assert response.status_code in {200, 202}, response.text
        return response.json()

    def submit(self, prompt: str, **more: Any) -> str:
        return str(self.ask("", prompt=prompt, **more)["task_id"])

    def until(self, task_id: str, *statuses: str) -> Any:
        """Wait until the task has one of these statuses or has ended, and return it."""

        def look() -> Any:
            task = self.service.task(task_id)
            return task if task["terminal"] or task["status"] in statuses else None

        return eventually_sync(look, MOST_S)

    def plan(self, prompt: str, **more: Any) -> Any:
        """Submit a prompt, and return the task when it is planned or has failed."""
        return self.until(self.submit(prompt, **more), "awaiting_approval")


@contextmanager
def serve(folder: Path, settings: dict[str, Any], *, outage_s: float = 0) -> Iterator[Customer]:
    openai = {"max_retries": 0, "answer_timeout_s": MOST_S, "timeout_s": MOST_S, **settings}
    with Service(folder, openai=openai, limits={"planning_outage_s": outage_s}) as service:
        yield Customer(service)


@pytest.mark.parametrize("door", SCRIPTED, ids=str)
def test_a_task_is_planned_revised_approved_and_carried_out(
    tmp_path: Path, request: pytest.FixtureRequest, door: Door
) -> None:
    with serve(tmp_path, door.settings(request)) as customer:
        first = customer.plan("Greet Kim in a file")
        assert first["status"] == "awaiting_approval", first["error"]
        assert first["plan_object"]["steps"][0]["arguments"] == FIRST["arguments"]
        customer.ask(f"/{first['task_id']}/revise", feedback="No: into b.txt, and have the model do it.")

        def is_revised() -> Any:
            task = customer.until(first["task_id"], "awaiting_approval")
            return task if task["terminal"] or task["plan_revision"] == 2 else None

        second = eventually_sync(is_revised, PATIENCE_S)
        assert second["status"] == "awaiting_approval", second["error"]
        customer.ask(f"/{first['task_id']}/approve", plan_digest=second["plan_digest"])
        asking = customer.until(first["task_id"], "needs_attention")
        assert asking["status"] == "needs_attention", asking["error"]
        (call,) = asking["attention"]
        assert call["arguments"] == {"path": "b.txt", "content": "hello Kim"}
        assert list((tmp_path / "files").iterdir()) == []
        customer.ask(f"/{first['task_id']}/calls/{call['call_id']}/approve", arguments_digest=call["arguments_digest"])
        done = customer.until(first["task_id"])
    assert (done["status"], done["result"]) == ("completed", "Kim was greeted."), done["error"]
    assert (tmp_path / "files" / "b.txt").read_text(encoding="utf-8") == "hello Kim"
    assert not (tmp_path / "files" / "a.txt").exists()
    assert done["usage"]["input_tokens"] + done["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(
    "door",
    [
        LOCAL,
        Door("litellm", "chat_completions", "scripted"),
        Door("aimock", "responses", "any"),
    ],
    ids=str,
)
def test_a_wrong_key_is_named_and_not_shown(tmp_path: Path, request: pytest.FixtureRequest, door: Door) -> None:
    wrong = "sk-wrong-2b6d01"
    with serve(tmp_path, door.settings(request) | {"api_key": wrong}) as customer:
        task = customer.plan("Greet Kim in a file")
    assert task["error"]["code"] == "model_key_refused", task["error"]
    assert "OPENAI_API_KEY" in task["error"]["message"]
    assert wrong not in json.dumps(task)


@pytest.mark.parametrize(
    "door", [Door("narrow_llama", "chat_completions", "local"), Door("litellm", "chat_completions", "narrow")], ids=str
)
def test_a_prompt_that_the_model_cannot_read_is_said_with_the_remedies(
    tmp_path: Path, request: pytest.FixtureRequest, door: Door
) -> None:
    with serve(tmp_path, door.settings(request)) as customer:
        task = customer.plan("Greet Kim in a file")
    assert task["error"]["code"] == "model_context_overflow", task["error"]
    for remedy in ("--ctx-size", "openai.catalogue_tokens"):
        assert remedy in task["error"]["message"]


def wait_for_text(customer: Customer, task_id: str) -> None:
    """Follow the stream of the task until the model writes."""
    with customer.service.stream(task_id) as response:
        for line in response.iter_lines():
            if line == "event: progress":
                return
    raise AssertionError(f"the model wrote nothing: {customer.service.task(task_id)['error']}")


@contextmanager
def dead(server: ModelProcess, customer: Customer, task_id: str) -> Iterator[None]:
    """Kill the server, and start it again when the task waits for it."""
    server.kill()
    try:
        eventually_sync(lambda: customer.service.task(task_id)["waiting_for"], PATIENCE_S)
        yield
    finally:
        server.start()


@pytest.mark.parametrize(
    "door", [Door("aimock", "responses", "any"), Door("litellm", "chat_completions", "scripted")], ids=str
)
def test_a_model_that_dies_while_it_plans_is_waited_for(
    tmp_path: Path, request: pytest.FixtureRequest, aimock: ModelProcess, door: Door
) -> None:
    with serve(tmp_path, door.settings(request), outage_s=MOST_S) as customer:
        task_id = customer.submit("Greet Kim in a file")
        wait_for_text(customer, task_id)
        with dead(aimock, customer, task_id):
            pass
        task = customer.until(task_id, "awaiting_approval")
        assert task["status"] == "awaiting_approval", task["error"]


STORY = {"id": "s1", "title": "Tell", "kind": "agent", "instruction": "Tell a long story about a dog.", "tools": []}


def test_a_small_model_that_dies_in_an_agent_step_is_waited_for(
    tmp_path: Path, request: pytest.FixtureRequest, llama: ModelProcess
) -> None:
    with serve(tmp_path, LOCAL.settings(request)) as customer:
        task_id = customer.submit("Tell a story", plan={"goal": "Tell a story", "steps": [STORY]})
        customer.ask(f"/{task_id}/approve")
        wait_for_text(customer, task_id)
        with dead(llama, customer, task_id):
            pass
        wait_for_text(customer, task_id)
        customer.ask(f"/{task_id}/cancel")
        assert customer.until(task_id)["status"] == "cancelled"


@pytest.mark.parametrize(
    ("door", "expected"),
    [
        (LOCAL, {"model": "ok", "model list": "ok", "model schema": "ok", "model prompt": "ok"}),
        (
            Door("litellm", "chat_completions", "scripted"),
            {"model": "ok", "model list": "ok", "model schema": "warn", "model tools": "ok"},
        ),
    ],
    ids=["llama", "litellm"],
)
async def test_the_doctor_finds_out_what_a_server_can_do(
    request: pytest.FixtureRequest, door: Door, expected: dict[str, str]
) -> None:
    openai = {**door.settings(request), "timeout_s": MOST_S}
    settings = Settings.model_validate({"openai": openai})
    found = await check_model(settings, Secrets(), (), answer_s=MOST_S)
    states = {finding.check: finding.state for finding in found}
    assert expected.items() <= states.items(), found


@pytest.mark.parametrize(("server", "name"), [("llama", "local"), ("litellm", "scripted")])
async def test_a_server_on_this_machine_says_which_model_it_has(
    request: pytest.FixtureRequest, server: str, name: str
) -> None:
    process: ModelProcess = request.getfixturevalue(server)
    settings = OpenAISettings.model_validate({"base_url": process.base_url, "api_key": KEY})
    async with OpenAIModel(settings, Redactor()) as model:
        assert await model.identify() == name
        assert (model.status().model, model.status().api) == (name, "chat_completions")


NOT_A_PLAN = {
    "invalid_plan",
    "planning_refused",
    "model_answer_truncated",
    "model_answer_repetitive",
    "model_answer_empty",
}
"""What may become of a prompt that a small model could not plan."""

NOT_DONE = NOT_A_PLAN | {"tool_error", "reference_failed", "model_call_as_text", "max_turns"}
"""What may become of a plan of such a model."""


def plan_something(customer: Customer, *prompts: str) -> Any:
    """Return the first of these prompts that the model could plan, as a task that awaits approval; else the last."""
    for prompt in prompts:
        task = customer.plan(prompt, tools=["calculator"])
        if task["status"] == "awaiting_approval":
            return task
        assert task["error"]["code"] in NOT_A_PLAN, task["error"]
    return task


@pytest.mark.timeout(900)
def test_what_a_small_model_plans_is_a_plan_that_runs_as_approved_or_an_error_that_says_why(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    answers = {"answer_tokens": 300, "extra_body": {"seed": 7}}
    with serve(tmp_path, LOCAL.settings(request) | answers) as customer:
        task = plan_something(customer, "Add 15 and 27", "Multiply 6 by 7")
        if task["status"] == "failed":
            return
        customer.ask(f"/{task['task_id']}/revise", feedback="Add 1 and 2 instead.")
        revised = customer.until(task["task_id"], "awaiting_approval")
        if revised["status"] == "failed":
            assert revised["error"]["code"] in NOT_A_PLAN, revised["error"]
            return
        customer.ask(f"/{task['task_id']}/approve", plan_digest=revised["plan_digest"])
        ended = customer.until(task["task_id"])
    assert ended["status"] == "completed" or ended["error"]["code"] in NOT_DONE, ended["error"]
    assert ended["plan_digest"] == revised["plan_digest"]
