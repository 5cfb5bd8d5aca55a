"""The entries of an open folder: read, written, locked and swept by its descriptor, without following links."""

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice

from agent_runtime.builtin.refusals import Refusal, pluralize

TEMPORARY = ".agent-runtime-writing-"
"""The prefix of files that are being written. Such files are never shown."""

BUSY = "Another program is writing in this folder and does not finish: try again later."

_LEFT_BEHIND = re.compile(re.escape(TEMPORARY) + "[0-9a-f]{16}")
_ABANDONED_S = 3600.0
"""A temporary file of this age has no writer any more: writing one takes seconds."""
_NAMES_SWEPT = 10_000

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Place:
    """A resolved path: its parts below `root`, without links."""

    root: str
    parts: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The path as it is shown: relative to the root, `.` for the root itself."""
        return to_readable("/".join(self.parts)) or "."

    @property
    def parent(self) -> "Place":
        return Place(self.root, self.parts[:-1])

    @property
    def name(self) -> str:
        return self.parts[-1] if self.parts else "."

    def child(self, name: str) -> "Place":
        return Place(self.root, (*self.parts, name))


def to_readable(name: str) -> str:
    """Return a file name that JSON can hold: invalid bytes become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


@contextmanager
def open_file(folder: int, place: Place) -> Iterator[int]:
    """Yield a descriptor of the regular file of this name in an open folder. Raises: Refusal, OSError."""
    descriptor = os.open(place.name, _READ, dir_fd=folder)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise Refusal(f"{place.shown} is a folder: name a file, or list the folder.")
        if not stat.S_ISREG(mode):
            raise Refusal(f"{place.shown} is not an ordinary file: only such files can be read and written.")
        yield descriptor
    finally:
        os.close(descriptor)


def read_file_in(folder: int, place: Place, limit: int) -> bytes:
    """Return the content of a regular file of this name in an open folder. Raises: Refusal, OSError."""
    with open_file(folder, place) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Refusal(f"{place.shown} is larger than the limit of {pluralize(limit, 'byte')}: choose a smaller file.")
    return data


def mode_of_replaced(folder: int, place: Place) -> int | None:
    """Return the permissions of the file that a write replaces, without setuid and the like; None if there is none.

    Raises: Refusal where it is no regular file, or read-only.
    """
    if not place.parts:
        raise Refusal(f"{place.shown} is a folder: name a file in it.")
    if place.name.startswith(TEMPORARY):
        raise Refusal(f"Names that begin with {TEMPORARY} are kept for files that are being written: use another name.")
    try:
        status = os.stat(place.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise Refusal(f"{place.shown} is a folder: name a file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise Refusal(f"{place.shown} is not an ordinary file: only such files can be read and written.")
    if not os.access(place.name, os.W_OK, dir_fd=folder):
        # A rename would replace it regardless.
        raise Refusal(f"{place.shown} is read-only: change its rights, or write to another file.")
    return stat.S_IMODE(status.st_mode) & 0o777


def mode_of_regular(folder: int, place: Place) -> int:
    """Return the permissions of a file that is to be copied, moved or deleted.

    Raises: as `mode_of_replaced`; FileNotFoundError where there is none.
    """
    mode = mode_of_replaced(folder, place)
    if mode is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place.name)
    return mode


def expect_free(folder: int, place: Place) -> None:
    """Raise a Refusal where there is a file of this name already."""
    if mode_of_replaced(folder, place) is not None:
        raise Refusal(f"{place.shown} exists already and is not replaced: choose another name, or delete it first.")


def lock_until(folder: int, deadline: float) -> None:
    """Lock a folder itself, so that no lock file is left. Closing the descriptor frees it. Raises: Refusal."""
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Refusal(BUSY) from None
            time.sleep(0.002)
        else:
            return


def sweep(folder: int) -> None:
    """Remove temporary files that killed writers have left in an open folder; keep what may be something else."""
    before = time.time() - _ABANDONED_S
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, _NAMES_SWEPT):
            if _LEFT_BEHIND.fullmatch(entry.name):
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and status.st_mtime < before:
                        os.unlink(entry.name, dir_fd=folder)


@contextmanager
def write_temporary(folder: int, data: bytes, mode: int | None) -> Iterator[str]:
    """Write the data to a temporary file in the folder and yield its name. It is removed afterwards unless it was
    renamed.
    """
    name = TEMPORARY + secrets.token_hex(8)
    descriptor = os.open(name, _CREATE, 0o666, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        yield name
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
