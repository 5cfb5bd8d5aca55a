"""The built-in servers. To add one, write a module beside this one and add a row to `SERVERS`."""

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
    """The properties of one built-in server.

    `create` makes the server of an entry for its place, and protects the service's own files from it. `place` returns
    the folder or file that an entry works on, None if the server has no state; it gets the folder where relative paths
    of the registry begin, and the data directory. `reach` describes for people what the server can reach on this
    machine, with `{place}` for its place. `serves_place`: tasks may work on the place, even inside the data directory.
    `always`: the server exists without an entry, because it only computes.
    """

    create: Callable[[BuiltinConfig, Path, Sequence[Path]], MCPServer[Any]]
    place: Callable[[BuiltinConfig, Path, Path], Path | None] = _no_place
    reach: str = "no files, no network"
    serves_place: bool = False
    always: bool = False


def _name_root(config: BuiltinConfig) -> str:
    return config.root or "sample_data"


SERVERS: Mapping[str, Shipped] = {
    "filesystem": Shipped(
        lambda config, place, kept: filesystem.create_server(place, name=Path(_name_root(config)).name, kept=kept),
        place=lambda config, base_dir, _: base_dir / _name_root(config),
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
"""The built-in servers, by the name in `config.server` of an entry."""

ALWAYS = tuple(name for name, shipped in SERVERS.items() if shipped.always)


def create(
    config: BuiltinConfig, *, base_dir: Path, data_dir: Path, place: Path | None = None, kept: Sequence[Path] = ()
) -> MCPServer[Any]:
    """Return the server of a registry entry. Nothing is read or written yet.

    A relative `root` begins at `base_dir`; without one the filesystem server serves `base_dir/sample_data`. `place` is
    the resolved place, if known. The server neither reads nor writes the service's own files and folders, `kept`.
    """
    where = place or place_of(config, base_dir, data_dir) or base_dir
    return SERVERS[config.server].create(config, where, kept)


def place_of(config: BuiltinConfig, base_dir: Path, data_dir: Path) -> Path | None:
    """Return the folder or file that the server of an entry works on; None if it has no state."""
    return SERVERS[config.server].place(config, base_dir, data_dir)


def reach_of(config: BuiltinConfig, base_dir: Path, data_dir: Path) -> str:
    """Describe what the server of an entry can reach on this machine."""
    return SERVERS[config.server].reach.format(place=place_of(config, base_dir, data_dir))


def served_places(entries: Iterable[ToolServer], base_dir: Path, data_dir: Path) -> tuple[Path, ...]:
    """Return the folders that the entries open to tasks."""
    configs = [entry.config for entry in entries if isinstance(entry, BuiltinServer)]
    served = [place_of(config, base_dir, data_dir) for config in configs if SERVERS[config.server].serves_place]
    return tuple(place for place in served if place)
