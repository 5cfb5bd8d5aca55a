"""The table of conditions, after the word `if`, and the amounts in them: `more than 100 words`."""

from collections.abc import Callable, Sequence

from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules import numbers
from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.patterns import Table
from agent_runtime.planners.rules.slot_reading import Reading
from agent_runtime.planners.rules.vocabulary import WORDS, keys_of

_COMPARISONS = {
    ("more", "than"): ">", ("greater", "than"): ">", ("larger", "than"): ">", ("bigger", "than"): ">",
    ("longer", "than"): ">", ("over",): ">", ("above",): ">", ("less", "than"): "<", ("fewer", "than"): "<",
    ("smaller", "than"): "<", ("shorter", "than"): "<", ("under",): "<", ("below",): "<", ("at", "least"): ">=",
    ("at", "most"): "<=", ("exactly",): "==", ("equal", "to"): "==",
}  # fmt: skip

_NONE_OR_SOME = {"no": "== 0", "any": "> 0"}


def read_amount(_: Reading, tokens: Sequence[Token]) -> str | None:
    """Read a comparison with a number, and return it as in `> 100`."""
    comparison, number, rest = _split_amount(tokens)
    return f"{comparison} {number}" if number and not rest else None


def read_measured_amount(reading: Reading, tokens: Sequence[Token]) -> tuple[str, m.Measure] | None:
    """Read `more than 100 words`."""
    comparison, number, rest = _split_amount(tokens)
    measure = reading.read("measure", rest) if number else None
    return (f"{comparison} {number}", measure) if measure else None


def read_counted_amount(reading: Reading, tokens: Sequence[Token]) -> tuple[str, m.Value] | None:
    """Read `more than 3 open todos`, `no open todos` and `any csv files`."""
    if tokens[0].key in _NONE_OR_SOME:
        things = reading.read("things", tokens[1:])
        # A search for one name also finds names that hold it, so that `exists` is asked instead.
        is_one_name = isinstance(things, m.Search) and "*" not in things.pattern
        return (_NONE_OR_SOME[tokens[0].key], m.HowMany(things)) if things and not is_one_name else None
    comparison, number, rest = _split_amount(tokens)
    things = reading.read("things", rest) if number else None
    return (f"{comparison} {number}", m.HowMany(things)) if things else None


def _split_amount(tokens: Sequence[Token]) -> tuple[str, str, Sequence[Token]]:
    """Return the comparison, the number, and the tokens after it; empty ones where these tokens begin otherwise."""
    for size in (2, 1):
        comparison = _COMPARISONS.get(keys_of(tokens[:size]))
        number = numbers.read_numeral(tokens[size]) if comparison and len(tokens) > size else None
        if comparison and number:
            return comparison, number, tokens[size + 1 :]
    return "", "", ()


def _compare_measure(of: m.Value, amount: tuple[str, m.Measure]) -> m.Action:
    comparison, measure = amount
    return m.If(m.Count(of, measure), comparison)


def _compare_count(amount: tuple[str, m.Value]) -> m.Action:
    comparison, counted = amount
    return m.If(counted, comparison)


def _holds(comparison: str) -> Callable[[m.Value, str], m.Action]:
    return lambda of, query: m.If(m.HowMany(m.LinesWith(of, query)), comparison)


CONDITIONS = Table(
    [
        ("<of=text> has|have|contains|holds|is <amount=wordamount>", _compare_measure),
        ("there_are|there_is|i_have|we_have <amount=thingamount>", _compare_count),
        ("<value=num> is|are <comparison=amount>", m.If),
        ("<of=text> contains|mentions|includes $the? word|text? <query>", _holds("> 0")),
        ("<of=text> does_not|doesn't contain|mention|include $the? word|text? <query>", _holds("== 0")),
        ("<path=filename> exists|is_there", m.IfExists),
        (
            "<path=filename> does_not_exist|doesn't_exist|is_not_there|is_missing",
            lambda path: m.IfExists(path, no=True),
        ),
    ],
    WORDS,
)
