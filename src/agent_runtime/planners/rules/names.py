"""Reads files and folders as people name them: `the file called notes.txt in the docs folder`, `it`, `a file`."""

import re
from collections.abc import Sequence

from agent_runtime.planners.rules.lexer import Token, is_url
from agent_runtime.planners.rules.meaning import (
    ROOT,
    Back,
    File,
    FileBack,
    Folder,
    NamedFile,
    SomeFile,
    Sort,
    WebPage,
)
from agent_runtime.planners.rules.vocabulary import FILE_TYPES, MARKS, PLAIN_FILES, keys_of, word_set

_WEB = re.compile(r"https?://\S+", re.IGNORECASE)
_PAGES = word_set("page website webpage site web url address link contents content text article")
_LONGEST_PAGE = 6
_LONGEST = 24
"""The most words of a name; longer phrases are not read."""
_THE = word_set("the a an my our this that new existing local plain text same empty whole entire its another blank")
_DESCRIBING = word_set("test sample example demo dummy simple small short little")
"""Words before the word file that a plan can ignore: `a test file called a.txt`."""
_BEFORE_NAME = word_set("the a an this that existing its")
"""Words that may precede the bare name of a file. Any other word may belong to a name with spaces."""
FILE_NOUNS = frozenset({"file", "document", "textfile"})
_FOLDER = frozenset({"folder", "directory", "dir", "subfolder", "subdirectory"})
_CALLED = [
    ("called",), ("named",), ("at",), ("titled",), ("with", "the", "name"), ("by", "the", "name", "of"),
    ("with", "name"),
    ("whose", "name", "is"), ("name",), (":",), ("known", "as"), ("with", "the", "filename"),
    ("with", "the", "file", "name"), ("with", "filename"),
]  # fmt: skip
_HERE = word_set("root current working main top-level workspace base sample_data sample-data default own top")
_AT = word_set("in inside within under from of at into to on")
_FILE_BACKS = (
    {("it",), ("that",), ("this",)}
    | {(a, b) for a in ("the", "that", "this") for b in FILE_NOUNS}
    | {(a, b, c) for a in ("the", "that") for b in ("same", "new", "text") for c in FILE_NOUNS}
)
_FOLDER_BACKS = (
    {("it",), ("there",)}
    | {(a, b) for a in ("the", "that") for b in _FOLDER}
    | {("the", b, c) for b in ("same", "new") for c in _FOLDER}
)
_HERE_BACKS = {("here",), (".",), ("this",), ("./",)} | {("this", b) for b in _FOLDER}
_NO_NAMES = _AT | word_set(
    "every each all any some no which what both it that this the and or other then as with called named containing "
    "saying says please put make create write save add about new"
)
WHICH = word_set(
    "first second third fourth fifth sixth seventh eighth ninth tenth last next previous other only same current "
    "most recent latest earliest newest oldest youngest largest biggest smallest shortest longest best worst lightest "
    "big large small long short old empty blank random right wrong correct main default own hidden entire whole"
)
"""Words that say which file or folder is meant, and are not its name: `the last file`."""
_OF_FILES = frozenset({("one", "of", "the", "files"), ("any", "of", "the", "files"), ("one", "of", "my", "files")})
_ORDINALS = {
    word: index
    for index, word in enumerate(
        ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
    )
}
_ANY_FILE = {
    (a, *b, c)
    for a in ("a", "an", "any", "some", "one", "random")
    for b in ((), ("text",), ("random",))
    for c in FILE_NOUNS
}
_ONE_FILE = {("file",), ("one",), ("text", "file"), ("document",), ("match",), ("result",)}
_ROOT_NAMES = ("src/agent_runtime/sample_data", "sample_data", "sample-data")

_BACKS: dict[str, Sort] = {
    "it": "any", "this": "any", "that": "any", "them": "any", "these": "any", "those": "any", "result": "any",
    "results": "any", "output": "any", "answer": "any", "outcome": "any", "value": "any", "response": "any",
    "count": "number", "number": "number", "sum": "number", "product": "number", "total": "number",
    "difference": "number", "quotient": "number", "average": "number", "figure": "number", "numbers": "number",
    "contents": "text", "content": "text", "text": "text", "summary": "summary", "list": "list", "listing": "list",
    "lines": "lines", "matches": "lines", "names": "list",
}  # fmt: skip
_FOUND = {("what", "you", *found) for found in (("find",), ("found",), ("have", "found"))} | {("what", "was", "found")}
_POINTING = frozenset({"the", "that", "this", "its", "these", "those", "their"})
_FILLERS = word_set(
    "final last previous above whole resulting full entire word line file short new current matching result same"
)
_ALONE = frozenset({"it", "this", "that", "them", "these", "those", "result", "results"})


