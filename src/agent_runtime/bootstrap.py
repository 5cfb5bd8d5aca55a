"""The composition root: builds a running service from settings. Everything is wired here, by hand."""

import asyncio
import os
import secrets as random
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from agent_runtime.builtin import servers as builtin
from agent_runtime.builtin.looking import FileLook
from agent_runtime.config import NETWORK_VARIABLES, OpenAISettings, Secrets, Settings, StorageSettings, forget_secrets
from agent_runtime.domain.deny import with_denials
from agent_runtime.domain.outages import OutageLimits
from agent_runtime.domain.pauses import Pauses
from agent_runtime.domain.tools import BuiltinServer, ToolServer
from agent_runtime.judging.process import JudgeProcess
from agent_runtime.live.progress import Progress
from agent_runtime.mcp_servers.own_files import OwnFiles, find_own_files
from agent_runtime.mcp_servers.pool import ServerPool
from agent_runtime.mcp_servers.spares import SpareTimes
from agent_runtime.planners.choosing import choose_planner
from agent_runtime.registry.advice import Advice
from agent_runtime.registry.current import CurrentRegistry
from agent_runtime.registry.file import read_entries
from agent_runtime.registry.model_identity import ModelIdentity
from agent_runtime.registry.placeholders import advise_on_placeholders
from agent_runtime.registry.reloading import RegistryChanges, RegistryReloader
from agent_runtime.registry.resolved import EntryResolver, ResolvedEntry, ShownValues
from agent_runtime.registry.shared_folders import describe_shared_folders
from agent_runtime.registry.written_secrets import remember_written_secrets
from agent_runtime.runners.claims import Claims
from agent_runtime.runners.fleet import LocalFleet, QueuedFleet
from agent_runtime.runners.opening import open_local_runner, open_queued_runner
from agent_runtime.runners.recovery import Recovery
from agent_runtime.services.agent_service import PlannerAgent
from agent_runtime.services.broker import Broker
from agent_runtime.services.executor_agent import ExecutorAgent
from agent_runtime.services.expiry import Expiry
from agent_runtime.services.orchestrator import Orchestrator
from agent_runtime.services.planning_log import PlanningLog
from agent_runtime.services.ports import AppendObserver, LanguageModel, Planner, Runner, TaskStore, ToolServers
from agent_runtime.services.task_manager import TaskManager
from agent_runtime.services.tool_registry import ToolRegistry
from agent_runtime.states.agent_states import AgentStates
from agent_runtime.storage.opening import (
    make_catalogue,
    make_todos,
    open_queue,
    open_store,
    read_secret,
    relay_progress,
)
from agent_runtime.storage.owner import storage_files
from agent_runtime.storage.retention import Retention
from agent_runtime.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from agent_runtime.builtin.toolbox import Toolbox
    from agent_runtime.models.model import OpenAIModel

log = structlog.get_logger()

_SWITCH_INTERVAL_S = 0.0005
"""With Python's default of 5 ms, the store's writer thread would wait for seconds while the event loop is busy."""

_LAST_SERVERS_S = 2.0
_ALL_SERVERS_S = 12.0
"""The seconds that all servers still running share when the service stops, of its 15 (G10). After the last open call
they have at least `_LAST_SERVERS_S`.
"""


Recover = bool | frozenset[str]
"""True to resume all unfinished tasks of an earlier process, False for none; or the ids of those to resume."""


@dataclass(frozen=True, slots=True)
class LoadedRegistry:
    """A registry in use: its entries as they are started, and the files that are hidden from all servers.

    `advice` lists what its operator should change.
    """

    resolved: tuple[ResolvedEntry, ...]
    own: OwnFiles
    advice: list[Advice]


@dataclass(frozen=True, slots=True)
class Runtime:
    """A running service, as the APIs see it. `recovered` is set once every unfinished task was handed to the runner.

    `claims`: those of a process that takes its tasks from a queue; else None. `files` looks at the files that plans
    name; None where tasks run in other processes, perhaps on other machines.
    """

    settings: Settings
    tasks: TaskManager
    registry: ToolRegistry
    store: TaskStore
    states: AgentStates
    runner: Runner
    servers: ToolServers
    metrics: Metrics
    planner: str
    revision_help: str | None
    model: LanguageModel | None
    progress: Progress
    recovered: asyncio.Event
    reloader: RegistryReloader[LoadedRegistry]
    claims: Claims | None
    files: FileLook | None


