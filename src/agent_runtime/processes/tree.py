"""The processes that this one has started, and theirs: found in /proc, kept as descendants, reaped and ended."""

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
"""How often ended orphans are looked for. One that is seen twice is nobody else's to reap."""

_END_S = 2.0
"""How long ended descendants may take to be gone."""

_LOOK_S = 0.01
_FILE_BYTES = 64 * 1024
_ATTEMPTS = 10

UNREADABLE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What /proc says of a process that is gone, or not ours to see. Another error, as when no descriptor is left, says
nothing of it."""


def every_process() -> list[int]:
    """Return the ids of all processes that can be seen here, the newest ones first. Raises: OSError."""
    return sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True)


def parent_of(pid: int) -> int | None:
    """Return the id of the parent, 0 where it cannot be seen from here; None where the process is gone or hidden.

    Raises: OSError where /proc cannot be read.
    """
    with suppress(*UNREADABLE):
        return int(_stat(pid)[1])
    return None


def is_hidden(pid: int) -> bool:
    """Return whether the process lives and /proc does not show it to us (hidepid, proc(5))."""
    return parent_of(pid) is None and _is_alive(pid)


def has_children() -> bool:
    """Return whether this process has any child, in whatever state. Exact, and quick: the kernel is asked."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def descendants_of(root: int) -> list[int]:
    """Return the ids of all descendants, as far as they can be seen; what starts meanwhile may be left out.

    Raises: OSError where /proc cannot be read.
    """
    if not Path(f"/proc/{root}/task/{root}/children").exists():
        return _descendants_by_parent(root)
    found: list[int] = []
    parents = [root]
    while parents:
        children = list(_children_of(parents.pop()))
        found += children
        parents += children
    return found


def is_descendant(pid: int, root: int) -> bool | None:
    """Return whether `root` is an ancestor; None where that cannot be told, because an ancestor is hidden.

    While the line is followed, a parent may end and its children move up to the next reaper; then it is followed anew.
    A process whose line breaks off again and again counts as a descendant: only one that does so on purpose has it.
    """
    for _ in range(_ATTEMPTS):
        ancestor: int | None = pid
        while ancestor:
            child, ancestor = ancestor, parent_of(ancestor)
            if ancestor == root:
                return True
            if ancestor is None and is_hidden(child):
                return None
        if ancestor == 0:
            return False
    return True


@contextmanager
def keep_orphans() -> Iterator[None]:
    """Have processes whose parent has ended become children of this one, and reap them; all are killed at the end.

    Without it they would belong to the machine's first process, and nobody could tell that the service started them.
    What ran before is left alone. For the one service of a process: on the way out every other descendant is killed.
    """
    if sys.platform != "linux":
        yield
        return
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = frozenset(_own_children())
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
        zombies = frozenset(pid for pid in _own_children() if _is_zombie(pid))
        _reap(zombies & seen)
        seen = zombies - seen


def _end_descendants(before: frozenset[int]) -> None:
    """Kill what is left, and what that starts meanwhile, for at most `_END_S` seconds."""
    give_up_at = time.monotonic() + _END_S
    while time.monotonic() < give_up_at:
        left = [pid for child in set(_own_children()) - before for pid in (child, *_descendants(child))]
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


def _own_children() -> list[int]:
    with suppress(OSError):
        return list(_children_of(os.getpid()))
    return []


def _descendants(pid: int) -> list[int]:
    with suppress(OSError):
        return descendants_of(pid)
    return []


def _children_of(pid: int) -> Iterator[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except UNREADABLE:
        return
    for thread in threads:
        with suppress(*UNREADABLE):
            yield from map(int, read_file(f"/proc/{pid}/task/{thread}/children").split())


def _descendants_by_parent(root: int) -> list[int]:
    """Do the same for a kernel that tells parents only (without CONFIG_PROC_CHILDREN)."""
    return [pid for pid in every_process() if pid != root and is_descendant(pid, root)]


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
        return _stat(pid)[0] == b"Z"
    return False


def _stat(pid: int) -> list[bytes]:
    """Return the fields after the name (proc_pid_stat(5)): state, parent, and so on. Raises: OSError."""
    return read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def read_file(path: str) -> bytes:
    """Read a small file of the kernel's, without the price of a file object: a call may look at hundreds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _FILE_BYTES), b""))
    finally:
        os.close(descriptor)
