"""The file system of a server under bubblewrap: a table of paths, in which the most specific entry counts."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from agent_runtime.domain.tools import Sandbox
from agent_runtime.mcp_servers.own_files import OwnFiles, find_other_paths, resolve_links

_ROOT = Path("/")
_DEVICES = Path("/dev")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - nothing is created in it
_TEMPORARY = Path("/tmp")  # noqa: S108 - likewise
_RUN = (Path("/run"), Path("/var/run"))

_RESOLVER = "/etc/resolv.conf"
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"),
    *("/etc/alternatives", "/etc/ca-certificates", "/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf"),
    *("/etc/ld.so.conf.d", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/pki", _RESOLVER, "/etc/ssl"),
)
"""The parts of the system that programs need. A server with a `read` list sees these beside that list."""


class _Kind(Enum):
    """The content that a server finds at a path."""

    READ = "what is there, read only"
    WRITE = "what is there"
    DEVICES = "what is there, devices included"
    FEW_DEVICES = "null, zero, random, tty and an empty shm"
    PROCESSES = "the processes of the sandbox"
    EMPTY = "an empty folder in memory"
    HIDDEN = "an empty folder that cannot be written"
    MASKED = "a file that cannot be opened"


_SEEN = {_Kind.READ, _Kind.WRITE, _Kind.DEVICES}


@dataclass(frozen=True, slots=True)
class Start:
    """The command to start and its folder. `texts` are other texts of the entry that may name files."""

    argv: tuple[str, ...]
    cwd: Path
    texts: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[Path, ...]:
        """The folder and the command."""
        return (self.cwd, self.cwd / self.argv[0])

    @property
    def named(self) -> set[Path]:
        """The real paths of the files that the arguments and texts may name; of `--option=value` also the value."""
        texts = (*self.argv[1:], *self.texts)
        words = {word for text in texts for word in (text, text.partition("=")[2]) if word}
        found = set()
        for word in words:
            with suppress(OSError, ValueError):
                found.add((self.cwd / word).resolve(strict=True))
        return found


def mount_options(sandbox: Sandbox, start: Start, base_dir: Path, own: OwnFiles, *, all_devices: bool) -> list[str]:
    """Return the options of bubblewrap that mount what a server may see of the file system.

    Without `read` and `write`, the server reads and writes everything. With `write`, it writes nothing else. With
    `read`, nothing else exists but the parts of the system that programs need. Without network, /run, /tmp and /dev/shm
    hold only its folder, its command and the paths of `read` and `write`. The service's own files are always out of
    reach.
    """
    limited = bool(sandbox.read or sandbox.write)
    table = _Table(_Kind.EMPTY if sandbox.read else _Kind.READ if limited else _Kind.WRITE)
    if limited or not sandbox.network:
        table.empty(_TEMPORARY)
    if not sandbox.network:
        table.empty(*_RUN)
    if sandbox.read:
        table.show(_list_system(network=sandbox.network), _Kind.READ)
    reads, writes = ([(base_dir / name).absolute() for name in names] for names in (sandbox.read, sandbox.write))
    table.show(reads, _Kind.READ)
    table.show(writes, _Kind.WRITE)
    table.add_system(all_devices=all_devices and not limited, shared_memory=sandbox.network and not limited)
    if not sandbox.read:
        table.show_where_empty(start.needed)
    table.hide_own_files(own, start, start.named.union(map(resolve_links, (*reads, *writes))))
    return table.options()


def _list_system(*, network: bool) -> list[Path]:
    paths = [Path(name) for name in _SYSTEM if network or name != _RESOLVER]
    return [path for path in paths if path.exists()]


class _Table:
    """The mounts by their real paths, and the links to them from the paths in the entry."""

    def __init__(self, ground: _Kind) -> None:
        self._ground = ground
        self._places = {_ROOT: ground}
        self._links: dict[Path, Path] = {}

    def empty(self, *folders: Path) -> None:
        """Cover these folders with empty ones."""
        self._places |= {resolve_links(folder): _Kind.EMPTY for folder in folders if folder.is_dir()}

    def show(self, paths: Iterable[Path], kind: _Kind) -> None:
        """Mount what is at these paths, and make the paths lead there."""
        for path in paths:
            self._places[resolve_links(path)] = kind
            self._links[Path(os.path.normpath(path))] = resolve_links(path)

    def add_system(self, *, all_devices: bool, shared_memory: bool) -> None:
        """Add devices and processes, and protect the kernel's settings."""
        self._places[Path("/proc")] = _Kind.PROCESSES
        self._places[_DEVICES] = _Kind.DEVICES if all_devices else _Kind.FEW_DEVICES
        if _SHARED_MEMORY.is_dir() and shared_memory != all_devices:
            self._places[_SHARED_MEMORY] = _Kind.WRITE if shared_memory else _Kind.EMPTY
        if self._ground is _Kind.WRITE and Path("/sys").is_dir():
            self._places[Path("/sys")] = _Kind.READ

    def show_where_empty(self, paths: Iterable[Path]) -> None:
        """Mount these paths where an empty folder would hide them."""
        for path in paths:
            if self._find_kind(resolve_links(path)) is _Kind.EMPTY or self._find_kind(path) is _Kind.EMPTY:
                self.show([path], self._ground)

    def hide_own_files(self, own: OwnFiles, start: Start, named: set[Path]) -> None:
        """Hide the service's own files under every path that leads to them, and prevent their replacement.

        `named` are the paths that the entry may mean. Folders among them stay visible, even inside the data directory.
        """
        used = {*map(resolve_links, (*own.roots, *start.needed)), *named}
        kept: set[Path] = set()
        if own.data_dir and own.data_dir.is_dir():
            kept |= self._hide(resolve_links(own.data_dir), used)
        files = own.hidden_files(named)
        masked = {path for path in (*files, *find_other_paths(files)) if self._find_kind(path) in _SEEN}
        # Replacing the file would end the mask, so its folder is read only too.
        used.add(resolve_links(Path(os.environ.get("HOME", "/"))))
        # A command that only reads has perhaps made no data directory.
        folders = {folder for path in own.alone if (folder := resolve_links(path).parent).is_dir()}
        unused = {folder for folder in folders if not any(path.is_relative_to(folder) for path in used)}
        fixed = {path for path in (*map(resolve_links, own.program), *unused) if self._find_kind(path) is _Kind.WRITE}
        self._places |= dict.fromkeys(fixed - self._places.keys(), _Kind.READ) | dict.fromkeys(masked, _Kind.MASKED)
        # A mounted folder cannot be renamed, so no folder with other files can take its place.
        for parent in {parent for path in kept | masked | fixed for parent in path.parents}:
            if self._find_kind(parent) is _Kind.WRITE:
                self._places[parent] = _Kind.WRITE

    def _hide(self, folder: Path, but: Iterable[Path]) -> set[Path]:
        """Hide a folder except for the paths in `but`, and return the paths under which it was visible."""
        around = self._find_kind(folder)
        hidden = {path for path in (folder, *find_other_paths([folder])) if self._find_kind(path) in _SEEN}
        wanted = dict.fromkeys(but, _Kind.READ if around is _Kind.READ else _Kind.WRITE) if around in _SEEN else {}
        for path, kind in (wanted | self._places).items():
            if folder not in path.parents:
                continue
            if path.is_dir() or (path.exists() and path.parent != folder):
                self._places[path] = kind
            else:
                self._places.pop(path, None)
        self._places |= dict.fromkeys(hidden, _Kind.HIDDEN)
        return hidden

    def options(self) -> list[str]:
        """Return the options in the order in which the mounts cover each other."""
        links = {path: target for path, target in self._links.items() if path != target}
        tops = {path: target for path, target in links.items() if links.keys().isdisjoint(path.parents)}
        options: list[str] = []
        for path, kind in sorted(self._places.items(), key=lambda place: len(place[0].parts)):
            options += _mount_options_of(str(path), kind)
        for path, target in tops.items():
            if self._find_kind(path) is _Kind.EMPTY:
                options += ["--symlink", str(target), str(path)]
        for path, kind in self._places.items():
            if kind is _Kind.HIDDEN:
                options += ["--remount-ro", str(path)]
        return options

    def _find_kind(self, path: Path) -> _Kind:
        return next(self._places[place] for place in (path, *path.parents) if place in self._places)


def _mount_options_of(path: str, kind: _Kind) -> Sequence[str]:
    match kind:
        case _Kind.READ:
            return ("--ro-bind", path, path)
        case _Kind.WRITE:
            return ("--bind", path, path)
        case _Kind.DEVICES:
            return ("--dev-bind", path, path)
        case _Kind.FEW_DEVICES:
            return ("--dev", path)
        case _Kind.PROCESSES:
            # Root may write the kernel's settings in it without any capability.
            return ("--proc", path, "--remount-ro", path)
        case _Kind.EMPTY | _Kind.HIDDEN:
            return () if path == "/" else ("--tmpfs", path)
        case _Kind.MASKED:
            return ("--ro-bind", os.devnull, path)
