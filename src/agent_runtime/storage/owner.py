"""Makes one process the owner of a database and its data directory, by locks that the kernel frees with the process.

Two kinds of locks are held, because each covers what the other does not:

* on lock files, one beside the database and one in the data directory (the same file by default). They say who the
  owner is and where it serves. Earlier versions lock the one in the data directory too.
* on the database file itself. It holds whatever name leads to the file, and after a lock file was removed.
"""

import fcntl
import json
import os
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent_runtime.config import Settings
from agent_runtime.domain.errors import AlreadyOwnedError, ConfigurationError
from agent_runtime.storage.sqlite.database_file import create_database_file

LOCK_FILE = "agent-runtime.lock"

_CONTENT_BYTES = 4096
"""The content is always padded to this size, so that one write replaces all of it and readers never see half of it."""

_PATIENCE_S = 0.5
"""How long to try for the lock: those who look for the owner hold a shared lock for an instant."""

_OWNER_BYTE = 2**62
"""The byte of the database file that is locked: far beyond the data and the bytes that SQLite locks."""


@dataclass(frozen=True, slots=True)
class OwnerInfo:
    """The owner of a database. A field is None until the owner has written it.

    `brief`: it is a command that serves others beside its own work, and ends with it.
    """

    pid: int | None
    url: str | None
    started_at: str | None
    brief: bool = False


class Owner:
    """The ownership of this process. `announce` tells other commands where to find it."""

    def __init__(self, locks: Sequence["_LockFile"]) -> None:
        self._try_lock = locks
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.announce(None)

    def announce(self, url: str | None, *, brief: bool = False) -> None:
        """Write the URL at which this process serves. Raises: ConfigurationError where the disk refuses."""
        said = {"pid": os.getpid(), "url": url, "started_at": self._started_at, "brief": brief}
        content = json.dumps(said).encode()
        for lock in self._try_lock:
            lock.write(content)


@contextmanager
def acquire(data_dir: Path, database: Path | None) -> Iterator[Owner]:
    """Own the database and the data directory while the context lasts. Create both where they do not exist.

    With `database` None only the data directory is owned: a database on a server is owned by the session that writes.

    Raises: AlreadyOwnedError naming the owner; ConfigurationError where one of them cannot be used.
    """
    _prepare(data_dir)
    with ExitStack() as held:
        locks = list(_lock_files(data_dir, database))
        for lock in locks:
            held.enter_context(lock)
        if database is not None:
            held.enter_context(_lock_database(database))
        yield Owner(locks)


@contextmanager
def own_database(database: Path) -> Iterator[None]:
    """Own a database, without a data directory, while the context lasts. Create it if it does not exist.

    Raises: as `acquire`.
    """
    lock = _LockFile(lock_file_of(database), f"database {database}", "storage.url")
    with lock, _lock_database(database):
        Owner([lock])
        yield


def find_owner(data_dir: Path, database: Path | None) -> OwnerInfo | None:
    """Return the live owner of the database or the data directory. Lock files of dead processes do not count.

    Raises: ConfigurationError where a lock file cannot be read.
    """
    for lock in _lock_files(data_dir, database):
        owner = lock.find_owner()
        if owner is not None:
            return owner
    return None


def own_storage(settings: Settings) -> AbstractContextManager[Owner]:
    """Own the data directory and the database that the settings name, while the context lasts. Raises: as `acquire`."""
    return acquire(settings.data_dir, storage_files(settings).database)


def find_storage_owner(settings: Settings) -> OwnerInfo | None:
    """Return the live owner of the storage that the settings name. Raises: as `find_owner`."""
    return find_owner(settings.data_dir, storage_files(settings).database)


@dataclass(frozen=True, slots=True)
class StorageFiles:
    """The files of the store that the settings name: the database, None on a server, and the lock beside it."""

    database: Path | None
    lock: Path


def storage_files(settings: Settings) -> StorageFiles:
    """Return the files of the store; they need not exist yet."""
    if settings.storage.on_postgresql:
        return StorageFiles(None, settings.data_dir / LOCK_FILE)
    return StorageFiles(settings.storage.database_path, lock_file_of(settings.storage.database_path))


def storage_exists(settings: Settings) -> bool:
    """Return True if the store of the settings was created. A database on a server counts as created."""
    database = storage_files(settings).database
    return database is None or database.exists()


def lock_file_of(database: Path) -> Path:
    """Return the lock file of a database, which is beside its real path."""
    real = Path(os.path.realpath(database))
    return real.with_name(real.name.removesuffix(".db") + ".lock")


def _lock_files(data_dir: Path, database: Path | None) -> Iterator["_LockFile"]:
    inside = Path(os.path.realpath(data_dir)) / LOCK_FILE
    beside = inside if database is None else lock_file_of(database)
    if not _is_same_file(beside, inside):
        yield _LockFile(beside, f"database {database}", "storage.url")
    yield _LockFile(inside, f"data directory {data_dir}", "data_dir")


