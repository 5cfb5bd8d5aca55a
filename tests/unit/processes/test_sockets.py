"""The socket at the other end of a connection, as the kernel and its table know it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from agent_runtime.processes.sockets import LocalSocket, SocketEnd, find_in_table, find_socket, is_own

V4, V6 = socket.AF_INET, socket.AF_INET6
CONNECTIONS = {
    "IPv4": (V4, "127.0.0.1", V4, "127.0.0.1"),
    "another address of loopback": (V4, "127.0.0.1", V4, "127.1.2.3"),
    "IPv6": (V6, "::1", V6, "::1"),
    "IPv4 to a listener of both": (V6, "::", V4, "127.0.0.1"),
    "IPv4 mapped into IPv6": (V6, "::", V6, "::ffff:127.0.0.1"),
    "IPv4 mapped into IPv6 to a listener of IPv4": (V4, "127.0.0.1", V6, "::ffff:127.0.0.1"),
}
Find = Callable[[SocketEnd, SocketEnd], LocalSocket | None]


@pytest.fixture(params=[find_socket, find_in_table], ids=["asked", "read"])
def find(request: pytest.FixtureRequest) -> Find:
    """Find a socket in both ways, which must agree."""
    return request.param  # type: ignore[no-any-return]


@contextmanager
def connect(kind: str, interface: str = "") -> Iterator[tuple[socket.socket, SocketEnd, SocketEnd]]:
    """Yield a client's socket, its own end and the server's end, both as the server sees them."""
    family, listening, client_family, host = CONNECTIONS[kind]
    if family == V6 and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    address = "0.0.0.0" if kind == "another address of loopback" else listening  # noqa: S104 - all of loopback
    with (
        socket.create_server((address, 0), family=family, dualstack_ipv6=family == V6) as listener,
        socket.socket(client_family) as client,
    ):
        if interface:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        client.connect((host, listener.getsockname()[1]))
        with listener.accept()[0] as accepted:
            yield client, SocketEnd.parse(accepted.getpeername()), SocketEnd.parse(accepted.getsockname())


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_the_socket_of_a_client_is_found(find: Find, kind: str) -> None:
    with connect(kind) as (client, own, other):
        assert find(own, other) == LocalSocket(os.getuid(), os.fstat(client.fileno()).st_ino)


def test_a_socket_that_is_bound_to_an_interface_is_found(find: Find) -> None:
    with connect("IPv4", "lo") as (client, own, other):
        found = find(own, other)
        assert found
        assert found.inode == os.fstat(client.fileno()).st_ino


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_a_socket_that_was_closed_belongs_to_nobody(find: Find, kind: str) -> None:
    with connect(kind) as (client, own, other):
        client.close()
        found = find(own, other)
        assert found is None or found.inode == 0


def test_a_socket_that_is_only_shut_down_is_still_its_owners(find: Find) -> None:
    with connect("IPv4") as (client, own, other):
        client.shutdown(socket.SHUT_WR)
        found = find(own, other)
        assert found
        assert found.inode == os.fstat(client.fileno()).st_ino


def test_who_listens_on_the_port_of_a_closed_socket_is_not_taken_for_it(find: Find) -> None:
    with connect("IPv4") as (client, own, other):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, and nothing waits
        client.close()
        with socket.create_server(("127.0.0.1", own.port)):
            found = find(own, other)
        assert found is None or found.inode == 0


def test_a_connection_that_never_was_is_not_found(find: Find) -> None:
    assert find(SocketEnd(ip_address("127.0.0.1"), 9), SocketEnd(ip_address("127.0.0.1"), 10)) is None
    assert find(SocketEnd(ip_address("::1"), 9), SocketEnd(ip_address("::1"), 10)) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_is_of_this_machine(address: str) -> None:
    assert is_own(SocketEnd(ip_address(address), 1))


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8::7"])
def test_another_address_is_not(address: str) -> None:
    assert not is_own(SocketEnd(ip_address(address), 1))


def test_an_interface_names_a_link_local_address() -> None:
    assert SocketEnd.parse(("fe80::1%lo", 80, 0, 1)) == SocketEnd(ip_address("fe80::1"), 80, 1)


_SECOND_ADDRESS = """
ip link set lo up && ip address add 10.9.9.1/24 dev lo && ip address add 10.9.9.2/24 dev lo && exec "$@"
"""
_ASK = """
import ipaddress
from agent_runtime.processes.sockets import SocketEnd, is_own
print([is_own(SocketEnd(ipaddress.ip_address(f"10.9.{last}"), 1)) for last in ("9.1", "9.2", "8.1")])
"""


def test_the_second_address_of_a_network_is_ours_too() -> None:
    own_network = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", _SECOND_ADDRESS, "sh"]
    tried = subprocess.run([*own_network, "true"], capture_output=True, check=False)
    if shutil.which("ip") is None or tried.returncode != 0:
        pytest.skip("NOT TESTED: a network of its own needs unshare, ip and user namespaces")
    asked = subprocess.run([*own_network, sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    assert asked.stdout == "[True, True, False]\n"
