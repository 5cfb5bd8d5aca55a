"""The reading of one instruction: its context, the readers of its gaps, and the doubts so far."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.planners.rules import literals, names
from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.vocabulary import THANKING

LONGEST = 60
"""The most tokens of a phrase that is a name or a description."""
_DEPTH = 5
"""The deepest nesting; `the summary of the contents of the first file` is three deep."""
_LONG = frozenset(
    [
        "content",
        "bounded",
        "given",
        "givenbounded",
        "replacing",
        "worded",
        "marked",
        "todo_text",
        "todo_items",
        "todo_list",
        "values",
        "num",
        "nums",
        "number",
    ]
)
"""Slots that may be longer, because they hold text or lists."""
_BETWEEN = frozenset({",", "and", "both", "also", "then"})


@dataclass(slots=True)
class Reading:
    """The context in which gaps are read. `begins`: an instruction may begin here. `knows`: a verb stands here.

    `courtesy` was cut off the end of the instruction. `ending` is its punctuation. `torn` is set if the courtesy may
    belong to a text.
    """

    source: str
    readers: "Mapping[str, SlotReader]"
    begins: Callable[[Sequence[Token], int], bool] = lambda _, __: False
    knows: Callable[[Sequence[Token], int], bool] = lambda _, __: False
    courtesy: str = ""
    ending: str = ""
    doubts: list[tuple[str, str]] = field(default_factory=list)
    torn: bool = False
    _depth: int = 0

    def read(self, slot: str, tokens: Sequence[Token]) -> Any:
        """Read these tokens for a slot; return None if they do not fit it."""
        if not tokens or (len(tokens) > LONGEST and slot not in _LONG) or self._depth >= _DEPTH:
            return None
        self._depth += 1
        try:
            return self.readers[slot](self, tokens)
        finally:
            self._depth -= 1

    def cut(self, tokens: Sequence[Token]) -> str:
        """Return these tokens as they stand in the prompt."""
        return self.source[tokens[0].start : tokens[-1].end]

    def doubt(self, tokens: Sequence[Token], why: str) -> None:
        """Remember why these tokens were not read. The last doubt is reported."""
        self.doubts.append((self.cut(tokens), why))

    def read_several(self, tokens: Sequence[Token], read: Callable[[Sequence[Token]], Any]) -> tuple[Any, ...] | None:
        """Read one value, or several with commas and `and` between them."""
        one = read(tokens)
        if one is not None:
            return (one,)
        found: list[Any] = []
        for part in split_parts(tokens):
            value = read(part)
            if value is None:
                return None
            found.append(value)
        return tuple(found) if len(found) > 1 else None

    def read_literal(self, tokens: Sequence[Token], sure: str, *, tail: bool, todo: bool = False) -> m.Literally | None:
        """Return these words as literal text, unless there is a doubt. `tail`: they end the instruction.

        `todo`: the text is a todo's, which may name files and never ends with a courtesy.
        """
        tokens = tokens if todo else literals.strip_that(tokens)
        why = literals.find_doubt(tokens, sure, tail=tail, files=not todo)
        if names.read_back(tokens) is not None:
            why = f"may speak of something that came before: {literals.QUOTE_IT}"
        if tail and self.courtesy and not (todo and self.courtesy.startswith(THANKING)):
            self.torn = self.torn or (why is None and not todo)
            why = why or f"may or may not end with {self.courtesy!r}: {literals.QUOTE_IT}"
        if why:
            self.doubt(tokens, why)
            return None
        return m.Literally(self.cut(tokens) + (self.ending if tail and not todo else ""))


SlotReader = Callable[[Reading, Sequence[Token]], Any]


def split_parts(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """Split tokens at commas and `and`."""
    found: list[Sequence[Token]] = []
    start = 0
    for at in range(len(tokens) + 1):
        if at == len(tokens) or tokens[at].key in _BETWEEN:
            if at > start:
                found.append(tokens[start:at])
            start = at + 1
    return found


def read_quotation(tokens: Sequence[Token]) -> str | None:
    """Return the text of a quotation if the tokens are exactly one; else None."""
    return tokens[0].text if len(tokens) == 1 and tokens[0].kind in {"quoted", "block"} else None
