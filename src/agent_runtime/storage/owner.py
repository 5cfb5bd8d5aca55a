"""One process owns a data directory: it holds a lock that the kernel drops when it dies, however it dies."""

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent_runtime.domain.errors import ConfigurationError, DataDirectoryOwnedError

LOCK_FILE = "agent-runtime.lock"

_CONTENT_BYTES = 4096
"""The content is always padded to this size: one write replaces all of it, and no reader sees the half of two."""

_PATIENCE_S = 0.5
"""How long to try: whoever asks for the owner holds a shared lock for an instant."""


@dataclass(frozen=True, slots=True)
class OwnerInfo:
    """Who owns a data directory. A field is null while the owner has not yet said."""

    pid: int | None
    url: str | None
    started_at: str | None


class Owner:
    """The claim of this process on a data directory. `announce` tells other commands where to find it."""

    def __init__(self, data_dir: Path, lock: int) -> None:
        self.data_dir = data_dir
        self._lock = lock
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.announce(None)

    def announce(self, url: str | None) -> None:
        """Write the URL at which this process serves. Raises: ConfigurationError where the disk refuses."""
        content = json.dumps({"pid": os.getpid(), "url": url, "started_at": self._started_at}).encode()
        try:
            os.pwrite(self._lock, content.ljust(_CONTENT_BYTES), 0)
        except OSError as error:
            raise _not_writable(self.data_dir, error) from error


@contextmanager
def acquire(data_dir: Path) -> Iterator[Owner]:
    """Own the data directory for the duration; it is created where it does not exist, closed to other users.

    Raises: DataDirectoryOwnedError naming the owner; ConfigurationError where the directory cannot be used.
    """
    _prepare(data_dir)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC  # a child must not keep the lock alive
        lock = os.open(data_dir / LOCK_FILE, flags, 0o600)
    except OSError as error:
        raise _not_writable(data_dir, error) from error
    try:
        _lock_or_refuse(data_dir, lock)
        yield Owner(data_dir, lock)
    finally:
        os.close(lock)


def find_owner(data_dir: Path) -> OwnerInfo | None:
    """The live owner of a data directory, or None; what a dead process left in the file does not count.

    Raises: ConfigurationError where the directory cannot be read.
    """
    try:
        lock = os.open(data_dir / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationError(f"The data directory {data_dir} cannot be read: {error.strerror}.") from error
    try:
        return None if _locked(data_dir, lock, fcntl.LOCK_SH) else _read(lock)
    finally:
        os.close(lock)


def _prepare(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = data_dir.stat()
        if status.st_mode & stat.S_ISVTX:
            raise ConfigurationError(
                f"The data directory {data_dir} is shared with other users: set data_dir to one of its own in it."
            )
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            data_dir.chmod(0o700)  # prompts and results are nobody else's business
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigurationError(f"The data directory {data_dir} is a file: set data_dir to a directory.") from error
    except OSError as error:
        raise _not_writable(data_dir, error) from error


def _lock_or_refuse(data_dir: Path, lock: int) -> None:
    give_up_at = time.monotonic() + _PATIENCE_S
    while not _locked(data_dir, lock, fcntl.LOCK_EX):
        if time.monotonic() > give_up_at:
            owner = _read(lock)
            where = f" and serves at {owner.url}" if owner.url else ""
            raise DataDirectoryOwnedError(
                f"The data directory {data_dir} is owned by process {owner.pid or '(unknown)'}, which runs{where}. "
                "Use that one, stop it, or set another data_dir.",
                url=owner.url,
                pid=owner.pid,
            )
        time.sleep(0.02)
    os.fchmod(lock, 0o600)


def _locked(data_dir: Path, lock: int, kind: int) -> bool:
    """Whether the lock could be had. Raises: ConfigurationError where the file system has no locks."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ConfigurationError(
            f"The file system of the data directory {data_dir} cannot lock files ({error.strerror}): "
            "set data_dir to a local directory."
        ) from error
    return True


def _read(lock: int) -> OwnerInfo:
    """What the owner wrote. It writes an instant after it has locked, so what is not there is tried again."""
    for _ in range(5):
        with suppress(ValueError):
            content = json.loads(os.pread(lock, _CONTENT_BYTES, 0))
            if isinstance(content, dict):
                return OwnerInfo(content.get("pid"), content.get("url"), content.get("started_at"))
        time.sleep(0.01)
    return OwnerInfo(None, None, None)


def _not_writable(data_dir: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The data directory {data_dir} cannot be written: {error.strerror}. Set data_dir (AGENT_RUNTIME_DATA_DIR, "
        "--data-dir) to a directory that this user may write."
    )
