"""Text from anywhere, made fit to be read by a person: nothing in it hides or reorders what stands beside it.

The page has the same rules in `api/console/text.js`; a test compares the two character by character.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

_WIDE_BLANKS = "\u115f\u1160\u2800\u3164\uffa0\ufffc\U00013441\U00013442\U0001d159"
"""Characters that are drawn as a gap and that Unicode calls letters or symbols: fillers, the empty Braille cell, ..."""

_ZERO_WIDTH = "\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U00016fe4\U0001bc9d\U000e0100-\U000e01ef"
"""Joiners and variation selectors, which are drawn as nothing and which Unicode calls marks."""

_DRAWN_AS_NOTHING = re.compile(f"[{_WIDE_BLANKS}{_ZERO_WIDTH}]")
_SPACES = re.compile("[ \t\r\n\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
"""What only sets words apart. Lines and paragraphs of Unicode's own (U+2028, U+2029) are marks, and so is the rest."""


def is_hidden(character: str) -> bool:
    """Return whether a character is drawn as nothing, as a gap, or not as itself. The plain space is not hidden.

    Hidden are what Unicode calls other (controls, formats, halves of surrogate pairs, private use, unassigned), a
    separator or default-ignorable, and the few letters and symbols that are drawn as a gap.
    """
    return not character.isprintable() or _DRAWN_AS_NOTHING.match(character) is not None


def has_hidden(text: str) -> bool:
    """Return whether the text holds a hidden character."""
    return not text.isprintable() or (not text.isascii() and _DRAWN_AS_NOTHING.search(text) is not None)


def escape_hidden(text: str, keep: str = "") -> str:
    r"""Return the text with every hidden character spelled out as `\u202e`, but for those of `keep`."""
    if not has_hidden(text):
        return text
    return "".join(c if c in keep or not is_hidden(c) else _spell_out(c) for c in text)


def _spell_out(character: str) -> str:
    return character.encode("unicode-escape", "replace").decode()


_UNCLEAR = re.compile(r"""[ ()=,"'\u2012-\u2015\u2e3a\u2e3b]|^$""")
"""What stands around names where a call is written out as text: brackets, signs, quotes, dashes."""

_DASH = re.compile("[\u2012-\u2015\u2e3a\u2e3b]")


def clear_name(name: str) -> str:
    """Return a name as it is; in quotes where it holds what stands around names, and so could pass for more."""
    return json.dumps(name, ensure_ascii=False) if _UNCLEAR.search(name) else name


def clear_title(title: str) -> str:
    """Return a title as it is; in quotes where it holds a dash, after which the reader expects the call itself."""
    return json.dumps(title, ensure_ascii=False) if _DASH.search(title) else title


def is_blank(text: str) -> bool:
    """Return whether the text has nothing to be read: only white space and hidden characters, or no character."""
    return all(c.isspace() or is_hidden(c) for c in text)


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the names that cannot be told apart by sight, in groups: they differ in hidden characters or spaces only.

    The order is that of the names. Letters of different alphabets that look alike are not compared.
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(_as_seen(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _as_seen(name: str) -> str:
    if name.isascii() and name.isprintable():
        return " ".join(name.split())
    drawn = (" " if c.isspace() or c in _WIDE_BLANKS else "" if is_hidden(c) else c for c in name)
    return unicodedata.normalize("NFC", " ".join("".join(drawn).split()))


def json_line(value: Any, *, compact: bool = False) -> str:
    """Return the value as JSON on one line; where that would hold a hidden character, all but ASCII is escaped."""
    separators = (",", ":") if compact else None
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    return json.dumps(value, separators=separators) if has_hidden(text) else text


def one_line(text: str, limit: int = 300) -> str:
    """Return the text on one line of at most `limit` characters: white space is one space, other marks are visible."""
    return _cut_visible(_SPACES.sub(" ", text[: 4 * limit]).strip(), limit, whole=len(text) <= 4 * limit)


def exact_line(text: str, limit: int) -> str:
    """Return what `one_line` does, of a text whose every space counts: each one is shown, the unusual ones as such."""
    return _cut_visible(text[: limit + 1], limit, whole=True)


def _cut_visible(text: str, limit: int, *, whole: bool) -> str:
    line = escape_hidden(text)
    return line if whole and len(line) <= limit else line[: limit - 1].rstrip() + "…"


def cut(text: str, limit: int) -> str:
    """Return the text, its end left out where it is over `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
