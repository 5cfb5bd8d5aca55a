"""Finds out that a model repeats itself without end, while its answer comes in."""

LONGEST_PIECE = 1024
"""The longest piece, in characters, whose repetition is found."""

LEAST_COPIES = 8
LEAST_TEXT = 4096
LEAST_IN_FORM = 1024
"""The least text in an answer that has a form, like a plan: a small model that is held to one rarely leaves a loop."""

LEAST_BLANK = 1024

_WINDOW = LEAST_COPIES * LONGEST_PIECE
_STEP = 256


class RepetitionDetector:
    """Watches a text that comes in pieces, and says when its end repeats.

    The rule: the text ends in exact copies of one piece of at most 1,024 characters, one after the other, at least 8 of
    them and at least `least` characters together; or it ends in 1,024 characters of white space. The last copy need not
    be whole. So rows that differ in a value, base64 of data, tables and indented JSON never count, and neither does a
    repetition that the text has left again.

    The end is looked at after every 256 new characters. One look costs the same however long the text is: the last
    8,192 characters are kept.
    """

    def __init__(self, least: int = LEAST_TEXT) -> None:
        self._least = least
        self._tail = ""
        self._new: list[str] = []
        self._waiting = 0

    def write(self, piece: str) -> bool:
        """Take the next piece of the text. Return True if its end repeats."""
        self._new.append(piece)
        self._waiting += len(piece)
        if self._waiting < _STEP:
            return False
        self._tail = f"{self._tail}{''.join(self._new)}"[-_WINDOW:]
        self._new.clear()
        self._waiting = 0
        return _repeats(self._tail, self._least)

    def finds_in(self, text: str) -> bool:
        """Return whether the end of a whole text repeats, by the same rule."""
        return _repeats(text[-_WINDOW:], self._least)


def _repeats(tail: str, least: int) -> bool:
    if len(tail) >= LEAST_BLANK and tail[-LEAST_BLANK:].isspace():
        return True
    if len(tail) < least:
        return False
    # The end comes again `period` characters earlier: the shortest period of the last 1,024 + `period` characters. If
    # more of the text has a period of at most 1,024, it is this one (the theorem of Fine and Wilf).
    backwards = tail[: -2 * LONGEST_PIECE - 1 : -1]
    period = backwards.find(backwards[:LONGEST_PIECE], 1)
    if period < 0:
        return False
    repeated = tail[-max(least, LEAST_COPIES * period) :]
    return len(repeated) >= LEAST_COPIES * period and repeated[period:] == repeated[:-period]
