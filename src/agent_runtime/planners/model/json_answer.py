"""Finds and reads JSON in the text of a language model, with a little tolerance.

Only what has one possible meaning is tolerated. Each tolerance has a name:

* *prose*: text around the JSON, including fences, is skipped;
* *thinking*: a text that begins with `<think>` is read from after the first `</think>` on;
* *comments*: `// ...` and `/* ... */` outside strings are skipped;
* *trailing commas*: a comma before a closing bracket is skipped;
* *raw control characters*: line breaks and tabs in strings are accepted as they are.

Everything else that is no JSON is a fault: single quotes, names without quotes, a repeated name, a missing end. The
number of passes over the text is fixed, whatever it contains.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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


def find_pieces(text: str) -> Iterator[JsonPiece]:
    """Yield every piece of the text that may be JSON, outermost only, in order.

    A piece ends where its brackets are closed, or with the text.
    Raises: NoJsonError for a text that is too long or has too many pieces, and for a piece that is too large.
    """
    if len(text) > MOST_CHARACTERS:
        raise NoJsonError(f"the text is {len(text)} characters long, and at most {MOST_CHARACTERS} are read")
    position = _skip_thinking(text)
    for _ in range(MOST_PIECES):
        start = _START.search(text, position)
        if start is None:
            return
        end, deepest = _find_end(text, start.start())
        piece = text[start.start() : end or len(text)]
        if end is None:
            yield JsonPiece(piece, fault="the JSON is not closed: it ends too early, or a bracket or quote is missing")
            return
        if deepest > MOST_DEPTH:
            yield JsonPiece(piece, fault=f"the JSON is nested more than {MOST_DEPTH} deep")
        else:
            yield _read_piece(piece)
        position = end
    raise NoJsonError(f"there are more than {MOST_PIECES} pieces of JSON")


def read_object(text: str) -> JsonObject | None:
    """Read the whole text as one JSON object, without any tolerance; return None if it is none."""
    try:
        if not text.lstrip().startswith("{") or _find_end(text, text.index("{"))[1] > MOST_DEPTH:
            return None
        value = _load(text, strict=True)
    except (NoJsonError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _skip_thinking(text: str) -> int:
    if not text.lstrip().startswith("<think>"):
        return 0
    end = text.find("</think>")
    return len(text) if end < 0 else end


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
