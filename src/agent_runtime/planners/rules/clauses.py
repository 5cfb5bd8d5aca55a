"""Splits a prompt into instructions: at line ends, at sentences, and at connectives before a verb."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from agent_runtime.planners.rules import numbers
from agent_runtime.planners.rules.frames import TABLE
from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.values import QUESTIONS, VALUES
from agent_runtime.planners.rules.vocabulary import (
    ASKING,
    CONTENT_WORDS,
    GERUND_AFTER,
    NEGATIONS,
    NOUN_VERBS,
    OBJECT_STARTS,
    POLITE,
    SEPARATORS,
    TRAILING,
    UNSUPPORTED,
    keys_of,
    word_set,
)

_NOT_VERBS = word_set(
    "in inside within under to into the a an my our this that todo task reminder todos tasks one another i file of "
    "name call over have as at here report text left"
)
_CONTINUING = word_set("to into in with from called named of containing saying inside")
_BULLETS = frozenset({"-", "*", "+", "•", "\u2013", "·", "—", ",", "▪", "◦", "‣"})
_JOINING = frozenset({"finally", "next", "afterwards", "also", "after", "-"})
_PLACES = frozenset({"in", "inside", "within", "under", "into", "to"})
_PLACE_AT_MOST = 9
_BEFORE_GERUND = {
    ("start", "by"),
    ("begin", "by"),
    ("continue", "by"),
    ("finish", "by"),
    ("end", "by"),
    ("after",),
    ("besides",),
}
_WISHES = {("i", "need"), ("i", "want"), ("i'd", "like"), ("would", "like"), ("we", "need")}
_THINGS_TO_MAKE = word_set("file document folder directory")
_THING_AT_MOST = 4
"""The most words, with an article and adjectives, in which the thing that is wished for is named."""
_FIRST = word_set("first firstly begin start")
"""Words in the courtesies around an instruction that comes before all others."""
_ENDINGS = frozenset(".!?")
_LINE_ENDS = frozenset("\n;")
_COURTESIES_AT_MOST = 8


def _group_by_first(phrases: Iterable[Sequence[str]], place: int) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for phrase in sorted({tuple(phrase) for phrase in phrases}, key=len, reverse=True):
        found.setdefault(phrase[place], []).append(phrase)
    return found


_POLITE = _group_by_first((phrase.split() for phrase in POLITE), 0)
_TRAILING = _group_by_first((phrase.split() for phrase in TRAILING), -1)
_VERBS = _group_by_first((phrase for phrase in TABLE.openings if phrase[0] not in _NOT_VERBS), 0)
_ASKED = _group_by_first(
    (
        phrase
        for phrase in QUESTIONS.openings | VALUES.openings
        if phrase[0] in {"what", "which", "how", "is", "does", "where"}
    ),
    0,
)


def _make_gerunds(verb: str) -> Iterator[str]:
    yield verb + "ing"
    yield verb.removesuffix("e") + "ing"
    yield verb + verb[-1] + "ing"


_GERUNDS = {gerund: verb for verb in {*_VERBS, *UNSUPPORTED} for gerund in _make_gerunds(verb)}


@dataclass(frozen=True, slots=True)
class Clause:
    """One instruction. `courtesy` was cut off its end, with no comma before it; `whole` still includes it.

    `ends`: it ends a sentence or a line. `is_first`: it is said to be the first.
    """

    tokens: tuple[Token, ...]
    ending: str = ""
    courtesy: str = ""
    whole: tuple[Token, ...] = ()
    ends: bool = False
    is_first: bool = False

    def text(self, source: str) -> str:
        return source[self.tokens[0].start : self.tokens[-1].end] if self.tokens else ""


def split_clauses(source: str, tokens: Sequence[Token], takes_block: Callable[[Clause], bool]) -> Iterator[Clause]:
    """Yield the instructions in order. `takes_block` decides whether one that ends with a colon takes the text below
    it.
    """
    cutter = _Cutter(tokens)
    tokens = cutter.tokens
    start = 0
    while start < len(tokens):
        at, resume = cutter.find_cut(start)
        piece = tokens[start:at]
        if _ends_with_colon(tokens, start, at):
            block = _read_block(source, tokens, at)
            whole = block and _trim([*piece, block], "")
            if whole and takes_block(whole):
                yield whole
                return
        ending = tokens[at].text if at < len(tokens) and tokens[at].key in _ENDINGS else ""
        yield replace(_trim(piece, ending), ends=bool(ending) or at == len(tokens) or tokens[at].key in _LINE_ENDS)
        start = resume


def _ends_with_colon(tokens: Sequence[Token], start: int, at: int) -> bool:
    return start < at < len(tokens) and tokens[at].kind == "newline" and tokens[at - 1].key == ":"


def _read_block(source: str, tokens: Sequence[Token], at: int) -> Token | None:
    """Return all text after the line end, unchanged."""
    begin = tokens[at].end
    text = source[begin:]
    if not text.strip():
        return None
    while text[:1] in {"\n", "\r"}:
        begin, text = begin + 1, text[1:]
    return Token("block", "", text.rstrip(), begin, len(source))


class _Cutter:
    """Finds the ends of instructions. `_list` is the number and sign of the current list item, as in `1)
    ... 2) ...`.
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = list(tokens)
        self._list: tuple[int, str] | None = None

    def find_cut(self, start: int) -> tuple[int, int]:
        """Return where the instruction that begins at `start` ends, and where the next one begins."""
        tokens = self.tokens
        at = self._begin(start)
        while at < len(tokens):
            token = tokens[at]
            if token.kind == "newline":
                if not self._continues(at):
                    return at, at + 1
            elif token.key in {";", "->"}:
                return at, at + 1
            elif token.key in _ENDINGS and token.kind == "punct":
                if self._ends_sentence(at):
                    return at, at + 1
            elif self._is_next_item(at):
                return at, at
            elif token.key in SEPARATORS:
                follows = self._skip(at)
                fronted = self._is_fronted(start, at) or (token.key == "," and self._comes_before(follows))
                if starts_instruction(tokens, follows) and not fronted:
                    return at, at + 1
                at = follows - 1
            elif token.key == "before" and start < at < len(tokens) - 1 and tokens[at + 1].key in _GERUNDS:
                self.tokens[at + 1] = tokens[at + 1]._replace(key=_GERUNDS[tokens[at + 1].key])
                return at, at + 1
            elif token.key in _JOINING and starts_instruction(tokens, at) and not self._comes_before(at):
                return at, at
            at += 1
        return at, at

    def _begin(self, start: int) -> int:
        """Skip the marker of a list item, if there is one, and remember its number."""
        tokens = self.tokens
        at = find_opening(tokens, start)[0]
        for place in range(start, at):
            if tokens[place].kind == "number" and place + 1 < len(tokens) and tokens[place + 1].key in {".", ")"}:
                self._list = (
                    int(tokens[place].text[:6]) if tokens[place].text.isdecimal() else 0,
                    tokens[place + 1].key,
                )
        return max(at, start)

    def _is_next_item(self, at: int) -> bool:
        if self._list is None or self.tokens[at].kind != "number" or at + 2 >= len(self.tokens):
            return False
        number, sign = self._list
        return self.tokens[at].text == str(number + 1) and self.tokens[at + 1].key == sign

    def _is_fronted(self, start: int, comma: int) -> bool:
        """Return whether the words before the comma only name a place: `in the docs folder, create ...`."""
        tokens = self.tokens
        begin = find_opening(tokens, start)[0]
        return tokens[comma].key == "," and tokens[begin].key in _PLACES and comma - begin < _PLACE_AT_MOST

    def _comes_before(self, at: int) -> bool:
        """Return whether the words that begin here are to be done before those in front of them: `after reading it`."""
        return (
            keys_of(self.tokens[at : at + 1]) == ("after",)
            and at + 1 < len(self.tokens)
            and (self.tokens[at + 1].key in _GERUNDS)
        )

    def _continues(self, at: int) -> bool:
        """Return whether a line end is mere wrapping."""
        tokens = self.tokens
        after = tokens[at + 1] if at + 1 < len(tokens) else None
        if after is None:
            return False
        quoted_after_colon = at > 0 and tokens[at - 1].key == ":" and after.kind == "quoted"
        return quoted_after_colon or (after.key in _CONTINUING and after.text[:1].islower())

    def _ends_sentence(self, at: int) -> bool:
        tokens = self.tokens
        if at + 1 >= len(tokens):
            return True
        after = tokens[at + 1]
        new = after.kind in {"newline", "quoted", "number"} or after.text[:1].isupper() or not after.text[:1].isascii()
        return new or starts_instruction(tokens, at + 1)

    def _skip(self, at: int) -> int:
        while at < len(self.tokens) and self.tokens[at].key in SEPARATORS:
            at += 1
        return at


