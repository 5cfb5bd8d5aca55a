"""The filesystem server: text files in one folder, and nothing outside it.

Alone on standard streams: `python -m agent_runtime.builtin.filesystem --root DIR`.
"""

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from agent_runtime.builtin.entries import to_readable
from agent_runtime.builtin.refusals import MAX_TEXT, Refusal, pluralize, split_lines
from agent_runtime.builtin.root import Root
from agent_runtime.builtin.search import (
    FolderEntry,
    Kind,
    Pattern,
    Search,
    is_text,
    kind_of,
    list_entries,
    looks_like_text,
)
from agent_runtime.builtin.toolbox import (
    ADDS,
    ENSURES,
    READS,
    REMOVES,
    REPLACES,
    Answer,
    Output,
    Toolbox,
    make_tool,
    make_toolbox,
)

MAX_FILE = 16 * MAX_TEXT
"""The largest file that can be appended to, in bytes."""
MAX_ENTRIES = 1000
"""The most entries of a listing."""

FilePath = Annotated[str, Field(max_length=1024, description='A path below the root folder, such as "notes.txt".')]
FolderPath = Annotated[
    str, Field(max_length=1024, description='A folder below the root folder; "." is the root itself.')
]
Content = Annotated[str, Field(max_length=MAX_TEXT, description="The text, exactly as it is to be stored (UTF-8).")]


class FileText(Output):
    path: str
    size: int
    lines: int


class Written(Output):
    path: str
    size: int
    created: bool


class Entry(Output):
    name: str
    type: Kind
    size: int


class Listing(Output):
    """`text_files`: paths relative to the root. `longest_text`: the path of the largest of them that can be read whole,
    None without one. `truncated`: there are more entries than are shown.
    """

    path: str
    entries: list[Entry]
    text_files: list[str]
    longest_text: str | None
    truncated: bool


class Created(Output):
    path: str
    created: bool


class Matches(Output):
    """`truncated`: a bound ended the search before it was through."""

    matches: list[str]
    count: int
    truncated: bool


class Copied(Output):
    source: str
    path: str
    size: int


class Moved(Output):
    source: str
    path: str


class Deleted(Output):
    path: str
    size: int


class Texts(Output):
    """`text`: the texts of all these files, one after the other. `truncated`: some text files are left out."""

    text: str
    files: list[str]
    truncated: bool


class Info(Output):
    path: str
    type: Kind
    size: int
    modified: str


