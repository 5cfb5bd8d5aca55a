"""The adapters of the port `TaskStore`, each as a function that opens a store on the same data."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from agent_runtime.services.ports import TaskStore
from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.store import PostgresStore
from agent_runtime.storage.sqlite.store import SqliteStore
from memory_store import Memory, MemoryStore

OpenStore = Callable[[], AbstractAsyncContextManager[TaskStore]]
"""Opens the store on the same data each time: closing and opening it again is a restart."""


def _sqlite(request: pytest.FixtureRequest) -> OpenStore:
    directory = request.getfixturevalue("tmp_path")
    return lambda: SqliteStore(directory / "tasks.db")


def _sqlite_without_memory(request: pytest.FixtureRequest) -> OpenStore:
    directory = request.getfixturevalue("tmp_path")
    return lambda: SqliteStore(directory / "tasks.db", cache_bytes=0)


def _memory(_: pytest.FixtureRequest) -> OpenStore:
    memory = Memory()
    return lambda: MemoryStore(memory)


def _postgres(request: pytest.FixtureRequest) -> OpenStore:
    database = Database(request.getfixturevalue("postgres_url"))
    return lambda: PostgresStore(database)


def _postgres_shared(request: pytest.FixtureRequest) -> OpenStore:
    database = Database(request.getfixturevalue("postgres_url"))
    return lambda: PostgresStore(database, exclusive=False)


ADAPTERS = {
    "sqlite": _sqlite,
    "sqlite, nothing cached": _sqlite_without_memory,
    "memory": _memory,
    "postgresql": _postgres,
    "postgresql, shared": _postgres_shared,
}
