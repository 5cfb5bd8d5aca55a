"""The table of sentences that copy, move, rename and delete files, and their actions."""

from collections.abc import Callable
from typing import Literal

from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.values import Row

_THERE = m.Folder(None, "there")


def transfer(tool: Literal["copy_file", "move_file"], *, renames: bool = False) -> Callable[..., m.Action | None]:
    """Return the builder for files and a path or folder; without one, the folder that was mentioned last.

    A file without a name of its own is not taken.
    """

    def build(files: tuple[m.File, ...], to: m.NamedFile | m.Folder = _THERE) -> m.Action | None:
        if any(isinstance(file, m.SomeFile) for file in files) or (len(files) > 1 and isinstance(to, m.NamedFile)):
            return None
        return m.Transfer(tool, files, to, renames)

    return build


TRANSFERS: list[Row] = [
    ("copy|duplicate|clone|back_up|backup <files=sources> there", transfer("copy_file")),
    ("move|mv <files=sources> there", transfer("move_file")),
    ("copy|duplicate|clone|back_up|backup <files=sources> $at <to=surely>", transfer("copy_file")),
    ("move|mv <files=sources> $at <to=surely>", transfer("move_file")),
    ("move|mv <files=sources> to|into <to=newfile>", transfer("move_file")),
    ("move|mv <files=sources> into|inside <to=plainfolder>", transfer("move_file")),
    ("rename|change_the_name_of <files=sources> to|as|into <to=newfile>", transfer("move_file", renames=True)),
    ("delete|remove|erase|rm|get_rid_of|discard|throw_away <files=newfiles>", m.DeleteFiles),
]