class Filesystem:
    """The tools over one root."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def read_file(self, path: FilePath) -> Answer[FileText]:
        """Read a text file (UTF-8, up to 1 MiB)."""
        place = self._root.locate(path)
        data = self._root.read(place, MAX_TEXT)
        if not looks_like_text(data):
            raise Refusal(f"{place.shown} is not UTF-8 text, and only text can be read here: choose a text file.")
        text = data.decode("utf-8")
        return Answer(text, FileText(path=place.shown, size=len(data), lines=len(split_lines(text))))

    def write_file(self, path: FilePath, content: Content) -> Answer[Written]:
        """Write a text file whole, in place of what it held before; missing folders are made."""
        place = self._root.locate(path)
        data = _encode(content)
        created = self._root.write(place, data)
        text = f"Wrote {pluralize(len(data), 'byte')} to {place.shown}."
        return Answer(text, Written(path=place.shown, size=len(data), created=created))

    def append_file(self, path: FilePath, content: Content) -> Answer[Written]:
        """Add text to the end of a file, on a new line; the file is made when it is missing."""
        place = self._root.locate(path)
        data = _encode(content)
        size, created = self._root.append(place, data, MAX_FILE)
        text = f"Appended {pluralize(len(data), 'byte')} to {place.shown}."
        return Answer(text, Written(path=place.shown, size=size, created=created))

    def list_directory(self, path: FolderPath = ".") -> Answer[Listing]:
        """List the files and folders in a folder, by name, and say which are text files."""
        place = self._root.locate(path)
        with self._root.explain_errors(place, "folder"):
            found, complete = list_entries(self._root, place, MAX_ENTRIES)
        entries = [Entry(name=to_readable(each.name), type=each.kind, size=each.size) for each in found]
        texts = [each for each in found if is_text(self._root, each)]
        text_files = sorted(place.child(each.name).shown for each in texts)
        longest = max((each for each in texts if each.size <= MAX_TEXT), key=lambda each: each.size, default=None)
        lines = [_write_line(each) for each in found] or [f"The folder {place.shown} is empty."]
        if not complete:
            lines.append(f"... and more: only the first {MAX_ENTRIES} are shown.")
        listing = Listing(
            path=place.shown,
            entries=entries,
            text_files=text_files,
            longest_text=longest and place.child(longest.name).shown,
            truncated=not complete,
        )
        return Answer("\n".join(lines), listing)

    def read_files(self, path: FolderPath = ".") -> Answer[Texts]:
        """Read all text files in a folder, by name, up to 512 KiB in all."""
        place = self._root.locate(path)
        with self._root.explain_errors(place, "folder"):
            found, complete = list_entries(self._root, place, MAX_ENTRIES)
        texts: dict[str, str] = {}
        left = MAX_TEXT // 2
        for each in found:
            if not is_text(self._root, each):
                continue
            data = self._root.read(each.place, MAX_TEXT) if each.size <= left else b"\0"
            if len(data) <= left and looks_like_text(data):
                texts[each.place.shown] = data.decode("utf-8")
                left -= len(data)
            else:
                complete = False
        parts = [f"== {name}\n{text}" for name, text in texts.items()] or [
            f"The folder {place.shown} has no text files."
        ]
        if not complete:
            parts.append("... and more: some files are no text, or too large to be read together.")
        joined = _join_lines(list(texts.values()))
        return Answer(_join_lines(parts), Texts(text=joined, files=list(texts), truncated=not complete))

    def copy_file(self, source: FilePath, destination: FilePath) -> Answer[Copied]:
        """Copy a file of up to 16 MiB. It replaces none; missing folders are made."""
        old, new = self._root.locate(source), self._root.locate(destination)
        size = self._root.copy(old, new, MAX_FILE)
        return Answer(f"Copied {old.shown} to {new.shown}.", Copied(source=old.shown, path=new.shown, size=size))

    def move_file(self, source: FilePath, destination: FilePath) -> Answer[Moved]:
        """Move or rename a file. It replaces none; missing folders are made."""
        old, new = self._root.locate_entry(source), self._root.locate(destination)
        self._root.move(old, new)
        return Answer(f"Moved {old.shown} to {new.shown}.", Moved(source=old.shown, path=new.shown))

    def delete_file(self, path: FilePath) -> Answer[Deleted]:
        """Delete a file for good."""
        place = self._root.locate_entry(path)
        size = self._root.delete(place)
        return Answer(f"Deleted {place.shown} ({pluralize(size, 'byte')}).", Deleted(path=place.shown, size=size))

    def create_directory(self, path: FolderPath) -> Answer[Created]:
        """Make a folder and those above it; existing ones are left as they are."""
        place = self._root.locate(path)
        with self._root.explain_errors(place, "folder"):
            try:
                with self._root.folder(place):
                    created = False
            except FileNotFoundError:
                with self._root.folder(place, create=True):
                    created = True
        text = f"Created folder {place.shown}." if created else f"The folder {place.shown} exists already."
        return Answer(text, Created(path=place.shown, created=created))

    def search_files(
        self,
        pattern: Annotated[
            str,
            Field(
                min_length=1,
                max_length=256,
                description='A glob such as "*.txt" or "reports/**/*.csv", or a part of the name. Case is ignored.',
            ),
        ],
        path: FolderPath = ".",
        content: Annotated[
            str | None,
            Field(min_length=1, max_length=1024, description="Only files that hold this text. Case is ignored."),
        ] = None,
    ) -> Answer[Matches]:
        """Find files by name, and optionally by a text in them, in a folder and all below it."""
        place = self._root.locate(path)
        search = Search(self._root, place, Pattern(pattern), content)
        with self._root.explain_errors(place, "folder"):
            search.run()
        lines = list(search.matches)
        if not lines:
            lines = [f"No file matches {pattern}" + (f" and holds {content!r}." if content else ".")]
        if search.truncated:
            lines.append("... the search ended early: there may be more. Search a smaller folder, or more precisely.")
        found = Matches(matches=search.matches, count=len(search.matches), truncated=search.truncated)
        return Answer("\n".join(lines), found)

    def file_info(self, path: FilePath) -> Answer[Info]:
        """Say what a path is: its type, its size in bytes and when it was last changed (UTC)."""
        place = self._root.locate(path)
        status = self._root.status(place)
        kind = kind_of(status.st_mode)
        size = status.st_size if kind == "file" else 0
        modified = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        text = f"{place.shown}: {kind}, {pluralize(size, 'byte')}, modified {modified}"
        return Answer(text, Info(path=place.shown, type=kind, size=size, modified=modified))


def _write_line(found: FolderEntry) -> str:
    return to_readable(found.name) + ("/" if found.kind == "directory" else "")


def _join_lines(texts: Sequence[str]) -> str:
    """Return the texts one after the other, each beginning on a line of its own."""
    return "".join(text if text.endswith("\n") or not text else f"{text}\n" for text in texts)


def _encode(content: str) -> bytes:
    data = content.encode("utf-8")
    if len(data) > MAX_TEXT:
        raise Refusal(f"The content is {len(data)} bytes, over the limit of {MAX_TEXT}: write it in parts.")
    return data


def create_server(root: Path, name: str | None = None, kept: Sequence[Path] = ()) -> Toolbox:
    """Return the server over this folder; while the folder is missing, every call says so.

    `name` is what people call the folder, where that is not its own name; nothing in `kept` is read or written.
    """
    files = Filesystem(Root(root, name, kept))
    return make_toolbox(
        "filesystem",
        "Text files in one folder. Paths are relative to that folder.",
        [
            make_tool(files.read_file, READS),
            make_tool(files.write_file, REPLACES),
            make_tool(files.append_file, ADDS),
            make_tool(files.copy_file, ADDS),
            make_tool(files.move_file, ADDS),
            make_tool(files.delete_file, REMOVES),
            make_tool(files.file_info, READS),
            make_tool(files.read_files, READS),
            make_tool(files.list_directory, READS),
            make_tool(files.create_directory, ENSURES),
            make_tool(files.search_files, READS),
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve one folder on standard streams until they close."""
    parser = argparse.ArgumentParser(prog="agent_runtime.builtin.filesystem", description=create_server.__doc__)
    parser.add_argument("--root", type=Path, default=Path(os.curdir), help="the folder to serve")
    create_server(parser.parse_args(arguments).root).serve()


if __name__ == "__main__":
    main()
