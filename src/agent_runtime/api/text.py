"""Text from anywhere, made fit for one line."""

import re

_NOT_PRINTED = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
"""White space, control characters, and those that reorder or hide what stands beside them."""


def one_line(text: str, limit: int = 300) -> str:
    """The text on one line of at most `limit` characters, with no control character in it."""
    line = _NOT_PRINTED.sub(" ", text[: 4 * limit]).strip()
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1].rstrip() + "…"
