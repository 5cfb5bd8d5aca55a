"""`GET /metrics` for Prometheus. Most values are read from the running service when they are requested."""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import structlog
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from starlette.responses import Response

from agent_runtime import __version__
from agent_runtime.api.deps import Service
from agent_runtime.api.scopes import requires
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.sharing import FleetFigures
from agent_runtime.domain.status import TaskStatus

log = structlog.get_logger()

T = TypeVar("T")

STORE_READ_S = 1.0
"""Time limit for counting the tasks in the store. If it expires, all other metrics are still returned."""

router = APIRouter(tags=["Health"])

_TEXT = {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"}
_PROCESS = ProcessCollector(registry=None)


@router.get("/metrics", response_class=Response, responses={200: _TEXT})
@requires("read")
async def metrics(request: Request, runtime: Service) -> Response:
    """Return the metrics of the service for Prometheus. A service with keys requires the scope `read`."""
    text = await exposition(runtime, len(request.app.state.streams))
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def exposition(runtime: Runtime, streams: int) -> bytes:
    """Return all metrics as text: the current state, and the counters since the start."""
    counts = await _read_store(runtime.store.count(), "tasks_not_counted")
    fleet = await _read_store(runtime.store.measure_fleet(), "fleet_not_measured")
    gauges = [*_gauges(runtime, counts, streams), *(_fleet_gauges(fleet) if fleet else ())]
    look = _Look(gauges, runtime.metrics.registry)
    # In a thread: with many tools, formatting takes tens of milliseconds.
    return await asyncio.to_thread(generate_latest, look)


class _Look:
    """A snapshot of the service, in the shape of a Prometheus collector."""

    def __init__(self, gauges: Sequence[Metric], registry: CollectorRegistry) -> None:
        self._gauges = gauges
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges
        yield from self._registry.collect()
        yield from _PROCESS.collect()


async def _read_store(reading: Awaitable[T], failure: str) -> T | None:
    """Return what the store answers; None, with a line of this name in the log, where that takes too long."""
    try:
        async with asyncio.timeout(STORE_READ_S):
            return await reading
    except (StoreUnavailableError, TimeoutError) as error:
        log.warning(failure, reason=str(error) or f"it took longer than {STORE_READ_S:g} s")
        return None


def _fleet_gauges(fleet: FleetFigures) -> Iterator[Metric]:
    jobs = [(("waiting",), fleet.waiting), (("running",), fleet.running), (("later",), fleet.later)]
    told = "Jobs in the queue of all replicas: waiting for a worker, running, or waiting for the end of an outage."
    yield _gauge("fleet_jobs", told, ("state",), jobs)
    told = "Seconds for which the oldest waiting job has waited for a worker."
    yield _gauge("fleet_queue_age_seconds", told, (), [((), fleet.oldest_s)])
    yield _gauge("fleet_workers", "Living replicas that run tasks.", (), [((), fleet.workers)])
    yield _gauge("fleet_replicas", "Replicas that have the store open.", (), [((), fleet.replicas)])


def _gauges(runtime: Runtime, counts: Mapping[TaskStatus, int] | None, streams: int) -> Iterator[Metric]:
    yield _gauge("info", "The version of the service.", ("version",), [((__version__,), 1)])
    if counts is not None:
        tasks = [((status.value,), counts.get(status, 0)) for status in TaskStatus]
        yield _gauge("tasks", "Tasks in the store, by status.", ("status",), tasks)
    queue = [((state,), number) for state, number in runtime.runner.queue.items()]
    yield _gauge(
        "runner_tasks",
        "Tasks that run, wait for their turn, or rest after a failure or in an outage.",
        ("state",),
        queue,
    )
    sharing = runtime.store.sharing
    if sharing is not None:
        told = "1 if this replica writes the chain of commits; one of all does."
        yield _gauge("chain_writer", told, (), [((), int(sharing.writes_chain))])
        told = "Seconds since this replica last heard, or looked, what other replicas have committed."
        yield _gauge("listener_age_seconds", told, (), [((), sharing.listener_age_s)])
    enabled = [status for status in runtime.registry.statuses() if status.enabled]
    open_now = runtime.servers.connections
    processes = [((server.id,), open_now[server.id]) for server in enabled if server.type == "local_stdio"]
    yield _gauge(
        "mcp_processes", "Processes of MCP servers that are not gone yet, without spares.", ("server",), processes
    )
    kept = runtime.servers.spares
    spares = [((server.id,), kept[server.id]) for server in enabled if server.type == "local_stdio"]
    yield _gauge("mcp_spares", "Spare processes of MCP servers, which no task uses yet.", ("server",), spares)
    connected = [((server.id, server.type), int(server.connected)) for server in enabled]
    told = "1 if the server answered when its tools were last queried."
    yield _gauge("mcp_server_connected", told, ("server", "type"), connected)
    circuits = [((server.id,), int(runtime.servers.circuits.get(server.id) == "open")) for server in enabled]
    told = "Whether the server is left alone for now, because it failed so often."
    yield _gauge("mcp_server_circuit_open", told, ("server",), circuits)
    if runtime.model is not None:
        circuit = runtime.model.status().circuit
        told = "1 while the model gets no requests because it failed too often."
        yield _gauge("model_circuit_open", told, (), [((), int(circuit == "open"))])
    yield _gauge("stream_clients", "Open streams.", (), [((), streams)])
    limit = runtime.settings.limits.stream_clients
    yield _gauge("stream_clients_limit", "The limit of open streams.", (), [((), limit)])


def _gauge(name: str, told: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(f"agent_runtime_{name}", told, labels=labels)
    for labelled, value in values:
        family.add_metric(labelled, value)
    return family
