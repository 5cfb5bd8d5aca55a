# ruff: noqa: INP001 - a script that the image runs
"""Runs the service, and restarts it when its source or its configuration changes. For development.

If the service ends by itself before any change, this script ends with its exit code, so that a wrong setting does not
leave a running container without a service. If it ends after a change, the script waits for the next change.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from watchfiles import DefaultFilter, watch

APP = Path(__file__).absolute().parents[1]
SOURCE = APP / "src"
FILES = (Path(os.environ.get("AGENT_RUNTIME_CONFIG") or APP / "config.yaml"), APP / "tool_registry.yaml")
COMMAND = ["agent-runtime", "serve"]
STOP_S = 15
LOOK_MS = 500

# This folder in the source links to the files root, where tasks write.
is_source = DefaultFilter(ignore_paths=[SOURCE / "agent_runtime" / "sample_data"])


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def look_at_files() -> dict[Path, tuple[int, int, int] | None]:
    """Return a value per file that changes with its version. Watching a file would end when it is replaced."""
    return {path: _version_of(path) for path in FILES}


def _version_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def main() -> int:
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    files = look_at_files()
    process = subprocess.Popen(COMMAND)  # noqa: S603 - our own command
    restarted = False
    looks = watch(SOURCE, watch_filter=is_source, stop_event=told, yield_on_timeout=True, rust_timeout=LOOK_MS)
    for found in looks:
        seen, files = files, look_at_files()
        changed = {name for _, name in found} | {str(path) for path in FILES if files[path] != seen[path]}
        if changed:
            sys.stderr.write(f"Restarting after changes of {', '.join(sorted(changed))}\n")
            restarted = True
            stop(process)
            process = subprocess.Popen(COMMAND)  # noqa: S603 - our own command
        elif not restarted and process.poll() is not None:
            return process.returncode
    stop(process)
    return 0


sys.exit(main())
