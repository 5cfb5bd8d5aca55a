"""Without keys, every process may use the service, except those that the service started (G14)."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from command_line import PATIENCE_S, Folder, ServiceProcess
from processes import find_processes
from waiting import eventually_sync

CALLING_SERVER = Path(__file__).parent.parent / "servers" / "calling_server.py"


def own_address() -> str:
    """Return an address of this machine other than loopback, if there is one, without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 1))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


class Calling:
    """A service whose servers call it in several ways, and the results of these calls."""

    def __init__(self, path: Path, *, leaves_daemons: bool = False, **sandboxes: str) -> None:
        self.folder = Folder(path)
        self.leaves_daemons = leaves_daemons
        self.names = list(sandboxes)
        self.folder.write_registry(*(self._entry(name, mode) for name, mode in sandboxes.items()))
        self.folder.env |= {
            "AGENT_RUNTIME_AUTH__MODE": "anonymous",
            "AGENT_RUNTIME_SERVER__ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]",
            "AGENT_RUNTIME_LIMITS__SERVER_START_S": "60",
        }

    def _entry(self, name: str, mode: str) -> dict[str, Any]:
        """Return an entry whose server is stopped after it has listed its tools."""
        env = {
            "REPORT": str(self.folder.path / f"{name}.json"),
            "URL_FILE": str(self.folder.path / "url"),
            "ADDRESS": own_address(),
            "AFTERWARDS": str(self.folder.path / "afterwards") if self.leaves_daemons else "",
        }
        config = {"command": sys.executable, "args": ["-S", "-E", str(CALLING_SERVER)], "env": env}
        return {"id": name, "type": "local_stdio", "config": config, "sandbox": {"mode": mode}, "scope": "task"}

    @contextmanager
    def serve(self, host: str) -> Iterator[ServiceProcess]:
        with self.folder.serve("serve", "--host", host) as service:
            (self.folder.path / "url.draft").write_text(service.url, encoding="utf-8")
            (self.folder.path / "url.draft").rename(self.folder.path / "url")
            yield service

    def report(self, name: str) -> dict[str, str]:
        file = self.folder.path / f"{name}.json"
        eventually_sync(file.exists, within_s=60)
        return dict(json.loads(file.read_text(encoding="utf-8")))


UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
"""Starts a program as root without capabilities, so that it cannot inspect every process."""

OTHER_USER = 65534

SEEN = (
    *("read", "submit", "approve", "follow", "over a WebSocket", "with a forged address"),
    *("by IPv4", "by another address of loopback", "by IPv6", "by an IPv4 address mapped into IPv6"),
    *("by the address of the machine", "bound to the interface", "by MPTCP"),
    *("in another program", "in a daemon", "by a helper that is passed the socket"),
)
HIDING = (
    *("in a process of a user namespace", "in a process that may not be looked into"),
    *("in a thread with files of its own", "with the socket in a message", "with the socket held by a call"),
)
"""Ways in which the kernel hides the owner of a socket from unprivileged processes."""

IMPOSSIBLE = ("Protocol not available", "Operation not permitted", "unshare: ")
"""Errors of ways that this machine, or the sandbox, does not support."""


@pytest.fixture(scope="module")
def calling_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Calling, ServiceProcess]]:
    """A service on all addresses that two servers call: one in a sandbox, if available, and one without."""
    calling_servers = Calling(tmp_path_factory.mktemp("calling"), plain="off", boxed="auto")
    with calling_servers.serve("::") as service:
        yield calling_servers, service


@pytest.fixture(scope="module")
def unprivileged_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Calling, ServiceProcess]]:
    """The same for a service that cannot inspect every process, like that of an ordinary user."""
    calling_servers = Calling(tmp_path_factory.mktemp("unprivileged"), plain="off", boxed="auto")
    calling_servers.folder.starter = UNPRIVILEGED if os.getuid() == 0 else ()
    with calling_servers.serve("::") as service:
        yield calling_servers, service


def check_refused(said: str, *codes: str) -> None:
    if any(words in said for words in IMPOSSIBLE):
        pytest.skip(said)
    assert said in {f"403 caller_{code}" for code in codes}


@pytest.mark.slow
@pytest.mark.parametrize("server", ["plain", "boxed"])
@pytest.mark.parametrize("way", SEEN)
def test_a_process_that_the_service_started_is_refused(
    calling_servers: tuple[Calling, ServiceProcess], server: str, way: str
) -> None:
    check_refused(calling_servers[0].report(server)[way], "started_by_service")


@pytest.mark.parametrize("server", ["plain", "boxed"])
@pytest.mark.parametrize("way", HIDING)
def test_a_process_that_hides_its_socket_is_refused(
    calling_servers: tuple[Calling, ServiceProcess], server: str, way: str
) -> None:
    check_refused(calling_servers[0].report(server)[way], "started_by_service", "unseen")


@pytest.mark.slow
@pytest.mark.parametrize("server", ["plain", "boxed"])
@pytest.mark.parametrize("way", [*SEEN, *HIDING])
def test_it_is_refused_by_a_service_that_may_not_look_into_every_process(
    unprivileged_servers: tuple[Calling, ServiceProcess], server: str, way: str
) -> None:
    check_refused(unprivileged_servers[0].report(server)[way], "started_by_service", "unseen")


@pytest.mark.parametrize("server", ["plain", "boxed"])
def test_what_is_open_to_everybody_answers_such_a_process_too(
    calling_servers: tuple[Calling, ServiceProcess], server: str
) -> None:
    assert calling_servers[0].report(server)["health"] == "200"


