"""The meanings of instructions: values, and actions on them. Nothing here knows tools or steps."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal

Sort = Literal["any", "number", "text", "list", "summary", "lines"]
Measure = Literal["words", "characters", "lines"]
Status = Literal["open", "done", "all"]


@dataclass(frozen=True, slots=True)
class Literally:
    """Exactly these characters."""

    text: str


@dataclass(frozen=True, slots=True)
class Back:
    """A reference to something earlier: `it`, `the result`, `the list`. `said` is the wording in the prompt."""

    sort: Sort
    said: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder. `path` is None for the folder mentioned last."""

    path: str | None
    said: str


ROOT = Folder(".", "the folder")


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file by its name, relative to the folder."""

    path: str
    folder: Folder = ROOT


@dataclass(frozen=True, slots=True)
class FileBack:
    """The file mentioned last: `it`, `that file`."""

    said: str


@dataclass(frozen=True, slots=True)
class SomeFile:
    """The file number `index` (from 0) of the last listing or search, else of a new listing of the folder.

    None stands for any file, as in `read a file`.
    """

    said: str
    index: int | None = None
    folder: Folder | None = None


File = NamedFile | FileBack | SomeFile


@dataclass(frozen=True, slots=True)
class Contents:
    """The content of a file. `outright`: the prompt says so, instead of only naming the file."""

    file: File
    outright: bool = True


@dataclass(frozen=True, slots=True)
class AllContents:
    """The contents of all text files in a folder, one after the other."""

    folder: Folder


@dataclass(frozen=True, slots=True)
class WebPage:
    """The content of a web page. `outright`: the prompt says so, instead of only naming its address."""

    url: str
    outright: bool = True


@dataclass(frozen=True, slots=True)
class Summary:
    of: "Value"
    sentences: int | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """A count of words, characters or lines. `known`: `the word count`, which may exist already."""

    of: "Value"
    measure: Measure
    known: bool = False


@dataclass(frozen=True, slots=True)
class HowMany:
    """The number of things in a listing, a search, the todos or the lines found."""

    of: "Value"


@dataclass(frozen=True, slots=True)
class SomeLines:
    """The first lines of a text (`head`), or the last (`tail`)."""

    of: "Value"
    lines: int
    end: Literal["head", "tail"] = "head"


@dataclass(frozen=True, slots=True)
class LinesWith:
    """The lines that hold a text. `each`: every occurrence counts, also several in one line."""

    of: "Value"
    query: str
    each: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in a folder. `folder` is None if the prompt names none, and may mean an earlier listing."""

    folder: Folder | None


@dataclass(frozen=True, slots=True)
class Search:
    """The paths of the files whose name matches and that contain `content`."""

    pattern: str
    folder: Folder = ROOT
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Info:
    file: File


@dataclass(frozen=True, slots=True)
class Todos:
    status: Status


@dataclass(frozen=True, slots=True)
class Today:
    """The date of the day when the plan runs."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number in decimal digits."""

    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A calculation. `op` is one of + - * / % **, or the name of a function of the calculator."""

    op: str
    operands: tuple["Value", ...]


@dataclass(frozen=True, slots=True)
class Formula:
    """An expression written in signs, which is passed on unchanged."""

    text: str


Value = (
    Literally
    | Back
    | Contents
    | AllContents
    | WebPage
    | Summary
    | Count
    | HowMany
    | SomeLines
    | LinesWith
    | Listing
    | Search
    | Info
    | Todos
    | Today
    | Number
    | Operation
    | Formula
)


@dataclass(frozen=True, slots=True)
class Show:
    """Make these values."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Focus:
    """Make a value that the next instruction refers to: `start with 10`."""

    value: Value


@dataclass(frozen=True, slots=True)
class Write:
    content: Value
    files: tuple[File, ...]
    append: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """Write the texts of several files into one, each on a new line."""

    files: tuple[File, ...]
    to: File


@dataclass(frozen=True, slots=True)
class Transfer:
    """Copy or move files: one to a path, or any number into a folder. `renames`: only its name is to change."""

    tool: Literal["copy_file", "move_file"]
    files: tuple[File, ...]
    to: NamedFile | Folder
    renames: bool = False


@dataclass(frozen=True, slots=True)
class DeleteFiles:
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class AddTo:
    """`add X to it`, which is a sum or an addition to a file; earlier instructions decide."""

    what: Value
    to: Back


@dataclass(frozen=True, slots=True)
class MakeFolders:
    folders: tuple[Folder, ...]
    inside: Folder = ROOT


@dataclass(frozen=True, slots=True)
class AddTodos:
    """New todos. `another`: it makes sense only after another todo."""

    texts: tuple[str, ...]
    another: bool = False


@dataclass(frozen=True, slots=True)
class WhichTodo:
    """A todo by its id or its text; with neither, the one mentioned last. `partly`: the text may be a part of its.

    `every`: all todos in this status instead of one.
    """

    id: int | None = None
    text: str | None = None
    partly: bool = False
    every: Status | None = None


@dataclass(frozen=True, slots=True)
class EndTodos:
    """Complete or delete todos."""

    tool: Literal["complete", "delete"]
    todos: tuple[WhichTodo, ...]


@dataclass(frozen=True, slots=True)
class Nothing:
    """A courtesy: understood, with nothing to do."""


@dataclass(frozen=True, slots=True)
class If:
    """The rest of the sentence is done only if this number compares so, as in `> 100`."""

    value: Value
    comparison: str


@dataclass(frozen=True, slots=True)
class IfExists:
    """The rest of the sentence is done only if there is this file; with `no`, only if there is none."""

    path: str
    no: bool = False


Condition = If | IfExists
Action = (
    Show
    | Focus
    | Write
    | Join
    | Transfer
    | DeleteFiles
    | AddTo
    | MakeFolders
    | AddTodos
    | EndTodos
    | If
    | IfExists
    | Nothing
)


def urls_in(meaning: object) -> Iterator[str]:
    """Yield the address of every page in a meaning."""
    if isinstance(meaning, WebPage):
        yield meaning.url
    elif isinstance(meaning, tuple):
        for part in meaning:
            yield from urls_in(part)
    elif is_dataclass(meaning):
        for each in fields(meaning):
            yield from urls_in(getattr(meaning, each.name))
