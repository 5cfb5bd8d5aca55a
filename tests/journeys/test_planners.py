"""The same journeys with the rule planner and with a model behind the wire, in both of its APIs."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, ApproveCall, Reject, Revise
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.contract import Budget, Limits
from agent_runtime.domain.errors import ConfigurationError, DigestRequiredError
from agent_runtime.domain.events import PlanProposed
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.services.task_manager import Submission
from harness import House, names, until_settled, until_status
from model_server import ModelServer
from model_server.endless import repeat_itself
from model_server.replies import Answer, Calls, Fault, Text, by_turn
from model_server.wire import tokens

PROMPT = "write 'hello' to a.txt"
FEEDBACK = "read the file a.txt"
WRITE: dict[str, Any] = {
    "id": "s1",
    "title": "Write it",
    "kind": "tool",
    "server": "filesystem",
    "tool": "write_file",
    "arguments": {"path": "a.txt", "content": "hello"},
}
READ: dict[str, Any] = {
    "id": "s2",
    "kind": "tool",
    "server": "filesystem",
    "tool": "read_file",
    "arguments": {"path": "a.txt"},
    "depends_on": ["s1"],
}


def plan_of(*steps: dict[str, Any]) -> str:
    return json.dumps({"goal": "say hello", "steps": steps})


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.fixture(params=["rules", "responses", "chat_completions", "chat_completions, whole"])
def home(request: pytest.FixtureRequest, house: House, models: ModelServer) -> House:
    """A house with either planner. The model answers with the plan of the rule planner for the same prompt."""
    api, _, whole = str(request.param).partition(", ")
    if api != "rules":
        house.use_model(models.base_url, api=api, stream=not whole)
    models.on(lambda request: FEEDBACK in request.text, Text(plan_of(WRITE, READ)))
    models.on(PROMPT, Text(plan_of(WRITE)))
    return house


@pytest.fixture
def model_house(house: House, models: ModelServer) -> House:
    house.use_model(models.base_url)
    return house


async def submit_prompt(runtime: Runtime, prompt: str = PROMPT, **more: Any) -> Task:
    task = await runtime.tasks.submit(Submission(prompt=prompt, **more), ANYBODY)
    return await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL, TaskStatus.FAILED)


@pytest.mark.slow
async def test_a_prompt_is_planned_approved_and_done(home: House) -> None:
    async with home.open() as runtime:
        task = await submit_prompt(runtime)
        assert task.status is TaskStatus.AWAITING_APPROVAL
        assert not (home.files / "a.txt").exists()
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        task = await until_settled(runtime, task.task_id)
        (proposed,) = [
            r.event for r in await runtime.tasks.records(task.task_id, ANYBODY) if isinstance(r.event, PlanProposed)
        ]
    assert task.status is TaskStatus.COMPLETED
    assert (home.files / "a.txt").read_text(encoding="utf-8").strip() == "hello"
    assert proposed.planner == ("openai" if home.settings.openai.configured else "rules")
    assert (task.usage.tokens > 0) == home.settings.openai.configured


async def test_a_model_cannot_approve_the_calls_of_its_plan_beforehand(model_house: House, models: ModelServer) -> None:
    step = {"id": "do", "kind": "agent", "instruction": "Count.", "preapproved": True}
    listed = {"tools": [{"server": "ledger", "tool": "count", "max_calls": 9}]}
    models.on(PROMPT, Text(plan_of({**step, **listed})))
    models.on("Count.", by_turn(Calls([("ledger__count", {"label": "mine"})]), Text("done")))
    async with model_house.open() as runtime:
        task = await submit_prompt(runtime)
        assert task.contract
        assert not task.contract.steps[0].preapproved
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        task = await until_settled(runtime, task.task_id)
    assert (task.status, model_house.counted) == (TaskStatus.NEEDS_ATTENTION, [])


async def test_a_plan_is_revised_and_the_new_one_is_approved_by_its_digest(home: House, models: ModelServer) -> None:
    async with home.open() as runtime:
        task = await submit_prompt(runtime)
        await runtime.tasks.decide(task.task_id, Revise(feedback=FEEDBACK), ANYBODY)
        task = await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
        assert task.contract
        assert (task.plan_revision, len(task.contract.steps)) == (2, 2)
        with pytest.raises(DigestRequiredError):
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        task = await until_settled(runtime, task.task_id)
    assert (task.status, (task.result or "").splitlines()[-1]) == (TaskStatus.COMPLETED, "hello")
    if home.settings.openai.configured:
        asked = models.requests[-1].text
        assert "Write it" in asked, "the plan that was not wanted is shown"
        assert FEEDBACK in asked


@pytest.mark.slow
async def test_a_plan_waits_over_a_restart(home: House) -> None:
    async with home.open() as runtime:
        task = await submit_prompt(runtime)
    async with home.open() as runtime:
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED


@pytest.mark.slow
async def test_a_rejected_plan_does_nothing(home: House) -> None:
    async with home.open() as runtime:
        task = await submit_prompt(runtime)
        assert (await runtime.tasks.decide(task.task_id, Reject(reason="no"), ANYBODY)).status is TaskStatus.REJECTED
    assert not list(home.files.iterdir())


async def test_a_model_plans_an_agent_step_whose_call_is_approved_after_a_restart(
    model_house: House, models: ModelServer
) -> None:
    tools = [{"server": "filesystem", "tool": "write_file", "max_calls": 1}]
    agent = {"id": "s1", "kind": "agent", "instruction": "Greet in a file.", "tools": tools}
    models.on("Say hello", Text(plan_of(agent)))
    greet = Calls([("filesystem__write_file", {"path": "b.txt", "content": "hello"})])
    models.on("Greet in a file.", by_turn(greet, Text("Greeted.")))
    async with model_house.open() as runtime:
        task = await submit_prompt(runtime, "Say hello")
        await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        task = await until_settled(runtime, task.task_id)
        asked = task.steps["s1"].asked
        assert asked
        assert asked.arguments == {"path": "b.txt", "content": "hello"}
    async with model_house.open() as runtime:
        decision = ApproveCall(call_id=asked.call_id, arguments_digest=asked.arguments_digest)
        await runtime.tasks.decide(task.task_id, decision, ANYBODY)
        task = await until_settled(runtime, task.task_id)
    assert (task.status, task.result) == (TaskStatus.COMPLETED, "Greeted.")
    assert (model_house.files / "b.txt").read_text(encoding="utf-8").strip() == "hello"


@pytest.mark.parametrize(
    "answer",
    [
        Text(f"Sure! Here is the plan:\n```json\n{plan_of(WRITE)}\n```\nTell me if it suits you."),
        Text(plan_of(WRITE) + "\n\nI hope this helps."),
        Text(plan_of({**WRITE, "kind": None, "args": WRITE["arguments"], "arguments": None, "why": "asked for"})),
        Text(json.dumps({"plan": {"steps": [{**WRITE, "tool": "filesystem.write_file", "server": None}]}})),
    ],
    ids=["fenced", "prose behind it", "other names", "wrapped"],
)
async def test_an_answer_that_is_almost_a_plan_is_one(model_house: House, models: ModelServer, answer: Answer) -> None:
    models.on(PROMPT, answer)
    async with model_house.open() as runtime:
        task = await submit_prompt(runtime)
    assert task.status is TaskStatus.AWAITING_APPROVAL
    assert len(models.requests) == 1


async def test_a_faulty_plan_is_put_right_with_the_words_of_the_contract(
    model_house: House, models: ModelServer
) -> None:
    models.on("has no tool 'write'", Text(plan_of(WRITE)))
    models.on(PROMPT, Text(plan_of({**WRITE, "tool": "write"})))
    async with model_house.open() as runtime:
        task = await submit_prompt(runtime)
    assert (task.status, len(models.requests)) == (TaskStatus.AWAITING_APPROVAL, 2)


async def test_a_plan_that_repeats_itself_is_stopped_charged_and_asked_for_again(
    model_house: House, models: ModelServer
) -> None:
    models.next(repeat_itself("and so on, ", '{"goal": "'), Text(plan_of(WRITE), usage=(10, 10)))
    async with model_house.open() as runtime:
        task = await submit_prompt(runtime)
    assert (task.status, len(models.requests)) == (TaskStatus.AWAITING_APPROVAL, 2)
    assert "repeated itself" in models.requests[1].prompt
    assert task.usage.output_tokens > 300


async def test_a_catalogue_that_the_model_cannot_read_is_made_smaller(model_house: House, models: ModelServer) -> None:
    models.on("", Text(plan_of(WRITE)))
    async with model_house.open() as runtime:
        await submit_prompt(runtime)
        whole = tokens(models.requests[0].text)
        models.context_tokens = whole * 3 // 4
        task = await submit_prompt(runtime)
    assert task.status is TaskStatus.AWAITING_APPROVAL
    assert whole // 2 < tokens(models.requests[-1].text) < whole * 3 // 4


async def test_a_model_that_cannot_plan_ends_the_task_with_what_was_wrong(
    model_house: House, models: ModelServer
) -> None:
    models.on("", Text(plan_of({**WRITE, "tool": "write"})))
    async with model_house.open() as runtime:
        task = await submit_prompt(runtime)
    assert task.error
    assert (task.error.code, len(models.requests)) == ("invalid_plan", 3)
    assert "has no tool 'write'" in task.error.message
    assert task.usage.tokens > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "levels", [{"json_schema", "json_object"}, {"json_object"}, set()], ids=["json_schema", "json_object", "prompt"]
)
async def test_each_level_of_output_gives_a_plan_and_is_remembered(
    model_house: House, models: ModelServer, levels: set[str]
) -> None:
    models.levels = levels
    models.on(PROMPT, Text(plan_of(WRITE)))
    async with model_house.open() as runtime:
        first = await submit_prompt(runtime)
        asked = len(models.requests)
        second = await submit_prompt(runtime)
        assert runtime.model
        worked = runtime.model.status().output
    assert first.status is second.status is TaskStatus.AWAITING_APPROVAL
    assert worked == ("json_schema" if "json_schema" in levels else "json_object" if levels else "prompt")
    assert (asked, len(models.requests)) == (3 - len(levels), 4 - len(levels))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("rate_limited", retry_after=0), "model_overloaded"),
        (Fault("server_error"), "model_overloaded"),
        (Fault("wrong_key"), "model_key_refused"),
        (Fault("unknown_model"), "model_unknown"),
        (Fault("context_overflow"), "model_context_overflow"),
        (Fault("drop"), "model_unreachable"),
        (Fault("hang"), "model_unreachable"),
        (Fault("cut_stream"), "model_answer_unreadable"),
        (Fault("stall_stream"), "model_unreachable"),
        (Fault("garbage"), "model_answer_unreadable"),
        (Fault("empty"), "model_answer_empty"),
        (Fault("truncated"), "model_answer_truncated"),
        (Fault("refusal"), "model_refused"),
        (Fault("huge", size=3_000_000), "model_answer_truncated"),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
async def test_a_model_that_fails_ends_the_task_with_a_clear_error(
    model_house: House, models: ModelServer, fault: Fault, code: str
) -> None:
    silent = fault.kind in {"hang", "stall_stream"}
    model_house.use_model(models.base_url, max_retries=0, timeout_s=0.5 if silent else 20)
    model_house.limit(planning_outage_s=0)
    models.on("", fault)
    async with model_house.open() as runtime:
        task = await submit_prompt(runtime)
    models.release()
    assert task.error
    assert (task.status, task.error.code) == (TaskStatus.FAILED, code)
    assert len(task.error.message) > len("It failed.")


async def test_a_model_with_a_small_context_is_shown_less_of_the_tools(model_house: House, models: ModelServer) -> None:
    models.on(PROMPT, Text(plan_of(WRITE)))
    sizes = []
    for limit in (24_000, 1_000):
        model_house.use_model(models.base_url, catalogue_tokens=limit)
        async with model_house.open() as runtime:
            assert (await submit_prompt(runtime)).status is TaskStatus.AWAITING_APPROVAL
        sizes.append(len(models.requests[-1].text))
    assert sizes[0] > sizes[1] + 1000


async def test_a_budget_of_tokens_that_does_not_hold_the_question_ends_the_task(
    model_house: House, models: ModelServer
) -> None:
    async with model_house.open() as runtime:
        task = await submit_prompt(runtime, limits=Limits(budget=Budget(tokens=200)))
        journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert task.error
    assert task.error.code == "budget_exceeded"
    assert "task.failed" in names(journal)
    assert models.requests == []


async def test_a_planner_that_needs_a_model_is_refused_at_the_start_where_there_is_none(house: House) -> None:
    house.settings = house.settings.model_copy(update={"planner": "openai"})
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL"):
        async with house.open():
            pass


OWN = """
from agent_runtime.domain.errors import MissingToolError
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.plan_requests import PlanAnswer

