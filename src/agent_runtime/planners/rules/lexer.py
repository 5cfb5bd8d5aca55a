"""Splits a prompt into tokens, in linear time. Each token knows its position, so that content is cut out verbatim."""

# These marks are needed because they look like others.
# ruff: noqa: RUF001

import re
from bisect import bisect_left
from typing import Literal, NamedTuple

from agent_runtime.planners.rules.refusals import make_refusal

MAX_TOKENS = 3000
"""The most tokens of a prompt. A quotation is one token, however long."""

Kind = Literal["word", "number", "file", "path", "glob", "url", "quoted", "block", "punct", "newline"]


class Token(NamedTuple):
    """One token. `key` is the form that the grammar compares: lower case, and empty for quotations. `text` is its
    meaning.
    """

    kind: Kind
    key: str
    text: str
    start: int
    end: int


# By the character that opens a quotation: the characters that close it.
_CLOSERS = {'"': '"', "“": "”“", "”": "”", "„": "“”", "«": "»", "»": "«", "‹": "›", "`": "`", "‘": "’'", "'": "'’"}
_SINGLE = frozenset("'‘")
_FENCE = "```"
_SCAN = re.compile(
    r"""(?P<newline>\r\n|[\n\r\u2028\u2029\x85\x0b\x0c])
      | (?P<space>\s+?)
      | (?P<url>[a-z][a-z0-9+.-]*://[^\s"“”„«»‹›`<>|]*[^\s"“”„«»‹›`<>|.,;:!?)\]'’])
      | (?P<arrow>->|=>|→|⇒)
      | (?P<mark>["“”„«»‹›`,;:()\[\]<>|&])
      | (?P<chunk>tl;dr
          | (?:[^\s"“”„«»‹›`,;:()\[\]<>|&→⇒]|,(?<=[0-9],)(?=[0-9]{3}(?![0-9]))|:(?=//)|:(?<=[0-9]:)(?=[0-9]))+)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_ENDS = re.compile(r"[.!?]+$")
_ARITHMETIC = re.compile(
    r"[$€£]?(?:[0-9]+(?:[.,][0-9]+)*|\.[0-9]+|[-+*/^%=×÷·−]|(?<=[0-9])(?<!\b0)[xX](?=[0-9]))+",
)
_PIECE = re.compile(r"[0-9]+(?:[.,][0-9]+)*|\.[0-9]+|\*\*|.")
_DATE = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}|[0-9]+(?:\.[0-9]+){2,}|[0-9]+(?:-[0-9]+){2,}")
_EXPONENT = re.compile(r"[0-9]+(?:\.[0-9]+)?e[+-]?[0-9]{1,2}", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+")
_FILE = re.compile(r"[^*?]*\.[A-Za-z][A-Za-z0-9_]{0,9}")
_URL = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*://|www\.)", re.IGNORECASE)
_ABBREVIATIONS = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "st",
        "prof",
        "vs",
        "etc",
        "no",
        "approx",
        "e.g",
        "i.e",
        "a.m",
        "p.m",
        "u.s",
        "u.k",
        "inc",
        "ltd",
    ]
)
_OPERATORS = {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**", "x": "*"}
_SPELLINGS = {
    "to-do": "todo", "to-dos": "todos", "to-do's": "todos", "todo's": "todos", "todolist": "todo",
    "todays": "today's", "tomorrows": "tomorrow's", "yesterdays": "yesterday's",
}  # fmt: skip
_SPLIT_IS = frozenset({"what's", "whats", "where's", "that's", "it's", "how's", "which's", "there's", "who's"})


def is_url(text: str) -> bool:
    """Return whether this text begins like the address of a page."""
    return _URL.match(text) is not None


def tokenize(text: str) -> list[Token]:
    """Return the tokens of a prompt. Raises: PlanningError for an unclosed quotation, or more than `MAX_TOKENS`."""
    quotes = _Quotations(text)
    tokens: list[Token] = []
    at = 0
    while match := _SCAN.match(text, at):
        found = match.group()
        end = match.end()
        if found[0] in _CLOSERS and (quoted := quotes.at(at)):
            tokens.append(quoted)
            end = quoted.end
        elif match.lastgroup == "newline":
            tokens.append(Token("newline", "\n", found, at, end))
        elif match.lastgroup == "chunk":
            tokens.extend(_split_chunk(found, at, glued=bool(tokens) and tokens[-1].end == at))
        elif match.lastgroup == "url":
            tokens.append(Token("url", found.lower(), found, at, end))
        elif match.lastgroup == "arrow":
            tokens.append(Token("punct", "->", found, at, end))
        elif match.lastgroup in {"mark", "other"}:
            tokens.append(Token("punct", "and" if found == "&" else found, found, at, end))
        at = end
        if len(tokens) > MAX_TOKENS:
            why = f"is where more than {MAX_TOKENS} words of instructions have been read: put long text in quotes"
            beyond = tokens[MAX_TOKENS].start
            raise make_refusal(text[beyond : beyond + 80], why)
    return _merge_todo_words(tokens)


class _Quotations:
    """Finds the ends of quotations. The closing marks are searched once, so that hostile text takes linear time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends: dict[str, list[int]] = {}

    def at(self, start: int) -> Token | None:
        """Return the quotation that opens here; None if the mark is only an apostrophe.

        Raises: PlanningError where it is never closed.
        """
        text, mark = self._text, self._text[start]
        if text.startswith(_FENCE, start):
            return self._read_fence(start)
        if mark in _SINGLE and start and text[start - 1].isalnum():
            return None
        ends = self._find_closing(mark)
        place = bisect_left(ends, start + 1)
        if place == len(ends):
            if mark in _SINGLE or mark in "”»":
                return None
            raise make_refusal(text[start : start + 60], "opens a quotation that never closes")
        end = ends[place]
        return Token("quoted", "", text[start + 1 : end], start, end + 1)

    def _find_closing(self, mark: str) -> list[int]:
        if mark not in self._ends:
            pattern = f"[{_CLOSERS[mark]}]" + (r"(?!\w)" if mark in _SINGLE else "")
            self._ends[mark] = [match.start() for match in re.finditer(pattern, self._text)]
        return self._ends[mark]

    def _read_fence(self, start: int) -> Token:
        text = self._text
        end = text.find(_FENCE, start + len(_FENCE))
        if end < 0:
            raise make_refusal(text[start : start + 60], "opens a quotation that never closes")
        inner = text[start + len(_FENCE) : end]
        first, newline, rest = inner.partition("\n")
        if newline and (not first.strip() or first.strip().isalnum()):
            inner = rest.removesuffix("\n")
        return Token("quoted", "", inner, start, end + len(_FENCE))


def _split_chunk(chunk: str, at: int, *, glued: bool) -> list[Token]:
    """Return the tokens of a run of characters without spaces. `glued`: no space stands before it."""
    tail: list[Token] = []
    ending = _ENDS.search(chunk)
    if ending and not ending.start() and (glued or chunk[-1] != "."):
        return [Token("punct", chunk[-1], chunk, at, at + len(chunk))]
    if ending and ending.start() and not _is_abbreviation(chunk) and not _is_ellipsis(ending.group()):
        place = at + ending.start()
        tail = [Token("punct", ending.group()[-1], ending.group(), place, at + len(chunk))]
        chunk = chunk[: ending.start()]
    end = at + len(chunk)
    key = chunk.lower().replace("’", "'")
    if key.endswith("'s") and _FILE.fullmatch(key[:-2]):
        return [_classify(chunk[:-2], key[:-2], at, end - 2), Token("word", "'s", chunk[-2:], end - 2, end), *tail]
    if key in _SPLIT_IS:
        return [Token("word", key.replace("'", "")[:-1], chunk, at, end), Token("word", "is", chunk, at, end), *tail]
    if _EXPONENT.fullmatch(chunk):
        return [Token("number", key, key, at, end), *tail]
    if _ARITHMETIC.fullmatch(chunk) and not _DATE.fullmatch(chunk):
        return [*_split_arithmetic(chunk, at), *tail]
    return [_classify(chunk, key, at, end), *tail]


def _is_abbreviation(chunk: str) -> bool:
    return chunk.endswith(".") and chunk[:-1].lower() in _ABBREVIATIONS


def _is_ellipsis(ending: str) -> bool:
    return len(ending) > 1 and set(ending) == {"."}


def _split_arithmetic(chunk: str, at: int) -> list[Token]:
    tokens = []
    for piece in _PIECE.finditer(chunk):
        found = piece.group()
        start, end = at + piece.start(), at + piece.end()
        if _NUMBER.fullmatch(found):
            tokens.append(Token("number", found, found.replace(",", ""), start, end))
        elif found not in "$€£":
            tokens.append(Token("punct", _OPERATORS.get(found.lower(), found), found, start, end))
    return tokens


def _classify(chunk: str, key: str, at: int, end: int) -> Token:
    kind: Kind = "word"
    if is_url(chunk):
        kind = "url"
    elif ("*" in chunk or "?" in chunk) and len(chunk) > 1:
        kind = "glob"
    elif "@" not in chunk and key not in _ABBREVIATIONS and _FILE.fullmatch(chunk):
        kind = "file"
    elif len(chunk) > 1 and (chunk.endswith("/") or chunk.startswith(("./", "../", "/", "~/"))):
        kind = "path"
    elif key in _OPERATORS and key != "x":
        return Token("punct", _OPERATORS[key], chunk, at, end)
    elif key in {"—", "--"}:
        return Token("punct", ",", chunk, at, end)
    return Token(kind, _SPELLINGS.get(key, key), chunk, at, end)


def _merge_todo_words(tokens: list[Token]) -> list[Token]:
    """Merge `to do list` and the like into one word. They are the only nouns here that look like an infinitive."""
    merged: list[Token] = []
    for token in tokens:
        before = merged[-1] if merged else None
        if before and before.key == "to" and token.key in {"dos", "do's"}:
            merged[-1] = Token("word", "todos", "to dos", before.start, token.end)
        elif (
            len(merged) > 1
            and token.key in {"list", "item", "items"}
            and (merged[-2].key, before and before.key) == ("to", "do")
        ):
            start = merged[-2].start
            merged[-2:] = [Token("word", "todo", "to do", start, token.start), token]
        else:
            merged.append(token)
    return merged
