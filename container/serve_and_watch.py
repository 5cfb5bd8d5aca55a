# ruff: noqa: INP001 - a script that the image runs
"""The service, started again when its source or its configuration changes. For development.

Where it ends by itself before anything has changed, this ends with its exit code: a wrong setting is shown, and leaves
no container that runs and serves nothing. After a change it waits for the next one.
"""

import signal
import subprocess
import sys
import threading
from pathlib import Path

from watchfiles import watch

COMMAND = ["agent-runtime", "serve"]
WATCHED = [Path("/app/src"), Path("/app/config.yaml"), Path("/app/tool_registry.yaml")]
STOP_S = 15


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    process = subprocess.Popen(COMMAND)  # noqa: S603 - our own command
    changed = False
    paths = [path for path in WATCHED if path.exists()]
    for changes in watch(*paths, stop_event=told, yield_on_timeout=True, rust_timeout=500):
        if changes:
            changed = True
            stop(process)
            process = subprocess.Popen(COMMAND)  # noqa: S603 - our own command
        elif not changed and process.poll() is not None:
            return process.returncode
    stop(process)
    return 0


sys.exit(main())
