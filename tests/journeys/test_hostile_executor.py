"""G4, G5, G7: whoever proposes calls, the server's own log contains only calls of the approved plan."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import NoReturn

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.config import Secrets
from agent_runtime.domain.approval import Cancel
from agent_runtime.domain.call_rules import CallRefusedError, Proposal
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import IllegalTransitionError
from agent_runtime.domain.events import EventRecord, PlanApproved, StepCompleted, TaskExpired, ToolDenied
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.plan_requests import PlanAnswer, PlanRequest
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.mcp_servers.pool import ServerPool
from agent_runtime.registry.current import CurrentRegistry
from agent_runtime.services.broker import Broker
from agent_runtime.services.ports import Lease
from agent_runtime.services.run import Run
from agent_runtime.services.task_manager import Submission
from harness import House, ledger_graph, submit_plan, until_settled

# These tests hold the claim on a task themselves; on PostgreSQL a worker takes it over.
pytestmark = pytest.mark.sqlite

APART = ledger_graph({"one": [], "two": [], "after": ["one"]})


@dataclass
class Executor:
    """An executor with a claim on a task and sessions with its servers, which proposes whatever it likes."""

    runtime: Runtime
    run: Run
    lease: Lease
    broker: Broker

    async def propose(self, proposal: Proposal, in_flight: frozenset[str] = frozenset()) -> None:
        """Propose a call. Raises: CallRefusedError, once the refusal is in the journal."""
        try:
            intent = self.broker.intend(self.run, proposal, in_flight)
        finally:
            await self.run.commit()
        assert intent
        outcome = await self.broker.send(self.run, self.lease, intent)
        outcome.stage(self.run)
        await self.run.commit()

    async def expect_refusal(self, proposal: Proposal, in_flight: frozenset[str] = frozenset()) -> str:
        with pytest.raises(CallRefusedError) as refusal:
            await self.propose(proposal, in_flight)
        return refusal.value.rule

    async def journal(self) -> list[EventRecord]:
        return await self.runtime.tasks.records(self.run.task.task_id, ANYBODY)

    async def denials(self) -> list[tuple[str, str, str]]:
        events = [record.event for record in await self.journal()]
        return [(event.step_id, event.tool, event.rule) for event in events if isinstance(event, ToolDenied)]


def no_builtin(_: object) -> NoReturn:
    raise AssertionError("no plan of these tests uses one")


@asynccontextmanager
async def open_executor(house: House, runtime: Runtime, plan: Plan) -> AsyncIterator[Executor]:
    """Yield an executor for an approved task that the runtime's own runner does not know."""
    task = await submit_plan(runtime, plan)
    approved = PlanApproved(revision=1, digest=task.plan_digest or "")
    task = await runtime.store.append(task, [approved])
    run = await Run.claim(runtime.store, task, "hostile", asyncio.Event(), asyncio.Event())
    limits = house.settings.limits
    async with (
        ServerPool(limits, Secrets(), no_builtin, house.folder) as servers,
        servers.lease([runtime.registry.server("ledger")]) as lease,
    ):
        yield Executor(runtime, run, lease, Broker(limits, CurrentRegistry()))


ONE = Proposal("one", "ledger", "count", {"label": "one"})


@pytest.mark.parametrize(
    ("proposal", "rule"),
    [
        (Proposal("one", "ledger", "delete_all", {}), "not_in_plan"),
        (Proposal("one", "ledger", "fail", {"label": "one"}), "not_in_plan"),
        (Proposal("one", "filesystem", "write_file", {"path": "a", "content": "b"}), "not_in_plan"),
        (Proposal("four", "ledger", "count", {"label": "one"}), "not_in_plan"),
        (Proposal("one", "ledger", "count", {"label": "another"}), "arguments_differ"),
        (Proposal("one", "ledger", "count", {"label": "one", "more": 1}), "arguments_differ"),
        (Proposal("one", "ledger", "count", {}), "arguments_differ"),
        (Proposal("after", "ledger", "count", {"label": "after"}), "not_current"),
    ],
)
async def test_what_the_plan_does_not_say_is_refused_by_name_and_never_sent(
    house: House, proposal: Proposal, rule: str
) -> None:
    async with house.open() as runtime, open_executor(house, runtime, APART) as executor:
        assert await executor.expect_refusal(proposal) == rule
        assert await executor.denials() == [(proposal.step_id, proposal.tool, rule)]
        assert house.counted == []
        await executor.propose(ONE)
    assert house.counted == ["one"]


