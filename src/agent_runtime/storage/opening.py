"""Chooses the store that the settings name. A store on another database is added here, and nowhere else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from agent_runtime.config import StorageSettings
from agent_runtime.live.progress import Piece, Progress
from agent_runtime.services.ports import AppendObserver, Catalogue, TaskStore
from agent_runtime.storage import secret_file
from agent_runtime.storage.base import StoredDatabase
from agent_runtime.storage.local_catalogue import LocalCatalogue
from agent_runtime.storage.schema import Schema
from agent_runtime.storage.sqlite import database
from agent_runtime.storage.sqlite.read_only import open_read_only
from agent_runtime.storage.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from agent_runtime.storage.postgres.connecting import Database
    from agent_runtime.storage.postgres.queue import PostgresJobQueue
    from agent_runtime.storage.postgres.todos import PostgresTodos


def open_store(
    settings: StorageSettings, *, shared: bool = False, observe: AppendObserver | None = None
) -> AbstractAsyncContextManager[TaskStore]:
    """Return the store that the setting `storage.url` names, else the one in `data_dir`, open while its context lasts.

    `shared`: other processes may open it at the same time, which takes PostgreSQL.
    The caller owns the data directory; see `owner`. Entering raises: ConfigurationError, AlreadyOwnedError,
    StoreUnavailableError.
    """
    if not settings.on_postgresql:
        return SqliteStore(settings.database_path, observe=observe)
    # Imported here, so that a service on SQLite does not load the driver.
    from agent_runtime.storage.postgres.store import PostgresStore  # noqa: PLC0415

    return PostgresStore(_read_database(settings), exclusive=not shared, observe=observe)


def open_queue(settings: StorageSettings) -> "PostgresJobQueue":
    """Return the queue of jobs beside a store on PostgreSQL, open while its context lasts."""
    # Imported here, because it takes a second and only processes that share their tasks need it.
    from agent_runtime.storage.postgres.queue import PostgresJobQueue  # noqa: PLC0415

    return PostgresJobQueue(_read_database(settings))


def read_secret(settings: StorageSettings) -> bytes:
    """Return the secret behind stream tickets and shown values: that of the data directory, or on PostgreSQL that of
    the database, which all processes share. Blocks; waits for the database for a while.

    The first process on a database gives it the secret of its data directory, if there is one.
    Raises: ConfigurationError, AlreadyOwnedError, StoreUnavailableError.
    """
    if not settings.on_postgresql:
        return secret_file.read_secret(settings.folder)
    from agent_runtime.storage.postgres.shared_secret import read_shared_secret  # noqa: PLC0415

    return read_shared_secret(_read_database(settings), secret_file.find_secret(settings.folder))


def make_todos(settings: StorageSettings) -> "PostgresTodos | None":
    """Return the todo list of the database; None where it is in a file of the data directory."""
    if not settings.on_postgresql:
        return None
    from agent_runtime.storage.postgres.todos import PostgresTodos  # noqa: PLC0415

    return PostgresTodos(_read_database(settings))


@asynccontextmanager
async def relay_progress(settings: StorageSettings, progress: Progress) -> AsyncIterator[None]:
    """Exchange progress with the other processes on this PostgreSQL database while the context lasts."""
    from agent_runtime.storage.postgres.progress_relay import ProgressRelay  # noqa: PLC0415

    loop = asyncio.get_running_loop()

    def hear(task_id: str, piece: Piece) -> None:
        loop.call_soon_threadsafe(progress.hear, task_id, piece)

    progress.relay = relay = ProgressRelay(_read_database(settings), hear, lambda: progress.followed)
    relay.start()
    try:
        yield
    finally:
        progress.relay = None
        await asyncio.to_thread(relay.stop)


def make_catalogue(settings: StorageSettings, store: TaskStore, *, asks: bool) -> Catalogue:
    """Return the catalogue of what the servers of the registry list, beside the store that `open_store` has opened.

    `asks`: this process asks servers itself; otherwise those do that share the store.
    """
    if settings.on_postgresql:
        from agent_runtime.storage.postgres.catalogue import SharedCatalogue  # noqa: PLC0415
        from agent_runtime.storage.postgres.store import PostgresStore  # noqa: PLC0415

        if isinstance(store, PostgresStore) and store.is_shared:
            return SharedCatalogue(store, asks=asks)
    return LocalCatalogue(store)


def open_for_reading(settings: StorageSettings) -> AbstractContextManager[StoredDatabase]:
    """Return the journals of that store for reading only, whether or not a service runs on them.

    Entering raises: ConfigurationError, StoreUnavailableError.
    """
    if not settings.on_postgresql:
        return open_read_only(settings.database_path)
    from agent_runtime.storage.postgres.read_only import open_database_read_only  # noqa: PLC0415

    return open_database_read_only(_read_database(settings))


def read_schema(settings: StorageSettings) -> Schema:
    """Return the state of the tables of that store, and change nothing.

    Raises: ConfigurationError where there is no such database, or one of a newer version; StoreUnavailableError.
    """
    if not settings.on_postgresql:
        return database.read_schema(settings.database_path)
    from agent_runtime.storage.postgres import migrating  # noqa: PLC0415

    return migrating.read_schema(_read_database(settings))


def update_schema(settings: StorageSettings) -> Schema:
    """Bring the tables of that store up to date, and return their state after that.

    The caller owns a SQLite database. Raises: AlreadyOwnedError, ConfigurationError, StoreUnavailableError.
    """
    if not settings.on_postgresql:
        return database.update_schema(settings.database_path)
    from agent_runtime.storage.postgres import migrating  # noqa: PLC0415

    return migrating.update_schema(_read_database(settings))


def _read_database(settings: StorageSettings) -> "Database":
    from agent_runtime.storage.postgres.connecting import read_database  # noqa: PLC0415 - loads the driver

    return read_database(settings)