def test_a_request_whose_sender_is_gone_changes_nothing(calling_servers: tuple[Calling, ServiceProcess]) -> None:
    servers, service = calling_servers
    refused = 0
    for server in servers.names:
        report = servers.report(server)
        assert (report["closed at once"], report["ended at once"]) == ("sent", "sent")
        refused += sum(said.startswith("403") for said in report.values()) + 2
    eventually_sync(lambda: service.log.count('"caller_refused"') == refused)
    assert httpx2.get(f"{service.url}/v1/tasks").json()["tasks"] == []


def test_other_programs_call_without_a_credential_meanwhile(calling_servers: tuple[Calling, ServiceProcess]) -> None:
    servers, service = calling_servers
    servers.report("plain")
    port = httpx2.URL(service.url).port
    for host in ("[::1]", "127.0.0.1", own_address()):
        answer = httpx2.get(f"http://{host}:{port}/v1/tasks", headers={"Host": "localhost"})
        assert answer.status_code == 200, (host, answer.text)
    with httpx2.Client(base_url=service.url) as client:  # many requests on one connection
        assert {client.get("/v1/tasks").status_code for _ in range(5)} == {200}
    assert shell_client(port, "127.0.0.1") == "HTTP/1.1 200 OK"
    assert servers.folder.json("tasks")["tasks"] == []


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root may act as another user")
def test_a_program_of_another_user_calls_a_service_that_cannot_look_into_it(
    unprivileged_servers: tuple[Calling, ServiceProcess],
) -> None:
    servers, service = unprivileged_servers
    servers.report("plain")
    assert shell_client(httpx2.URL(service.url).port, "127.0.0.1", user=OTHER_USER) == "HTTP/1.1 200 OK"


@pytest.mark.slow
def test_an_orphan_is_still_refused_and_ends_with_the_service(tmp_path: Path) -> None:
    calling_servers = Calling(tmp_path, leaves_daemons=True, plain="off")
    afterwards = tmp_path / "afterwards"
    with calling_servers.serve("127.0.0.1"):
        eventually_sync(afterwards.exists, within_s=60)
        assert afterwards.read_text(encoding="utf-8") == "403 caller_started_by_service"
        assert find_processes(f"AFTERWARDS={afterwards}")
    assert not find_processes(f"AFTERWARDS={afterwards}")


CONTAINER = ("unshare", "--pid", "--net", "--mount-proc", "--fork", "--kill-child")
"""Starts a program as a container engine does, with its own process and network namespaces."""


@pytest.mark.slow
def test_in_a_container_its_servers_are_refused_and_who_comes_from_outside_is_let_in(tmp_path: Path) -> None:
    if not can_make_networks():
        pytest.skip("NOT TESTED: only root with ip can make the network of a container, where the machine allows it")
    calling_servers = Calling(tmp_path, plain="off")
    calling_servers.folder.starter = (*CONTAINER, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *UNPRIVILEGED)
    with calling_servers.serve("0.0.0.0") as service, join_networks(service) as inside:  # noqa: S104 - of that network
        assert calling_servers.report("plain")["read"] == "403 caller_started_by_service"
        assert calling_servers.report("plain")["by another address of loopback"] == "403 caller_started_by_service"
        port = httpx2.URL(service.url).port
        published = shell_client(port, BRIDGE[1])
        assert published == "HTTP/1.1 200 OK"
        executed = shell_client(port, "127.0.0.1", enter=("nsenter", "-t", inside, "-n", "-p", "-m", *UNPRIVILEGED))
        assert executed == "HTTP/1.1 200 OK"
        other_user = ("setpriv", "--reuid", str(OTHER_USER), "--clear-groups")
        forwarded = shell_client(port, "127.0.0.1", enter=("nsenter", "-t", inside, "-n", *other_user))
        assert forwarded == "HTTP/1.1 200 OK"


def can_make_networks() -> bool:
    """Return True if this machine can create a network namespace and connect it with another."""
    if os.getuid() != 0 or not shutil.which("ip"):
        return False
    pair = "ip link add one type veth peer name two"
    return subprocess.run([*CONTAINER, *pair.split()], capture_output=True, check=False).returncode == 0


BRIDGE = ("198.18.77.1", "198.18.77.2")
"""The addresses outside and inside the namespace."""


@contextmanager
def join_networks(service: ServiceProcess) -> Iterator[str]:
    """Connect the network of a service in a container with this one, and yield the id of its process."""
    starter = service.process.pid
    (inside,) = Path(f"/proc/{starter}/task/{starter}/children").read_text(encoding="ascii").split()
    out = f"out{starter}"
    commands = [
        f"ip link add {out} type veth peer name in{starter} netns {inside}",
        f"ip address add {BRIDGE[0]}/30 dev {out}",
        f"ip link set {out} up",
        f"nsenter -t {inside} -n ip address add {BRIDGE[1]}/30 dev in{starter}",
        f"nsenter -t {inside} -n ip link set in{starter} up",
    ]
    for command in commands:
        subprocess.run(command.split(), check=True, timeout=PATIENCE_S)
    try:
        yield inside
    finally:
        os.kill(int(inside), signal.SIGTERM)  # its starter ignores signals; the network ends with the service


def shell_client(port: int | None, host: str, user: int | None = None, enter: Sequence[str] = ()) -> str:
    """Request a path from a shell, which is a separate program, and return the first line of the response."""
    script = (
        f"exec 3<>/dev/tcp/{host}/{port}; printf 'GET /v1/tasks HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n' >&3; "
        'read -r line <&3; echo "${line%?}"'
    )
    done = subprocess.run(
        [*enter, "bash", "-c", script],
        cwd="/",
        user=user,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return done.stdout.strip()
