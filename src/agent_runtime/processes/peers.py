"""Decides whether the process at the other end of a connection may be one that the service started (decision 17)."""

import os
import socket
import stat
import subprocess
import sys
from contextlib import suppress

from agent_runtime.processes.sockets import LocalSocket, SocketEnd, find_socket, is_own
from agent_runtime.processes.tree import (
    UNREADABLE,
    find_descendants,
    has_children,
    is_descendant,
    is_hidden,
    list_processes,
    read_file,
)
from agent_runtime.services.ports import PeerRefusal, SocketName

_CAP_CHOWN = 1 << 0
_CAP_SETUID = 1 << 7
_ANY_USER = _CAP_CHOWN | _CAP_SETUID
"""Each of these lets a process make sockets that belong to another user."""

_TRY_S = 10.0
_CALLING = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); sys.stdin.read()"


class LocalPeers:
    """Finds the process that holds the other end of a connection, with the shape of `ports.PeerCheck`.

    A caller is admitted if its address is another machine's; if no descendant of this process lives; if another
    process, or this one, visibly holds the socket and no descendant does; or if nobody visibly holds it and it belongs
    to a user whom no descendant can be. A thread blocked in a call, a message in transit and io_uring hold sockets
    invisibly. So a socket of our own user without a visible holder is refused.

    Needs Linux; elsewhere everybody is admitted.
    """

    def refuse(self, client: SocketName, server: SocketName) -> PeerRefusal | None:
        """Return why the caller may not use the service; None if it may. Blocks for some milliseconds at most."""
        if sys.platform != "linux":
            return None
        try:
            return _judge(SocketEnd.parse(client), SocketEnd.parse(server))
        except OSError as error:
            return PeerRefusal("unseen", error=str(error))


def find_peers_problem() -> str | None:
    """Return why callers cannot be told apart on this machine; None if they can. Tries it with a child
    that connects.
    """
    if sys.platform != "linux":
        return "that needs Linux"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_TRY_S)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0] as ours:
            refused = _check_connection(ours)
        command = [sys.executable, "-I", "-S", "-c", _CALLING, str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as child:  # noqa: S603 - our own words
            try:
                with listener.accept()[0] as its:
                    of_child = _check_connection(its)
            except TimeoutError:
                return "a test process did not connect"
            finally:
                child.kill()
    if refused is not None:
        return f"the service itself would be refused: {refused.error or refused.reason}"
    if of_child is None or of_child.reason != "started_by_service":
        return "a test process was not recognised"
    return None


def _check_connection(connection: socket.socket) -> PeerRefusal | None:
    return LocalPeers().refuse(connection.getpeername(), connection.getsockname())


def _judge(client: SocketEnd, server: SocketEnd) -> PeerRefusal | None:
    """Return why the process at the client's end is refused; None if it is not. Raises: OSError where /proc is
    unreadable.
    """
    found = find_socket(client, server)
    if found is None:
        return PeerRefusal("gone") if is_own(client) else None
    if not found.inode:
        return PeerRefusal("gone")
    if not has_children():
        return None
    descendants = find_descendants(os.getpid())
    for pid in descendants:
        if _holds(pid, found.inode):
            return PeerRefusal("started_by_service", pid=pid)
    if _own_process_holds(found.inode):
        return None
    known = {os.getpid(), *descendants}
    for pid in list_processes():
        if pid not in known and _holds(pid, found.inode):
            return _judge_holder(pid, descendants)
    return PeerRefusal("unseen") if _may_have_made(found, [os.getpid(), *descendants]) else None


def _judge_holder(pid: int, descendants: list[int]) -> PeerRefusal | None:
    """Judge a holder that was no descendant a moment ago; it may have been started since."""
    started = is_descendant(pid, os.getpid())
    if started is None:  # an ancestor is hidden, and may be ours only if one of ours is hidden
        return PeerRefusal("unseen", pid=pid) if any(map(is_hidden, descendants)) else None
    return PeerRefusal("started_by_service", pid=pid) if started else None


def _own_process_holds(inode: int) -> bool:
    """Return whether this process holds the socket. It may have thousands, so no link is read for each."""
    for name in reversed(os.listdir("/proc/self/fd")):
        with suppress(OSError):
            status = os.fstat(int(name))
            if status.st_ino == inode and stat.S_ISSOCK(status.st_mode):
                return True
    return False


def _holds(pid: int, inode: int) -> bool:
    """Return whether another process visibly holds the socket."""
    folder, link = f"/proc/{pid}/fd", f"socket:[{inode}]"
    try:
        names = os.listdir(folder)
    except UNREADABLE:
        return False
    for name in reversed(names):  # the newest descriptor is most likely the one
        with suppress(*UNREADABLE):
            if os.readlink(f"{folder}/{name}") == link:
                return True
    return False


def _may_have_made(found: LocalSocket, pids: list[int]) -> bool:
    """Return whether one of these processes may have made the socket, judging by the user it belongs to."""
    own_users = _read(os.getpid(), "uid_map")
    return any(_may_be(pid, found.uid, own_users) for pid in pids)


def _may_be(pid: int, uid: int, own_users: bytes) -> bool:
    lines = dict(line.split(b":", 1) for line in _read(pid, "status").splitlines() if b":" in line)
    if not lines:
        return is_hidden(pid)
    if uid in map(int, lines[b"Uid"].split()):
        return True
    users = _read(pid, "uid_map")
    # In its own user namespace it may have been any user of that namespace earlier.
    if users == own_users and not int(lines[b"CapPrm"], 16) & _ANY_USER:
        return False
    ranges = [list(map(int, line.split())) for line in users.splitlines()]
    return any(first <= uid < first + count for _, first, count in ranges)


def _read(pid: int, name: str) -> bytes:
    with suppress(*UNREADABLE):
        return read_file(f"/proc/{pid}/{name}")
    return b""