async def test_an_approved_call_is_used_once(house: House) -> None:
    async with house.open() as runtime, open_executor(house, runtime, APART) as executor:
        await executor.propose(ONE)
        for _ in range(2):
            assert await executor.expect_refusal(ONE) == "used_up"
        executor.run.stage(StepCompleted(step_id="one"))
        assert await executor.expect_refusal(ONE) == "used_up"
        assert await executor.denials() == [("one", "count", "used_up")] * 3
    assert house.counted == ["one"]


async def test_nothing_is_called_while_a_task_is_being_cancelled(house: House) -> None:
    async with house.open() as runtime, open_executor(house, runtime, APART) as executor:
        assert executor.broker.intend(executor.run, ONE, frozenset())
        await executor.run.commit()
        await runtime.tasks.decide(executor.run.task.task_id, Cancel(), ANYBODY)
        await executor.run.catch_up()
        assert await executor.expect_refusal(Proposal("two", "ledger", "count"), frozenset({"one"})) == "cancelled"
        assert await executor.denials() == [("two", "count", "cancelled")]
    assert house.counted == []


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_a_journal_that_has_ended_takes_no_call_and_says_how_it_ended(house: House, how: str) -> None:
    async with house.open() as runtime:
        if how == "cancelled":
            async with open_executor(house, runtime, APART) as executor:
                await runtime.tasks.decide(executor.run.task.task_id, Cancel(), ANYBODY)
                await executor.run.catch_up()
                assert await executor.expect_refusal(ONE) == "cancelled"
                journal = await executor.journal()
        else:
            task = await submit_plan(runtime, APART)
            expired = TaskExpired(revision=1, digest=task.plan_digest or "")
            task = await runtime.store.append(task, [expired])
            with pytest.raises(IllegalTransitionError, match="the task is expired"):
                await Run.claim(runtime.store, task, "hostile", asyncio.Event(), asyncio.Event())
            forged = Run(runtime.store, task, asyncio.Event(), asyncio.Event())
            with pytest.raises(CallRefusedError) as refusal:
                Broker(house.settings.limits, CurrentRegistry()).intend(forged, ONE, frozenset())
            assert refusal.value.rule == "expired"
            journal = await runtime.tasks.records(task.task_id, ANYBODY)
    assert journal[-1].type == f"task.{how}"
    assert house.counted == []


class HostilePlanner:
    """Answers with a plan that breaks the contract."""

    name = "rules"
    needs_model = False
    builtin_first = False
    revision_help = None

    def __init__(self, answer: Plan) -> None:
        self._answer = answer

    async def plan(self, _: PlanRequest) -> PlanAnswer:
        return PlanAnswer(self._answer)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tool": "delete_all"}, "Server 'ledger' has no tool 'delete_all'"),
        ({"server": "elsewhere"}, "There is no server 'elsewhere'"),
        ({"arguments": {"label": 1}}, "1 is not of type 'string'"),
        ({"retries": 3}, "may not be retried"),
    ],
)
async def test_a_plan_that_breaks_the_contract_ends_before_anybody_is_asked(
    house: House, changed: dict[str, object], said: str
) -> None:
    step = {"id": "s1", "kind": "tool", "server": "ledger", "tool": "count", "arguments": {"label": "one"}}
    hostile = Plan.model_validate({"goal": "g", "steps": [{**step, **changed}]})
    house.parts = replace(house.parts, choose_planner=lambda _settings, _model: HostilePlanner(hostile))
    async with house.open() as runtime:
        await runtime.registry.ready(["ledger"], 20)
        task: Task = await runtime.tasks.submit(Submission(prompt="count"), ANYBODY)
        task = await until_settled(runtime, task.task_id)
    assert task.error
    assert (task.status, task.error.code) == (TaskStatus.FAILED, "invalid_plan")
    assert said in task.error.message
    assert house.counted == []
