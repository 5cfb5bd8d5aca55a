"""`agent-runtime serve`: the service, until it is told to stop."""

import argparse

import structlog

from agent_runtime.cli.service import settings_of
from agent_runtime.storage.owner import acquire

log = structlog.get_logger()


def serve(options: argparse.Namespace) -> int:
    """Own the data directory and serve it. Raises: ConfigurationError, StoreUnavailableError."""
    settings, secrets = settings_of(options)
    for warning in settings.config_warnings:
        log.warning("configuration", message=warning)
    with acquire(settings.data_dir) as owner:
        # Imported with the lock in hand: a second service is refused at once.
        from agent_runtime.api.server import serve as serve_api  # noqa: PLC0415

        serve_api(settings, secrets, owner.announce)
    return 0
