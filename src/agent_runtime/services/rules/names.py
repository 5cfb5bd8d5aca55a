"""Files and folders, as people name them: `the file called notes.txt in the docs folder`, `it`, `a file`."""

from collections.abc import Sequence

from agent_runtime.services.rules.lexer import Token
from agent_runtime.services.rules.meaning import ROOT, File, FileBack, Folder, NamedFile, SomeFile
from agent_runtime.services.rules.vocabulary import FILE_TYPES, PLAIN_FILES, keys

_LONGEST = 24
"""No name takes more words than this; longer phrases are not looked at."""
_THE = frozenset(
    "the a an my our this that new existing local plain text same empty whole entire its another blank".split()
)
_FILE = frozenset({"file", "document", "textfile", "doc", "log"})
_FOLDER = frozenset({"folder", "directory", "dir", "subfolder", "subdirectory"})
_CALLED = [
    ("called",), ("named",), ("titled",), ("with", "the", "name"), ("by", "the", "name", "of"), ("with", "name"),
    ("whose", "name", "is"), ("name",), (":",), ("known", "as"), ("with", "the", "filename"),
    ("with", "the", "file", "name"), ("with", "filename"),
]  # fmt: skip
_HERE = frozenset("root current working main top-level workspace base sample_data sample-data default own top".split())
_AT = frozenset("in inside within under from of at into to on".split())
_NO_NAMES = _AT | frozenset("every each all any some no which what both it that this the a and or other".split())
_OF_FILES = frozenset({("one", "of", "the", "files"), ("any", "of", "the", "files"), ("one", "of", "my", "files")})
_ORDINALS = {
    word: index for index, word in enumerate("first second third fourth fifth sixth seventh eighth ninth tenth".split())
}
_ANY = frozenset({"a", "an", "any", "some", "one", "random"})
_ROOT_NAMES = ("sample_data/", "sample-data/")


def clean(path: str) -> str:
    """A path relative to the root: without `./`, and without the name that people give the root folder itself."""
    path = path.strip()
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    for name in _ROOT_NAMES:
        path = path.removeprefix(name)
    return path if path.strip("/") not in {"", ".", "sample_data", "sample-data"} or path.startswith("/") else "."


def read_files(tokens: Sequence[Token]) -> tuple[File, ...] | None:
    """One file or several, with commas and `and` between them."""
    one = read_file(tokens)
    if one is not None:
        return (one,)
    files: list[File] = []
    start = 0
    for at, token in enumerate([*tokens, None]):
        if token is not None and token.key not in {",", "and", "&", "both"}:
            continue
        if at > start:
            found = read_file(tokens[start:at])
            if not isinstance(found, NamedFile):
                return None
            files.append(found)
        start = at + 1
    folders = {file.folder for file in files if isinstance(file, NamedFile)}
    # `a.txt and b.txt in docs`: whether the folder is meant for both, nobody can tell.
    return tuple(files) if len(files) > 1 and len(folders) == 1 else None


def read_file(tokens: Sequence[Token]) -> File | None:
    """The file that these tokens name, all of them; None where they are no such phrase."""
    if not tokens or len(tokens) > _LONGEST:
        return None
    found = _bare_file(tokens)
    if found is not None:
        return found
    for at in range(len(tokens) - 2, 0, -1):
        if tokens[at].key in _AT and (folder := read_folder(tokens[at + 1 :])):
            inner = _bare_file(tokens[:at])
            if isinstance(inner, NamedFile) and inner.folder == ROOT:
                return NamedFile(inner.path, folder) if folder != ROOT else inner
            if isinstance(inner, SomeFile):
                return SomeFile(inner.said, inner.index, folder)
    return None


def _bare_file(tokens: Sequence[Token]) -> File | None:
    words = keys(list(tokens))
    said = " ".join(words)
    if words in {("it",), ("that",), ("this",)} or (
        len(words) == 2 and words[0] in {"that", "this", "the"} and words[1] in _FILE
    ):  # noqa: PLR2004
        return FileBack(said)
    if len(words) == 3 and words[0] in {"the", "that"} and words[1] in {"same", "new", "text"} and words[2] in _FILE:  # noqa: PLR2004
        return FileBack(said)
    some = _some_file(words)
    if some is not None:
        return some
    rest = list(tokens)
    while len(rest) > 1 and rest[0].key in _THE:
        rest = rest[1:]
    if rest and rest[0].key in _FILE and len(rest) > 1:
        return _named(_after_called(rest[1:]), sure=True)
    if len(rest) > 1 and rest[-1].key in _FILE:
        return _named(rest[:-1], sure=True)
    return _named(rest, sure=False)


