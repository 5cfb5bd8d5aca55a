"""Lists and searches folders, within bounds: by glob or substring, never by regular expression."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from typing import Literal

from agent_runtime.builtin.entries import TEMPORARY, Place, read_file_in
from agent_runtime.builtin.refusals import MAX_TEXT, Refusal
from agent_runtime.builtin.root import Root

Kind = Literal["file", "directory", "other"]

MAX_VISITED = 20_000
"""The most entries that one listing or search visits."""
MAX_MATCHES = 500
MAX_BYTES = 16 * MAX_TEXT
"""The most bytes that one search reads from files."""
_MAX_DEPTH = 32
_SNIFFED = 1024

TEXT_SUFFIXES = frozenset({".txt", ".md", ".rst", ".log", ".csv", ".tsv", ".json", ".yaml", ".yml", ".toml", ".py"})
"""Files with these suffixes count as text; the content of others is checked."""


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """An entry of a folder. A link counts as its target if that is inside the root, else as `other`.

    `place`: of the entry itself, or of the target of the link.
    """

    name: str
    place: Place
    kind: Kind
    size: int


def kind_of(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    return "directory" if stat.S_ISDIR(mode) else "other"


def list_entries(root: Root, place: Place, limit: int) -> tuple[list[FolderEntry], bool]:
    """Return the first `limit` entries by name, and whether these are all. Raises: Refusal, OSError."""
    with root.folder(place) as folder:
        with os.scandir(folder) as entries:
            seen = [e.name for e in islice(entries, MAX_VISITED) if not e.name.startswith(TEMPORARY)]
        names = sorted(name for name in seen if not root.keeps(place.child(name)))
        return [_describe(root, place, folder, name) for name in names[:limit]], len(names) <= limit


def _describe(root: Root, place: Place, folder: int, name: str) -> FolderEntry:
    own = place.child(name)
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            own = root.locate(os.path.join(own.root, *own.parts))  # noqa: PTH118 - as it is
            status = root.status(own)
    except (OSError, Refusal):
        return FolderEntry(name, own, "other", 0)
    kind = kind_of(status.st_mode)
    return FolderEntry(name, own, kind, status.st_size if kind == "file" else 0)


def is_text(root: Root, found: FolderEntry) -> bool:
    """Return whether this looks like a text file, by its suffix or its first kilobyte. Hidden files do not."""
    if found.kind != "file" or found.name.startswith("."):
        return False
    if os.path.splitext(found.name)[1].lower() in TEXT_SUFFIXES:  # noqa: PTH122 - a name, not a path
        return True
    try:
        sample = root.sample(found.place, _SNIFFED)
    except (OSError, Refusal):
        return False
    return looks_like_text(sample, whole=len(sample) < _SNIFFED)


def looks_like_text(data: bytes, *, whole: bool = True) -> bool:
    """Return whether the bytes are UTF-8 without NUL. With `whole` False, the last character may be cut."""
    if b"\0" in data:
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return not whole and error.start >= len(data) - 3
    return True


class Pattern:
    """A pattern for names: a glob (`*`, `?`, `[...]`, `**` for any folders), or else a part of the name.

    A glob with a slash matches the path below the searched folder, one without a slash the name. Case is ignored.
    """

    def __init__(self, text: str) -> None:
        folded = text.casefold().removeprefix("./")
        self._text = folded
        self._parts = folded.split("/") if any(char in folded for char in "*?[") else None
        self.hidden = any(part.startswith(".") for part in folded.split("/"))

    def matches(self, parts: Sequence[str]) -> bool:
        """Return whether the pattern matches; `parts` is the path below the searched folder."""
        names = [name.casefold() for name in parts]
        if self._parts is None:
            return self._text in ("/".join(names) if "/" in self._text else names[-1])
        if len(self._parts) == 1:
            return fnmatchcase(names[-1], self._parts[0])
        return _match_parts(self._parts, names)


def _match_parts(pattern: Sequence[str], names: Sequence[str]) -> bool:
    # How many names the pattern so far can match. This takes linear time, whatever the pattern.
    reached = {0}
    for part in pattern:
        if part == "**":
            reached = set(range(min(reached), len(names) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(names) and fnmatchcase(names[at], part)}
    return len(names) in reached


@dataclass(slots=True)
class Search:
    """A search of a folder and all below it, within bounds. Links are not followed, hidden folders are skipped."""

    root: Root
    base: Place
    pattern: Pattern
    content: str | None
    matches: list[str] = field(default_factory=list)
    truncated: bool = False
    _visited: int = 0
    _bytes: int = 0

    def run(self) -> None:
        """Fill in `matches`, sorted, and set `truncated` if a bound ended the search early. Raises: OSError."""
        for place, folder, name in self._walk_files():
            if not self.pattern.matches(place.parts[len(self.base.parts) :]) or not self._holds(folder, place, name):
                continue
            if len(self.matches) == MAX_MATCHES:
                self.truncated = True
                break
            self.matches.append(place.shown)
        self.matches.sort()

    def _walk_files(self) -> Iterator[tuple[Place, int, str]]:
        pending = [self.base]
        while pending:
            place = pending.pop()
            try:
                with self.root.folder(place) as folder:
                    with os.scandir(folder) as scan:
                        entries = sorted(islice(scan, MAX_VISITED - self._visited), key=lambda entry: entry.name)
                    self._visited += len(entries)
                    shown = [entry for entry in entries if self._is_shown(place, entry.name)]
                    for entry in shown:
                        if entry.is_file(follow_symlinks=False):
                            yield place.child(entry.name), folder, entry.name
                    folders = [entry.name for entry in shown if entry.is_dir(follow_symlinks=False)]
            except OSError:
                if place is self.base:
                    raise
                continue  # deleted or made unreadable since it was listed
            if self._visited >= MAX_VISITED:
                self.truncated = True
                return
            if folders and len(place.parts) >= _MAX_DEPTH:
                self.truncated = True
                continue
            pending.extend(place.child(name) for name in reversed(folders))

    def _is_shown(self, place: Place, name: str) -> bool:
        hidden = name.startswith(TEMPORARY) or (name.startswith(".") and not self.pattern.hidden)
        return not hidden and not self.root.keeps(place.child(name))

    def _holds(self, folder: int, place: Place, name: str) -> bool:
        """Return whether the file contains the text; one that is too large or no text does not."""
        if self.content is None:
            return True
        if self._bytes >= MAX_BYTES:
            self.truncated = True
            return False
        with suppress(OSError, Refusal):
            size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
            if size > MAX_TEXT:
                return False
            data = read_file_in(folder, place, MAX_TEXT)
            self._bytes += len(data)
            return looks_like_text(data) and self.content.casefold() in data.decode("utf-8").casefold()
        return False
