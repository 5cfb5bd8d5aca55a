"""The pattern language of the table of frames, and its matcher.

A pattern is words and gaps: `write|save <content> to|into <files>`. `|` separates alternatives, `_` joins the words of
one alternative, a trailing `?` makes the element optional, `$name` is a set of words from the vocabulary, and `<slot>`
or `<name=slot>` is a gap that the slot's reader must read whole. A gap ends before the next word of the pattern.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.vocabulary import PARTICLES

_TRIES = 12
"""The most ends of a gap that are tried: enough for real prompts, and a bound for hostile ones."""

Found = dict[str, Any]
Reader = Callable[[str, Sequence[Token]], Any]
"""Reads the tokens of a gap for the slot of this name; returns None if they do not fit it."""


@dataclass(frozen=True, slots=True)
class Words:
    alternatives: tuple[tuple[str, ...], ...]
    optional: bool


@dataclass(frozen=True, slots=True)
class Gap:
    name: str
    slot: str


Element = Words | Gap


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One row of a table: a pattern, and the function that builds its meaning, or returns None if it does not apply."""

    pattern: str
    elements: tuple[Element, ...]
    build: Callable[..., Any]

    @property
    def openings(self) -> set[tuple[str, ...] | None]:
        """The phrases that a match can begin with; None is among them if it can begin with a gap."""
        return set(_find_openings(self.elements))

    def match(self, tokens: Sequence[Token], read: Reader) -> Any:
        """Return the meaning of all these tokens; None if they do not match."""
        for found in _find_matches(self.elements, tokens, read):
            meaning = self.build(**found)
            if meaning is not None:
                return meaning
        return None


class Table:
    """Rows, indexed by their first word so that few are tried. The first row that matches counts."""

    def __init__(self, rows: Sequence[tuple[str, Callable[..., Any]]], words: Mapping[str, str]) -> None:
        self.rows = tuple(
            Frame(pattern, tuple(_parse_element(part, words) for part in pattern.split()), build)
            for pattern, build in rows
        )
        self.openings: set[tuple[str, ...]] = set()
        self._by_first: dict[str, list[tuple[int, Frame]]] = {}
        self._others: list[tuple[int, Frame]] = []
        for order, frame in enumerate(self.rows):
            openings = frame.openings
            if None in openings:
                self._others.append((order, frame))
            for word in {each[0] for each in openings if each}:
                self._by_first.setdefault(word, []).append((order, frame))
            self.openings.update(each for each in openings if each)

    def match(self, tokens: Sequence[Token], read: Reader) -> Any:
        """Return the meaning of the first row that matches all these tokens; None without one."""
        if not tokens:
            return None
        rows = sorted(self._by_first.get(tokens[0].key, []) + self._others, key=lambda row: row[0])
        for _, frame in rows:
            meaning = frame.match(tokens, read)
            if meaning is not None:
                return meaning
        return None


def _parse_element(part: str, words: Mapping[str, str]) -> Element:
    if part.startswith("<"):
        name, _, slot = part[1:-1].partition("=")
        return Gap(name, slot or name)
    optional = part.endswith("?") and len(part) > 1
    spelled = [words[each[1:]] if each.startswith("$") else each for each in part.removesuffix("?").split("|")]
    alternatives = {tuple(each.split("_")) for group in spelled for each in group.split("|")}
    return Words(tuple(sorted(alternatives, key=lambda each: (-len(each), each))), optional)


def _find_openings(elements: Sequence[Element]) -> Iterator[tuple[str, ...] | None]:
    """Yield the phrases that a match can begin with; None if it can begin with a gap."""
    for element in elements:
        if isinstance(element, Gap):
            yield None
            return
        yield from element.alternatives
        if not element.optional:
            return


def _find_matches(elements: Sequence[Element], tokens: Sequence[Token], read: Reader) -> Iterator[Found]:
    if not elements:
        if not tokens:
            yield {}
        return
    element, rest = elements[0], elements[1:]
    if isinstance(element, Words):
        for size in _find_sizes(element, tokens, 0):
            yield from _find_matches(rest, tokens[size:], read)
        if element.optional:
            yield from _find_matches(rest, tokens, read)
        return
    for end in _find_ends(element, rest, tokens):
        # The rest is matched first: it is shorter, and decides most cases.
        for found in _find_matches(rest, tokens[end:], read):
            value = read(element.slot, tokens[:end])
            if value is None:
                break
            yield {**found, element.name: value}


def _find_sizes(words: Words, tokens: Sequence[Token], at: int) -> Iterator[int]:
    for alternative in words.alternatives:
        said = tokens[at : at + len(alternative)]
        if tuple(token.key for token in said) == alternative and not _begins_text(said[-1]):
            yield len(alternative)


def _begins_text(last: Token) -> bool:
    """Return whether the last word of a phrase begins a text instead, as in `write Down with the king to m.txt`."""
    return last.key in PARTICLES and last.text.istitle()


def _find_ends(gap: Gap, rest: Sequence[Element], tokens: Sequence[Token]) -> list[int]:
    if not rest:
        return [len(tokens)] if tokens else []
    following: set[str] = set()
    kinds: set[str] = set()
    can_end = True
    for element in rest:
        if isinstance(element, Gap):
            # Without a word between two gaps, only a quotation or a file marks the border.
            kinds = {"quoted", "block", "file"}
            can_end = False
            break
        following.update(alternative[0] for alternative in element.alternatives)
        if not element.optional:
            can_end = False
            break
    ends = [at for at in range(1, len(tokens)) if tokens[at].key in following or tokens[at].kind in kinds]
    if can_end and tokens:
        ends.append(len(tokens))
    # Free text extends to the last possible end; everything else ends at the first.
    return ends[: -_TRIES - 1 : -1] if gap.slot in GREEDY else ends[:_TRIES]


GREEDY = frozenset({"bounded", "givenbounded", "worded", "todo_items"})
