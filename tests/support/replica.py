"""A replica of the service in a process of its own, without doors, that tests can kill, stop and continue.

Run it as `python replica.py FOLDER URL [--stops-before LABEL [--attempt NUMBER]]`. It takes part in the work on the
PostgreSQL database, with the registry and the data directory of the folder, and prints a line when it is ready. With
`--stops-before` it sends SIGSTOP to itself when the intent to call a tool with that label, in that attempt (the first),
is in the journal and before the call is sent.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from agent_runtime.bootstrap import Parts, open_runtime
from agent_runtime.config import LogSettings, Secrets, Settings, StorageSettings
from agent_runtime.domain.events import Event, ToolCalled
from agent_runtime.domain.pauses import Pauses
from agent_runtime.domain.task import Task
from agent_runtime.services.ports import AppendObserver
from agent_runtime.storage.postgres.connecting import read_database
from agent_runtime.storage.postgres.store import PostgresStore
from agent_runtime.telemetry import configure_logging

SILENCE_S = 4.0
QUICK = Pauses(circuit_s=0.1, heartbeat_s=0.4, silence_s=SILENCE_S, look_s=1.0)
"""Limits with which a dead replica is noticed soon, and a slow one on a busy machine is not taken for dead."""

_PATIENCE_S = 30.0


class Replica:
    """A replica as a process; leaving the context kills it."""

    def __init__(self, folder: Path, url: str, *, stops_before: str | None = None, attempt: int = 1) -> None:
        command = [sys.executable, __file__, str(folder), url, "--attempt", str(attempt)]
        self._command = [*command, *(["--stops-before", stops_before] if stops_before else [])]
        self._log = folder / "replica.log"

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", self._log.read_text(encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(_PATIENCE_S)
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def is_stopped(self) -> bool:
        """True while the process is stopped by a signal."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8")
        return stat.rpartition(")")[2].split()[0] == "T"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(_PATIENCE_S)


class _StoppingStore(PostgresStore):
    """Stops its process once the intent to call a tool with this label, in this attempt, is durable."""

    label = ""
    attempt = 1

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        after = await super().append(task, events, epoch=epoch)
        called = [(one.arguments.get("label"), one.attempt) for one in events if isinstance(one, ToolCalled)]
        if (self.label, self.attempt) in called:
            os.kill(os.getpid(), signal.SIGSTOP)
        return after


async def _run(folder: Path, url: str, label: str | None, attempt: int) -> None:
    def open_store(
        settings: StorageSettings, *, shared: bool = False, observe: AppendObserver | None = None
    ) -> PostgresStore:
        return (_StoppingStore if label else PostgresStore)(
            read_database(settings), exclusive=not shared, observe=observe
        )

    _StoppingStore.label, _StoppingStore.attempt = label or "", attempt
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    parts = Parts(open_store=open_store, pauses=QUICK, spares=None)
    secrets = Secrets()
    configure_logging(LogSettings(), secrets.redactor)
    registry, storage = folder / "tool_registry.yaml", StorageSettings(url=url)
    settings = Settings(data_dir=folder / "data", tool_registry=registry, storage=storage)
    async with open_runtime(settings, secrets, parts=parts):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("url")
    parser.add_argument("--stops-before", metavar="LABEL")
    parser.add_argument("--attempt", type=int, default=1)
    given = parser.parse_args()
    asyncio.run(_run(given.folder, given.url, given.stops_before, given.attempt))