class OpenStore(Protocol):
    """Opens the task store while its context lasts, for one process or shared; calls `observe` for each append."""

    def __call__(
        self, settings: StorageSettings, *, shared: bool = False, observe: AppendObserver | None = None
    ) -> AbstractAsyncContextManager[TaskStore]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a runtime that a test, or a program that embeds the service, can replace.

    With `spares` None the service keeps no spare processes of MCP servers. A service inside a command never keeps any.
    """

    open_store: OpenStore = open_store
    choose_planner: Callable[[Settings, LanguageModel | None], Planner] = choose_planner
    pauses: Pauses = field(default_factory=Pauses)
    spares: SpareTimes | None = field(default_factory=SpareTimes)


def read_registry(settings: Settings) -> tuple[ToolServer, ...]:
    """Return the entries of the operator's registry, and the built-in servers that need no entry.

    Raises: ConfigurationError naming each fault of the file.
    """
    return read_entries(settings, builtin.SERVERS, builtin.ALWAYS)


def resolve_registry(
    settings: Settings, secrets: Secrets, entries: Sequence[ToolServer], shown: ShownValues
) -> LoadedRegistry:
    """Resolve the entries of a registry. Its secrets are redacted from then on; `shown` redacts values in journals."""
    advice = [*remember_written_secrets(entries, secrets.redactor), *advise_on_placeholders(entries)]
    base_dir, data_dir = settings.tool_registry.absolute().parent, settings.storage.local_folder
    place_of = partial(builtin.place_of, base_dir=base_dir, data_dir=data_dir)
    resolved = EntryResolver(base_dir, place_of, secrets, shown).resolve(entries)
    files = storage_files(settings)
    own = find_own_files(settings, builtin.served_places(entries, base_dir, data_dir), files.database, files.lock)
    return LoadedRegistry(resolved, own, advice)


def make_pool(
    settings: Settings,
    secrets: Secrets,
    loaded: LoadedRegistry,
    spares: SpareTimes | None = None,
    pauses: Pauses = Pauses(),  # noqa: B008 - a frozen value
) -> ServerPool:
    """Return the pool that runs the servers of a registry once it is entered. `spares` None: it keeps no spare
    processes.
    """
    inherited = secrets.read_variables(NETWORK_VARIABLES) if settings.servers_inherit_proxy else {}
    base_dir, make_builtin = settings.tool_registry.absolute().parent, _builtin_maker(settings, loaded)
    return ServerPool(settings.limits, secrets, make_builtin, base_dir, loaded.own, inherited, spares, pauses.circuit_s)


def _builtin_maker(settings: Settings, loaded: LoadedRegistry) -> "Callable[[BuiltinServer], Toolbox]":
    base_dir, kept = settings.tool_registry.absolute().parent, loaded.own.paths
    places = {entry.server.id: entry.place for entry in loaded.resolved}
    data_dir, todos = settings.storage.local_folder, make_todos(settings.storage)

    def make(entry: BuiltinServer) -> "Toolbox":
        # A run that goes on with an entry that is no longer there has it made from its own words.
        place = places.get(entry.id)
        return builtin.create(entry.config, base_dir=base_dir, data_dir=data_dir, place=place, kept=kept, todos=todos)

    return make


def make_model(settings: OpenAISettings, secrets: Secrets) -> "OpenAIModel | None":
    """Return the language model of the settings; None if they name none."""
    if not settings.configured:
        return None
    from agent_runtime.models.model import OpenAIModel  # noqa: PLC0415 - many services have no model

    return OpenAIModel(settings, secrets.redactor)


@dataclass(frozen=True, slots=True)
class _Ground:
    """Everything about a service that is known before any part of it runs."""

    settings: Settings
    load_registry: Callable[[], LoadedRegistry]
    loaded: LoadedRegistry
    current: CurrentRegistry
    pool: ServerPool
    model: "OpenAIModel | None"
    planner: Planner
    metrics: Metrics
    redact: Callable[[str], str]
    files: FileLook


def _prepare(settings: Settings, secrets: Secrets, parts: Parts, recover: Recover, secret: bytes) -> _Ground:
    """Build the parts that the settings name, and start nothing. Raises: ConfigurationError."""
    model = make_model(settings.openai, secrets)
    planner = parts.choose_planner(settings, model)
    shown = ShownValues(secret)

    def load() -> LoadedRegistry:
        entries = with_denials(read_registry(settings), settings.approval.deny)
        loaded = resolve_registry(settings, secrets, entries, shown)
        for advice in loaded.advice:
            log.warning("tool_registry", server=advice.server_id, message=advice.message)
        return loaded

    loaded = load()
    identity = ModelIdentity(settings.openai, shown, model.identify) if model else None
    current = CurrentRegistry(loaded.resolved, identity)
    pool = make_pool(settings, secrets, loaded, parts.spares if recover is True else None, parts.pauses)
    files = FileLook(current, loaded.own.paths)
    return _Ground(settings, load, loaded, current, pool, model, planner, Metrics(), secrets.redactor.redact, files)


@dataclass(frozen=True, slots=True)
class _Services:
    """The services on an open store, without a runner."""

    registry: ToolRegistry
    progress: Progress
    planner: PlannerAgent
    broker: Broker
    orchestrator: Orchestrator
    expiry: Expiry
    states: AgentStates


def _wire(ground: _Ground, store: TaskStore, servers: ToolServers, pauses: Pauses, claims: Claims | None) -> _Services:
    """Make the services for this store and these servers. `claims` None: no other process runs tasks."""
    settings, limits = ground.settings, ground.settings.limits
    catalogue = make_catalogue(settings.storage, store, asks=settings.role != "api")
    registry = ToolRegistry(ground.current, servers, store, JudgeProcess(), catalogue)
    fleet = LocalFleet() if claims is None else QueuedFleet(ground.current, claims)
    progress = Progress()
    planner = PlannerAgent(
        ground.planner,
        registry,
        progress,
        PlanningLog(store, ground.redact),
        start_s=limits.server_start_s,
        install_s=limits.server_install_s,
        approval=settings.approval,
        fleet=fleet,
    )
    broker = Broker(limits, ground.current, pauses, progress, None if claims is None else claims.confirm)
    orchestrator = Orchestrator(
        store,
        registry,
        servers,
        planner,
        ExecutorAgent(ground.model, progress, limits),
        broker,
        OutageLimits(limits.outage_s, limits.planning_outage_s, pauses.in_outage),
        fleet,
        runner_id=f"{'local' if claims is None else socket.gethostname()}:{os.getpid()}:{random.token_hex(4)}",
        parallel_calls=limits.calls_of_a_task,
    )
    expiry = Expiry(store, settings.approval.expires_after_s)
    states = AgentStates(store.states, limits.state_bytes, settings.retention.state_s)
    return _Services(registry, progress, planner, broker, orchestrator, expiry, states)


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    secrets: Secrets,
    *,
    recover: Recover = True,
    parts: Parts = Parts(),
    secret: bytes | None = None,
) -> AsyncIterator[Runtime]:
    """Start the service on a data directory that the caller owns, and stop it on the way out.

    With `recover` True, every unfinished task of an earlier process is resumed, and every server is asked for its
    tools. Else only the named tasks are resumed, servers are asked when they are needed, and no spares are kept.
    `secret`: see `read_secret`, which is called without it.
    Raises: ConfigurationError, StoreUnavailableError.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    if secret is None:
        secret = await asyncio.to_thread(read_secret, settings.storage)
    ground = _prepare(settings, secrets, parts, recover, secret)
    base_dir = settings.tool_registry.absolute().parent
    if settings.is_shared and (shared := describe_shared_folders(ground.loaded.resolved, base_dir)):
        log.info("shared_folders", message=shared)
    async with (
        parts.open_store(settings.storage, shared=settings.is_shared, observe=ground.metrics.record_append) as store,
        ground.model or nullcontext(),
        ground.pool as servers,
        asyncio.TaskGroup() as background,
    ):
        claims = Claims() if settings.is_shared else None
        services = _wire(ground, store, servers, parts.pauses, claims)
        asks_servers = recover is True and settings.role != "api"
        watch = background.create_task(services.registry.watch(eager=asks_servers), name="catalogue")
        reloader = _make_reloader(ground, services.registry)
        reloads = background.create_task(reloader.watch(file=settings.watch_registry), name="reloads")
        async with (
            relay_progress(settings.storage, services.progress) if settings.is_shared else nullcontext(),
            _open_runner(ground, services, store, parts.pauses, claims, recover) as runner,
        ):
            runtime = _show_to_doors(ground, services, store, runner, reloader, claims)
            recovery = None if settings.is_shared else Recovery(store, runner, background, parts.pauses)
            await _take_up(runtime, recovery, recover)
            yield runtime
            servers.stop_within(max(settings.limits.shutdown_s + _LAST_SERVERS_S, _ALL_SERVERS_S))
            if recovery is not None:
                await recovery.end()
        reloads.cancel()
        watch.cancel()


