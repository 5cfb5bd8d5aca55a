"""A folder that no path leaves: every path is resolved, checked, and then opened without following links.

A path is resolved as the system would, with links and `..`, and refused if it ends outside. The resolved path is opened
part by part, each relative to the folder before it and with `O_NOFOLLOW`. If somebody swaps a folder for a link
meanwhile, the call fails and cannot leave the root.
"""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path, PurePosixPath

from agent_runtime.builtin.entries import (
    BUSY,
    TEMPORARY,
    Place,
    expect_free,
    lock_until,
    mode_of_regular,
    mode_of_replaced,
    open_file,
    read_file_in,
    sweep,
    write_temporary,
)
from agent_runtime.builtin.refusals import Refusal

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NAMES_COMPARED = 500
_LOCK_WAIT_S = 10.0
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

    def locate_entry(self, path: str) -> Place:
        """Resolve a path as `locate` does, to an entry that is to be moved or deleted itself.

        Raises: Refusal also where the path names a link, because its target would be meant.
        """
        place = self.locate(path)
        if os.path.islink(os.path.join(self._path, self._strip_own_name(self._path, path)).rstrip("/")):  # noqa: PTH114, PTH118 - as it is
            raise Refusal(f"{path!r} is a link, which is neither moved nor deleted here: name the file itself.")
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
            mode = mode_of_replaced(folder, place)
            sweep(folder)
            with write_temporary(folder, data, mode) as temporary, self._lock_folders(folder):
                os.rename(temporary, place.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        return mode is None

    def append(self, place: Place, data: bytes, limit: int) -> tuple[int, bool]:
        """Add to the end of a file, on a new line, atomically and durably. Return its new size and
        whether it is new.
        """
        with self.explain_errors(place), self.folder(place.parent, create=True) as folder, self._lock_folders(folder):
            mode = mode_of_replaced(folder, place)
            before = b"" if mode is None else read_file_in(folder, place, limit)
            whole = before + (b"\n" if before and not before.endswith(b"\n") else b"") + data
            if len(whole) > limit:
                raise Refusal(f"{place.shown} would grow over {limit} bytes: write to another file.")
            sweep(folder)
            with write_temporary(folder, whole, mode) as temporary:
                os.rename(temporary, place.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        return len(whole), mode is None

    def copy(self, source: Place, destination: Place, limit: int) -> int:
        """Copy a regular file of at most `limit` bytes, atomically and durably, with its rights. Return its size.

        Raises: Refusal where the destination exists.
        """
        with self.explain_errors(source), self.folder(source.parent) as folder:
            mode = mode_of_regular(folder, source)
            data = read_file_in(folder, source, limit)
        with self.explain_errors(destination), self.folder(destination.parent, create=True) as folder:
            sweep(folder)
            with write_temporary(folder, data, mode) as temporary, self._lock_folders(folder):
                expect_free(folder, destination)
                os.rename(temporary, destination.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        return len(data)

    def move(self, source: Place, destination: Place) -> None:
        """Move a regular file, atomically and durably. Raises: Refusal where the destination exists."""
        with self.explain_errors(source), self.folder(source.parent) as old:
            mode_of_regular(old, source)
            with (
                self.explain_errors(destination),
                self.folder(destination.parent, create=True) as new,
                self._lock_folders(old, new),
            ):
                mode_of_regular(old, source)
                expect_free(new, destination)
                os.rename(source.name, destination.name, src_dir_fd=old, dst_dir_fd=new)
                os.fsync(new)
            os.fsync(old)

    def delete(self, place: Place) -> int:
        """Delete a regular file, durably. Return the size that it had."""
        with self.explain_errors(place), self.folder(place.parent) as folder, self._lock_folders(folder):
            mode_of_regular(folder, place)
            size = os.stat(place.name, dir_fd=folder, follow_symlinks=False).st_size
            os.unlink(place.name, dir_fd=folder)
            os.fsync(folder)
        return size

    @contextmanager
    def _lock_folders(self, *folders: int) -> Iterator[None]:
        """Keep out all other writers to these folders: of this server, and of other processes."""
        deadline = time.monotonic() + _LOCK_WAIT_S
        if not self._lock.acquire(timeout=_LOCK_WAIT_S):
            raise Refusal(BUSY)
        # Each once, and in one order, so that two movers never wait for each other.
        distinct = {(status.st_dev, status.st_ino): folder for folder in folders for status in [os.fstat(folder)]}
        ordered = [distinct[key] for key in sorted(distinct)]
        try:
            for folder in ordered:
                lock_until(folder, deadline)
            yield
        finally:
            for folder in ordered:
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
            if error.errno == errno.EXDEV:
                raise Refusal(f"{place.shown} is on another disk: copy the file, and then delete it.") from None
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
