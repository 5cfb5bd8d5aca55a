"""The service as callers see it: its state, its servers and its model."""

from collections.abc import Iterable, Mapping

from agent_runtime.api.service_shapes import ModelsStatusView, RegistryChangesView, ServerStatusView, StatusView
from agent_runtime.domain.status import TaskStatus
from agent_runtime.live.breaker import CircuitState
from agent_runtime.registry.reloading import RegistryChanges
from agent_runtime.services.ports import LanguageModel
from agent_runtime.services.tool_registry import ServerStatus


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


def status_view(status: ServerStatus, circuit: CircuitState, spares: int) -> ServerStatusView:
    return {
        "id": status.id,
        "name": status.name,
        "type": status.type,
        "enabled": status.enabled,
        "connected": status.connected,
        "circuit": circuit,
        "spares": spares,
        "detail": status.detail,
    }


def changes_view(changes: RegistryChanges) -> RegistryChangesView:
    return {"added": list(changes.added), "changed": list(changes.changed), "removed": list(changes.removed)}


def models_view(planner: str, model: LanguageModel | None) -> ModelsStatusView:
    """Return the state of the model that is known without a request to it."""
    if model is None:
        return {"planner": planner, "model": None}
    status = model.status()
    return {
        "planner": planner,
        "model": {
            "endpoint": status.endpoint,
            "model": status.model,
            "api": status.api,
            "circuit": status.circuit,
            "output": status.output,
            "last_error": status.last_error,
        },
    }
