"""The store that the tests use: SQLite, or PostgreSQL with AGENT_RUNTIME_TEST_STORE=postgresql in the environment."""

import os
from typing import Any

from agent_runtime.config.settings import AuthSettings
from postgres_server import PostgresServer

ON_POSTGRESQL = os.environ.get("AGENT_RUNTIME_TEST_STORE") == "postgresql"

servers: list[PostgresServer] = []
"""The server of this process of pytest, once it runs."""


def use_store(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a service with an empty store of the kind that is tested, unless they name one."""
    if not servers or "storage" in settings:
        return settings
    auth = settings.get("auth", {})
    if isinstance(auth, AuthSettings):
        auth = auth.model_dump(exclude_unset=True)
    mode = "keys" if auth.get("keys_file") or auth.get("keys") else "anonymous"
    return settings | {"storage": {"url": servers[0].create_schema()}, "auth": {"mode": mode, **auth}}
