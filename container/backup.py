# ruff: noqa: INP001 - a script that the image runs
"""Writes a backup of the data directory to standard output, as a tar file, while the service runs.

Each database is copied consistently (SQLite's VACUUM INTO), so the copies need no -wal file. All other files are copied
as they are; a file that a task writes in the meantime may be old or new. The lock and the files of the file system are
left out.
"""

import os
import sqlite3
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

LEFT_OUT = (".lock", ".db-wal", ".db-shm", "lost+found")
WORK = ".backup-"


def main() -> int:
    if sys.stdout.isatty():
        sys.stderr.write("The backup is a tar file: redirect it, with > backup.tar.\n")
        return 2
    data = Path(os.environ.get("AGENT_RUNTIME_DATA_DIR") or "/data")
    with (
        tempfile.TemporaryDirectory(prefix=WORK, dir=data) as work,
        tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive,
    ):
        for path in sorted(data.iterdir()):
            if path.suffix == ".db":
                copy = Path(work) / path.name
                with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as database:
                    database.execute("VACUUM INTO ?", (str(copy),))
                copy.chmod(0o600)
                archive.add(copy, arcname=path.name)
            elif not path.name.startswith(WORK) and not path.name.endswith(LEFT_OUT):
                archive.add(path, arcname=path.name)
    return 0


sys.exit(main())