@asynccontextmanager
async def _open_runner(
    ground: _Ground, services: _Services, store: TaskStore, pauses: Pauses, claims: Claims | None, recover: Recover
) -> AsyncIterator[Runner]:
    """Run tasks, and what one process of all has to do besides, while the context lasts."""
    settings, orchestrator = ground.settings, services.orchestrator
    sweeps = (services.expiry.watch, Retention(store, settings.retention.periods).watch, services.states.watch)
    if claims is None:
        local = open_local_runner(settings.limits, orchestrator.run, orchestrator.servers_of, pauses, sweeps)
        async with local as runner:
            yield runner
        return
    async with open_queued_runner(
        partial(open_queue, settings.storage),
        settings,
        store,
        orchestrator.run,
        orchestrator.servers_of,
        pauses,
        sweeps,
        lambda: ground.current.usable,
        only_own=recover is not True,
        note_taken_over=ground.metrics.record_taken_over,
    ) as queued:
        claims.runner = queued
        ground.current.on_change(queued.note_entries)
        yield queued


def _make_reloader(ground: _Ground, registry: ToolRegistry) -> RegistryReloader[LoadedRegistry]:
    settings = ground.settings

    def load() -> LoadedRegistry:
        loaded = ground.load_registry()
        forget_secrets(settings)
        return loaded

    def put_in_force(loaded: LoadedRegistry) -> RegistryChanges:
        servers = [entry.server for entry in loaded.resolved]
        ground.pool.replace(servers, _builtin_maker(settings, loaded), loaded.own)
        ground.files.kept = loaded.own.paths
        return registry.replace(loaded.resolved)

    return RegistryReloader(settings.tool_registry, load, put_in_force)


