"""The database as a file on disk: created private, and checked while it is open."""

import os
from pathlib import Path

from agent_runtime.domain.errors import ConfigurationError, StoreUnavailableError

_Identity = tuple[int, int]
"""The device and the inode of a file, which identify it under any name."""


def create_database_file(path: Path) -> int:
    """Open the file for reading and writing, create it if there is none, and return the descriptor.

    Raises: ConfigurationError where the path cannot hold a database.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives the same mode to the files that it puts beside this one.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(describe_unusable(path, error.strerror or str(error))) from error


def describe_unusable(path: Path, reason: str) -> str:
    return f"The database {path} cannot be used: {reason}. Set storage.url or data_dir to a place that can be written."


class DatabaseFile:
    """An open database: detects that its path, or that of its write-ahead log, leads to another file than before.

    Data written to a file that was replaced or deleted is lost when the process ends, so it must not be acknowledged
    (G1). Any thread may call `check`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: dict[str, _Identity] = {}
        self._log: dict[str, _Identity] = {}

    def remember(self) -> None:
        """Remember the files that a connection has just opened.

        Raises: StoreUnavailableError where the database is another file than at first.
        """
        if self._opened:
            _compare(self._opened)
        else:
            self._opened = {str(self.path): _identify(str(self.path))}
        log = f"{os.path.realpath(self.path)}-wal"
        self._log = {log: _identify(log)}

    def forget_log(self) -> None:
        """Expect no write-ahead log: SQLite removes it with its last connection."""
        self._log = {}

    def check(self) -> None:
        """Check that both paths lead to the files that are open. Raises: StoreUnavailableError."""
        _compare(self._opened)
        _compare(self._log)


def _compare(remembered: dict[str, _Identity]) -> None:
    for name, identity in remembered.items():
        if _identify(name) != identity:
            raise StoreUnavailableError(_REPLACED)


def _identify(name: str) -> _Identity:
    try:
        status = os.stat(name)  # noqa: PTH116 - twice for each commit: a Path takes three times as long
    except FileNotFoundError as error:
        raise StoreUnavailableError(_REPLACED) from error
    except OSError as error:
        raise StoreUnavailableError(
            f"The store cannot be used now: the database file cannot be found ({error.strerror}). Nothing was changed."
        ) from error
    return status.st_dev, status.st_ino


_REPLACED = (
    "The store cannot be used now: the database file or its -wal file was replaced or deleted. Nothing was changed; "
    "the operator must put the file back, or restart the service."
)
