"""The processes of this machine, to find those that a test left behind."""

from pathlib import Path


def find_processes(variable: str) -> list[int]:
    """Return the ids of the living processes with this `NAME=value` in their environment."""
    mark, found = variable.encode(), []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            given = environment.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in given:
            found.append(int(environment.parent.name))
    return found
