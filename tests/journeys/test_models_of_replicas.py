"""Replicas on one PostgreSQL database whose models differ: a plan goes on with the model that it was approved with."""

from collections.abc import AsyncIterator

import pytest

from agent_runtime.domain.approval import Approve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import PlanOutdatedError
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from harness import House, submit_plan, until_settled
from model_server import ModelServer
from model_server.replies import Calls, Text, by_turn

pytestmark = pytest.mark.usefixtures("library")

PROMPT = "Count what there is."


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        server.on(PROMPT, by_turn(Calls([("ledger__look", {"label": "one"})]), Text("There is one.")))
        yield server


@pytest.fixture
def house(house: House, postgres_url: str) -> House:
    house.use_postgresql(postgres_url)
    house.write_registry(tools={"look": {"effect": "read", "idempotent": True, "open_world": False}})
    return house


def make_plan() -> Plan:
    tools = [{"server": "ledger", "tool": "look"}]
    step = {"id": "do", "kind": "agent", "instruction": PROMPT, "tools": tools, "preapproved": True}
    return Plan.model_validate({"goal": "count", "steps": [step]})


async def test_a_plan_is_carried_out_by_the_worker_that_has_its_model(house: House, models: ModelServer) -> None:
    house.use_model(models.base_url, model="first")
    async with house.open() as first:
        house.use_model(models.base_url, model="second")
        async with house.open() as second:
            for here, other, model in ((first, second, "first"), (second, first, "second")):
                asked = len(models.requests)
                tasks = [await submit_plan(here, make_plan()) for _ in range(4)]
                for task in tasks:
                    await other.tasks.decide(task.task_id, Approve(), ANYBODY)
                ended = [await until_settled(other, task.task_id) for task in tasks]
                assert {(task.status, task.plan_revision) for task in ended} == {(TaskStatus.COMPLETED, 1)}
                assert {request.model for request in models.requests[asked:]} == {model}


async def test_only_where_no_worker_has_the_model_of_a_plan_a_new_revision_is_made(
    house: House, models: ModelServer
) -> None:
    house.use_model(models.base_url, model="first")
    async with house.open() as first:
        task = await submit_plan(first, make_plan())
    house.use_model(models.base_url, model="second")
    async with house.open() as second, house.open() as third:
        approved = Approve(digest=task.plan_digest)
        with pytest.raises(PlanOutdatedError):
            await second.tasks.decide(task.task_id, approved, ANYBODY)
        now = await third.store.load(task.task_id)
        assert (now.status, now.plan_revision) == (TaskStatus.AWAITING_APPROVAL, 2)
        await third.tasks.decide(task.task_id, Approve(digest=now.plan_digest), ANYBODY)
        assert (await until_settled(second, task.task_id)).status is TaskStatus.COMPLETED
    assert {request.model for request in models.requests} == {"second"}
