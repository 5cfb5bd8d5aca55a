"""The work of one run: its calls and its questions to models go on side by side, and only the run writes."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from agent_runtime.domain.call_rules import CallRefusedError, Proposal, next_proposal
from agent_runtime.domain.commands import (
    AskModel,
    CallTool,
    Command,
    OutlastOutage,
    ProposePlan,
    WriteEvents,
    next_command,
    tool_error,
)
from agent_runtime.domain.errors import (
    AgentRuntimeError,
    ConflictError,
    DefinitionChangedError,
    InvalidPlanError,
    PlanningError,
    ServersDownError,
    ServerUnavailableError,
    StaleEpochError,
)
from agent_runtime.domain.events import StepFailed, StepOutcomeUnknown, TaskFailed, ToolDenied
from agent_runtime.domain.identity import Identities
from agent_runtime.domain.outages import OutageLimits, explain_failure
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.plan_requests import fail_planning
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.usage import Usage
from agent_runtime.live.interruption import run_until
from agent_runtime.services.agent_service import PlannerAgent
from agent_runtime.services.broker import Broker, Intent, Outcome
from agent_runtime.services.executor_agent import Answered, ExecutorAgent, Question
from agent_runtime.services.ports import Lease, ToolServers
from agent_runtime.services.run import Run
from agent_runtime.services.sessions import Sessions
from agent_runtime.services.tool_registry import ToolRegistry
from agent_runtime.services.waits import Waits

log = structlog.get_logger()

_ACTS = frozenset({TaskStatus.PENDING, TaskStatus.EXECUTING})
"""The statuses in which a run acts. A person's answer makes the task `approved`, which a later run takes up."""