def _show_to_doors(
    ground: _Ground,
    services: _Services,
    store: TaskStore,
    runner: Runner,
    reloader: RegistryReloader[LoadedRegistry],
    claims: Claims | None,
) -> Runtime:
    """Return the view of the service for the APIs."""
    settings = ground.settings
    return Runtime(
        settings=settings,
        tasks=TaskManager(
            store,
            runner,
            services.planner,
            settings.limits,
            settings.approval,
            services.expiry,
            services.broker.judge,
        ),
        registry=services.registry,
        store=store,
        states=services.states,
        runner=runner,
        servers=ground.pool,
        metrics=ground.metrics,
        planner=ground.planner.name,
        revision_help=ground.planner.revision_help,
        model=ground.model,
        progress=services.progress,
        recovered=asyncio.Event(),
        reloader=reloader,
        claims=claims if settings.role != "api" else None,
        files=ground.files if settings.role != "api" else None,
    )


async def _take_up(runtime: Runtime, recovery: Recovery | None, recover: Recover) -> None:
    """Resume the unfinished tasks of an earlier process: all, those named, or none. A shared runner has done it."""
    if recover is True:
        if recovery is not None:
            await recovery.begin()
        runtime.recovered.set()
    elif recover:
        for task_id in recover.intersection(await runtime.store.list_unfinished()):
            await runtime.runner.wake(task_id)
