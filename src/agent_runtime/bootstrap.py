"""The composition root: settings in, a running service out. Everything is wired here, by hand."""

import asyncio
import os
import secrets as random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

import structlog
from mcp.server import MCPServer

from agent_runtime import builtin
from agent_runtime.agents.model import OpenAIModel
from agent_runtime.config import Secrets, Settings
from agent_runtime.domain.deny import with_denials
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.identity import Identities
from agent_runtime.domain.tools import BuiltinServer
from agent_runtime.judging.process import JudgeProcess
from agent_runtime.mcp_servers.own_files import own_files
from agent_runtime.mcp_servers.pool import ServerPool
from agent_runtime.runners.local import LocalRunner
from agent_runtime.services.agent_service import PlannerAgent
from agent_runtime.services.broker import Broker
from agent_runtime.services.executor_agent import ExecutorAgent
from agent_runtime.services.expiry import Expiry
from agent_runtime.services.model_planner import ModelPlanner
from agent_runtime.services.orchestrator import Orchestrator
from agent_runtime.services.ports import LanguageModel, Planner
from agent_runtime.services.progress import Progress
from agent_runtime.services.recovery import Recovery
from agent_runtime.services.registry_file import read_entries
from agent_runtime.services.resolved_entries import EntryResolver, ShownValues, pinned_model
from agent_runtime.services.rule_planner import RulePlanner
from agent_runtime.services.task_manager import TaskManager
from agent_runtime.services.tool_registry import ToolRegistry
from agent_runtime.services.written_secrets import remember_written_secrets
from agent_runtime.storage.owner import lock_file_of
from agent_runtime.storage.secret_file import read_secret
from agent_runtime.storage.sqlite import SqliteStore
from agent_runtime.telemetry.metrics import Metrics

log = structlog.get_logger()

_SWITCH_INTERVAL_S = 0.0005
"""Python's own 5 ms would keep the store's writer thread from the interpreter for seconds while the loop is busy."""


Recover = bool | frozenset[str]
"""Whether to take up the unfinished tasks of an earlier process; or the ids of those to take up."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A running service, as the doors see it. `recovered`: every unfinished task was handed to the runner."""

    settings: Settings
    tasks: TaskManager
    registry: ToolRegistry
    store: SqliteStore
    runner: LocalRunner
    servers: ServerPool
    metrics: Metrics
    planner: str
    model: LanguageModel | None
    progress: Progress
    recovered: asyncio.Event


def planner_of(settings: Settings, model: LanguageModel | None) -> Planner:
    """`auto`: with a model where one is configured. Raises: ConfigurationError where there is none to plan with."""
    if settings.planner == "openai" and model is None:
        raise ConfigurationError(
            "planner: openai needs a language model: set openai.api_key or openai.base_url (OPENAI_API_KEY, "
            "OPENAI_BASE_URL), or planner: rules"
        )
    return (
        RulePlanner()
        if model is None or settings.planner == "rules"
        else ModelPlanner(model, catalogue_tokens=settings.openai.catalogue_tokens)
    )


@asynccontextmanager
async def open_runtime(settings: Settings, secrets: Secrets, *, recover: Recover = True) -> AsyncIterator[Runtime]:
    """Start the service on a data directory that the caller owns, and stop it on the way out.

    With `recover` every unfinished task of an earlier process goes on, and every server is asked what it offers; else
    only the tasks that it names go on, and servers are asked when they are needed.
    Raises: ConfigurationError, StoreUnavailableError.
    """
    model = OpenAIModel(settings.openai, secrets.redactor) if settings.openai.configured else None
    planning = planner_of(settings, model)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    limits = settings.limits
    entries = with_denials(read_entries(settings), settings.approval.deny)
    for advice in remember_written_secrets(entries, secrets.redactor):
        log.warning("tool_registry", server=advice.server_id, message=advice.message)
    base_dir = settings.tool_registry.absolute().parent
    shown = ShownValues(read_secret(settings.data_dir))
    resolved = EntryResolver(base_dir, settings.data_dir, secrets, shown).resolve(entries)
    places = {entry.server.id: entry.place for entry in resolved}
    identities = Identities(
        {entry.server.id: entry.identity for entry in resolved}, pinned_model(settings.openai, shown)
    )
    own = own_files(settings, entries, lock_file_of(settings.database_path))

    def make_builtin(entry: BuiltinServer) -> MCPServer:
        return builtin.create(entry.config, base_dir=base_dir, data_dir=settings.data_dir, place=places[entry.id])

    metrics = Metrics()
    async with (
        SqliteStore(settings.database_path, observe=metrics.committed) as store,
        model or nullcontext(),
        ServerPool(limits, secrets, make_builtin, base_dir, own) as servers,
        asyncio.TaskGroup() as background,
    ):
        registry = ToolRegistry(resolved, servers, store, JudgeProcess())
        progress = Progress()
        planner = PlannerAgent(
            planning,
            registry,
            progress,
            identities=identities,
            start_s=limits.server_start_s,
            approval=settings.approval,
        )
        executor = ExecutorAgent(model, progress, limits)
        orchestrator = Orchestrator(
            store,
            registry,
            servers,
            planner,
            executor,
            Broker(limits, {entry.id: entry for entry in entries}, identities),
            runner_id=f"local:{os.getpid()}:{random.token_hex(4)}",
            parallel_calls=limits.calls_of_a_task,
        )
        expiry = Expiry(store, settings.approval.expires_after_s)
        sweeper = background.create_task(expiry.watch(), name="expiry")
        watch = background.create_task(registry.watch(eager=recover is True), name="catalogue")
        async with LocalRunner(
            orchestrator.run,
            orchestrator.servers_of,
            limit=limits.concurrent_tasks,
            share=limits.tasks_on_same_servers,
            grace_s=limits.shutdown_s,
        ) as runner:
            tasks = TaskManager(store, runner, planner, limits, settings.approval, expiry)
            runtime = Runtime(
                settings=settings,
                tasks=tasks,
                registry=registry,
                store=store,
                runner=runner,
                servers=servers,
                metrics=metrics,
                planner=planning.name,
                model=model,
                progress=progress,
                recovered=asyncio.Event(),
            )
            recovery = Recovery(store, runner, background)
            if recover is True:
                await recovery.begin()
                runtime.recovered.set()
            elif recover:
                for task_id in recover.intersection(await store.unfinished()):
                    await runner.submit(task_id)
            yield runtime
            await recovery.end()
        watch.cancel()
        sweeper.cancel()
