"""A folder that no path leaves: every path is resolved, checked, and then opened without following links.

A path is resolved as the system would, with links and `..`, and refused if it ends outside. The resolved path is opened
part by part, each relative to the folder before it and with `O_NOFOLLOW`. If somebody swaps a folder for a link
meanwhile, the call fails and cannot leave the root.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path, PurePosixPath

from agent_runtime.builtin.toolbox import Refusal, pluralize

TEMPORARY = ".agent-runtime-writing-"
"""The prefix of files that are being written. Such files are never shown."""

_LEFT_BEHIND = re.compile(re.escape(TEMPORARY) + "[0-9a-f]{16}")
_ABANDONED_S = 3600.0
"""A temporary file of this age has no writer any more: writing one takes seconds."""
_NAMES_SWEPT = 10_000

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMES_COMPARED = 500
_LOCK_WAIT_S = 10.0


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


_FIRST_RUNTIME = ("src", "agent_runtime")


class Root:
    """The one folder that a filesystem server may touch: the target of `path` now, even if links change later.

    `name` is what people call it, if that is not its own name. `kept` are files and folders that are out of reach even
    inside the root, with the files that SQLite puts beside them. A folder that contains the root does not count.
    """

    def __init__(self, path: Path, name: str | None = None, kept: Sequence[Path] = ()) -> None:
        self._path = os.path.realpath(path)
        self._name = name or path.absolute().name
        self._kept = kept
        self._kept_inside = self._resolve_kept()
        self._lock = threading.Lock()

    def locate(self, path: str) -> Place:
        """Resolve a path that is relative to the root, or absolute and inside it.

        A first part that is the root folder's own name means the root, unless the root has such an entry. So does the
        path of the first runtime, `src/agent_runtime/NAME`.
        Raises: Refusal for a path that is empty, invalid or outside.
        """
        if not path.strip():
            raise Refusal('The path is empty: give the path of a file or folder, or "." for the root folder.')
        if "\0" in path:
            raise Refusal("The path holds a NUL character, which no file name can; leave it out.")
        root = self._path
        real = os.path.realpath(os.path.join(root, self._strip_own_name(root, path)))  # noqa: PTH118 - `..` must stay
        try:
            parts = Path(real).relative_to(root).parts
        except ValueError:
            raise Refusal(f"{path!r} is outside the folder {self._name!r}: give a path inside it.") from None
        if os.path.realpath(real) != real:
            # On a loop of links the system gives up, and the rest of the path is unresolved.
            raise Refusal(f"{path!r} leads over links that run in a circle: name the file itself.")
        place = Place(root, parts)
        self._kept_inside = self._resolve_kept()
        if self.keeps(place):
            raise Refusal(f"{path!r} belongs to the service itself and is out of reach here: give another path.")
        return place

    def keeps(self, place: Place) -> bool:
        """Return whether this place is out of reach, though it is inside: a file of the service, or in a folder of the
        service.
        """
        if not self._kept_inside:
            return False
        real = os.path.join(place.root, *place.parts)  # noqa: PTH118 - as it is
        return any(real == kept or real.startswith((f"{kept}/", f"{kept}-")) for kept in self._kept_inside)

    def _resolve_kept(self) -> tuple[str, ...]:
        """Return the current real paths of the kept files inside the root. Links to them may have changed."""
        real = map(os.path.realpath, self._kept)
        return tuple(kept for kept in real if kept.startswith(f"{self._path.rstrip('/')}/"))

    def _strip_own_name(self, root: str, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or os.path.lexists(Path(root, parts[0])):
            return path
        own = (self._name,) if parts[0] == self._name else (*_FIRST_RUNTIME, self._name)
        return "/".join(parts[len(own) :]) or "." if parts[: len(own)] == own else path

    @contextmanager
    def folder(self, place: Place, *, create: bool = False) -> Iterator[int]:
        """Yield a descriptor of the folder. `create`: make missing folders on the way."""
        try:
            descriptor = os.open(place.root, _FOLDER | os.O_NOFOLLOW)
        except OSError as error:
            raise Refusal(
                f"The root folder {self._name!r} cannot be opened ({error.strerror}): create it, or change "
                "the root of this server in the tool registry."
            ) from error
        try:
            for part in place.parts:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                        os.fsync(descriptor)
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def status(self, place: Place) -> os.stat_result:
        """Return the status of the entry. Raises: Refusal, OSError."""
        with self.explain_errors(place), self.folder(place.parent) as folder:
            return os.stat(place.name, dir_fd=folder, follow_symlinks=False)

    def read(self, place: Place, limit: int) -> bytes:
        """Return the content of a regular file. Raises: Refusal where it is none, is missing, or is over the limit."""
        with self.explain_errors(place), self.folder(place.parent) as folder:
            return read_file_in(folder, place, limit)

    def sample(self, place: Place, size: int) -> bytes:
        """Return the first bytes of a regular file. Raises: Refusal, OSError."""
        with self.folder(place.parent) as folder, open_file(folder, place) as descriptor:
            return os.read(descriptor, size)

    def write(self, place: Place, data: bytes) -> bool:
        """Write a whole file, atomically and durably, with missing folders. Return whether it is new."""
        with self.explain_errors(place), self.folder(place.parent, create=True) as folder:
            mode = _mode_of_replaced(folder, place)
            _sweep(folder)
            with _write_temporary(folder, data, mode) as temporary, self._lock_folder(folder):
                os.rename(temporary, place.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        return mode is None

    def append(self, place: Place, data: bytes, limit: int) -> tuple[int, bool]:
        """Add to the end of a file, on a new line, atomically and durably. Return its new size and
        whether it is new.
        """
        with self.explain_errors(place), self.folder(place.parent, create=True) as folder, self._lock_folder(folder):
            mode = _mode_of_replaced(folder, place)
            before = b"" if mode is None else read_file_in(folder, place, limit)
            whole = before + (b"\n" if before and not before.endswith(b"\n") else b"") + data
            if len(whole) > limit:
                raise Refusal(f"{place.shown} would grow over {limit} bytes: write to another file.")
            _sweep(folder)
            with _write_temporary(folder, whole, mode) as temporary:
                os.rename(temporary, place.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        return len(whole), mode is None

    @contextmanager
    def _lock_folder(self, folder: int) -> Iterator[None]:
        """Keep out all other writers to this folder: of this server, and of other processes."""
        deadline = time.monotonic() + _LOCK_WAIT_S
        busy = "Another program is writing in this folder and does not finish: try again later."
        if not self._lock.acquire(timeout=_LOCK_WAIT_S):
            raise Refusal(busy)
        try:
            while True:
                try:
                    # On the folder itself, so that no lock file is left. Closing the descriptor frees it.
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Refusal(busy) from None
                    time.sleep(0.002)
            yield
        finally:
            fcntl.flock(folder, fcntl.LOCK_UN)
            self._lock.release()

    @contextmanager
    def explain_errors(self, place: Place, kind: str = "file") -> Iterator[None]:
        """Turn errors of the system about a place into helpful refusals. `kind` is the type of entry
        that was wanted.
        """
        try:
            yield
        except FileNotFoundError:
            raise Refusal(self._describe_missing(place, kind)) from None
        except (NotADirectoryError, FileExistsError):
            raise Refusal(f"{place.shown} is not a folder, or leads through something that is none.") from None
        except IsADirectoryError:
            raise Refusal(f"{place.shown} is a folder: name a file.") from None
        except PermissionError:
            raise Refusal(f"{place.shown} may not be opened or changed by this service: check its rights.") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Refusal(f"{place.shown} leads over a link that cannot be followed here.") from None
            raise Refusal(f"{place.shown} could not be used: {error.strerror}.") from error

    def _describe_missing(self, place: Place, kind: str) -> str:
        """Say what is missing, with similar names."""
        names: list[str] = []
        with suppress(OSError), self.folder(place.parent) as folder, os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, _NAMES_COMPARED)]
        folded = {name.casefold(): name for name in names if not name.startswith(TEMPORARY)}
        close = get_close_matches(place.name.casefold(), folded, n=3, cutoff=0.6)
        similar = [place.parent.child(folded[name]).shown for name in close]
        if similar:
            return f"There is no {kind} {place.shown}; did you mean {' or '.join(similar)}?"
        return f"There is no {kind} {place.shown}; list the folder to see what there is."


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


def _mode_of_replaced(folder: int, place: Place) -> int | None:
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


def _sweep(folder: int) -> None:
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
def _write_temporary(folder: int, data: bytes, mode: int | None) -> Iterator[str]:
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
