"""JSON in the text of a language model: found among prose and fences, and read with a little tolerance.

What is tolerated cannot be taken in two ways, and has a name:

* *prose*: whatever stands around the JSON, fences included, is passed over;
* *thinking*: a text that begins with `<think>` is read from after the first `</think>` on;
* *comments*: `// ...` and `/* ... */` outside strings are passed over;
* *trailing commas*: a comma before a closing bracket is passed over;
* *raw control characters*: line breaks and tabs in strings are taken as they stand.

Anything else that is no JSON is a fault: single quotes, names without quotes, a name that comes twice, an end that is
missing. The text is passed over a fixed number of times, whatever is in it.
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
"""How deep arrays and objects may be nested in each other."""

MOST_TOKENS = 100_000
"""How many strings and brackets one piece of JSON may hold."""

MOST_PIECES = 1000
"""How many pieces of a text are looked at."""

_STRING = r'"(?:[^"\\]++|\\.)*+"?'
_COMMENT = r"//[^\n]*+|/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?"

_START = re.compile(r"""\{(?=\s*+(?:["'}]|//|/\*|[A-Za-z_]\w*+\s*+:))|\[(?=\s*+\{)""")
"""Where JSON may begin. A brace before anything else belongs to the prose, as in `${s1.text}` or `{this}`."""

_TOKEN = re.compile(f"{_STRING}|{_COMMENT}|[{{}}\\[\\]]", re.DOTALL)
_COMMENTS = re.compile(f"({_STRING})|{_COMMENT}", re.DOTALL)
_TRAILING = re.compile(rf"({_STRING})|,(?=\s*+[}}\]])", re.DOTALL)


class NoJsonError(ValueError):
    """The text is not the JSON that it seems to be; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A piece of the text that begins as JSON does: what it says, or what is wrong with it."""

    text: str
    value: JsonValue = None
    fault: str | None = None


def find_pieces(text: str) -> Iterator[Found]:
    """Every piece of the text that may be JSON, outermost and first to last.

    A piece ends where its brackets are closed, or with the text. Raises: NoJsonError for a text that is too long or
    holds too many pieces, or a piece that holds too much.
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
            yield Found(piece, fault="the JSON is not closed: it ends too early, or a bracket or quote is missing")
            return
        if deepest > MOST_DEPTH:
            yield Found(piece, fault=f"the JSON is nested more than {MOST_DEPTH} deep")
        else:
            yield _read_piece(piece)
        position = end
    raise NoJsonError(f"there are more than {MOST_PIECES} pieces of JSON")


def read_object(text: str) -> JsonObject | None:
    """The object that the whole text is as JSON, without any tolerance; None where it is none."""
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
    """Behind the bracket that closes the one at `start`, if there is one, and how deep brackets are nested up to it.

    Raises: NoJsonError where it holds too much.
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


def _read_piece(piece: str) -> Found:
    try:
        return Found(piece, _load(piece, strict=False))
    except NoJsonError as error:
        return Found(piece, fault=str(error))
    except ValueError:
        pass
    plain = _COMMENTS.sub(lambda found: found[1] or " ", piece)
    plain = _TRAILING.sub(lambda found: found[1] or "", plain)
    try:
        return Found(piece, _load(plain, strict=False))
    except json.JSONDecodeError as error:
        near = error.doc[max(0, error.pos - 30) : error.pos + 30]
        return Found(piece, fault=f"the JSON is wrong in line {error.lineno}: {error.msg}, near {near!r}")
    except ValueError as error:
        return Found(piece, fault=f"the JSON is wrong: {error}")


def _load(text: str, *, strict: bool) -> JsonValue:
    return json.loads(text, strict=strict, object_pairs_hook=_to_object)


def _to_object(pairs: Sequence[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise NoJsonError(f"the name {twice[:80]!r} comes twice in one object")
    return found
