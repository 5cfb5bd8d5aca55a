"""The table of sentences that copy, move, rename and delete a file, and their actions."""

from collections.abc import Callable
from typing import Literal

from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.values import Row


def _transfer(tool: Literal["copy_file", "move_file"], *, renames: bool = False) -> Callable[..., m.Action | None]:
    """Return the builder for one file and a path or folder. A file without a name of its own is not taken."""

    def build(file: m.File, to: m.NamedFile | m.Folder) -> m.Action | None:
        return None if isinstance(file, m.SomeFile) else m.Transfer(tool, file, to, renames)

    return build


TRANSFERS: list[Row] = [
    ("copy|duplicate|clone|back_up|backup <file> $at <to=surely>", _transfer("copy_file")),
    ("move|mv <file> $at <to=surely>", _transfer("move_file")),
    ("move|mv <file> to|into <to=newfile>", _transfer("move_file")),
    ("rename <file> to|as|into <to=newfile>", _transfer("move_file", renames=True)),
    ("delete|remove|get_rid_of|discard <files=newfiles>", m.DeleteFiles),
]
