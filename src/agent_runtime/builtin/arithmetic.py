"""Exact arithmetic on rational numbers, and a parser for expressions, without `eval`.

Every number is a `Fraction`, so 0.1 + 0.2 is 0.3. Roots, fractional powers and constants are rounded to 50 digits. All
work is bounded before it begins: the length of the expression, its tokens, its nesting, and the digits of every value.
So 9**9**9 is refused at once.
"""

import math
import operator
import re
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation, Overflow
from fractions import Fraction
from typing import NamedTuple

from agent_runtime.builtin.refusals import Refusal

MAX_LENGTH = 2000
"""The longest expression, in characters."""
MAX_TOKENS = 500
MAX_DEPTH = 40
MAX_DIGITS = 1000
"""The most digits of a numerator or denominator."""
SAFE_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader reads exactly."""

_MAX_BITS = int(MAX_DIGITS / math.log10(2))
_ROUGH = Context(prec=50, rounding=ROUND_HALF_EVEN, Emin=-10_000, Emax=10_000, traps=[InvalidOperation, Overflow])
_SHOWN = Context(prec=15, rounding=ROUND_HALF_EVEN, Emin=-10_000, Emax=10_000)
_MAX_PLACES = 100

CONSTANTS = {
    "pi": Fraction("3.14159265358979323846264338327950288419716939937510"),
    "e": Fraction("2.71828182845904523536028747135266249775724709369996"),
}


def to_fraction(number: float) -> Fraction:
    """Return the number as it is written: 0.1 is one tenth. Raises: Refusal where it is too large or not finite."""
    if isinstance(number, int):
        return _check_size(Fraction(number))
    if not math.isfinite(number):
        raise Refusal("A number must be finite: infinity and NaN cannot be computed with.")
    return Fraction(repr(number))


def add(a: Fraction, b: Fraction) -> Fraction:
    return _check_size(a + b)


def subtract(a: Fraction, b: Fraction) -> Fraction:
    return _check_size(a - b)


def multiply(a: Fraction, b: Fraction) -> Fraction:
    return _check_size(a * b)


def divide(a: Fraction, b: Fraction) -> Fraction:
    return _check_size(a / _check_divisor(a, b))


def _floor_divide(a: Fraction, b: Fraction) -> Fraction:
    return _check_size(Fraction(a // _check_divisor(a, b)))


def _remainder(a: Fraction, b: Fraction) -> Fraction:
    return _check_size(a % _check_divisor(a, b))


def _check_divisor(a: Fraction, b: Fraction) -> Fraction:
    if not b:
        raise Refusal(f"{to_text(a)} cannot be divided by 0.")
    return b


def _check_size(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise Refusal(f"A number would have more than {MAX_DIGITS} digits: use smaller numbers.")
    return value


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """Return the power, exact for whole exponents. Raises: Refusal, before computing, where it has too many digits."""
    if not base and exponent < 0:
        raise Refusal("0 cannot be raised to a negative power: that would divide by 0.")
    if exponent.denominator == 1:
        if abs(base) == 1 or not base:
            return base ** (int(exponent) % 2 + 2) if exponent else Fraction(1)
        bits = max(base.numerator.bit_length(), base.denominator.bit_length()) - 1
        if bits * abs(exponent.numerator) > _MAX_BITS:
            raise Refusal(f"That power would have more than {MAX_DIGITS} digits: use smaller numbers.")
        return _check_size(base**exponent.numerator)
    if base < 0:
        raise Refusal("A negative number has no real fractional power: use a whole exponent.")
    if not base:
        return base
    try:
        digits = (math.log10(base.numerator) - math.log10(base.denominator)) * float(exponent)
        if abs(digits) <= MAX_DIGITS:
            return _check_size(Fraction(_ROUGH.power(_to_decimal(base), _to_decimal(exponent))))
    except (OverflowError, Overflow):
        pass  # far more digits than that
    raise Refusal(f"That power would have more than {MAX_DIGITS} digits: use smaller numbers.")


def _to_decimal(value: Fraction) -> Decimal:
    return _ROUGH.divide(Decimal(value.numerator), Decimal(value.denominator))


def square_root(value: Fraction) -> Fraction:
    """Return the root, exact if it is a fraction, else rounded to 50 digits."""
    if value < 0:
        raise Refusal(f"{to_text(value)} is negative and has no real square root.")
    above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if above * above == value.numerator and below * below == value.denominator:
        return Fraction(above, below)
    return Fraction(_ROUGH.sqrt(_to_decimal(value)))


def round_to(value: Fraction, places: Fraction = Fraction(0)) -> Fraction:
    """Round to this many decimal places, halves away from zero, as taught at school."""
    if places.denominator != 1 or abs(places) > _MAX_PLACES:
        raise Refusal(f"round takes a whole number of places, at most {_MAX_PLACES}.")
    scale = Fraction(10) ** int(places)
    whole = math.floor(abs(value) * scale + Fraction(1, 2))
    return _check_size(Fraction(whole if value >= 0 else -whole) / scale)


FUNCTIONS: dict[str, tuple[Callable[..., Fraction], int, int]] = {
    "sqrt": (square_root, 1, 1),
    "abs": (operator.abs, 1, 1),
    "round": (round_to, 1, 2),
    "min": (lambda *values: min(values), 1, MAX_TOKENS),
    "max": (lambda *values: max(values), 1, MAX_TOKENS),
}
"""By name: the function, and the fewest and the most arguments."""


def to_number(value: Fraction) -> int | float | str:
    """Return the value for JSON: an integer, else the nearest float, else text if neither can hold it."""
    if value.denominator == 1:
        whole = value.numerator
        return whole if abs(whole) <= SAFE_INTEGER else str(whole)
    try:
        nearest = float(value)
    except OverflowError:
        return to_text(value)
    if not nearest:
        return to_text(value)
    return int(nearest) if nearest.is_integer() and abs(nearest) <= SAFE_INTEGER else nearest


def to_text(value: Fraction) -> str:
    """Return the value as people write it: integers in full, others with at most 15 significant digits."""
    if value.denominator == 1:
        return str(value.numerator)
    shown = _SHOWN.divide(Decimal(value.numerator), Decimal(value.denominator)).normalize(_SHOWN)
    if -7 <= shown.adjusted() <= 20:  # noqa: PLR2004 - where digits are easier to read than an exponent
        return format(shown, "f")
    return format(shown, "e")


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


_TOKEN = re.compile(
    r"(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]+)|(?P<sign>\*\*|//|[-+*/%^(),])|(?P<space>\s+)",
    re.ASCII,
)
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])", re.ASCII)
# Characters that people paste: two signs for times, one for divided by, minus and its look-alike, no-break spaces.
_SAME = str.maketrans("\u00d7\u00b7\u00f7\u2212\u2013\u00a0\u202f", "**/--  ")
_BINARY: dict[str, tuple[int, Callable[[Fraction, Fraction], Fraction]]] = {
    "+": (1, add),
    "-": (1, subtract),
    "*": (2, multiply),
    "x": (2, multiply),
    "/": (2, divide),
    "//": (2, _floor_divide),
    "%": (2, _remainder),
}
_POWERS = frozenset({"**", "^"})


def evaluate(expression: str) -> Fraction:
    """Return the value of an expression. Raises: Refusal saying what is wrong with it, and where."""
    if len(expression) > MAX_LENGTH:
        raise Refusal(f"The expression is longer than {MAX_LENGTH} characters: take it in parts.")
    return _Parser(_tokenize(expression.translate(_SAME))).value()


def _tokenize(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    calls: list[bool] = []
    at = 0
    while at < len(text):
        # In the brackets of a function a comma separates arguments, so it cannot group thousands.
        grouped = None if any(calls) else _GROUPED.match(text, at)
        match = _TOKEN.match(text, at)
        if match is None:
            raise Refusal(f"{text[at]!r} at position {at + 1} is not understood: use numbers and + - * / // % ** ( ).")
        kind, found = str(match.lastgroup), match.group()
        end = match.end()
        if grouped and grouped.start() == at:
            number = _TOKEN.match(text, grouped.end() - 1)
            end = number.end() if number else grouped.end()
            kind, found = "number", text[at:end].replace(",", "")
        if found == "(":
            calls.append(bool(tokens) and tokens[-1].kind == "name" and tokens[-1].text.lower() in FUNCTIONS)
        elif found == ")" and calls:
            calls.pop()
        if kind != "space":
            tokens.append(_Token(kind, found.lower(), at))
        at = end
        if len(tokens) > MAX_TOKENS:
            raise Refusal(f"The expression has more than {MAX_TOKENS} parts: take it in parts.")
    return tokens


class _Parser:
    """Parses by precedence climbing: + - below * / // %, below the sign, below powers, which group from the right."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def value(self) -> Fraction:
        if not self._tokens:
            raise Refusal('The expression is empty: give one such as "2 * (3 + 4)".')
        value = self._read_sum(1)
        if self._at < len(self._tokens):
            raise self._make_unexpected_error()
        return value

    def _peek(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else ""

    def _take(self, text: str) -> bool:
        if self._peek() != text:
            return False
        self._at += 1
        return True

    def _make_unexpected_error(self) -> Refusal:
        if self._at >= len(self._tokens):
            return Refusal("The expression ends too early: a number or a closing bracket is missing.")
        token = self._tokens[self._at]
        return Refusal(f"{token.text!r} at position {token.at + 1} is not expected there: check the expression.")

    def _read_sum(self, lowest: int) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Refusal(f"The expression is nested more than {MAX_DEPTH} deep: take it in parts.")
        left = self._read_signed()
        while (found := _BINARY.get(self._peek())) and found[0] >= lowest:
            level, operation = found
            is_percent = self._peek() == "%"
            self._at += 1
            if is_percent and self._take("of"):
                left, operation = divide(left, Fraction(100)), multiply
            elif is_percent and self._peek() in {"", ")", ",", "+", "-", "*", "/"}:
                raise Refusal(
                    "'%' is the remainder here, as in 10 % 3 or 10 % (-3): "
                    "for a percentage write '15% of 200' or '15 / 100'."
                )
            left = operation(left, self._read_sum(level + 1))
        self._depth -= 1
        return left

    def _read_signed(self) -> Fraction:
        sign = 1
        while self._peek() in {"+", "-"}:
            sign = -sign if self._peek() == "-" else sign
            self._at += 1
        value = self._read_power()
        return value if sign > 0 else -value

    def _read_power(self) -> Fraction:
        base = self._read_atom()
        if self._peek() not in _POWERS:
            return base
        self._at += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Refusal(f"The expression is nested more than {MAX_DEPTH} deep: take it in parts.")
        value = power(base, self._read_signed())
        self._depth -= 1
        return value

    def _read_atom(self) -> Fraction:
        if self._take("("):
            value = self._read_sum(1)
            if not self._take(")"):
                raise self._make_unexpected_error()
            return value
        token = self._tokens[self._at] if self._at < len(self._tokens) else _Token("end", "", 0)
        if token.kind == "number":
            self._at += 1
            return _read_literal(token)
        if token.kind == "name":
            self._at += 1
            return self._read_named(token)
        raise self._make_unexpected_error()

    def _read_named(self, token: _Token) -> Fraction:
        if token.text in CONSTANTS:
            return CONSTANTS[token.text]
        if token.text not in FUNCTIONS:
            known = ", ".join([*FUNCTIONS, *CONSTANTS])
            raise Refusal(f"{token.text!r} at position {token.at + 1} is not known here; there are {known}.")
        function, fewest, most = FUNCTIONS[token.text]
        if not self._take("("):
            raise Refusal(f"{token.text} needs its arguments in brackets, such as {token.text}(2).")
        arguments = [self._read_sum(1)]
        while self._take(","):
            arguments.append(self._read_sum(1))
        if not self._take(")"):
            raise self._make_unexpected_error()
        if not fewest <= len(arguments) <= most:
            raise Refusal(f"{token.text} takes {fewest} to {most} arguments, and got {len(arguments)}.")
        return function(*arguments)


def _read_literal(token: _Token) -> Fraction:
    digits, _, exponent = token.text.partition("e")
    # Checked as text: the number is made only once its size is known.
    if len(digits) > MAX_DIGITS or len(exponent) > len(str(MAX_DIGITS)) + 1 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise Refusal(f"A number would have more than {MAX_DIGITS} digits: use smaller numbers.")
    return _check_size(Fraction(token.text))
