"""The orchestrator: runs a task until it waits for a person or ends. All its state is in the journal."""

import asyncio
from datetime import UTC, datetime

import structlog

from agent_runtime.domain.commands import next_command
from agent_runtime.domain.errors import ConflictError, JournalChangedError, StaleEpochError, TaskNotFoundError
from agent_runtime.domain.outages import OutageLimits, compute_pause_s
from agent_runtime.domain.status import WAITING, TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.services.agent_service import PlannerAgent
from agent_runtime.services.broker import Broker
from agent_runtime.services.execution import Execution
from agent_runtime.services.executor_agent import ExecutorAgent
from agent_runtime.services.ports import Fleet, TaskStore, ToolServers
from agent_runtime.services.run import Run
from agent_runtime.services.tool_registry import ToolRegistry

log = structlog.get_logger()


class Orchestrator:
    """Runs a task as far as it goes without a person. Doing so twice, late or elsewhere at the same time is safe."""

    def __init__(
        self,
        store: TaskStore,
        registry: ToolRegistry,
        servers: ToolServers,
        planner: PlannerAgent,
        executor: ExecutorAgent,
        broker: Broker,
        outages: OutageLimits,
        fleet: Fleet,
        *,
        runner_id: str,
        parallel_calls: int,
    ) -> None:
        self._store = store
        self._registry = registry
        self._servers = servers
        self._planner = planner
        self._executor = executor
        self._broker = broker
        self._outages = outages
        self._fleet = fleet
        self._runner_id = runner_id
        self._parallel_calls = parallel_calls

    async def servers_of(self, task_id: str) -> frozenset[str] | None:
        """Return the ids of the servers that the task's next run will hold; an empty set while the task has no plan.

        Return None where the run will be short and hold no server: the task waits for a person or for the end of an
        outage, has ended or is being cancelled.
        Raises: StoreUnavailableError where the journal cannot be read.
        """
        try:
            task = await self._store.load(task_id)
        except TaskNotFoundError:
            return None
        waits = task.status in WAITING and not task.questions
        if task.terminal or task.cancel_requested or waits or compute_pause_s(task, datetime.now(UTC)):
            return None
        return frozenset() if task.status is TaskStatus.PENDING else task.servers

    async def run(self, task_id: str, cancel: asyncio.Event, stop: asyncio.Event) -> float | None:
        """Run a task until it has ended, waits or has a plan. Return the seconds after which it can go on.

        Return None where it cannot go on by itself. `cancel` is set once a cancellation is in the journal. No call is
        started after `stop` is set. Raises: StoreUnavailableError where the journal cannot be read.
        """
        with structlog.contextvars.bound_contextvars(task_id=task_id):
            try:
                task = await self._store.load(task_id)
                if next_command(task) is None:
                    return None
                if pause_s := compute_pause_s(task, datetime.now(UTC)):
                    return pause_s
                return None if await self._hand_over(task) else await self._claim_and_run(task, cancel, stop)
            except TaskNotFoundError:
                log.info("task_gone")
            except StaleEpochError as error:
                log.warning("run_superseded", reason=str(error))
            except JournalChangedError as error:
                log.error("run_stopped", reason=str(error))  # noqa: TRY400 - where it was raised says nothing
            return None

    async def _hand_over(self, task: Task) -> bool:
        """Leave the task to another worker if only that one has the registry entries of its plan."""
        runs_plan = task.status in {TaskStatus.APPROVED, TaskStatus.EXECUTING} and not task.cancel_requested
        return bool(runs_plan and task.contract and await self._fleet.hand_over(task.task_id, task.contract))

    async def _claim_and_run(self, task: Task, cancel: asyncio.Event, stop: asyncio.Event) -> float | None:
        try:
            run = await Run.claim(self._store, task, self._runner_id, cancel, stop)
        except ConflictError:
            return 0
        await Execution(
            run,
            self._planner,
            self._executor,
            self._broker,
            self._registry,
            self._servers,
            self._outages,
            max_parallel=self._parallel_calls,
        ).run()
        log.info("run_ended", status=run.task.status, version=run.task.version)
        return None if next_command(run.task) is None else compute_pause_s(run.task, datetime.now(UTC))
