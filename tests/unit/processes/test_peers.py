"""The process at the other end of a connection to this one, which plays the service."""

import resource
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent_runtime.processes.peers import LocalPeers, find_peers_problem
from agent_runtime.services.ports import PeerRefusal

CALL = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); sys.stdin.read()"
FORK = "import os; os.fork(); "


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


@pytest.fixture
def child() -> Iterator[None]:
    """Start a child, because without descendants no peer is looked up."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield
        process.kill()


def refusal(connection: socket.socket) -> PeerRefusal | None:
    return LocalPeers().refuse(connection.getpeername(), connection.getsockname())


@pytest.mark.parametrize("before", ["", FORK])
def test_a_child_is_recognised(listener: socket.socket, before: str) -> None:
    command = [sys.executable, "-S", "-E", "-c", before + CALL, str(listener.getsockname()[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        with listener.accept()[0] as connection:
            found = refusal(connection)
        process.communicate(timeout=20)
    assert found
    assert found.reason == "started_by_service"


@pytest.mark.usefixtures("child")
def test_this_process_is_let_in(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
        assert refusal(connection) is None


@pytest.mark.parametrize("lingers", [b"\0" * 8, b"\1" + b"\0" * 7], ids=["closed", "reset"])
def test_a_caller_that_has_closed_its_socket_is_refused(listener: socket.socket, lingers: bytes) -> None:
    """Even without living descendants: the caller may have been one that has ended."""
    client = socket.create_connection(listener.getsockname())
    with listener.accept()[0] as connection:
        names = connection.getpeername(), connection.getsockname()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingers)
        client.close()
        assert LocalPeers().refuse(*names) == PeerRefusal("gone")


@pytest.mark.usefixtures("child")
def test_a_caller_on_another_machine_is_let_in() -> None:
    """Such as a caller outside a container, through a bridge."""
    assert LocalPeers().refuse(("198.51.100.7", 40000), ("198.51.100.1", 8000)) is None
    assert LocalPeers().refuse(("2001:db8::7", 40000, 0, 0), ("2001:db8::1", 8000, 0, 0)) is None


@pytest.mark.usefixtures("child")
def test_a_socket_that_is_only_under_way_in_a_message_is_refused(listener: socket.socket) -> None:
    client = socket.create_connection(listener.getsockname())
    sending, receiving = socket.socketpair()
    with listener.accept()[0] as connection, sending, receiving:
        socket.send_fds(sending, [b"."], [client.fileno()])
        client.close()
        assert refusal(connection) == PeerRefusal("unseen")


@pytest.mark.usefixtures("child")
def test_nobody_is_let_in_while_no_descriptor_is_left_to_look(listener: socket.socket) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            found = refusal(connection)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found
    assert found.reason == "unseen"
    assert "Too many open files" in (found.error or "")


def test_callers_can_be_told_apart_here() -> None:
    assert find_peers_problem() is None
