"""Ranks texts by a question: Okapi BM25 (Robertson and Zaragoza, 2009) over words, for a few thousand texts.

No language is assumed. Words are runs of letters and digits, `camelCase` and `snake_case` are split, and a plural `s`
is dropped. The same input always gives the same order.
"""

import re
from collections import Counter
from collections.abc import Sequence
from math import log

_K1 = 1.2
_B = 0.75
_MOST_WORDS = 2000
_WORD = re.compile(r"[^\W\d_]+|\d+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHORTEST_PLURAL = 4


def split_words(text: str) -> list[str]:
    """Return the words of a text in the form in which they are compared; at most the first 2000."""
    found = (match.group().lower() for match in _WORD.finditer(_HUMP.sub(" ", text)))
    plain = (word[:-1] if len(word) >= _SHORTEST_PLURAL and word.endswith("s") else word for word in found)
    return [word for word, _ in zip(plain, range(_MOST_WORDS), strict=False)]


class Relevance:
    """An index of texts, each given as its words. Build it once, query it often."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._size = len(texts)
        mean = sum(map(len, texts)) / max(1, self._size) or 1.0
        self._weights: dict[str, list[tuple[int, float]]] = {}
        for index, text in enumerate(texts):
            slack = _K1 * (1 - _B + _B * len(text) / mean)
            for word, count in Counter(text).items():
                weight = count * (_K1 + 1) / (count + slack)
                self._weights.setdefault(word, []).append((index, weight))

    def order(self, question: str) -> list[int]:
        """Return the indices of all texts, the most relevant first, otherwise in their own order."""
        scores = [0.0] * self._size
        for word in sorted(set(split_words(question))):
            having = self._weights.get(word, ())
            rarity = log(1 + (self._size - len(having) + 0.5) / (len(having) + 0.5))
            for index, weight in having:
                scores[index] += rarity * weight
        return sorted(range(self._size), key=lambda index: (-scores[index], index))
