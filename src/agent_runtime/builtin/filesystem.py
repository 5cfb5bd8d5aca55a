"""The filesystem server: text files in one folder, and nothing outside it.

Alone on standard streams: `python -m agent_runtime.builtin.filesystem --root DIR`.
"""

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp_types import CallToolResult
from pydantic import Field

from agent_runtime.builtin.root import Root, to_readable
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
    MAX_TEXT,
    READS,
    REPLACES,
    Output,
    Refusal,
    make_server,
    make_tool,
    pluralize,
    reply,
    split_lines,
)

MAX_FILE = 16 * MAX_TEXT
"""The largest file that can be appended to, in bytes."""
MAX_ENTRIES = 1000
"""The most entries of a listing."""

FilePath = Annotated[
    str, Field(max_length=1024, description='Path of a file, relative to the root folder, such as "notes.txt".')
]
FolderPath = Annotated[
    str, Field(max_length=1024, description='Path of a folder, relative to the root folder; "." is the root itself.')
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
    """`text_files`: paths relative to the root. `truncated`: there are more entries than are shown."""

    path: str
    entries: list[Entry]
    text_files: list[str]
    truncated: bool


class Created(Output):
    path: str
    created: bool


class Matches(Output):
    """`truncated`: a bound ended the search before it was through."""

    matches: list[str]
    count: int
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

    def read_file(self, path: FilePath) -> Annotated[CallToolResult, FileText]:
        """Read a text file and give its content. UTF-8 only, at most 1 MiB."""
        place = self._root.locate(path)
        data = self._root.read(place, MAX_TEXT)
        if not looks_like_text(data):
            raise Refusal(f"{place.shown} is not UTF-8 text, and only text can be read here: choose a text file.")
        text = data.decode("utf-8")
        return reply(text, FileText(path=place.shown, size=len(data), lines=len(split_lines(text))))

    def write_file(self, path: FilePath, content: Content) -> Annotated[CallToolResult, Written]:
        """Write a text file whole, in place of what it held before; missing folders are made."""
        place = self._root.locate(path)
        data = _encode(content)
        created = self._root.write(place, data)
        text = f"Wrote {pluralize(len(data), 'byte')} to {place.shown}."
        return reply(text, Written(path=place.shown, size=len(data), created=created))

    def append_file(self, path: FilePath, content: Content) -> Annotated[CallToolResult, Written]:
        """Add text to the end of a file, on a new line; the file is made when it is missing."""
        place = self._root.locate(path)
        data = _encode(content)
        size, created = self._root.append(place, data, MAX_FILE)
        text = f"Appended {pluralize(len(data), 'byte')} to {place.shown}."
        return reply(text, Written(path=place.shown, size=size, created=created))

    def list_directory(self, path: FolderPath = ".") -> Annotated[CallToolResult, Listing]:
        """List the files and folders in a folder, by name, and say which are text files."""
        place = self._root.locate(path)
        with self._root.explain_errors(place, "folder"):
            found, complete = list_entries(self._root, place, MAX_ENTRIES)
        entries = [Entry(name=to_readable(each.name), type=each.kind, size=each.size) for each in found]
        text_files = sorted(place.child(each.name).shown for each in found if is_text(self._root, place, each))
        lines = [_write_line(each) for each in found] or [f"The folder {place.shown} is empty."]
        if not complete:
            lines.append(f"... and more: only the first {MAX_ENTRIES} are shown.")
        listing = Listing(path=place.shown, entries=entries, text_files=text_files, truncated=not complete)
        return reply("\n".join(lines), listing)

    def create_directory(self, path: FolderPath) -> Annotated[CallToolResult, Created]:
        """Make a folder, and the folders above it; one that exists already is left as it is."""
        place = self._root.locate(path)
        with self._root.explain_errors(place, "folder"):
            try:
                with self._root.folder(place):
                    created = False
            except FileNotFoundError:
                with self._root.folder(place, create=True):
                    created = True
        text = f"Created folder {place.shown}." if created else f"The folder {place.shown} exists already."
        return reply(text, Created(path=place.shown, created=created))

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
    ) -> Annotated[CallToolResult, Matches]:
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
        return reply("\n".join(lines), found)

    def file_info(self, path: FilePath) -> Annotated[CallToolResult, Info]:
        """Say what a path is: its type, its size in bytes and when it was last changed (UTC)."""
        place = self._root.locate(path)
        status = self._root.status(place)
        kind = kind_of(status.st_mode)
        size = status.st_size if kind == "file" else 0
        modified = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        text = f"{place.shown}: {kind}, {pluralize(size, 'byte')}, modified {modified}"
        return reply(text, Info(path=place.shown, type=kind, size=size, modified=modified))


def _write_line(found: FolderEntry) -> str:
    return to_readable(found.name) + ("/" if found.kind == "directory" else "")


def _encode(content: str) -> bytes:
    data = content.encode("utf-8")
    if len(data) > MAX_TEXT:
        raise Refusal(f"The content is {len(data)} bytes, over the limit of {MAX_TEXT}: write it in parts.")
    return data


def create_server(root: Path, name: str | None = None, kept: Sequence[Path] = ()) -> MCPServer[Any]:
    """Return the server over this folder; while the folder is missing, every call says so.

    `name` is what people call the folder, where that is not its own name; nothing in `kept` is read or written.
    """
    files = Filesystem(Root(root, name, kept))
    return make_server(
        "filesystem",
        "Text files in one folder. Paths are relative to that folder.",
        [
            make_tool(files.read_file, READS),
            make_tool(files.write_file, REPLACES),
            make_tool(files.append_file, ADDS),
            make_tool(files.list_directory, READS),
            make_tool(files.create_directory, ENSURES),
            make_tool(files.search_files, READS),
            make_tool(files.file_info, READS),
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve one folder on standard streams until they close."""
    parser = argparse.ArgumentParser(prog="agent_runtime.builtin.filesystem", description=create_server.__doc__)
    parser.add_argument("--root", type=Path, default=Path(os.curdir), help="the folder to serve")
    create_server(parser.parse_args(arguments).root).run("stdio")


if __name__ == "__main__":
    main()
