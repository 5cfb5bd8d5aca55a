"""Several replicas of the service on one PostgreSQL database, as processes that tests can kill and stop."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx2

from harness import House
from killing import Process
from nursery import Nursery
from serving import free_port
from waiting import eventually_sync

START_S = 180.0
"""How long a replica may take to start where the machine is busy."""


class Replica(Process):
    """A replica with a data directory and a port of its own, both of which it keeps when it is started again.

    `source` is the work tree whose code it runs; None selects that of the tests. With a nursery it starts sooner.
    `registry` is its tool registry; None selects that of the house.
    """

    def __init__(
        self,
        house: House,
        name: str,
        url: str,
        *,
        role: str | None = None,
        source: Path | None = None,
        nursery: Nursery | None = None,
        registry: Path | None = None,
    ) -> None:
        super().__init__(house)
        self.name = name
        self.port = free_port()
        self.client.headers["Connection"] = "close"  # none is left from before a kill
        self.client.base_url = httpx2.URL(f"http://127.0.0.1:{self.port}")
        self.log = house.folder / f"{name}.log"
        self.source = source
        self._nursery = nursery
        self._arguments = ["serve", "--port", str(self.port), "--data-dir", str(house.folder / f"data-{name}")]
        self._arguments += ["--registry", str(registry or house.settings.tool_registry)]
        self._arguments += ["--role", role] if role else []
        self._environment = {"AGENT_RUNTIME_STORAGE__URL": url, "AGENT_RUNTIME_AUTH__MODE": "anonymous"}

    def launch(self) -> None:
        """Start the process, and return before it serves."""
        if self._nursery and not self.source:
            self.process = self._nursery.fork(self._arguments, self._environment, self.house.folder, self.log)
            return
        path = {"PYTHONPATH": str(self.source / "src")} if self.source else {}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent_runtime", *self._arguments],
                cwd=self.house.folder,
                env=os.environ | self._environment | path,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        self.launch()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        eventually_sync(self.is_ready, START_S)

    def is_ready(self) -> bool:
        """Return whether it accepts work. A process that has ended is a failure of the test."""
        assert self.process
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")[-4000:]
        with suppress(httpx2.TransportError):
            return self.client.get("/readyz", timeout=2).status_code == 200
        return False

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stop the process as a suspended machine does, until `resume`."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def run_replicas(house: House, url: str, count: int) -> Iterator[Sequence[Replica]]:
    """Run so many replicas on the database at this URL while the context lasts."""
    with ExitStack() as stack:
        nursery = stack.enter_context(Nursery())
        replicas = [Replica(house, f"replica-{number}", url, nursery=nursery) for number in range(1, count + 1)]
        for replica in replicas:
            stack.callback(replica.close)
            replica.launch()
        for replica in replicas:
            replica.wait_until_ready()
        yield replicas
