"""Suggests words of the grammar for words with one wrong letter. A suggestion is shown, and never planned."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice, product

from agent_runtime.planners.rules.conditions import CONDITIONS
from agent_runtime.planners.rules.frames import TABLE
from agent_runtime.planners.rules.lexer import Token, tokenize
from agent_runtime.planners.rules.patterns import Words
from agent_runtime.planners.rules.values import QUESTIONS, VALUES
from agent_runtime.planners.rules.vocabulary import POLITE

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SHORTEST = 3
_SHORTEST_COURTESY = 5
_LONGEST = 20
_MOST_TOKENS = 60
_MOST_WORDS = 3
_MOST_TRIES = 12


def suggest_words(source: str, is_understood: Callable[[str], bool]) -> list[tuple[str, str]]:
    """Return the misspelt words of a prompt, each with the word that makes the prompt understood; none without.

    `is_understood` is called for at most 12 corrected prompts.
    """
    tokens = tokenize(source)
    wrong = [(token, found) for token in tokens if (found := _find_similar(token))]
    if not wrong or len(wrong) > _MOST_WORDS or len(tokens) > _MOST_TOKENS:
        return []
    for words in islice(product(*(found for _, found in wrong)), _MOST_TRIES):
        changes = [(token, word) for (token, _), word in zip(wrong, words, strict=True)]
        if is_understood(_replace(source, changes)):
            return [(token.text, word) for token, word in changes]
    return []


def _replace(source: str, changes: Sequence[tuple[Token, str]]) -> str:
    for token, word in reversed(changes):
        source = source[: token.start] + word + source[token.end :]
    return source


def _find_similar(token: Token) -> list[str]:
    """Return the known words that differ from this one by one letter; none for a known word."""
    if token.kind != "word" or not _SHORTEST <= len(token.key) <= _LONGEST or token.key in _list_known():
        return []
    return sorted(_list_known().intersection(_vary(token.key)))


def _vary(word: str) -> Iterator[str]:
    """Yield the words with one letter more, less or changed, or two neighbours swapped."""
    for at in range(len(word) + 1):
        left, right = word[:at], word[at:]
        yield from (left + letter + right for letter in _LETTERS)
        if right:
            yield left + right[1:]
            yield from (left + letter + right[1:] for letter in _LETTERS)
        if len(right) > 1:
            yield left + right[1] + right[0] + right[2:]


@cache
def _list_known() -> frozenset[str]:
    """Return the words of all tables."""
    rows = (*TABLE.rows, *VALUES.rows, *QUESTIONS.rows, *CONDITIONS.rows)
    elements = (element for row in rows for element in row.elements)
    phrases = (phrase for element in elements if isinstance(element, Words) for phrase in element.alternatives)
    known = {word for phrase in phrases for word in phrase if len(word) >= _SHORTEST}
    known.update(word for phrase in POLITE for word in phrase.split() if len(word) >= _SHORTEST_COURTESY)
    return frozenset(known | {"words", "word", "lines", "line", "characters", "and", "then", "folder", "result"})
