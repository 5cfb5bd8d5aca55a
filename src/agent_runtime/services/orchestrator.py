"""The orchestrator: runs a task to the gate, or to its end; re-entrant, because the journal says what may happen."""

import asyncio
from contextlib import AsyncExitStack

import structlog

from agent_runtime.domain.commands import CallTool, Command, ProposePlan, Record, next_commands
from agent_runtime.domain.errors import (
    AgentRuntimeError,
    ConflictError,
    DefinitionChangedError,
    InvalidPlanError,
    PlanningError,
    ServerUnavailableError,
    StaleEpochError,
    TaskNotFoundError,
)
from agent_runtime.domain.events import StepOutcomeUnknown, TaskFailed, ToolDenied
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.task import Task
from agent_runtime.services.agent_service import PlannerAgent
from agent_runtime.services.broker import Broker
from agent_runtime.services.ports import Lease, TaskStore, ToolServers
from agent_runtime.services.run import Run
from agent_runtime.services.tool_registry import ToolRegistry

log = structlog.get_logger()


class Orchestrator:
    """Takes a task as far as it goes without a person. Running one twice, late or at once elsewhere is safe."""

    def __init__(
        self,
        store: TaskStore,
        registry: ToolRegistry,
        servers: ToolServers,
        planner: PlannerAgent,
        broker: Broker,
        *,
        runner_id: str,
    ) -> None:
        self._store = store
        self._registry = registry
        self._servers = servers
        self._planner = planner
        self._broker = broker
        self._runner_id = runner_id

    async def run(self, task_id: str, cancel: asyncio.Event, stop: asyncio.Event) -> None:
        """Run a task until it ends or waits for a person.

        `cancel` is set once a cancellation was written; after `stop` no further call is started. Raises:
        StoreUnavailableError where the journal cannot be read.
        """
        with structlog.contextvars.bound_contextvars(task_id=task_id):
            try:
                while not stop.is_set():
                    task = await self._store.load(task_id)
                    if not next_commands(task):
                        return
                    await self._claim_and_run(task, cancel, stop)
            except TaskNotFoundError:
                log.info("task_gone")
            except StaleEpochError as error:
                log.warning("run_superseded", reason=str(error))

    async def _claim_and_run(self, task: Task, cancel: asyncio.Event, stop: asyncio.Event) -> None:
        try:
            run = await Run.claim(self._store, task, self._runner_id, cancel)
        except ConflictError:
            return
        async with AsyncExitStack() as stack:
            sessions = _Sessions(self, run, stack)
            while (commands := next_commands(run.task)) or run.has_staged:
                try:
                    if not commands or stop.is_set():
                        await run.commit()
                    if stop.is_set():
                        return
                    if commands:
                        await self._carry_out(run, sessions, commands[0])
                except ConflictError:
                    log.info("decided_anew", version=run.task.version, status=run.task.status)
        log.info("run_ended", status=run.task.status, version=run.task.version)

    async def _carry_out(self, run: Run, sessions: "_Sessions", command: Command) -> None:
        match command:
            case Record(events):
                run.stage(*events)
            case ProposePlan():
                await self._propose(run)
            case CallTool(step):
                lease = await sessions.for_step(step)
                if lease is not None:
                    await self._broker.call(run, lease, step)

    async def _propose(self, run: Run) -> None:
        try:
            events = await self._planner.propose(run.task)
        except (PlanningError, InvalidPlanError) as error:
            log.info("planning_refused", reason=str(error))
            run.stage(TaskFailed(code=error.code, message=str(error)))
        else:
            run.stage(*events)
        await run.commit()

    async def open_lease(self, task: Task, stack: AsyncExitStack) -> Lease:
        """Sessions with exactly the servers that the plan names, their definitions held against the pins (G6).

        Raises: ServerUnavailableError, DefinitionChangedError.
        """
        names = sorted(task.contract.servers) if task.contract else []
        servers = {name: self._registry.server(name) for name in names}
        lease = await stack.enter_async_context(self._servers.lease(servers.values()))
        await self._broker.check_pins(task, lease, servers)
        return lease

    async def recheck(self, task: Task, lease: Lease, server_id: str) -> None:
        """Compare the pins once more after the server said that its tools changed. Raises: as `open_lease`."""
        await self._broker.check_pins(task, lease, {server_id: self._registry.server(server_id)})

    def forget(self, server_ids: list[str]) -> None:
        """Have the catalogue ask these servers again."""
        self._registry.want(server_ids)


class _Sessions:
    """The lease of one run: taken when the first call needs it, given back when the run ends."""

    def __init__(self, orchestrator: Orchestrator, run: Run, stack: AsyncExitStack) -> None:
        self._orchestrator = orchestrator
        self._run = run
        self._stack = stack
        self._lease: Lease | None = None

    async def for_step(self, step: ToolStep) -> Lease | None:
        """The lease, checked; or None where there can be none, which is then what the task says."""
        try:
            if self._lease is None:
                self._lease = await self._orchestrator.open_lease(self._run.task, self._stack)
            elif self._lease.has_changed(step.server):
                await self._orchestrator.recheck(self._run.task, self._lease, step.server)
        except (ServerUnavailableError, DefinitionChangedError) as error:
            self._give_up(step, error)
            return None
        return self._lease

    def _give_up(self, step: ToolStep, error: AgentRuntimeError) -> None:
        log.warning("no_lease", code=error.code, reason=str(error))
        contract = self._run.task.contract
        self._orchestrator.forget(sorted(contract.servers) if contract else [])
        open_call = self._run.task.steps[step.id].open_call
        if open_call:
            reason = f"the call was open, and it cannot be repeated: {error}"
            self._run.stage(StepOutcomeUnknown(step_id=step.id, call_id=open_call.call_id, reason=reason))
            return
        if isinstance(error, DefinitionChangedError):
            self._run.stage(
                ToolDenied(step_id=step.id, server=step.server, tool=step.tool, rule=error.code, message=str(error))
            )
        self._run.stage(TaskFailed(code=error.code, message=str(error), step_id=step.id))