def _after_called(tokens: Sequence[Token]) -> Sequence[Token]:
    for called in _CALLED:
        if keys(list(tokens[: len(called)])) == called and len(tokens) > len(called):
            return tokens[len(called) :]
    return tokens


def _named(tokens: Sequence[Token], *, sure: bool) -> NamedFile | None:
    """A file by one token. `sure`: the prompt said that it is a file, so it needs no ending."""
    if len(tokens) != 1:
        return None
    token = tokens[0]
    by_shape = token.kind == "file" or (token.kind == "path" and not token.text.endswith("/"))
    known = token.kind == "word" and (token.key in PLAIN_FILES or ("/" in token.text.strip("/") and sure))
    word = sure and token.kind == "word" and token.key not in _NO_NAMES and any(char.isalnum() for char in token.key)
    quoted = token.kind == "quoted" and bool(token.text.strip()) and "\n" not in token.text
    if not (by_shape or known or word or quoted):
        return None
    path = clean(token.text)
    return NamedFile(path) if path != "." else None


def _some_file(words: tuple[str, ...]) -> SomeFile | None:
    said = " ".join(words)
    if words[:4] in _OF_FILES and len(words) == 4:  # noqa: PLR2004 - the length of those phrases
        return SomeFile(said)
    if len(words) in {2, 3} and words[0] in _ANY and words[-1] in _FILE and words[1:-1] in {(), ("text",), ("random",)}:
        return SomeFile(said)
    if len(words) in {2, 3, 4} and words[0] in {"the", "its"} and words[1] in _ORDINALS:
        tail = words[2:]
        if tail in {("file",), ("one",), ("text", "file"), ("document",), ("match",), ("result",)}:
            return SomeFile(said, _ORDINALS[words[1]])
    return None


def read_folder(tokens: Sequence[Token], *, sure: bool = False) -> Folder | None:
    """The folder that these tokens name, all of them. `sure`: only a folder can stand here, so one word will do."""
    if not tokens or len(tokens) > _LONGEST:
        return None
    words = keys(list(tokens))
    said = " ".join(words)
    if words in {("here",), (".",), ("this",), ("./",)} or (
        len(words) == 2 and words[0] == "this" and words[1] in _FOLDER
    ):  # noqa: PLR2004
        return ROOT
    if words in {("it",), ("there",)} or (len(words) == 2 and words[0] in {"the", "that"} and words[1] in _FOLDER):  # noqa: PLR2004
        return Folder(None, said)
    if len(words) == 3 and words[0] == "the" and words[1] in {"new", "same"} and words[2] in _FOLDER:  # noqa: PLR2004
        return Folder(None, said)
    rest = list(tokens)
    while len(rest) > 1 and rest[0].key in _THE:
        rest = rest[1:]
    if len(rest) > 1 and rest[0].key in _FOLDER:
        return _folder(_after_called(rest[1:]), sure=True)
    if len(rest) > 1 and rest[-1].key in _FOLDER:
        return _folder(rest[:-1], sure=True)
    return _folder(rest, sure=sure)


def _folder(tokens: Sequence[Token], *, sure: bool) -> Folder | None:
    words = keys(list(tokens))
    if words == ("sample", "data") or (len(words) == 1 and words[0] in _HERE):
        return ROOT if sure or words[0] not in _HERE or "sample" in words[0] else None
    if words and words[-1] in _FOLDER:
        return _folder(tokens[:-1], sure=sure)
    if len(tokens) != 1:
        return None
    token = tokens[0]
    plain = token.kind in {"word", "quoted", "file"} and token.key not in _AT and "\n" not in token.text
    if token.kind == "path" or (plain and sure and any(char.isalnum() for char in token.text)):
        path = clean(token.text).rstrip("/") or "/"
        return Folder(path, token.text) if path != "." else ROOT
    return None


def read_pattern(tokens: Sequence[Token]) -> str | None:
    """What files may be called: `*.md`, `.md`, `markdown`, `report`, a name in quotes."""
    rest = [token for token in tokens if token.key not in {"a", "the", "an", "all", "word", "extension", "name"}]
    if len(rest) != 1:
        return None
    token = rest[0]
    if token.kind in {"glob", "file", "quoted"}:
        text = token.text.strip()
        return ("*" + text if text.startswith(".") and "/" not in text and text.count(".") == 1 else text) or None
    if token.kind == "word" and any(char.isalnum() for char in token.key):
        return token.text
    return None


def read_type(tokens: Sequence[Token]) -> str | None:
    """A kind of file, as a glob: `markdown`, `.md`, `*.md`."""
    if len(tokens) != 1:
        return None
    token = tokens[0]
    if token.kind == "glob":
        return token.text
    if token.kind == "file" and token.text.startswith("."):
        return "*" + token.text
    return f"*.{FILE_TYPES[token.key]}" if token.key in FILE_TYPES else None