class Execution:
    """Carries out the commands of `next_command` until none is left, at most `max_parallel` calls and answers at once.

    Each turn stages the outcomes of calls, the events that follow from them and the intents of the next calls, and
    commits all of it in one write. Then the calls are sent. Nothing new begins while the task waits for a person's
    answer.
    """

    def __init__(
        self,
        run: Run,
        planner: PlannerAgent,
        executor: ExecutorAgent,
        broker: Broker,
        registry: ToolRegistry,
        servers: ToolServers,
        outages: OutageLimits,
        *,
        max_parallel: int,
    ) -> None:
        self._run = run
        self._planner = planner
        self._executor = executor
        self._broker = broker
        self._registry = registry
        self._waits = Waits(run, outages)
        self._max_parallel = max_parallel
        self._sessions = Sessions(run, broker, registry, servers)
        self._group = asyncio.TaskGroup()
        self._in_flight: set[str] = set()
        self._waiting: set[str] = set()
        self._slots_held: set[str] = set()
        self._outcomes: list[Outcome | Answered] = []
        self._wakeup = run.wakeup
        self._trouble: tuple[Proposal, AgentRuntimeError] | None = None
        self._planned = False
        self._compared: Identities | None = None

    async def run(self) -> None:
        """Run until the task has ended, waits for a person or has a plan; after `stop`, until no call is open.

        Raises: StaleEpochError where a newer claim owns the task, TaskNotFoundError where it is gone.
        """
        failure: AgentRuntimeError | None = None
        try:
            async with self._sessions, self._group:
                try:
                    while await self._turn():
                        self._wakeup.clear()
                except AgentRuntimeError as error:  # caught here, since the group would wrap it
                    failure = error
        finally:
            for _ in self._slots_held:
                self._broker.release_slot()
        if isinstance(failure, StaleEpochError):
            late = [outcome.returned for outcome in self._outcomes if isinstance(outcome, Outcome)]
            await self._run.record_late_answers(*filter(None, late))
        if failure is not None:
            raise failure

    async def _turn(self) -> bool:
        """Do one turn. Return False if it was the last one."""
        try:
            self._settle()
            begun = await self._decide()
            await self._run.commit()
        except ConflictError:
            log.info("decided_anew", version=self._run.task.version, status=self._run.task.status)
            self._waits.begun = False
            return True
        for work in begun:
            self._in_flight.add(work.step_id)
            self._group.create_task(self._ask(work) if isinstance(work, Question) else self._send(work))
        if not self._busy_steps:
            return self._may_act and next_command(self._run.task) is not None
        if not self._outcomes:
            await self._wakeup.wait()
        return True

    @property
    def _busy_steps(self) -> set[str]:
        return self._in_flight | self._waiting

    @property
    def _may_act(self) -> bool:
        task = self._run.task
        acts = task.status in _ACTS or task.cancel_requested or task.questions.keys() - self._in_flight
        return bool(acts) and not self._run.stop.is_set() and not (self._planned or self._waits.begun)

    def _settle(self) -> None:
        for outcome in self._outcomes:
            self._in_flight.discard(outcome.step_id)
            self._run.extended_s.pop(outcome.step_id, None)
            self._waits.settle(outcome)
            if isinstance(outcome, Outcome):
                self._sessions.unusable |= not outcome.answered
                if outcome.trouble is not None:
                    called = outcome.intent.called
                    self._trouble = Proposal(called.step_id, called.server, called.tool), outcome.trouble
        self._outcomes.clear()

    async def _decide(self) -> list["StagedCall | Question"]:
        if self._run.is_behind or (self._run.cancel.is_set() and not self._run.task.cancel_requested):
            await self._run.catch_up()
        self._run.posts.stage(self._run.stage)
        begun: list[StagedCall | Question] = []
        while self._may_act:
            busy = self._busy_steps | {work.step_id for work in begun}
            if self._run.task.cancel_requested:
                self._trouble = None  # the cancellation was acknowledged, so it wins
                self._waits.clear()
            if self._trouble and not busy:
                self._give_up(*self._trouble)
                continue
            if self._compared is not self._registry.identities and not self._sessions.are_held:
                await self._compare()
                continue
            command = None if self._trouble else next_command(self._run.charged_task, busy | self._waits.steps)
            if command is None and self._waits.steps and not busy and self._run.task.status is TaskStatus.EXECUTING:
                self._waits.begin_for_steps()
                continue
            if command is None or not await self._carry_out(command, begun, busy):
                break
        return begun

    async def _carry_out(self, command: Command, begun: list["StagedCall | Question"], busy: set[str]) -> bool:
        """Carry out one command. Return False if the turn must end first."""
        match command:
            case WriteEvents(events):
                self._run.stage(*events)
            case ProposePlan():
                await self._propose()
            case OutlastOutage(step, server, result):
                self._waits.outlast(step.id, server, result)
            case CallTool(step):
                return await self._begin_call(step, begun, busy)
            case AskModel(step):
                return self._prepare_question(step, begun, busy)
        return True

    async def _propose(self) -> None:
        # The run ends with the plan. The next one holds the plan's servers, so the runner decides when it begins.
        self._planned = True
        try:
            events = await run_until(self._planner.propose(self._run.task), self._run.cancel, self._run.stop)
        except (PlanningError, InvalidPlanError) as error:
            if isinstance(error, ServersDownError):
                waits = self._waits.begin("server", error.server_id, error)
            else:
                waits = self._waits.begin("planner", self._planner.name, error)
            if waits:
                return
            (log.warning if error.code.startswith("model_") else log.info)("planning_failed", code=error.code)
            usage = error.usage if isinstance(error, PlanningError) else Usage()
            message = explain_failure(self._run.task, error, datetime.now(UTC))
            events = [fail_planning(self._run.task, error.code, message, usage)]
        except AgentRuntimeError:
            raise
        except Exception as error:  # a planner may raise anything; that fails its task only (G9)
            log.exception("planner_failed")
            message = f"The planner failed ({type(error).__name__}); see the log of the service."
            events = [fail_planning(self._run.task, "internal_error", message)]
        if events is not None:
            self._run.stage(*events)

    async def _compare(self) -> None:
        """Repin the plan, or fail the task, if servers or model have changed since the approval and no step has begun.

        A run compares them once, and again after each reload. Once a step has begun, the checks before the next call
        find a change.
        """
        task = self._run.task
        if task.contract and task.contract.model and self._registry.asks_for_model:
            await run_until(self._registry.identify_model(), self._run.cancel, self._run.stop)
        self._compared = self._registry.identities
        if task.status is not TaskStatus.EXECUTING or task.cancel_requested:
            return
        differences = self._planner.differences(task)
        if not differences:
            return
        if await self._planner.is_at_home_elsewhere(task):
            self._planned = True  # the next run is handed over to the worker that has them
            return
        if task.has_begun:
            return
        what = " ".join(differences)
        changed = f"Servers or the model have changed since the plan was approved, so nothing was called. {what}"
        log.warning("plan_outdated", differences=differences)
        self._planned = True
        if not task.approval_names_digest:
            self._run.stage(TaskFailed(code=DefinitionChangedError.code, message=changed))
            return
        try:
            events = await run_until(self._planner.repin(task, differences), self._run.cancel, self._run.stop)
        except InvalidPlanError as error:
            message = f"{changed} The plan cannot run with the current servers and model: {error}"
            events = [TaskFailed(code=DefinitionChangedError.code, message=message)]
        self._run.stage(*(events or ()))

    def _prepare_question(self, step: AgentStep, begun: list["StagedCall | Question"], busy: set[str]) -> bool:
        if len(self._in_flight) + len(begun) >= self._max_parallel:
            return False
        try:
            if not self._sessions.are_held:
                self._broker.check_identities(self._run.task)
        except DefinitionChangedError as error:
            self._trouble = Proposal(step.id, "", ""), error
            return True
        before = self._run.task.version
        question = self._executor.ask(self._run, step, busy)
        if question is not None:
            begun.append(question)
        return question is not None or self._run.task.version > before

    async def _begin_call(
        self, step: ToolStep | AgentStep, begun: list["StagedCall | Question"], busy: set[str]
    ) -> bool:
        if len(self._in_flight) + len(begun) >= self._max_parallel or (busy and self._sessions.unusable):
            return False
        if begun:
            await asyncio.sleep(0)  # judging large arguments takes long: let others run in between
        proposal = next_proposal(self._run.task, step)
        if proposal.server not in self._run.task.servers:  # no session has this server; a rule rejects the call
            return self._intend(step, proposal, busy) is None
        if step.id not in self._slots_held:
            if self._run.task.steps[step.id].call is not None or not self._broker.has_free_slot:
                self._waiting.add(step.id)
                self._group.create_task(self._wait_for_slot(step.id))
                return True
            await self._acquire_slot(step.id)
        if not begun and not self._sessions.are_ready_for(proposal.server):
            await self._run.commit()  # the outcomes so far are written before the wait for a server
        try:
            lease = await self._sessions.lease_for(proposal.server)
        except (ServerUnavailableError, DefinitionChangedError) as error:
            self._trouble = proposal, error
            return True
        if lease is None:
            return False
        intent = self._intend(step, proposal, busy)
        if intent is None:
            self._release_slot(step.id)
        else:
            begun.append(StagedCall(lease, intent))
        return True

    def _intend(self, step: ToolStep | AgentStep, proposal: Proposal, busy: set[str]) -> Intent | None:
        try:
            return self._broker.intend(self._run, proposal, busy)
        except CallRefusedError as refusal:
            if lost := self._run.task.open_calls.get(step.id):  # it was sent, and its outcome is unknown
                reason = f"the call was open, and it cannot be repeated: {refusal}"
                self._run.stage(StepOutcomeUnknown(step_id=step.id, call_id=lost.call_id, reason=reason))
            elif call := self._run.task.steps[step.id].call:  # it may not be repeated, so its error stands
                self._run.stage(tool_error(step.id, call))
            elif isinstance(step, ToolStep):  # the model of an agent step is told, and goes on
                message = f"{step.server}.{step.tool} was not called: {refusal}"
                self._run.stage(StepFailed(step_id=step.id, code=refusal.rule, message=message))
            return None

    async def _wait_for_slot(self, step_id: str) -> None:
        try:
            await self._acquire_slot(step_id)
        finally:
            self._waiting.discard(step_id)
            self._wakeup.set()

    async def _acquire_slot(self, step_id: str) -> None:
        if await self._broker.acquire_slot(self._run, step_id):
            self._slots_held.add(step_id)

    def _release_slot(self, step_id: str) -> None:
        self._slots_held.discard(step_id)
        self._broker.release_slot()

    async def _send(self, work: "StagedCall") -> None:
        try:
            self._outcomes.append(await self._broker.send(self._run, work.lease, work.intent, self._in_flight))
        finally:
            self._release_slot(work.step_id)
            self._wakeup.set()

    async def _ask(self, question: Question) -> None:
        try:
            self._outcomes.append(await self._executor.answer(self._run, question))
        finally:
            self._wakeup.set()

    def _give_up(self, call: Proposal, error: AgentRuntimeError) -> None:
        """Fail the task because a server is unavailable or changed; if calls are open, ask about them instead."""
        log.warning("no_lease", code=error.code, reason=str(error))
        self._trouble = None
        task = self._run.task
        if isinstance(error, ServerUnavailableError) and self._waits.begin("server", error.server_id, error):
            return
        self._registry.invalidate(sorted(task.servers))
        open_calls = task.open_calls
        for name, lost in open_calls.items():
            reason = f"the call was open, and it cannot be repeated: {error}"
            self._run.stage(StepOutcomeUnknown(step_id=name, call_id=lost.call_id, reason=reason))
        if open_calls:
            return
        if isinstance(error, DefinitionChangedError) and call.server:
            self._run.stage(
                ToolDenied(
                    step_id=call.step_id, server=call.server, tool=call.tool, rule=error.code, message=str(error)
                )
            )
        message = explain_failure(task, error, datetime.now(UTC))
        self._run.stage(TaskFailed(code=error.code, message=message, step_id=call.step_id))


@dataclass(frozen=True, slots=True)
class StagedCall:
    """A call whose intent is staged, and the lease with the sessions to send it on."""

    lease: Lease
    intent: Intent

    @property
    def step_id(self) -> str:
        return self.intent.step_id
