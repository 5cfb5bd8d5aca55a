"""Chooses the store that the settings name. A store on another database is added here, and nowhere else."""

from contextlib import AbstractAsyncContextManager, AbstractContextManager

from agent_runtime.config import StorageSettings
from agent_runtime.services.ports import AppendObserver, TaskStore
from agent_runtime.storage.sqlite.read_only import ReadOnlyDatabase, open_read_only
from agent_runtime.storage.sqlite.store import SqliteStore


def open_store(
    settings: StorageSettings, *, observe: AppendObserver | None = None
) -> AbstractAsyncContextManager[TaskStore]:
    """Return the store that the setting `storage.url` names, else the one in `data_dir`, open while its context lasts.

    The caller owns it; see `owner`. Entering raises: ConfigurationError, StoreUnavailableError.
    """
    return SqliteStore(settings.database_path, observe=observe)


def open_for_reading(settings: StorageSettings) -> AbstractContextManager[ReadOnlyDatabase]:
    """Return the journals of that store for reading only, whether or not a service runs on them.

    Entering raises: ConfigurationError.
    """
    return open_read_only(settings.database_path)
