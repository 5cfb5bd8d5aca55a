"""The built-in servers. To add one, write a module beside this one and add a row to `SERVERS`.

Their modules are imported when a server is made: many commands need none.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent_runtime.domain.tools import BuiltinConfig, BuiltinServer, ToolServer

if TYPE_CHECKING:
    from agent_runtime.builtin.todo_list import TodoDatabase
    from agent_runtime.builtin.toolbox import Toolbox


def _no_place(_config: BuiltinConfig, _base_dir: Path, _data_dir: Path | None) -> Path | None:
    return None


@dataclass(frozen=True, slots=True)
class Shipped:
    """The properties of one built-in server.

    `create` makes the server of an entry for its place, and protects the service's own files from it; it gets the
    database of the todos, if they are in no file. `place` returns the folder or file that an entry works on, None if
    the server has no state on this machine; it gets the folder where relative paths of the registry begin, and the data
    directory, None if the state of the service is in a database server. `reach` describes for people what the server
    can reach, with `{place}` for its place and `{home}` for where the state of the service is. `serves_place`: tasks
    may work on the place, even inside the data directory. `always`: the server exists without an entry, because it only
    computes.
    """

    create: "Callable[[BuiltinConfig, Path, Sequence[Path], TodoDatabase | None], Toolbox]"
    place: Callable[[BuiltinConfig, Path, Path | None], Path | None] = _no_place
    reach: str = "no files, no network"
    serves_place: bool = False
    always: bool = False


_SAMPLES = "sample_data"


def name_root(config: BuiltinConfig) -> str:
    """Return what people call the folder of a file server: the name in its entry."""
    return Path(config.root or _SAMPLES).name


def _create_filesystem(config: BuiltinConfig, place: Path, kept: Sequence[Path], _: "TodoDatabase | None") -> "Toolbox":
    from agent_runtime.builtin import filesystem  # noqa: PLC0415 - see above

    return filesystem.create_server(place, name=name_root(config), kept=kept)


def _create_calculator(*_: object) -> "Toolbox":
    from agent_runtime.builtin import calculator  # noqa: PLC0415 - see above

    return calculator.create_server()


def _create_todo(_config: BuiltinConfig, place: Path, _kept: Sequence[Path], todos: "TodoDatabase | None") -> "Toolbox":
    from agent_runtime.builtin import todo  # noqa: PLC0415 - see above
    from agent_runtime.builtin.todo_file import TodoFile  # noqa: PLC0415 - see above

    return todo.create_server(todos or TodoFile(place))


def _create_text(*_: object) -> "Toolbox":
    from agent_runtime.builtin import text  # noqa: PLC0415 - see above

    return text.create_server()


SERVERS: Mapping[str, Shipped] = {
    "filesystem": Shipped(
        _create_filesystem,
        place=lambda config, base_dir, _: base_dir / (config.root or _SAMPLES),
        reach="the files below {place}",
        serves_place=True,
    ),
    "calculator": Shipped(_create_calculator, always=True),
    "todo": Shipped(
        _create_todo,
        place=lambda _config, _base_dir, data_dir: data_dir and data_dir / "todo.db",
        reach="its list in {home}",
    ),
    "text": Shipped(_create_text, always=True),
}
"""The built-in servers, by the name in `config.server` of an entry."""

ALWAYS = tuple(name for name, shipped in SERVERS.items() if shipped.always)


def create(
    config: BuiltinConfig,
    *,
    base_dir: Path,
    data_dir: Path | None,
    place: Path | None = None,
    kept: Sequence[Path] = (),
    todos: "TodoDatabase | None" = None,
) -> "Toolbox":
    """Return the server of a registry entry. Nothing is read or written yet.

    A relative `root` begins at `base_dir`; without one the filesystem server serves `base_dir/sample_data`. `place` is
    the resolved place, if known. The server neither reads nor writes the service's own files and folders, `kept`. The
    list of todos is in `todos`, or else in a file of the data directory.
    """
    where = place or place_of(config, base_dir, data_dir) or base_dir
    return SERVERS[config.server].create(config, where, kept, todos)


def place_of(config: BuiltinConfig, base_dir: Path, data_dir: Path | None) -> Path | None:
    """Return the folder or file that the server of an entry works on; None if it has no state."""
    return SERVERS[config.server].place(config, base_dir, data_dir)


def reach_of(config: BuiltinConfig, base_dir: Path, data_dir: Path | None) -> str:
    """Describe what the server of an entry can reach."""
    home = "the data directory" if data_dir else "the database"
    return SERVERS[config.server].reach.format(place=place_of(config, base_dir, data_dir), home=home)


def served_places(entries: Iterable[ToolServer], base_dir: Path, data_dir: Path | None) -> tuple[Path, ...]:
    """Return the folders that the entries open to tasks."""
    configs = [entry.config for entry in entries if isinstance(entry, BuiltinServer)]
    served = [place_of(config, base_dir, data_dir) for config in configs if SERVERS[config.server].serves_place]
    return tuple(place for place in served if place)