def clean(path: str) -> str:
    """Return a path relative to the root, without `./` and without the names that people give the root
    folder itself.
    """
    path = path.strip()
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    for name in _ROOT_NAMES:
        if path.rstrip("/") == name:
            return "."
        path = path.removeprefix(f"{name}/")
    return path if path.strip("/") not in {"", "."} or path.startswith("/") else "."


def read_files(tokens: Sequence[Token]) -> tuple[File, ...] | None:
    """Read one file, or several with commas and `and` between them."""
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
    # `a.txt and b.txt in docs`: the folder may be meant for both files or for one.
    return tuple(files) if len(files) > 1 and len(folders) == 1 else None


def read_file(tokens: Sequence[Token]) -> File | None:
    """Read all these tokens as one file; return None if they name none."""
    if not tokens or len(tokens) > _LONGEST:
        return None
    found = _read_bare_file(tokens)
    if found is not None:
        return found
    for at in range(len(tokens) - 2, 0, -1):
        if tokens[at].key in _AT and (folder := read_folder(tokens[at + 1 :])):
            inner = _read_bare_file(tokens[:at])
            if isinstance(inner, NamedFile) and inner.folder == ROOT:
                return NamedFile(inner.path, folder) if folder != ROOT else inner
            if isinstance(inner, SomeFile):
                return SomeFile(inner.said, inner.index, folder)
    return None


def _read_bare_file(tokens: Sequence[Token]) -> File | None:
    words = keys_of(tokens)
    said = " ".join(words)
    if words in _FILE_BACKS:
        return FileBack(said)
    some = _read_some_file(words)
    if some is not None:
        return some
    rest = _skip_words(_THE, tokens)
    described = rest[1:]
    if len(described) > 1 and rest[0].key in _DESCRIBING and described[0].key in FILE_NOUNS:
        rest = described
    if rest and rest[0].key in FILE_NOUNS and len(rest) > 1:
        return _read_file_name(_skip_called(rest[1:]), sure=True)
    if tokens[-1].kind == "file" and keys_of(rest[:-1]) in {("one", "called"), ("one", "named")}:
        return _read_file_name(rest[-1:], sure=True)
    if len(rest) > 1 and rest[-1].key in FILE_NOUNS:
        return None if rest[0].key in WHICH else _read_file_name(rest[:-1], sure=True)
    return _read_file_name(_skip_words(_THE if tokens[-1].kind == "quoted" else _BEFORE_NAME, tokens), sure=False)


def _skip_words(words: frozenset[str], tokens: Sequence[Token]) -> Sequence[Token]:
    """Return the tokens after these words."""
    at = 0
    while at < len(tokens) - 1 and tokens[at].key in words:
        at += 1
    return tokens[at:]


def find_doubtful_name(tokens: Sequence[Token]) -> Sequence[Token]:
    """Return the first bare name of a file with the word before it, if that word may belong to the name;
    else nothing.
    """
    for at in range(1, len(tokens)):
        before = tokens[at - 1]
        after_place = at > 1 and before.kind == "word" and tokens[at - 2].key in _AT | _BEFORE_NAME
        doubtful = before.key in _THE or (after_place and before.key not in FILE_NOUNS)
        if tokens[at].kind in {"file", "path"} and doubtful and before.key not in _BEFORE_NAME | _AT | MARKS:
            return tokens[at - 1 : at + 1]
    return ()


def _skip_called(tokens: Sequence[Token]) -> Sequence[Token]:
    for called in _CALLED:
        if keys_of(tokens[: len(called)]) == called and len(tokens) > len(called):
            return tokens[len(called) :]
    return tokens


def _read_file_name(tokens: Sequence[Token], *, sure: bool) -> NamedFile | None:
    """Read one token as the name of a file. `sure`: the prompt calls it a file, so it needs no suffix."""
    if len(tokens) != 1:
        return None
    token = tokens[0]
    by_shape = token.kind == "file" or (token.kind == "path" and not token.text.endswith("/"))
    known = token.kind == "word" and (token.key in PLAIN_FILES or ("/" in token.text.strip("/") and sure))
    word = sure and token.kind == "word" and token.key not in _NO_NAMES and any(char.isalnum() for char in token.key)
    quoted = token.kind == "quoted" and bool(token.text.strip()) and "\n" not in token.text and not is_url(token.text)
    if not (by_shape or known or word or quoted):
        return None
    path = clean(token.text)
    return NamedFile(path) if path != "." else None


