"""The service as callers see it: its state, its servers and its model."""

from collections.abc import Iterable, Mapping

from agent_runtime.api.service_shapes import ModelsStatusView, RegistryChangesView, ServerStatusView, StatusView
from agent_runtime.domain.status import TaskStatus
from agent_runtime.live.breaker import CircuitState
from agent_runtime.registry.reloading import RegistryChanges
from agent_runtime.services.ports import LanguageModel, ToolServers
from agent_runtime.services.tool_registry import ServerStatus, ToolRegistry


def service_view(
    planner: str,
    model: LanguageModel | None,
    version: str,
    counts: Mapping[TaskStatus, int],
    servers: Iterable[ServerStatus],
) -> StatusView:
    return {
        "status": "ok",
        "version": version,
        "planner": planner,
        "model": model.status().model if model else None,
        "tasks": {status.value: counts[status] for status in TaskStatus if counts.get(status)},
        "servers": {server.id: server.detail for server in servers if server.enabled},
    }


def status_view(status: ServerStatus, circuit: CircuitState, spares: int, stderr: str) -> ServerStatusView:
    return {
        "id": status.id,
        "name": status.name,
        "type": status.type,
        "enabled": status.enabled,
        "connected": status.connected,
        "circuit": circuit,
        "spares": spares,
        "detail": status.detail,
        "stderr": stderr,
    }


def status_views(registry: ToolRegistry, servers: ToolServers) -> list[ServerStatusView]:
    """Return the state of every server of the registry."""
    circuits, spares = servers.circuits, servers.spares
    return [
        status_view(one, circuits.get(one.id, "closed"), spares[one.id], servers.read_stderr(one.id))
        for one in registry.statuses()
    ]


def changes_view(changes: RegistryChanges) -> RegistryChangesView:
    return {"added": list(changes.added), "changed": list(changes.changed), "removed": list(changes.removed)}


def models_view(planner: str, revision_help: str | None, model: LanguageModel | None) -> ModelsStatusView:
    """Return the state of the model that is known without a request to it."""
    if model is None:
        return {"planner": planner, "revision_help": revision_help, "model": None}
    status = model.status()
    return {
        "planner": planner,
        "revision_help": revision_help,
        "model": {
            "endpoint": status.endpoint,
            "model": status.model,
            "api": status.api,
            "circuit": status.circuit,
            "output": status.output,
            "last_error": status.last_error,
        },
    }
