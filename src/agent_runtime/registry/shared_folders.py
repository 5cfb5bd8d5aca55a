"""Names the folders that all replicas of a service must share, because any of them may make the next call."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from agent_runtime.domain.tools import BuiltinServer, StdioServer
from agent_runtime.registry.resolved import ResolvedEntry


def describe_shared_folders(entries: Iterable[ResolvedEntry], base_dir: Path) -> str:
    """Return a sentence that names the folders in which servers work; empty if none has one of its own.

    A server without a `cwd` starts in `base_dir`, the folder of the registry, and probably keeps nothing there.
    """
    folders = [
        f"{entry.server.id} ({', '.join(found)})"
        for entry in entries
        if entry.server.enabled and (found := list(dict.fromkeys(_folders_of(entry, str(base_dir.resolve())))))
    ]
    if not folders:
        return ""
    return (
        "any replica may make the next call of a task, so the folders of these servers must be one volume, mounted at "
        f"the same paths in all replicas: {', '.join(folders)}"
    )


def _folders_of(entry: ResolvedEntry, base_dir: str) -> Iterator[str]:
    match entry.server:
        case BuiltinServer() if entry.place is not None:
            yield str(entry.place)
        case StdioServer(config=config, sandbox=sandbox):
            if config.cwd and config.cwd != base_dir:
                yield config.cwd
            yield from (*sandbox.read, *sandbox.write)
