"""`agent-runtime serve`: run the service until it is stopped."""

import argparse
import gc

import structlog

from agent_runtime.cli.service import settings_of
from agent_runtime.config import protect_process
from agent_runtime.processes.tree import keep_orphans
from agent_runtime.storage.owner import own_storage

log = structlog.get_logger()


def serve(options: argparse.Namespace) -> int:
    """Lock the data directory and serve it. Raises: ConfigurationError, StoreUnavailableError."""
    settings, secrets = settings_of(options)
    for warning in settings.config_warnings:
        log.warning("configuration", message=warning)
    protect_process(settings)
    with own_storage(settings) as owner, keep_orphans():
        # Imported after locking, so that a second service is refused at once.
        from agent_runtime.api.server import serve as serve_api  # noqa: PLC0415

        _collect_less_often()
        serve_api(settings, secrets, owner.announce)
    return 0


def _collect_less_often() -> None:
    """Exclude modules and schemas from garbage collection, which took a sixth of the CPU time of a task."""
    gc.collect()
    gc.freeze()
