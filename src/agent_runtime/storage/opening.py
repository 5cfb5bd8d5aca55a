"""Chooses the store that the settings name. A store on another database is added here, and nowhere else."""

from contextlib import AbstractAsyncContextManager, AbstractContextManager

from agent_runtime.config import StorageSettings
from agent_runtime.services.ports import AppendObserver, TaskStore
from agent_runtime.storage.base import StoredDatabase
from agent_runtime.storage.sqlite.read_only import open_read_only
from agent_runtime.storage.sqlite.store import SqliteStore


def open_store(
    settings: StorageSettings, *, observe: AppendObserver | None = None
) -> AbstractAsyncContextManager[TaskStore]:
    """Return the store that the setting `storage.url` names, else the one in `data_dir`, open while its context lasts.

    The caller owns the data directory; see `owner`. Entering raises: ConfigurationError, AlreadyOwnedError,
    StoreUnavailableError.
    """
    if not settings.on_postgresql:
        return SqliteStore(settings.database_path, observe=observe)
    # Imported here, so that a service on SQLite does not load the driver.
    from agent_runtime.storage.postgres.connecting import read_database  # noqa: PLC0415
    from agent_runtime.storage.postgres.store import PostgresStore  # noqa: PLC0415

    return PostgresStore(read_database(settings), observe=observe)


def open_for_reading(settings: StorageSettings) -> AbstractContextManager[StoredDatabase]:
    """Return the journals of that store for reading only, whether or not a service runs on them.

    Entering raises: ConfigurationError, StoreUnavailableError.
    """
    if not settings.on_postgresql:
        return open_read_only(settings.database_path)
    from agent_runtime.storage.postgres.connecting import read_database  # noqa: PLC0415
    from agent_runtime.storage.postgres.read_only import open_database_read_only  # noqa: PLC0415

    return open_database_read_only(read_database(settings))
