"""Finds and reads JSON in the text of a language model, with a little tolerance.

Only what has one possible meaning is tolerated. Each tolerance has a name:

* *prose*: text around the JSON, including fences, is skipped;
* *thoughts*: what stands between the marks of `domain/thoughts.py` is skipped, and so is all before a closing mark that
  nothing opened. Every mark outside of JSON counts here; only an opening mark that nothing closes must stand where
  thoughts begin, and so must a closing mark within broken JSON. A mark in a string of the JSON is text;
* *text in text*: a text that is one JSON string is read as what the string holds;
* *comments*: `// ...` and `/* ... */` outside strings are skipped;
* *trailing commas*: a comma before a closing bracket is skipped;
* *raw control characters*: line breaks and tabs in strings are accepted as they are.

Everything else that is no JSON is a fault: single quotes, names without quotes, a repeated name, a missing end. The
number of passes over the text is fixed, whatever it contains.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent_runtime.domain.thoughts import (
    MARK,
    closes_thoughts,
    cut_thoughts,
    find_closing,
    is_closing,
    opens_thoughts,
    take_final_channel,
)
from agent_runtime.domain.values import JsonObject, JsonValue

MOST_CHARACTERS = 1_048_576
"""The longest text that is read."""

MOST_DEPTH = 64
"""The deepest nesting of arrays and objects."""

MOST_TOKENS = 100_000
"""The most strings and brackets in one piece of JSON."""

MOST_PIECES = 1000
"""The most pieces of a text that are read."""

_STRING = r'"(?:[^"\\]++|\\.)*+"?'
_COMMENT = r"//[^\n]*+|/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?"

_START = re.compile(r"""\{(?=\s*+(?:["'}]|//|/\*|[A-Za-z_]\w*+\s*+:))|\[(?=\s*+\{)""")
"""Where JSON may begin. A brace before anything else belongs to the prose, as in `${s1.text}` or `{this}`."""

_MARKS = re.compile(MARK)
_NEXT = re.compile(rf"(?P<mark>{MARK})|{_START.pattern}")
_WHOLE_STRING = re.compile(r"\A\s*+(?:```\w*+\s*+)?(\"(?:[^\"\\]++|\\.)*+\")(?:\s*+```)?\s*+\Z", re.DOTALL)

_TOKEN = re.compile(f"{_STRING}|{_COMMENT}|[{{}}\\[\\]]", re.DOTALL)
_COMMENTS = re.compile(f"({_STRING})|{_COMMENT}", re.DOTALL)
_TRAILING = re.compile(rf"({_STRING})|,(?=\s*+[}}\]])", re.DOTALL)


class NoJsonError(ValueError):
    """The text is not the JSON that it seems to be. The message says where and why."""


@dataclass(frozen=True, slots=True)
class JsonPiece:
    """A piece of the text that begins like JSON: its value, or its fault."""

    text: str
    value: JsonValue = None
    fault: str | None = None


def find_pieces(text: str) -> list[JsonPiece]:
    """Return every piece of the text that may be JSON, outermost only, in order; none of the thoughts in it.

    A piece ends where its brackets are closed, or with the text.
    Raises: NoJsonError for a text that is too long, has too many pieces or nothing but thoughts, and for a piece that
    is too large.
    """
    if len(text) > MOST_CHARACTERS:
        raise NoJsonError(f"the text is {len(text)} characters long, and at most {MOST_CHARACTERS} are read")
    text = _unquote(take_final_channel(text))
    pieces: list[JsonPiece] = []
    position = count = 0
    thinks, may_close = False, True
    while found := _NEXT.search(text, position):
        if found["mark"]:
            thinks, position = True, found.end()
            end = find_closing(text, position) if may_close else None
            may_close = end is not None  # without one, no later search finds one either
            if is_closing(found):
                pieces.clear()
            elif end is not None:
                position = end
            elif opens_thoughts(text, found):
                break
            continue
        count += 1
        if count > MOST_PIECES:
            raise NoJsonError(f"there are more than {MOST_PIECES} pieces of JSON")
        piece = _cut_piece(text, found.start())
        position = found.start() + len(piece.text)
        thoughts_end = None if piece.fault is None else _find_thoughts_end(text, found.start(), position)
        if thoughts_end is None:
            pieces.append(piece)
        else:  # it was a draft, and its end was never written
            pieces.clear()
            position, thinks = thoughts_end, True
    if thinks and not pieces:
        raise NoJsonError("no JSON follows your thoughts: write it after them")
    return pieces


def read_object(text: str) -> JsonObject | None:
    """Read the whole text as one JSON object, without any tolerance; return None if it is none."""
    try:
        if not text.lstrip().startswith("{") or _find_end(text, text.index("{"))[1] > MOST_DEPTH:
            return None
        value = _load(text, strict=True)
    except (NoJsonError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _unquote(text: str) -> str:
    """Return what a text that is one JSON string holds; any other text unchanged."""
    whole = _WHOLE_STRING.match(cut_thoughts(text)) if '\\"' in text else None
    if whole is None:
        return text
    try:
        return str(json.loads(whole[1], strict=False))
    except ValueError:
        return text


def _cut_piece(text: str, start: int) -> JsonPiece:
    """Return the piece that begins here. Raises: NoJsonError where it has more than `MOST_TOKENS`."""
    end, deepest = _find_end(text, start)
    piece = text[start : end or len(text)]
    if end is None:
        return JsonPiece(piece, fault="the JSON is not closed: it ends too early, or a bracket or quote is missing")
    if deepest > MOST_DEPTH:
        return JsonPiece(piece, fault=f"the JSON is nested more than {MOST_DEPTH} deep")
    return _read_piece(piece)


def _find_thoughts_end(text: str, start: int, end: int) -> int | None:
    """Return the end of the last closing mark in a broken piece that ends thoughts; None if there is none."""
    marks = [mark for mark in _MARKS.finditer(text, start, end) if is_closing(mark) and closes_thoughts(text, mark)]
    return marks[-1].end() if marks else None


def _find_end(text: str, start: int) -> tuple[int | None, int]:
    """Return the position after the bracket that closes the one at `start`, if any, and the deepest nesting before it.

    Raises: NoJsonError where the piece has more than `MOST_TOKENS`.
    """
    depth = deepest = 0
    for count, token in enumerate(_TOKEN.finditer(text, start)):
        if count == MOST_TOKENS:
            raise NoJsonError(f"the JSON holds more than {MOST_TOKENS} strings and brackets")
        first = text[token.start()]
        if first in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif first in "}]":
            depth -= 1
            if depth == 0:
                return token.end(), deepest
    return None, deepest


def _read_piece(piece: str) -> JsonPiece:
    try:
        return JsonPiece(piece, _load(piece, strict=False))
    except NoJsonError as error:
        return JsonPiece(piece, fault=str(error))
    except ValueError:
        pass
    plain = _COMMENTS.sub(lambda found: found[1] or " ", piece)
    plain = _TRAILING.sub(lambda found: found[1] or "", plain)
    try:
        return JsonPiece(piece, _load(plain, strict=False))
    except json.JSONDecodeError as error:
        near = error.doc[max(0, error.pos - 30) : error.pos + 30]
        return JsonPiece(piece, fault=f"the JSON is wrong in line {error.lineno}: {error.msg}, near {near!r}")
    except ValueError as error:
        return JsonPiece(piece, fault=f"the JSON is wrong: {error}")


def _load(text: str, *, strict: bool) -> JsonValue:
    return json.loads(text, strict=strict, object_pairs_hook=_to_object)


def _to_object(pairs: Sequence[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise NoJsonError(f"the name {twice[:80]!r} comes twice in one object")
    return found
