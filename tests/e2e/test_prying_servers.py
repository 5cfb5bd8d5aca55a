"""A server cannot see open files, memory or the environment of the service (G12)."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from command_line import AGENT_RUNTIME, PATIENCE_S, Folder, ServiceProcess

PRYING_SERVER = Path(__file__).parent.parent / "servers" / "prying_server.py"
SERVERS = 6
"""Many concurrent starts, so that one server could inherit a descriptor that is meant for another."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: this machine has no /proc")


class Planted:
    """The folder of a service with secrets and prying servers, every second one without a sandbox."""

    def __init__(self, path: Path) -> None:
        self.folder = Folder(path)
        self.secrets = {name: uuid4().hex for name in ("OPENAI_API_KEY", "GIVEN", "AWS_SECRET_ACCESS_KEY")}
        self.folder.env |= self.secrets | {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
        self.modes = {f"prying{number}": ("off", "auto")[number % 2] for number in range(SERVERS)}
        given = {"env": {"GIVEN": "${env:GIVEN}"}}
        self.folder.write_registry(
            {"id": "given", "type": "local_stdio", "enabled": False, "config": {"command": "none", **given}},
            *(self._entry(name, mode) for name, mode in self.modes.items()),
        )

    def _entry(self, name: str, mode: str) -> dict[str, Any]:
        config = {"command": sys.executable, "args": ["-S", "-E", str(PRYING_SERVER), str(self._seen_by(name))]}
        return {"id": name, "type": "local_stdio", "config": config, "sandbox": {"mode": mode}}

    def _seen_by(self, name: str) -> Path:
        return self.folder.path / f"seen-by-{name}"

    def read_findings(self) -> dict[str, Any]:
        return {name: json.loads(self._seen_by(name).read_text(encoding="utf-8")) for name in self.modes}


@pytest.fixture
def planted_servers(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


def without_powers() -> list[str]:
    """Return a command prefix that drops the right to trace other processes, which root has."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("NOT TESTED: as root, setpriv is needed to give up its powers")
    return ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--"]


@contextmanager
def serve(folder: Folder, *before: str, pass_fds: tuple[int, ...] = ()) -> Iterator[ServiceProcess]:
    """Run a service, with the command prefix `before`, that inherits these open files."""
    process = subprocess.Popen(
        [*before, *AGENT_RUNTIME, "serve", "--port", "0"],
        cwd=folder.path,
        env=folder.env,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
    )
    service = ServiceProcess(process)
    try:
        service.wait_for_start()
        yield service
    finally:
        service.stop()


def ask_for_tools(folder: Folder, *before: str) -> None:
    """Query the tools of every server, and wait for the answers. `before` is a command prefix.

    A service without powers cannot see a caller that has more of them, and refuses it while servers run.
    """
    command = [*before, *AGENT_RUNTIME, "tools", "--refresh"]
    done = subprocess.run(
        command, cwd=folder.path, env=folder.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_server_gets_its_three_streams_only(planted_servers: Planted) -> None:
    readable, writable = os.pipe()
    try:
        with serve(planted_servers.folder, pass_fds=(readable, writable)):
            ask_for_tools(planted_servers.folder)
    finally:
        os.close(readable)
        os.close(writable)
    for found in planted_servers.read_findings().values():
        assert sorted(found["descriptors"]) == ["0", "1", "2"]
        assert len(set(found["descriptors"].values())) == 3


@pytest.mark.slow
def test_the_environment_of_the_service_holds_no_secret_once_it_runs(planted_servers: Planted) -> None:
    with serve(planted_servers.folder) as service:
        try:
            shown = Path(f"/proc/{service.process.pid}/environ").read_bytes()
        except PermissionError:
            return  # only processes that may trace all others, such as root, can see it
    for name, secret in planted_servers.secrets.items():
        assert secret.encode() not in shown, name


@pytest.mark.slow
def test_a_server_reads_no_memory_environment_or_open_file_of_what_started_it(planted_servers: Planted) -> None:
    with serve(planted_servers.folder, *without_powers()) as service:
        ask_for_tools(planted_servers.folder, *without_powers())
        assert_not_seen_into(planted_servers, service.process.pid)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["tools", "doctor"])
def test_a_command_that_starts_servers_itself_is_not_seen_into_either(planted_servers: Planted, command: str) -> None:
    words = [*without_powers(), *AGENT_RUNTIME, command]
    with subprocess.Popen(
        words, cwd=planted_servers.folder.path, env=planted_servers.folder.env, stdout=subprocess.DEVNULL
    ) as process:
        process.wait(PATIENCE_S)
    assert_not_seen_into(planted_servers, process.pid)


def assert_not_seen_into(planted_servers: Planted, pid: int) -> None:
    looks = [
        found["above"][str(pid)] for found in planted_servers.read_findings().values() if str(pid) in found["above"]
    ]
    assert len(looks) >= SERVERS // 2, "those without a sandbox see the process"
    for look in looks:
        assert set(look.values()) == {"PermissionError"}


@pytest.mark.slow
def test_secrets_are_at_hand_for_every_later_start(planted_servers: Planted) -> None:
    """Servers still get these values, although they are removed from the environment."""
    seen = planted_servers.folder.path / "given"
    code = f"import os, pathlib; pathlib.Path({str(seen)!r}).open('a').write(os.environ['GIVEN'] + '\\n')"
    config = {"command": sys.executable, "args": ["-c", code], "env": {"GIVEN": "${env:GIVEN}"}}
    planted_servers.folder.write_registry({"id": "given", "type": "local_stdio", "config": config})
    with serve(planted_servers.folder):
        ask_for_tools(planted_servers.folder)
        ask_for_tools(planted_servers.folder)
    told = seen.read_text(encoding="utf-8").split()
    assert len(told) > 1
    assert set(told) == {planted_servers.secrets["GIVEN"]}
