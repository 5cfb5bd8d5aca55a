"""Looks at the files that a plan names on built-in file servers, so that a person can judge what it would do to them.

Only what these servers may reach is looked at. Nothing is called and nothing is written.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from agent_runtime.builtin.entries import Place
from agent_runtime.builtin.refusals import MAX_TEXT, Refusal, split_lines
from agent_runtime.builtin.root import Root
from agent_runtime.builtin.search import kind_of, looks_like_text
from agent_runtime.builtin.servers import name_root
from agent_runtime.domain.present_files import FILE_SERVER, FileState, NamedFile, find_all_files
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import BuiltinServer
from agent_runtime.registry.current import CurrentRegistry

_LOOK_S = 2.0
"""The most seconds that a reader of a plan waits for a look."""
_COUNTED_BYTES = 8 * MAX_TEXT
"""The most bytes of all files together in which one look counts lines."""


class FileLook:
    """Looks at the files of plans, in one thread at a time: a file system that hangs holds up no more than that.

    `kept` are the files and folders that are out of reach. A reload of the registry replaces them.
    """

    def __init__(self, registry: CurrentRegistry, kept: Sequence[Path]) -> None:
        self._registry = registry
        self._limiter: anyio.CapacityLimiter | None = None
        self.kept = kept

    async def look(self, task: Task) -> dict[NamedFile, FileState]:
        """Return what the paths in a plan that awaits approval name now; nothing for any other task.

        Left out are paths that the server would refuse, and those on servers whose entry is not the one that the plan
        was made with. Where a look takes more than 2 s, all are left out.
        """
        contract = task.contract
        if contract is None or task.status is not TaskStatus.AWAITING_APPROVAL:
            return {}
        roots = dict(self._find_roots(contract.servers))
        wanted = [named for named in find_all_files(contract, task.identities) if named[0] in roots]
        if not wanted:
            return {}
        self._limiter = self._limiter or anyio.CapacityLimiter(1)
        with anyio.move_on_after(_LOOK_S):
            return await anyio.to_thread.run_sync(_look, wanted, roots, abandon_on_cancel=True, limiter=self._limiter)
        return {}

    def _find_roots(self, pinned: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], Root]]]:
        """Yield what opens the folder of each file server of a plan; it looks at the disk."""
        for server_id, digest in pinned.items():
            entry = self._registry.entries.get(server_id)
            if entry is None or entry.place is None or entry.identity.digest != digest or not entry.server.enabled:
                continue
            if isinstance(entry.server, BuiltinServer) and entry.server.config.server == FILE_SERVER:
                yield server_id, partial(Root, entry.place, name_root(entry.server.config), self.kept)


def _look(wanted: Sequence[NamedFile], roots: Mapping[str, Callable[[], Root]]) -> dict[NamedFile, FileState]:
    opened = {server: roots[server]() for server in {server for server, _ in wanted}}
    left = _COUNTED_BYTES
    found: dict[NamedFile, FileState] = {}
    for server, path in wanted:
        try:
            state = _look_at(opened[server], path, min(left, MAX_TEXT))
        except (Refusal, OSError, ValueError):  # the server would refuse this path too, so nothing is known of it
            continue
        left -= 0 if state.lines is None else state.size
        found[server, path] = state
    return found


def _look_at(root: Root, path: str, countable: int) -> FileState:
    place = root.locate(path)
    try:
        with root.folder(place.parent) as folder:
            status = os.stat(place.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return FileState("missing")
    match kind_of(status.st_mode):
        case "file":
            lines = _count_lines(root, place) if status.st_size <= countable else None
            return FileState("file", status.st_size, lines)
        case "directory":
            return FileState("folder")
        case _:
            return FileState("other")


def _count_lines(root: Root, place: Place) -> int | None:
    try:
        data = root.read(place, MAX_TEXT)
    except Refusal:
        return None
    return len(split_lines(data.decode())) if looks_like_text(data) else None
