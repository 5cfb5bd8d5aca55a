"""The registry of the built-in servers: another one is a module beside this one, and a row in `SERVERS`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp.server import MCPServer

from agent_runtime.builtin import calculator, filesystem, text, todo
from agent_runtime.domain.tools import BuiltinConfig, BuiltinServer, ToolServer


def _no_place(_config: BuiltinConfig, _base_dir: Path, _data_dir: Path) -> Path | None:
    return None


@dataclass(frozen=True, slots=True)
class Shipped:
    """What holds of one built-in server.

    `create` makes the server of an entry on its place, and keeps it from the service's own files and folders.
    `place` returns the folder or file that an entry works on, None where the server holds no state; it gets the folder
    in which relative paths of the registry begin, and the data directory. `reach` says what of this machine the server
    can reach, with `{place}` for its place. `serves_place`: tasks may work on the place, even inside the data
    directory. `always`: the server exists without being listed, since it computes and reaches nothing.
    """

    create: Callable[[BuiltinConfig, Path, Sequence[Path]], MCPServer[Any]]
    place: Callable[[BuiltinConfig, Path, Path], Path | None] = _no_place
    reach: str = "no files, no network"
    serves_place: bool = False
    always: bool = False


def _root(config: BuiltinConfig) -> str:
    return config.root or "sample_data"


SERVERS: Mapping[str, Shipped] = {
    "filesystem": Shipped(
        lambda config, place, kept: filesystem.create_server(place, name=Path(_root(config)).name, kept=kept),
        place=lambda config, base_dir, _: base_dir / _root(config),
        reach="the files below {place}",
        serves_place=True,
    ),
    "calculator": Shipped(lambda *_: calculator.create_server(), always=True),
    "todo": Shipped(
        lambda _config, place, _kept: todo.create_server(place),
        place=lambda _config, _base_dir, data_dir: data_dir / "todo.db",
        reach="its list in the data directory",
    ),
    "text": Shipped(lambda *_: text.create_server(), always=True),
}
"""The built-in servers by the name that `config.server` of an entry has for them."""

ALWAYS = tuple(name for name, shipped in SERVERS.items() if shipped.always)


def create(
    config: BuiltinConfig, *, base_dir: Path, data_dir: Path, place: Path | None = None, kept: Sequence[Path] = ()
) -> MCPServer[Any]:
    """Return the server that a registry entry names. Nothing is read or written yet.

    A relative `root` is relative to `base_dir`; without one the filesystem server serves `base_dir/sample_data`.
    `place` is what that was resolved to, where it was. Nothing in `kept` is read or written: the service's own files
    and folders.
    """
    where = place or place_of(config, base_dir, data_dir) or base_dir
    return SERVERS[config.server].create(config, where, kept)


def place_of(config: BuiltinConfig, base_dir: Path, data_dir: Path) -> Path | None:
    """Return the folder or file that the server of an entry works on; None where it holds no state."""
    return SERVERS[config.server].place(config, base_dir, data_dir)


def reach_of(config: BuiltinConfig, base_dir: Path, data_dir: Path) -> str:
    """Say what of this machine the server of an entry can reach."""
    return SERVERS[config.server].reach.format(place=place_of(config, base_dir, data_dir))


def served_places(entries: Iterable[ToolServer], base_dir: Path, data_dir: Path) -> tuple[Path, ...]:
    """Return the folders that the entries open to tasks."""
    configs = [entry.config for entry in entries if isinstance(entry, BuiltinServer)]
    served = [place_of(config, base_dir, data_dir) for config in configs if SERVERS[config.server].serves_place]
    return tuple(place for place in served if place)
