"""One run of a task alone: what it begins, in which order it writes, and how it ends."""

# ruff: noqa: ARG002 - the fakes have the signatures of the ports

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from agent_runtime.config import ApprovalSettings, LimitSettings
from agent_runtime.domain import events as ev
from agent_runtime.domain.approval import Cancel
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.contract import Budget, Contract, Limits
from agent_runtime.domain.decisions import Judged, events_of
from agent_runtime.domain.errors import (
    CallNotSentError,
    DefinitionChangedError,
    OutcomeUnknownError,
    PlanningError,
    ServerUnavailableError,
    StaleEpochError,
)
from agent_runtime.domain.identity import Identities, ServerIdentity
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest, ModelStatus
from agent_runtime.domain.outages import OutageLimits
from agent_runtime.domain.pauses import Pauses
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.plan_requests import PlanAnswer, PlanRequest
from agent_runtime.domain.signature import DEFAULT_TENANT
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import Offer, StoredResult, ToolDefinition, ToolServer
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject
from agent_runtime.live.breaker import CircuitState
from agent_runtime.live.patience import Patience
from agent_runtime.live.progress import Progress
from agent_runtime.runners.fleet import LocalFleet
from agent_runtime.services.agent_service import PlannerAgent
from agent_runtime.services.broker import Broker
from agent_runtime.services.execution import Execution
from agent_runtime.services.executor_agent import ExecutorAgent
from agent_runtime.services.planning_log import PlanningLog
from agent_runtime.services.ports import Lease
from agent_runtime.services.run import Run
from agent_runtime.services.tool_registry import ToolRegistry
from agent_runtime.storage.local_catalogue import LocalCatalogue
from agent_steps import AGENT, LOOK, MODEL, SERVER, TOOLS, contract_of, step_started, tool_called
from contracts import make_current_registry
from memory_store import Memory, MemoryStore

PATIENCE_S = 10.0
FINE = StoredResult(text="fine", output={"a": 1})
IDENTITY = ServerIdentity({"built in": "text"}, {})
OTHER = {**LOOK, "id": "other"}
WIPE = {"id": "wipe", "kind": "tool", "server": "f", "tool": "wipe", "depends_on": ["look"]}

Answer = StoredResult | Exception