def starts_instruction(tokens: Sequence[Token], at: int) -> bool:
    """Return whether an instruction can begin here: with a verb, perhaps after courtesies, or with a question."""
    start = at
    at, gerund, _ = find_opening(tokens, at, markers=False)
    if at >= len(tokens):
        return False
    word = tokens[at].key
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    if gerund:
        return True
    if at > start and tokens[at - 1].key == ":" and tokens[at - 1].kind == "punct":
        return True
    if tokens[at].kind != "word":
        return False
    if word in NEGATIONS or (word == "do" and after is not None and after.key == "not"):
        return True
    if word in UNSUPPORTED and word not in CONTENT_WORDS and word not in _VERBS:
        return True
    if word == "if" and after is not None:
        return True
    if word in {"one", "another"} and after is not None:
        return after.key in {"to", "for", "about", ":", "one", "todo", "task", "saying", "called"}
    for phrase in (*_VERBS.get(word, ()), *_ASKED.get(word, ())):
        if keys_of(tokens[at : at + len(phrase)]) == phrase:
            return len(phrase) > 1 or (word not in NOUN_VERBS and word not in _ASKED) or _begins_object(after)
    return False


def knows_verb(tokens: Sequence[Token], at: int) -> bool:
    """Return whether a verb of the grammar stands here, including verbs that are ordinary words too."""
    return any(keys_of(tokens[at : at + len(phrase)]) == phrase for phrase in _VERBS.get(tokens[at].key, ()))


