"""Attempts of a model at plans, kept with their task over revisions, failures and a restart."""

import json
from contextlib import closing
from sqlite3 import connect

import pytest

from agent_runtime.bootstrap import Runtime, open_runtime
from agent_runtime.config import Secrets
from agent_runtime.domain.approval import Reject, Revise
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.services.task_manager import Submission
from harness import House, ledger_plan, until_status
from model_server import ModelServer
from model_server.replies import Answer, Fault, Text

SECRET = "hunter2-hunter2"  # noqa: S105 - an example
PROMPT = f"look twice, the password is {SECRET}"
PLAN = ledger_plan("a", tool="look").model_dump_json()
NO_PLAN = f"I would use {SECRET}."


async def plan(runtime: Runtime, prompt: str = PROMPT) -> Task:
    task = await runtime.tasks.submit(Submission(prompt=prompt), ANYBODY)
    return await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL, TaskStatus.FAILED)


async def attempts(runtime: Runtime, task: Task) -> list[PlanningAttempt]:
    found = await runtime.tasks.list_planning_attempts(task.task_id, ANYBODY)
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    return [attempt for _, attempt in found]


@pytest.mark.sqlite
async def test_what_the_model_was_asked_is_kept_over_a_revision_and_a_restart_and_goes_with_the_task(
    house: House,
) -> None:
    async with ModelServer() as models:
        house.use_model(models.base_url)
        models.next(Text(NO_PLAN), Text(PLAN), Text(PLAN))
        secrets = Secrets({})
        secrets.redactor.remember(SECRET)
        async with open_runtime(house.settings, secrets, parts=house.parts) as runtime:
            task = await plan(runtime)
            await runtime.tasks.decide(task.task_id, Revise(feedback="Once more"), ANYBODY)
            await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
        assert PROMPT in models.requests[0].text
    async with house.open() as runtime:
        first, second, third = await attempts(runtime, task)
        assert [one.revision for one in (first, second, third)] == [1, 1, 2]
        assert [one.outcome for one in (first, second, third)] == ["invalid_plan", "planned", "planned"]
        assert "[redacted]" in first.messages[0].content
        assert first.answer == "I would use [redacted]."
        assert first.faults[0].message.startswith("The answer holds no plan")
        assert "ledger" in first.instructions
        assert json.loads(second.answer or "") == json.loads(PLAN)
        assert "Once more" in third.messages[-1].content
        assert all(one.usage.tokens for one in (first, second, third))
        await runtime.tasks.decide(task.task_id, Reject(), ANYBODY)
        await runtime.tasks.delete(task.task_id, ANYBODY)
        with pytest.raises(TaskNotFoundError):
            await attempts(runtime, task)
    with closing(connect(house.settings.storage.database_path)) as database:
        assert database.execute("SELECT count(*) FROM planning_attempts").fetchone() == (0,)


@pytest.mark.parametrize(
    ("reply", "outcome"), [(Fault("server_error"), "model_overloaded"), (Text('{"cannot": "No."}'), "declined")]
)
async def test_an_attempt_of_a_task_that_failed_is_kept(house: House, reply: Answer, outcome: str) -> None:
    house.limit(planning_outage_s=0)
    async with ModelServer() as models:
        house.use_model(models.base_url, max_retries=0)
        models.on("", reply)
        async with house.open() as runtime:
            task = await plan(runtime, "look")
            (attempt,) = await attempts(runtime, task)
    assert task.status is TaskStatus.FAILED
    assert (attempt.outcome, attempt.revision) == (outcome, 1)
    assert "look" in attempt.messages[0].content


async def test_a_ready_made_plan_has_no_attempts(house: House) -> None:
    async with house.open() as runtime:
        task = await runtime.tasks.submit(Submission(prompt="look", plan=ledger_plan("a", tool="look")), ANYBODY)
        assert await attempts(runtime, task) == []