@dataclass
class Servers:
    """Both `ToolServers` and their `Lease`: answers each call by the tool's name, and counts the calls."""

    answers: dict[str, Answer] = field(default_factory=dict)
    before_lease: Callable[[], Any] | None = None
    meanwhile: Callable[[str], Any] | None = None
    leased: list[list[str]] = field(default_factory=list)
    given_back: int = 0
    calls: list[tuple[str, JsonObject]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    circuits: dict[str, CircuitState] = field(default_factory=dict)

    async def discover(self, server: ToolServer) -> Offer:
        return Offer([tool.definition for tool in TOOLS.values()])

    def on_change(self, tell: Callable[[str], None]) -> None:
        """Do nothing: these tools never change."""

    def lease(self, servers: Iterable[ToolServer]) -> AbstractAsyncContextManager[Lease]:
        return self._lease([server.id for server in servers])

    @asynccontextmanager
    async def _lease(self, names: list[str]) -> AsyncIterator[Lease]:
        self.leased.append(names)
        if self.before_lease is not None:
            await self.before_lease()
        try:
            yield self
        finally:
            self.given_back += 1

    def read_stderr(self, server_id: str) -> str:
        return ""

    @property
    def connections(self) -> Counter[str]:
        return Counter()

    @property
    def spares(self) -> Counter[str]:
        return Counter()

    async def definitions(self, server_id: str) -> dict[str, ToolDefinition]:
        return {tool.definition.name: tool.definition for tool in TOOLS.values()}

    async def renew(self, server_id: str) -> None:
        raise AssertionError("no session is lost here")

    def has_changed(self, server_id: str) -> bool:
        return False

    async def call(
        self,
        server_id: str,
        tool: str,
        arguments: JsonObject,
        *,
        timeout_s: float,
        cancel: asyncio.Event,
        patience: Patience | None = None,
    ) -> StoredResult:
        self.calls.append((tool, arguments))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.meanwhile is not None:
                await self.meanwhile(tool)
            answer = self.answers.get(tool, FINE)
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            self.in_flight -= 1


@dataclass
class OnePlan:
    """A planner that returns this plan, or raises this error."""

    answer: Plan | Exception
    name: str = "one"
    needs_model: bool = False
    builtin_first: bool = False
    revision_help: str | None = None

    async def plan(self, request: PlanRequest) -> PlanAnswer:
        if isinstance(self.answer, Exception):
            raise self.answer
        return PlanAnswer(self.answer)


class Talker:
    """A language model that gives every question the same answer, and counts the questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.most_asked = 0
        self.meant: list[str | None] = []

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        self.asked += 1
        self.meant.append(request.model)
        self.most_asked = max(self.most_asked, self.asked)
        await asyncio.sleep(0)
        self.asked -= 1
        return ModelAnswer(({"type": "message"},), "said", (), Usage(10, 5))

    async def identify(self) -> str:
        raise AssertionError("nobody asks")

    def status(self) -> ModelStatus:
        raise AssertionError("nobody asks")


async def accept_all(schemas: Sequence[JsonObject]) -> list[str | None]:
    return [None for _ in schemas]


class Judge:
    judge = staticmethod(accept_all)


class Setting:
    """A task in a store, with everything that a run of it needs."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.servers = Servers()
        self.limits = LimitSettings()
        self.identities = Identities({}, MODEL)
        self.planner = OnePlan(Plan.model_validate({"goal": "g", "steps": [LOOK]}))
        self.cancel, self.stop = asyncio.Event(), asyncio.Event()
        self.most = 8
        self.outages = OutageLimits(3600, 60, lambda _: 60)
        self.model = Talker()
        self.approval = ApprovalSettings()

    async def write(self, *events: ev.Event) -> Task:
        """Append to the journal of the task, as a person or as the run that owns it now."""
        task = await self.store.load("t")
        for event in events:
            task = await self.store.append(task, [event], epoch=task.epoch if event.writer == "run" else None)
        return task

    async def submit(self, limits: Limits = Limits(), approval: Literal["auto", "manual"] = "manual") -> Task:  # noqa: B008 - a frozen value
        return await self.store.append(Task("t"), [ev.TaskSubmitted(prompt="p", limits=limits, approval=approval)])

    async def plan(self, approval: Literal["auto", "manual"] = "manual") -> Task:
        """Submit a task, and run it until it has a plan for the current server."""
        self.identities = Identities({"f": IDENTITY}, MODEL)
        await self.submit(approval=approval)
        return await self.run()

    async def approve(self, contract: Contract, *, names_digest: bool = True) -> Task:
        """Write the journal of a task with an approved plan."""
        task = await self.submit(contract.limits)
        run = await Run.claim(self.store, task, "r", self.cancel, self.stop)
        keys = contract.pins
        definitions = {key: tool.definition for key, tool in TOOLS.items() if key in keys}
        run.stage(
            ev.PlanProposed(
                revision=1, digest=contract.digest, contract=contract, definitions=definitions, planner="one"
            )
        )
        await run.commit()
        return await self.write(ev.PlanApproved(revision=1, digest=contract.digest, names_digest=names_digest))

    async def decide(self, decision: Judged) -> None:
        task = await self.store.load("t")
        somebody = Caller("ann", DEFAULT_TENANT, frozenset({"approve", "read", "submit"}), "key")
        await self.write(*events_of(task, decision, somebody, self.limits, require_digest=False))

    async def run(self) -> Task:
        """Run the task until the run ends, and return its state."""
        async with asyncio.timeout(PATIENCE_S):
            current = make_current_registry(SERVER, self.identities)
            self.broker = Broker(
                self.limits,
                current,
                Pauses(before_repetition=lambda _: 0.0),
            )
            registry = ToolRegistry(current, self.servers, self.store, Judge(), LocalCatalogue(self.store))
            planner = PlannerAgent(
                self.planner,
                registry,
                Progress(),
                PlanningLog(self.store, str),
                start_s=5,
                install_s=5,
                approval=self.approval,
                fleet=LocalFleet(),
            )
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(registry.watch(eager=False))
                try:
                    task = await self.store.load("t")
                    run = await Run.claim(self.store, task, "r", self.cancel, self.stop)
                    executor = ExecutorAgent(self.model, Progress(), self.limits)
                    execution = Execution(
                        run,
                        planner,
                        executor,
                        self.broker,
                        registry,
                        self.servers,
                        self.outages,
                        max_parallel=self.most,
                    )
                    await execution.run()
                finally:
                    watch.cancel()
            return await self.store.load("t")

    async def types(self) -> list[str]:
        """Return the types of the events after the approval, without claims."""
        types = [record.type for record in await self.store.records("t")]
        after = types.index("plan.approved") + 1 if "plan.approved" in types else 0
        return [one for one in types[after:] if one != "task.claimed"]


@pytest.fixture
async def scene() -> AsyncIterator[Setting]:
    async with MemoryStore(Memory()) as store:
        yield Setting(store)


# A plan that was approved


async def test_steps_are_called_one_after_another_where_one_needs_the_other(scene: Setting) -> None:
    await scene.approve(contract_of(LOOK, WIPE))
    task = await scene.run()
    assert task.status == "completed"
    assert scene.servers.calls == [("read", {"x": 1}), ("wipe", {})]
    assert (scene.servers.leased, scene.servers.given_back) == ([["f"]], 1)
    assert await scene.types() == [
        *("step.started", "tool.called", "tool.returned", "step.completed"),
        *("step.started", "tool.called", "tool.returned", "step.completed"),
        "task.completed",
    ]


async def test_a_call_is_written_before_it_is_sent(scene: Setting) -> None:
    await scene.approve(contract_of(LOOK, WIPE))
    last_words: list[str] = []

    async def look(_: str) -> None:
        last_words.append((await scene.types())[-1])

    scene.servers.meanwhile = look
    await scene.run()
    assert last_words == ["tool.called", "tool.called"]


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_no_more_calls_are_under_way_than_a_task_may_make(scene: Setting, most: int) -> None:
    await scene.approve(contract_of(*({**LOOK, "id": f"look{n}"} for n in range(6))))
    scene.most = most
    together = asyncio.Barrier(most)

    async def wait_for_the_others(_: str) -> None:
        await together.wait()

    scene.servers.meanwhile = wait_for_the_others
    task = await scene.run()
    assert task.status == "completed"
    assert (scene.servers.most_in_flight, len(scene.servers.calls)) == (most, 6)


async def test_an_answer_of_a_model_takes_the_place_of_a_call(scene: Setting) -> None:
    await scene.approve(contract_of({**AGENT, "instruction": "Do it."}, OTHER))
    scene.most = 1
    task = await scene.run()
    assert task.status == "completed"
    types = await scene.types()
    assert types.index("model.answered") < types.index("tool.called")
    assert task.results["do"].text == "said"


async def test_a_question_is_for_the_model_of_the_contract_alone(scene: Setting) -> None:
    contract = contract_of({**AGENT, "instruction": "Do it."})
    await scene.approve(contract)
    await scene.run()
    assert contract.model
    assert scene.model.meant == [contract.model.model]


async def test_no_more_questions_are_under_way_than_a_task_may_make_calls(scene: Setting) -> None:
    await scene.approve(contract_of(*({**AGENT, "id": f"do{n}", "instruction": "Do it."} for n in range(4))))
    scene.most = 2
    task = await scene.run()
    assert task.status == "completed"
    assert scene.model.most_asked == 2


async def test_a_slot_that_was_taken_is_given_back_however_the_call_ended(scene: Setting) -> None:
    scene.limits = LimitSettings(concurrent_calls=1)
    await scene.approve(contract_of(LOOK, OTHER))
    scene.servers.answers["read"] = StoredResult(text="no", is_error=True)
    await scene.run()
    assert scene.servers.most_in_flight == 1
    assert scene.broker.has_free_slot


async def test_a_call_that_a_rule_forbids_ends_its_step_and_takes_no_slot(scene: Setting) -> None:
    scene.limits = LimitSettings(concurrent_calls=1, argument_bytes=1)
    await scene.approve(contract_of(LOOK, {**OTHER, "arguments": {"x": "${look.output.a}"}}))
    task = await scene.run()
    assert task.status == "failed"
    assert scene.broker.has_free_slot
    assert len(scene.servers.calls) <= 1


# Servers that are not there


async def be_away() -> None:
    raise ServerUnavailableError("f", "it is not there")


async def test_a_task_fails_whose_server_cannot_be_had_and_nothing_is_called(scene: Setting) -> None:
    scene.limits = LimitSettings(concurrent_calls=1)
    await scene.approve(contract_of(LOOK))
    scene.servers.before_lease = be_away
    task = await scene.run()
    assert (task.status, scene.servers.calls) == ("failed", [])
    assert task.error is not None
    assert (task.error.code, task.error.step_id) == ("server_unavailable", "look")
    assert scene.broker.has_free_slot


async def test_a_call_that_was_lost_is_asked_about_where_it_may_not_be_repeated(scene: Setting) -> None:
    await scene.approve(contract_of({**LOOK, "tool": "write"}))
    scene.servers.answers["write"] = OutcomeUnknownError("the connection broke")
    task = await scene.run()
    assert (task.status, len(scene.servers.calls)) == ("needs_attention", 1)
    assert (await scene.types())[-1] == "step.outcome_unknown"


async def test_a_call_that_was_open_when_its_server_went_away_is_asked_about(scene: Setting) -> None:
    await scene.approve(contract_of(LOOK))
    await Run.claim(scene.store, await scene.store.load("t"), "r", scene.cancel, scene.stop)
    await scene.write(step_started("look"), tool_called("look", "read", {"x": 1}))
    scene.servers.before_lease = be_away
    task = await scene.run()
    assert (task.status, scene.servers.calls) == ("needs_attention", [])
    assert (await scene.types())[-1] == "step.outcome_unknown"


async def test_after_a_call_without_an_answer_the_next_one_gets_a_new_session(scene: Setting) -> None:
    await scene.approve(contract_of({**LOOK, "retries": 1}))
    fates: list[Answer] = [OutcomeUnknownError("the connection broke"), FINE]

    async def next_fate(tool: str) -> None:
        scene.servers.answers[tool] = fates.pop(0)

    scene.servers.meanwhile = next_fate
    task = await scene.run()
    assert task.status == "completed"
    assert (len(scene.servers.calls), scene.servers.given_back) == (2, 2)


async def test_a_call_that_never_left_is_made_again_in_new_sessions_whatever_its_tool_is(scene: Setting) -> None:
    await scene.approve(contract_of({**LOOK, "tool": "write"}))
    fates: list[Answer] = [CallNotSentError("the pipe is closed"), FINE]

    async def next_fate(tool: str) -> None:
        scene.servers.answers[tool] = fates.pop(0)

    scene.servers.meanwhile = next_fate
    task = await scene.run()
    assert task.status == "completed"
    assert (len(scene.servers.calls), scene.servers.given_back, task.tool_calls) == (2, 2, 1)


async def test_a_call_that_never_left_three_times_fails_its_step(scene: Setting) -> None:
    await scene.approve(contract_of({**LOOK, "tool": "write"}))
    scene.servers.answers["write"] = CallNotSentError("the pipe is closed")
    task = await scene.run()
    assert (task.status, len(scene.servers.calls), task.tool_calls) == ("failed", 3, 0)
    assert task.error is not None
    assert (task.error.code, task.error.message) == ("tool_error", "f.write failed: the pipe is closed")


async def test_a_call_that_never_left_waits_for_its_server_that_is_away(scene: Setting) -> None:
    await scene.approve(contract_of({**LOOK, "tool": "write"}))
    scene.servers.answers["write"] = CallNotSentError("the pipe is closed")

    async def be_away_for_a_while() -> None:
        if scene.servers.calls:
            raise ServerUnavailableError("f", "it is down", may_pass=True)

    scene.servers.before_lease = be_away_for_a_while
    task = await scene.run()
    assert (task.status, len(scene.servers.calls)) == ("executing", 1)
    assert (await scene.types())[-1] == "task.waiting"
    scene.servers.before_lease = None
    scene.servers.answers.clear()
    task = await scene.run()
    assert (task.status, len(scene.servers.calls)) == ("completed", 2)


async def test_a_plan_that_was_made_for_another_server_is_shown_again_and_nothing_is_called(scene: Setting) -> None:
    await scene.plan()
    planned = await scene.store.load("t")
    await scene.write(ev.PlanApproved(revision=1, digest=str(planned.plan_digest), names_digest=True))
    scene.identities = Identities({"f": ServerIdentity({"built in": "other"}, {})}, MODEL)
    task = await scene.run()
    assert (task.status, task.plan_revision) == ("awaiting_approval", 2)
    assert (scene.servers.leased, scene.servers.calls) == ([], [])


async def test_a_plan_that_was_approved_unseen_ends_where_its_server_is_another_now(scene: Setting) -> None:
    await scene.approve(contract_of(LOOK), names_digest=False)
    scene.identities = Identities({"f": IDENTITY}, MODEL)
    task = await scene.run()
    assert task.error is not None
    assert (task.status, task.error.code) == ("failed", DefinitionChangedError.code)
    assert (scene.servers.leased, scene.servers.calls) == ([], [])


# Decisions while it runs


async def test_after_a_cancel_no_call_begins_and_one_under_way_is_kept(scene: Setting) -> None:
    await scene.approve(contract_of(LOOK, WIPE))

    async def cancel(_: str) -> None:
        await scene.decide(Cancel())
        scene.cancel.set()

    scene.servers.meanwhile = cancel
    task = await scene.run()
    assert task.status == "cancelled"
    assert [tool for tool, _ in scene.servers.calls] == ["read"]
    assert "tool.returned" in await scene.types()


async def test_a_cancel_does_not_wait_for_a_server_that_hangs(scene: Setting) -> None:
    await scene.approve(contract_of(LOOK))

    async def hang() -> None:
        await scene.decide(Cancel())
        scene.cancel.set()
        await asyncio.Event().wait()

    scene.servers.before_lease = hang
    task = await scene.run()
    assert (task.status, scene.servers.calls) == ("cancelled", [])


async def test_after_a_stop_the_open_call_ends_and_the_task_stays_as_it_is(scene: Setting) -> None:
    await scene.approve(contract_of(LOOK, WIPE))

    async def stop(_: str) -> None:
        scene.stop.set()

    scene.servers.meanwhile = stop
    task = await scene.run()
    assert (task.status, len(scene.servers.calls)) == ("executing", 1)
    assert (await scene.types())[-1] == "tool.returned"


async def test_a_run_that_was_superseded_leaves_its_answers_as_evidence_and_does_no_more(scene: Setting) -> None:
    await scene.approve(contract_of(LOOK, {**OTHER, "tool": "wipe"}, {**WIPE, "depends_on": ["look", "other"]}))
    both = asyncio.Barrier(2)

    async def take_over(tool: str) -> None:
        await both.wait()
        task = await scene.store.load("t")
        if tool == "read":
            await Run.claim(scene.store, task, "other", asyncio.Event(), asyncio.Event())
        else:  # it answers once the superseded run has written the first answer
            await scene.store.wait_for_change("t", task.version + 1)

    scene.servers.meanwhile = take_over
    with pytest.raises(ExceptionGroup) as ended:
        await scene.run()
    assert ended.group_contains(StaleEpochError)
    assert (await scene.types())[-2:] == ["tool.returned", "tool.returned"]
    assert len(scene.servers.calls) == 2


# Planning


async def test_a_run_ends_with_the_plan_that_it_made(scene: Setting) -> None:
    task = await scene.plan()
    assert (task.status, task.plan_revision) == ("awaiting_approval", 1)
    assert (scene.servers.leased, scene.servers.calls) == ([], [])


async def test_a_run_ends_with_its_plan_also_where_policy_approves_it(scene: Setting) -> None:
    scene.approval = ApprovalSettings(auto_effects=("read",))
    task = await scene.plan(approval="auto")
    assert (task.status, task.approved_by) == ("approved", ev.POLICY)
    assert (scene.servers.leased, scene.servers.calls) == ([], [])


@pytest.mark.parametrize(
    ("error", "code"),
    [(PlanningError("It cannot be planned."), PlanningError.code), (ZeroDivisionError("a bug"), "internal_error")],
)
async def test_a_planner_that_gives_no_plan_costs_its_task_and_no_more(
    scene: Setting, error: Exception, code: str
) -> None:
    scene.planner.answer = error
    task = await scene.plan()
    assert task.error is not None
    assert (task.status, task.error.code) == ("failed", code)


async def test_a_plan_that_breaks_the_rules_is_never_proposed(scene: Setting) -> None:
    scene.planner.answer = Plan.model_validate({"goal": "g", "steps": [{**LOOK, "tool": "missing"}]})
    task = await scene.plan()
    assert task.error is not None
    assert (task.status, task.error.code, task.plan_revision) == ("failed", "invalid_plan", 0)


# The budget


async def test_a_task_calls_no_more_than_its_budget_allows(scene: Setting) -> None:
    await scene.approve(contract_of(LOOK, OTHER, budget=Budget(tool_calls=1)))
    task = await scene.run()
    assert task.status == "failed"
    assert len(scene.servers.calls) == 1
