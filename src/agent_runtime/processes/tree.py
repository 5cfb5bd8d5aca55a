"""The descendants of this process: finds them in /proc, adopts their orphans, reaps and kills them."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_PR_SET_CHILD_SUBREAPER = 36

_SWEEP_S = 5.0
"""How often to look for ended orphans. One that is seen twice has no other reaper."""

_END_S = 2.0
"""How long killed descendants may take to disappear."""

_LOOK_S = 0.01
_FILE_BYTES = 64 * 1024
_ATTEMPTS = 10

UNREADABLE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""The errors of /proc for a process that is gone, or not visible to us. Other errors, such as too many open files,
prove nothing about it.
"""


def list_processes() -> list[int]:
    """Return the ids of all visible processes, the newest first. Raises: OSError."""
    return sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True)


def find_parent(pid: int) -> int | None:
    """Return the id of the parent, 0 if it is not visible from here; None if the process is gone or hidden.

    Raises: OSError where /proc cannot be read.
    """
    with suppress(*UNREADABLE):
        return int(_read_stat(pid)[1])
    return None


def is_hidden(pid: int) -> bool:
    """Return whether the process lives and /proc does not show it to us (hidepid, proc(5))."""
    return find_parent(pid) is None and _is_alive(pid)


def has_children() -> bool:
    """Return whether this process has any child, in whatever state. Exact and fast, because the kernel answers."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def find_descendants(root: int) -> list[int]:
    """Return the ids of all visible descendants. One that starts meanwhile may be missing.

    Raises: OSError where /proc cannot be read.
    """
    if not Path(f"/proc/{root}/task/{root}/children").exists():
        return _find_descendants_by_parent(root)
    found: list[int] = []
    parents = [root]
    while parents:
        children = list(_find_children(parents.pop()))
        found += children
        parents += children
    return found


def is_descendant(pid: int, root: int) -> bool | None:
    """Return whether `root` is an ancestor; None if that is unknown because an ancestor is hidden.

    While the ancestors are read, a parent may end and its children move to the next reaper; then they are read again. A
    process whose ancestry breaks off every time counts as a descendant, because that only happens on purpose.
    """
    for _ in range(_ATTEMPTS):
        ancestor: int | None = pid
        while ancestor:
            child, ancestor = ancestor, find_parent(ancestor)
            if ancestor == root:
                return True
            if ancestor is None and is_hidden(child):
                return None
        if ancestor == 0:
            return False
    return True


@contextmanager
def keep_orphans() -> Iterator[None]:
    """Adopt and reap processes whose parent has ended. At the end, kill all descendants.

    Otherwise they would become children of the machine's first process, and nobody could tell that the service started
    them. Descendants from before are left alone. Use it once in a process, for the service.
    """
    if sys.platform != "linux":
        yield
        return
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = frozenset(_find_own_children())
    ended = threading.Event()
    reaper = threading.Thread(target=_reap_until, args=(ended,), name="reaper", daemon=True)
    reaper.start()
    try:
        yield
    finally:
        ended.set()
        reaper.join()
        _end_descendants(before)


def _reap_until(ended: threading.Event) -> None:
    seen = frozenset[int]()
    while not ended.wait(_SWEEP_S):
        zombies = frozenset(pid for pid in _find_own_children() if _is_zombie(pid))
        _reap(zombies & seen)
        seen = zombies - seen


def _end_descendants(before: frozenset[int]) -> None:
    """Kill all other descendants, and those that they start meanwhile, for at most `_END_S` seconds."""
    give_up_at = time.monotonic() + _END_S
    while time.monotonic() < give_up_at:
        left = [
            pid for child in set(_find_own_children()) - before for pid in (child, *_find_readable_descendants(child))
        ]
        if not left:
            return
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        _reap(left)
        time.sleep(_LOOK_S)
    log.warning("processes_left", pids=left)


def _reap(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(OSError):
            os.waitpid(pid, os.WNOHANG)


def _find_own_children() -> list[int]:
    with suppress(OSError):
        return list(_find_children(os.getpid()))
    return []


def _find_readable_descendants(pid: int) -> list[int]:
    with suppress(OSError):
        return find_descendants(pid)
    return []


def _find_children(pid: int) -> Iterator[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except UNREADABLE:
        return
    for thread in threads:
        with suppress(*UNREADABLE):
            yield from map(int, read_file(f"/proc/{pid}/task/{thread}/children").split())


def _find_descendants_by_parent(root: int) -> list[int]:
    """Return the same for a kernel that only tells parents (without CONFIG_PROC_CHILDREN)."""
    return [pid for pid in list_processes() if pid != root and is_descendant(pid, root)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return _read_stat(pid)[0] == b"Z"
    return False


def _read_stat(pid: int) -> list[bytes]:
    """Return the fields after the name (proc_pid_stat(5)): state, parent, and so on. Raises: OSError."""
    return read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def read_file(path: str) -> bytes:
    """Read a small file of the kernel's without a file object, because one call may read hundreds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _FILE_BYTES), b""))
    finally:
        os.close(descriptor)
