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
from agent_runtime.domain.task import WAITING, Task
from agent_runtime.services.agent_service import PlannerAgent
from agent_runtime.services.broker import Broker
from agent_runtime.services.ports import Lease, TaskStore, ToolServers
from agent_runtime.services.run import Run, unless
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

    async def servers_of(self, task_id: str) -> frozenset[str] | None:
        """The servers that the task's next run holds: those of its plan, none while it is planned.

        None where the run will be short and holds nothing: the task waits, has ended or is being cancelled.
        Raises: StoreUnavailableError where the journal cannot be read.
        """
        try:
            task = await self._store.load(task_id)
        except TaskNotFoundError:
            return None
        if task.terminal or task.cancel_requested or task.status in WAITING:
            return None
        return task.contract.servers if task.contract else frozenset()

    async def run(self, task_id: str, cancel: asyncio.Event, stop: asyncio.Event) -> bool:
        """Run a task until it ends or waits for a person, or as far as the plan; True where it can go on at once.

        `cancel` is set once a cancellation was written; after `stop` no further call is started. Raises:
        StoreUnavailableError where the journal cannot be read.
        """
        with structlog.contextvars.bound_contextvars(task_id=task_id):
            try:
                task = await self._store.load(task_id)
                return bool(next_commands(task)) and await self._claim_and_run(task, cancel, stop)
            except TaskNotFoundError:
                log.info("task_gone")
            except StaleEpochError as error:
                log.warning("run_superseded", reason=str(error))
            return False

    async def _claim_and_run(self, task: Task, cancel: asyncio.Event, stop: asyncio.Event) -> bool:
        try:
            run = await Run.claim(self._store, task, self._runner_id, cancel, stop)
        except ConflictError:
            return True
        async with AsyncExitStack() as stack:
            sessions = _Sessions(self, run, stack)
            while (commands := next_commands(run.task)) or run.has_staged:
                try:
                    if not commands or stop.is_set():
                        await run.commit()
                    if stop.is_set():
                        break
                    if commands:
                        await self._carry_out(run, sessions, commands[0])
                    if commands and isinstance(commands[0], ProposePlan):
                        break  # who runs the plan holds its servers, which is for the runner to allow
                except ConflictError:
                    log.info("decided_anew", version=run.task.version, status=run.task.status)
        log.info("run_ended", status=run.task.status, version=run.task.version)
        return bool(next_commands(run.task))

    async def _carry_out(self, run: Run, sessions: "_Sessions", command: Command) -> None:
        match command:
            case Record(events):
                run.stage(*events)
            case ProposePlan():
                await self._propose(run)
            case CallTool(step):
                await self._call(run, sessions, step)

    async def _propose(self, run: Run) -> None:
        try:
            events = await unless(self._planner.propose(run.task), run.cancel, run.stop)
        except (PlanningError, InvalidPlanError) as error:
            log.info("planning_refused", reason=str(error))
            events = [TaskFailed(code=error.code, message=str(error))]
        if events is not None:
            run.stage(*events)
            await run.commit()

    async def _call(self, run: Run, sessions: "_Sessions", step: ToolStep) -> None:
        await self._broker.pause(run, step)
        lease = await sessions.for_step(step)
        if run.cancel.is_set():
            await run.catch_up()
        elif lease is not None and not run.stop.is_set():
            server = self._registry.server(step.server)
            try:
                sessions.unusable = not await self._broker.call(run, lease, step, server)
            except (ServerUnavailableError, DefinitionChangedError) as error:
                sessions.give_up(step, error)

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
        """Have the catalogue ask these servers again, and planning wait for their answers."""
        self._registry.distrust(server_ids)


class _Sessions:
    """The lease of one run: taken when the first call needs it, given back when the run ends.

    `unusable`: a server gave no answer, so the next call gets sessions of its own; what the old ones kept in memory
    is lost, as it is with a server that died.
    """

    def __init__(self, orchestrator: Orchestrator, run: Run, stack: AsyncExitStack) -> None:
        self._orchestrator = orchestrator
        self._run = run
        self._stack = stack
        self._lease: Lease | None = None
        self.unusable = False

    async def for_step(self, step: ToolStep) -> Lease | None:
        """The lease, checked; or None where there can be none, which is then what the task says.

        None too once the task is cancelled or the service stops: a server that hangs is not waited for (G10).
        """
        if self._lease and not self.unusable and not self._lease.has_changed(step.server):
            return self._lease
        try:
            self._lease = await unless(self._checked(step), self._run.cancel, self._run.stop)
        except (ServerUnavailableError, DefinitionChangedError) as error:
            self.give_up(step, error)
            return None
        return self._lease

    async def _checked(self, step: ToolStep) -> Lease:
        if self._lease and not self.unusable:
            await self._orchestrator.recheck(self._run.task, self._lease, step.server)
            return self._lease
        await self._stack.aclose()
        self.unusable = False
        return await self._orchestrator.open_lease(self._run.task, self._stack)

    def give_up(self, step: ToolStep, error: AgentRuntimeError) -> None:
        """End the task, or ask about its open call, for want of a server that is what the plan was made with."""
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