def _begins_object(token: Token | None) -> bool:
    return token is not None and (
        token.kind in {"number", "file", "quoted", "path", "glob"} or token.key in OBJECT_STARTS
    )


def find_opening(tokens: Sequence[Token], at: int, *, markers: bool = True) -> tuple[int, bool, bool]:
    """Return where the instruction itself begins, whether its verb is a gerund, and whether it is a polite question."""
    asked = False
    for _ in range(_COURTESIES_AT_MOST):
        marker = _measure_marker(tokens, at) if markers else 0
        if marker:
            at += marker
            continue
        for phrase in _POLITE.get(tokens[at].key, ()) if at < len(tokens) else ():
            if keys_of(tokens[at : at + len(phrase)]) == phrase and _may_stand(tokens, at, phrase):
                break
        else:
            break
        at += len(phrase)
        asked = asked or phrase[0] in ASKING
        if phrase[-1] in GERUND_AFTER and at < len(tokens) and tokens[at].key in _GERUNDS:
            return at, True, asked
    return at, False, asked


def _may_stand(tokens: Sequence[Token], at: int, phrase: tuple[str, ...]) -> bool:
    """Return whether the phrase is a mere courtesy here. Some courtesies are ordinary words too."""
    end = at + len(phrase)
    after = tokens[end].key if end < len(tokens) else ""
    if phrase in _BEFORE_GERUND:
        return after in _GERUNDS
    if phrase in {("first",), ("last",), ("second",), ("third",), ("fourth",), ("fifth",)}:
        return after not in {"line", "lines", "file", "todo"} and not numbers.read_count(tokens[end : end + 1])
    return phrase != ("-",) or not after.isdecimal()


