"""The processes of this machine, as tests look for what was left."""

from pathlib import Path


def find_processes(variable: str) -> list[int]:
    """The living processes that have this `NAME=value` in their environment."""
    mark, found = variable.encode(), []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            given = environment.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in given:
            found.append(int(environment.parent.name))
    return found
