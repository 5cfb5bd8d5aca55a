"""The MCP servers that ship with the service and run inside it; each also runs alone, over standard streams."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_never

from mcp.server import MCPServer

from agent_runtime.domain.tools import BuiltinConfig


def create(
    config: BuiltinConfig, *, base_dir: Path, data_dir: Path, place: Path | None = None, kept: Sequence[Path] = ()
) -> MCPServer[Any]:
    """Return the server that a registry entry names. Nothing is read or written yet.

    A relative `root` is relative to `base_dir`; without one the filesystem server serves `base_dir/sample_data`.
    The todo server keeps its list in `data_dir/todo.db`. The others hold no state. `place` is what that was resolved
    to, where it was. Nothing in `kept` is read or written: the service's own files and folders.
    """
    where = place or config.place(base_dir, data_dir) or base_dir
    # Imported here: a package that imports its modules makes `python -m agent_runtime.builtin.todo` run one twice.
    match config.server:
        case "filesystem":
            from agent_runtime.builtin.filesystem import create_server as create_filesystem  # noqa: PLC0415

            return create_filesystem(where, name=Path(config.root_name).name, kept=kept)
        case "todo":
            from agent_runtime.builtin.todo import create_server as create_todo  # noqa: PLC0415

            return create_todo(where)
        case "calculator":
            from agent_runtime.builtin.calculator import create_server as create_calculator  # noqa: PLC0415

            return create_calculator()
        case "text":
            from agent_runtime.builtin.text import create_server as create_text  # noqa: PLC0415

            return create_text()
        case _:
            assert_never(config.server)
