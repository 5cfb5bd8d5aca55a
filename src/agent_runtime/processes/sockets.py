"""The TCP sockets of this machine: finds the one at the other end of a connection, and recognises our own addresses."""

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_PORTS = struct.Struct("!HH")  # local, remote
_REST = struct.Struct("=I8s")  # interface, cookie
_ANSWER = struct.Struct("=BBBB48sIIIII")  # family, state, timer, retransmits, id, expires, queues (2), uid, inode
_ANY_COOKIE = b"\xff" * 8
_NLMSG_ERROR = 2
_ERROR = struct.Struct("=i")
_ALL_STATES = 0xFFFFFFFF
_LOOPBACK = 1
"""The index of the interface `lo`, the same in every network namespace."""

_FAMILIES = {4: (socket.AF_INET, socket.AF_INET6), 6: (socket.AF_INET6,)}
"""The families in which both ends of a version of IP may be found: an IPv6 socket may use a mapped IPv4 address."""

_LISTEN = 10
_ANSWER_S = 1.0


@dataclass(frozen=True, slots=True)
class SocketEnd:
    """One end of a TCP connection. `interface` is the index of a link-local address's interface, else 0."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    interface: int = 0

    @classmethod
    def parse(cls, name: tuple[Any, ...]) -> Self:
        """Parse the result of `getpeername` or `getsockname`. An IPv4 address mapped into IPv6 becomes the IPv4
        address.
        """
        address = ipaddress.ip_address(str(name[0]).partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return cls(mapped or address, int(name[1]), int(name[3]) if len(name) > 3 else 0)  # noqa: PLR2004 - has a scope


@dataclass(frozen=True, slots=True)
class LocalSocket:
    """A socket of this machine. `uid` is the user who made it; `inode` is 0 once it was closed."""

    uid: int
    inode: int


def find_socket(local: SocketEnd, remote: SocketEnd) -> LocalSocket | None:
    """Return the socket whose own end is `local` and whose other end is `remote`; None if it is not on this machine.

    Asks the kernel for this one socket, which takes 0.1 ms. If the kernel does not answer, reads its whole table, which
    takes 20 to 50 ms. Raises: OSError.
    """
    try:
        return _ask_kernel(local, remote)
    except OSError:
        return find_in_table(local, remote) if is_own(local) else None


def is_own(endpoint: SocketEnd) -> bool:
    """Return whether this is an address of this machine: packets sent to it come from the same address.

    Raises: OSError where that cannot be tried.
    """
    if endpoint.address.is_loopback:
        return True
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - the version of IP
    name = (str(endpoint.address), 1) if family == socket.AF_INET else (str(endpoint.address), 1, 0, endpoint.interface)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(name)  # sends nothing
        except OSError:  # unreachable
            return False
        if SocketEnd.parse(probe.getsockname()).address == endpoint.address:
            return True
    # A second address in a network is ours too, although packets to it come from the first.
    return family == socket.AF_INET and _can_be_bound(name)


def _can_be_bound(name: tuple[Any, ...]) -> bool:
    """Return whether a socket can be bound to the address, if that proves that it is ours."""
    if Path("/proc/sys/net/ipv4/ip_nonlocal_bind").read_text("ascii").strip() != "0":
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((name[0], 0))
        except OSError:
            return False
    return True


def _ask_kernel(local: SocketEnd, remote: SocketEnd) -> LocalSocket | None:
    """Ask by netlink, as `ss` does (sock_diag(7)). Raises: OSError where the kernel does not answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_ANSWER_S)
        # A socket bound to an interface is found only with that interface; for an own address that is loopback.
        for interface in (local.interface, _LOOPBACK):
            for family in _FAMILIES[local.address.version]:
                found = _ask_once(kernel, family, local, remote, interface)
                if found is not None:
                    return found
    return None


def _ask_once(
    kernel: socket.socket, family: int, local: SocketEnd, remote: SocketEnd, interface: int
) -> LocalSocket | None:
    addresses = [_pack(end, 4 if family == socket.AF_INET else 16).ljust(16, b"\0") for end in (local, remote)]
    name = _PORTS.pack(local.port, remote.port) + b"".join(addresses)
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES) + name + _REST.pack(interface, _ANY_COOKIE)
    kernel.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + request)
    answer = kernel.recv(4096)
    kind, error = _HEADER.unpack_from(answer)[1], _ERROR.unpack_from(answer, _HEADER.size)[0]
    if kind == _NLMSG_ERROR and error == -errno.ENOENT:
        return None
    if kind != _SOCK_DIAG_BY_FAMILY:
        raise OSError(-error, "the kernel does not answer questions about sockets")
    _, state, _, _, found, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    # Without a matching connection, the kernel returns the socket that listens on the port.
    return LocalSocket(uid, inode) if state != _LISTEN and found[: len(name)] == name else None


def find_in_table(local: SocketEnd, remote: SocketEnd) -> LocalSocket | None:
    """Search the socket table of this network namespace (proc_net_tcp). Raises: OSError."""
    for table, width in (("tcp", 4), ("tcp6", 16)):
        if local.address.version == 6 and width == 4:  # noqa: PLR2004 - the version of IP
            continue
        wanted = f" {_format_for_table(local, width)} {_format_for_table(remote, width)} "
        try:
            content = Path("/proc/self/net", table).read_text("ascii")
        except FileNotFoundError:  # without IPv6
            continue
        begins = content.find(wanted)
        if begins >= 0:
            state, _, _, _, uid, _, inode = content[begins + len(wanted) :].split(maxsplit=7)[:7]
            if int(state, 16) != _LISTEN:
                return LocalSocket(int(uid), int(inode))
    return None


def _format_for_table(end: SocketEnd, width: int) -> str:
    words = struct.unpack(f"={width // 4}I", _pack(end, width))
    return f"{''.join(f'{word:08X}' for word in words)}:{end.port:04X}"


def _pack(end: SocketEnd, width: int) -> bytes:
    """Return the address in `width` bytes; an IPv4 address is mapped into IPv6 if need be."""
    packed = end.address.packed
    return packed if len(packed) == width else b"\0" * 10 + b"\xff\xff" + packed
