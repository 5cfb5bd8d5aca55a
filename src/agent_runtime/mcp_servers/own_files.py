"""The service's own files, which no MCP server may read or change."""

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import agent_runtime
from agent_runtime.config import Settings

_SECRET_FILE = re.compile(r"\$\{file:([^}]+)\}")
_ESCAPED = re.compile(r"\\([0-7]{3})")
"""The escapes of /proc/self/mountinfo for spaces and the like."""


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """The files to protect from servers, by the paths in the settings. Paths may be links, and need not exist yet.

    `data_dir` is hidden with its content, except for `roots` and folders that an entry names. `files` are always
    hidden, as are `databases` with every file beside them whose name begins with theirs. `secrets` are hidden from
    servers whose entry does not name them. Nobody may put other files beside those in `alone`: a file that is read
    again when it is replaced, and the database, into which SQLite applies a journal that lies beside it. `program` is
    the code of the service, which may be read and not changed.
    """

    data_dir: Path | None = None
    roots: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    databases: tuple[Path, ...] = ()
    secrets: tuple[Path, ...] = ()
    alone: tuple[Path, ...] = ()
    program: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths that servers inside this process must not touch."""
        folder = (self.data_dir,) if self.data_dir else ()
        return (*folder, *self.files, *self.databases, *self.secrets)

    def hidden_files(self, named: Iterable[Path]) -> set[Path]:
        """Return the real paths of the files to hide from a server whose entry names these paths."""
        files = {*self.files, *(path for database in self.databases for path in _list_family(database))}
        hidden = {*map(resolve_links, files), *({*map(resolve_links, self.secrets)} - set(named))}
        return {path for path in hidden if _is_file(path)}


def find_own_files(settings: Settings, roots: tuple[Path, ...], database: Path | None, *others: Path) -> OwnFiles:
    """Return the files to protect for a service with these settings.

    `roots` are the folders in which tasks work, even inside the data directory. `database` holds the journal, unless a
    server does. `others` are further files of the service.
    """
    base_dir = settings.tool_registry.absolute().parent
    databases = (database,) if database else ()
    folders = {Path.cwd(), base_dir, *([settings.config_file.absolute().parent] if settings.config_file else [])}
    files = [settings.config_file, settings.tool_registry, settings.auth.keys_file]
    texts = [settings.tool_registry_yaml or "", *(_read_text(path) for path in files[:2] if path)]
    return OwnFiles(
        data_dir=settings.data_dir,
        roots=roots,
        files=(
            *(path for path in files if path),
            *(folder / ".env" for folder in folders),
            *others,
            *settings.storage.secret_files,
        ),
        databases=databases,
        secrets=tuple(map(Path, _SECRET_FILE.findall("".join(texts)))),
        alone=(*databases, *([settings.auth.keys_file] if settings.auth.keys_file else [])),
        program=(Path(agent_runtime.__file__).parent.parent, Path(sys.prefix), Path(sys.base_prefix)),
    )


def resolve_links(path: Path) -> Path:
    """Return the path with every link resolved, as far as the path exists."""
    return Path(os.path.realpath(path))


def find_other_paths(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the other paths of the same files, if their folder is mounted in several places."""
    mounts = _read_mounts()
    for path in paths:
        text = str(path)
        over = [mount for mount in mounts if _is_in(text, mount.point)]
        if not over:
            continue
        mine = max(over, key=lambda mount: len(mount.point))
        inner = mine.root + text[len(mine.point) :]
        for mount in mounts:
            if mount is not mine and mount.device == mine.device and _is_in(inner, mount.root):
                other = Path(mount.point + inner[len(mount.root) :])
                if other != path and _is_same(other, path):
                    yield other


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _list_family(database: Path) -> Iterator[Path]:
    """Yield the database file, its journals and all other files beside it whose name begins with its own."""
    yield database
    with suppress(OSError), os.scandir(resolve_links(database).parent) as entries:
        name = resolve_links(database).name
        yield from [Path(entry.path) for entry in entries if entry.name.startswith(name)]


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


class _Mount(NamedTuple):
    """A device, the mounted folder of it, and the mount point; folders have no trailing slash."""

    device: str
    root: str
    point: str


def _read_mounts() -> list[_Mount]:
    try:
        lines = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()
    except OSError:
        return []
    rows = (line.split(" ") for line in lines)
    return [_Mount(row[2], _unescape(row[3]).rstrip("/"), _unescape(row[4]).rstrip("/")) for row in rows]


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