def _is_same_file(one: Path, other: Path) -> bool:
    """Return whether two paths name one file. It need not exist yet, and its folder may be mounted twice."""
    with suppress(OSError):
        return one.name == other.name and one.parent.samefile(other.parent)
    return one == other


class _LockFile:
    """A file that one process locks while it owns `what`. `setting` is the setting that names another place."""

    def __init__(self, path: Path, what: str, setting: str) -> None:
        self._path = path
        self._what = what
        self._setting = setting
        self._descriptor = -1

    def __enter__(self) -> None:
        """Take the lock. Raises: AlreadyOwnedError, ConfigurationError."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC  # a child must not keep the lock alive
            self._descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise self._make_write_error(error) from error
        try:
            self._lock_or_refuse()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def write(self, content: bytes) -> None:
        """Replace the content. Raises: ConfigurationError where the disk refuses."""
        try:
            os.pwrite(self._descriptor, content.ljust(_CONTENT_BYTES), 0)
        except OSError as error:
            raise self._make_write_error(error) from error

    def find_owner(self) -> OwnerInfo | None:
        """Return the process that holds the lock now. Raises: ConfigurationError where the file cannot be read."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(
                f"The lock file {self._path} of the {self._what} cannot be read: {error.strerror}."
            ) from error
        try:
            return None if self._try_lock(descriptor, fcntl.LOCK_SH) else _read(descriptor)
        finally:
            os.close(descriptor)

    def _lock_or_refuse(self) -> None:
        give_up_at = time.monotonic() + _PATIENCE_S
        while not self._try_lock(self._descriptor, fcntl.LOCK_EX):
            if time.monotonic() > give_up_at:
                raise _make_owned_error(self._what, self._setting, _read(self._descriptor))
            time.sleep(0.02)
        os.fchmod(self._descriptor, 0o600)

    def _try_lock(self, descriptor: int, kind: int) -> bool:
        """Return whether the lock was taken. Raises: ConfigurationError where the file system has no locks."""
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _make_lock_error(self._what, self._setting, error) from error
        return True

    def _make_write_error(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"The lock file {self._path} of the {self._what} cannot be written: {error.strerror}. "
            f"Set {self._setting} to a place that this user may write."
        )


@contextmanager
def _lock_database(database: Path) -> Iterator[None]:
    """Hold the lock on the database file. Raises: AlreadyOwnedError, ConfigurationError.

    SQLite loses its own locks when any descriptor of the file is closed in this process, so this one is closed last.
    """
    what, setting = f"database {database}", "storage.url"
    descriptor = create_database_file(database)
    try:
        try:
            # A lock of the open file, not of the process: closing another descriptor of the file does not free it.
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _pack_write_lock(_OWNER_BYTE))
        except BlockingIOError as error:
            raise _make_owned_error(what, setting, OwnerInfo(None, None, None)) from error
        except OSError as error:
            raise _make_lock_error(what, setting, error) from error
        names = os.fstat(descriptor).st_nlink
        if names > 1:
            raise ConfigurationError(
                f"The {what} has {names} names (hard links). SQLite keeps the latest writes beside one of them, and "
                "through another they would be lost: remove the other names. A copy is no link: cp, not ln or cp -l."
            )
        yield
    finally:
        os.close(descriptor)


def _pack_write_lock(byte: int) -> bytes:
    """Return the `struct flock` that locks one byte for writing: type, whence, start, length, pid."""
    return struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)


def _prepare(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = data_dir.stat()
        if status.st_mode & stat.S_ISVTX:
            raise ConfigurationError(
                f"The data directory {data_dir} is shared with other users: set data_dir to a directory of "
                "its own inside it."
            )
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            data_dir.chmod(0o700)  # prompts and results are private
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigurationError(f"The data directory {data_dir} is a file: set data_dir to a directory.") from error
    except OSError as error:
        raise ConfigurationError(
            f"The data directory {data_dir} cannot be written: {error.strerror}. Set data_dir "
            "(AGENT_RUNTIME_DATA_DIR, --data-dir) to a directory that this user may write."
        ) from error


def _read(lock: int) -> OwnerInfo:
    """Return the owner's information. The owner writes it an instant after it has locked, so try again if it is
    missing.
    """
    for _ in range(5):
        with suppress(ValueError):
            content = json.loads(os.pread(lock, _CONTENT_BYTES, 0))
            if isinstance(content, dict):
                facts = (content.get("pid"), content.get("url"), content.get("started_at"))
                return OwnerInfo(*facts, brief=content.get("brief") is True)
        time.sleep(0.01)
    return OwnerInfo(None, None, None)


def _make_owned_error(what: str, setting: str, owner: OwnerInfo) -> AlreadyOwnedError:
    who = f"process {owner.pid}" if owner.pid else "another process"
    where = f" and serves at {owner.url}" if owner.url else ""
    return AlreadyOwnedError(
        f"The {what} is owned by {who}, which runs{where}. Use that one, stop it, or set another {setting}.",
        url=owner.url,
        pid=owner.pid,
    )


def _make_lock_error(what: str, setting: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The file system of the {what} cannot lock files ({error.strerror}): set {setting} to a local place."
    )