def _measure_marker(tokens: Sequence[Token], at: int) -> int:
    """Return the number of tokens in the marker of a list item: `-`, `1.`, `2)`, `(3)`, `Step 4:`, `[ ]`; 0 without
    one.
    """
    here = (*keys_of(tokens[at : at + 4]), "", "", "", "")
    first, second, third, fourth = here[:4]
    if first == "\n":
        return 1
    if first.isdecimal() and second in {".", ")"} and third:
        return 2
    if first == "(" and third == ")" and fourth and (second.isdecimal() or (len(second) == 1 and second.isalpha())):
        return 3 if tokens[at + 3].kind == "word" else 0
    if first == "step" and second and third in {":", ".", ")", "-", ","}:
        return 3
    if first == "[" and "]" in here[1:3]:
        return here.index("]") + 1
    if len(first) == 1 and first.isalpha() and second == ")":
        return 2
    is_sign = first in {"-", "+"} and at + 1 < len(tokens) and tokens[at].end == tokens[at + 1].start
    is_minus = first == "-" and tokens[at + 1 : at + 2] and tokens[at + 1].kind == "number"
    return 1 if first in _BULLETS and second and not is_sign and not is_minus else 0


def _is_shouted(tokens: Sequence[Token], size: int) -> bool:
    """Return whether only the last words, and the one before, are in capitals: `with the message DEPLOYMENT OK`."""
    return all(token.text.isupper() for token in tokens[-size - 1 :]) and not tokens[0].text.isupper()


def _names_new_thing(tokens: Sequence[Token]) -> bool:
    """Return whether these words name a file or a folder that is not there yet: `a file called x.txt`."""
    words = keys_of(tokens)
    named = not {"called", "named"}.isdisjoint(words) or any(token.kind == "file" for token in tokens)
    return words[:1] in {("a",), ("an",)} and named and not _THINGS_TO_MAKE.isdisjoint(words[:_THING_AT_MOST])


def _trim(piece: Sequence[Token], ending: str) -> Clause:
    """Return the instruction without courtesies and connectives around it."""
    tokens = [token for token in piece if token.kind != "newline"]
    if keys_of(tokens) == ():
        return Clause(())
    at, gerund, asked = find_opening(tokens, 0)
    rest = tokens[at:]
    if keys_of(tokens[at - 2 : at]) in _WISHES and _names_new_thing(rest):
        rest = [tokens[at - 1]._replace(key="create"), *rest]  # `I need a file called ...`
    if gerund and rest:
        rest[0] = rest[0]._replace(key=_GERUNDS[rest[0].key])
    whole = tuple(rest)
    removed: list[str] = []
    for _ in range(_COURTESIES_AT_MOST):
        if rest and rest[-1].key in {",", "and", "then"}:
            removed = [] if rest[-1].key == "," else removed
            rest = rest[:-1]
            continue
        for phrase in _TRAILING.get(rest[-1].key, ()) if rest else ():
            if (
                len(rest) > len(phrase)
                and keys_of(rest[-len(phrase) :]) == phrase
                and not _is_shouted(rest, len(phrase))
            ):
                removed.insert(0, " ".join(phrase))
                rest = rest[: -len(phrase)]
                break
        else:
            break
    shown = ending if set(ending) != {"."} and not (asked and ending == "?") else ""
    is_first = not _FIRST.isdisjoint([*keys_of(tokens[:at]), *" ".join(removed).split()])
    return Clause(tuple(rest), shown, " ".join(removed), whole, is_first=is_first)