class Counting:
    name = "counting"
    needs_model = False
    builtin_first = True
    revision_help = None

    def __init__(self, model):
        assert model is None

    async def plan(self, request):
        if not any(tool.key == "ledger/count" for tool in request.tools):
            raise MissingToolError("Nothing counts here.")
        labels = request.prompt.split()[1:]
        steps = [
            {"id": f"c{i}", "kind": "tool", "server": "ledger", "tool": "count", "arguments": {"label": label}}
            for i, label in enumerate(labels)
        ]
        return PlanAnswer(Plan.model_validate({"goal": request.prompt, "steps": steps}))
"""


async def test_a_task_is_planned_by_a_planner_of_the_operator(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    (house.folder / "own_planner.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(house.folder)
    house.settings = house.settings.model_copy(update={"planner": "own_planner:Counting"})
    async with house.open() as runtime:
        assert runtime.planner == "counting"
        task = await submit_prompt(runtime, "count one two")
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED
        (proposed,) = [
            r.event for r in await runtime.tasks.records(task.task_id, ANYBODY) if isinstance(r.event, PlanProposed)
        ]
    assert proposed.planner == "counting"
    assert sorted(house.counted) == ["one", "two"]


async def test_a_planner_that_cannot_be_built_keeps_the_service_from_starting(house: House) -> None:
    house.settings = house.settings.model_copy(update={"planner": "no_such_planner:Counting"})
    with pytest.raises(ConfigurationError, match=r"^planner: no_such_planner:Counting: .*PYTHONPATH"):
        async with house.open():
            pass
    assert not (house.settings.data_dir / "agent-runtime.db").exists()
