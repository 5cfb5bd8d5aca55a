"""Text from anywhere, made fit to be read by a person: nothing in it hides or reorders what stands beside it."""

import re

_SPACES = re.compile("[ \t\r\n\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
"""What only sets words apart. Lines and paragraphs of Unicode's own (U+2028, U+2029) are marks, and so is the rest."""


def visible(text: str, keep: str = "") -> str:
    r"""The text with every character that would be obeyed, hidden or would reorder others spelled out as `\u202e`.

    These are the ones that Unicode calls other (controls, formats, halves of surrogate pairs, unassigned) or
    separators, the plain space and those of `keep` excepted.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode-escape", "replace").decode() for c in text)


def one_line(text: str, limit: int = 300) -> str:
    """The text on one line of at most `limit` characters: white space is one space, other marks are made visible."""
    return _cut_visible(_SPACES.sub(" ", text[: 4 * limit]).strip(), limit, whole=len(text) <= 4 * limit)


def exact_line(text: str, limit: int) -> str:
    """As `one_line`, of a text whose every space counts: each one is shown, the unusual ones as what they are."""
    return _cut_visible(text[: limit + 1], limit, whole=True)


def _cut_visible(text: str, limit: int, *, whole: bool) -> str:
    line = visible(text)
    return line if whole and len(line) <= limit else line[: limit - 1].rstrip() + "…"


def cut(text: str, limit: int) -> str:
    """The text, its end left out where it is over `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
