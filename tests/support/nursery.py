"""A process that has imported the service, and forks replicas from itself, so that each start takes little time.

Each line on standard input is a JSON object with `arguments`, `environment`, `folder` and `log`; each line on standard
output is the id of a new process.
"""

import gc
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Forked:
    """A process of the nursery, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor: int | None = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return 0 if the process has ended, whatever its exit code; only its parent learns that."""
        return 0 if self._has_ended(0) else None

    def wait(self, timeout: float = 60) -> int:
        if not self._has_ended(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return 0

    def send_signal(self, number: signal.Signals) -> None:
        if self._descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _has_ended(self, within_s: float) -> bool:
        if self._descriptor is not None and select.select([self._descriptor], [], [], within_s)[0]:
            os.close(self._descriptor)
            self._descriptor = None
        return self._descriptor is None


class Nursery:
    """The nursery as seen from the tests."""

    def __enter__(self) -> Self:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def fork(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> Forked:
        """Run the command line of the service with these arguments in a new process."""
        wish = {"arguments": arguments, "environment": environment, "folder": str(folder), "log": str(log)}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        return Forked(int(self._process.stdout.readline()))


def _serve_wishes() -> None:
    import agent_runtime.api.server  # noqa: PLC0415 - so that the tests do not import it
    import agent_runtime.cli.serve  # noqa: PLC0415
    import agent_runtime.runners.queued  # noqa: PLC0415
    import agent_runtime.storage.postgres.store  # noqa: F401, PLC0415

    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    for line in sys.stdin:
        wish = json.loads(line)
        if pid := os.fork():
            sys.stdout.write(f"{pid}\n")
            sys.stdout.flush()
        else:
            _become(wish)


def _become(wish: dict[str, Any]) -> None:
    """Be the process that the wish describes, and end with it."""
    from agent_runtime.cli import main  # noqa: PLC0415

    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.update(wish["environment"])
        os.chdir(wish["folder"])
        log = os.open(wish["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for stream, descriptor in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(stream, descriptor)
        sys.argv = ["agent-runtime", *wish["arguments"]]
        code = main(wish["arguments"])
    except BaseException:  # noqa: BLE001 - a new process has nobody else to tell
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve_wishes()