def _read_some_file(words: tuple[str, ...]) -> SomeFile | None:
    said = " ".join(words)
    if words in _OF_FILES or words in _ANY_FILE:
        return SomeFile(said)
    if words[:1] in {("the",), ("its",)} and words[1:2] and words[1] in _ORDINALS and words[2:] in _ONE_FILE:
        return SomeFile(said, _ORDINALS[words[1]])
    return None


def read_folder(tokens: Sequence[Token], *, sure: bool = False) -> Folder | None:
    """Read all these tokens as one folder. `sure`: only a folder can stand here, so a single word suffices."""
    if not tokens or len(tokens) > _LONGEST:
        return None
    words = keys_of(tokens)
    said = " ".join(words)
    if words in _HERE_BACKS:
        return ROOT
    if words in _FOLDER_BACKS:
        return Folder(None, said)
    rest = _skip_words(_THE, tokens)
    if len(rest) == 1 and rest[0].key in _FOLDER:
        return None
    if len(rest) > 1 and rest[0].key in _FOLDER:
        return _read_bare_folder(_skip_called(rest[1:]), sure=True)
    if len(rest) > 1 and rest[-1].key in _FOLDER:
        return None if rest[0].key in WHICH - _HERE else _read_bare_folder(rest[:-1], sure=True)
    return _read_bare_folder(_skip_words(_THE if tokens[-1].kind == "quoted" else _BEFORE_NAME, tokens), sure=sure)


def read_new_folder(tokens: Sequence[Token], *, sure: bool = False) -> Folder | None:
    """Read the name of a folder to make. It may be a number, such as a year."""
    *before, last = tokens
    is_number = last.text.isdecimal() and last.end - last.start == len(last.text)
    return read_folder([*before, last._replace(kind="word") if is_number else last], sure=sure)


def _read_bare_folder(tokens: Sequence[Token], *, sure: bool) -> Folder | None:
    words = keys_of(tokens)
    if words == ("sample", "data") or (words and _HERE.issuperset(words)):
        return ROOT if sure or words[0] not in _HERE or "sample" in words[0] else None
    if words and words[-1] in _FOLDER:
        return _read_bare_folder(tokens[:-1], sure=sure)
    if len(tokens) != 1:
        return None
    token = tokens[0]
    plain = (
        token.kind in {"word", "quoted", "file"}
        and token.key not in _NO_NAMES
        and token.text[:1] != "-"
        and "\n" not in token.text
        and not is_url(token.text)
    )
    if token.kind == "path" or (plain and sure and any(char.isalnum() for char in token.text)):
        path = clean(token.text).rstrip("/") or "/"
        return Folder(path, token.text) if path != "." else ROOT
    return None


def read_page(tokens: Sequence[Token]) -> WebPage | None:
    """Read all these tokens as a web page: its address, bare or in quotes."""
    if not 0 < len(tokens) <= _LONGEST_PAGE:
        return None
    *before, last = tokens
    url = last.text.strip()
    if last.kind not in {"url", "quoted"} or not _WEB.fullmatch(url):
        return None
    words = [key for key in keys_of(before) if key not in _THE | _AT | {":"}]
    return WebPage(url, outright=bool(words)) if set(words) <= _PAGES and (words or not before) else None


def read_pattern(tokens: Sequence[Token]) -> str | None:
    """Read a pattern for names of files: `*.md`, `.md`, `markdown`, `report`, a name in quotes."""
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
    """Read a type of file and return a glob: `markdown`, `.md`, `*.md`."""
    if len(tokens) != 1:
        return None
    token = tokens[0]
    if token.kind == "glob":
        return token.text
    if token.kind == "file" and token.text.startswith("."):
        return "*" + token.text
    return f"*.{FILE_TYPES[token.key]}" if token.key in FILE_TYPES else None


def read_back(tokens: Sequence[Token]) -> Back | None:
    """Read a reference to something earlier: `it`, `the result`, `that list`."""
    words = list(keys_of(tokens))
    said = " ".join(words)
    if tuple(words) in _FOUND:
        return Back("any", said)
    pointing = words[0] in _POINTING and len(words) > 1
    rest = words[1:] if pointing else words
    while len(rest) > 1 and rest[0] in _FILLERS:
        rest = rest[1:]
    if len(rest) != 1 or rest[0] not in _BACKS or not (pointing or rest[0] in _ALONE):
        return None
    return Back(_BACKS[rest[0]], said)
