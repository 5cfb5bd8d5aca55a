"""Make text from anywhere safe to display: no hidden characters, and none that reorder the text around them.

The page has the same rules in `api/console/text.js`; a test compares both for every character.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

_WIDE_BLANKS = "\u115f\u1160\u2800\u3164\uffa0\ufffc\U00013441\U00013442\U0001d159"
"""Letters and symbols that look like blanks: fillers, the empty Braille cell, ..."""

_ZERO_WIDTH = "\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U00016fe4\U0001bc9d\U000e0100-\U000e01ef"
"""Marks that are invisible: joiners and variation selectors."""

_DRAWN_AS_NOTHING = re.compile(f"[{_WIDE_BLANKS}{_ZERO_WIDTH}]")
_SPACES = re.compile("[ \t\r\n\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
"""White space that may be collapsed. The separators U+2028 and U+2029 and all others are escaped instead."""


def is_hidden(character: str) -> bool:
    """Return whether a character is invisible, looks like a blank, or has no defined look. The space is not hidden.

    Hidden are the Unicode categories Other (controls, formats, surrogates, private use, unassigned) and Separator,
    default-ignorable characters, and the few letters and symbols that look like blanks.
    """
    return not character.isprintable() or _DRAWN_AS_NOTHING.match(character) is not None


def has_hidden(text: str) -> bool:
    """Return whether the text contains a hidden character."""
    return not text.isprintable() or (not text.isascii() and _DRAWN_AS_NOTHING.search(text) is not None)


def escape_hidden(text: str, keep: str = "") -> str:
    r"""Return the text with hidden characters escaped, as in `\u202e`, except those in `keep`."""
    if not has_hidden(text):
        return text
    return "".join(c if c in keep or not is_hidden(c) else _spell_out(c) for c in text)


def _spell_out(character: str) -> str:
    return character.encode("unicode-escape", "replace").decode()


_UNCLEAR = re.compile(r"""[ ()=,"'\u2012-\u2015\u2e3a\u2e3b]|^$""")
"""Characters with a meaning in a call that is formatted as text: brackets, signs, quotes, dashes."""

_DASH = re.compile("[\u2012-\u2015\u2e3a\u2e3b]")


def clear_name(name: str) -> str:
    """Return the name, quoted if it contains characters with a meaning in a formatted call."""
    return json.dumps(name, ensure_ascii=False) if _UNCLEAR.search(name) else name


def clear_title(title: str) -> str:
    """Return the title, quoted if it contains a dash, after which a reader expects the call."""
    return json.dumps(title, ensure_ascii=False) if _DASH.search(title) else title


def is_blank(text: str) -> bool:
    """Return whether the text is empty or has only white space and hidden characters."""
    return all(c.isspace() or is_hidden(c) for c in text)


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of names that look the same: they differ only in hidden characters or spaces.

    The order is that of the names. Similar letters of different alphabets are not compared.
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
    """Return the value as JSON on one line, with all non-ASCII characters escaped if any of them is hidden."""
    separators = (",", ":") if compact else None
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    return json.dumps(value, separators=separators) if has_hidden(text) else text


def one_line(text: str, limit: int = 300) -> str:
    """Return the text on one line of at most `limit` characters, with white space collapsed and the rest escaped."""
    return _cut_visible(_SPACES.sub(" ", text[: 4 * limit]).strip(), limit, whole=len(text) <= 4 * limit)


def exact_line(text: str, limit: int) -> str:
    """Return the text on one line of at most `limit` characters, with all spaces kept and unusual ones escaped."""
    return _cut_visible(text[: limit + 1], limit, whole=True)


def _cut_visible(text: str, limit: int, *, whole: bool) -> str:
    line = escape_hidden(text)
    return line if whole and len(line) <= limit else line[: limit - 1].rstrip() + "…"


def cut(text: str, limit: int) -> str:
    """Return the text, cut to `limit` characters with an ellipsis if it is longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
