"""Reads arithmetic in words and signs: `fifteen plus 27`, `half of 50`, `(3 + 4) * 5 / 2`, `the result squared`."""

# The constants are those of the decimal system.
# ruff: noqa: PLR2004

from collections.abc import Callable, Sequence

from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.meaning import Back, Formula, Number, Operation, Value
from agent_runtime.planners.rules.vocabulary import word_set

_DEPTH = 40
_UNITS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fourty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90,
}  # fmt: skip
_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9}
_BINARY: dict[tuple[str, ...], tuple[str, int]] = {
    ("+",): ("+", 1), ("-",): ("-", 1), ("plus",): ("+", 1), ("minus",): ("-", 1), ("less",): ("-", 1),
    ("added", "to"): ("+", 1),
    ("*",): ("*", 2), ("/",): ("/", 2), ("x",): ("*", 2), ("times",): ("*", 2), ("over",): ("/", 2),
    ("multiplied", "by"): ("*", 2), ("multiplied", "with"): ("*", 2), ("divided", "by"): ("/", 2),
    ("mod",): ("%", 2), ("modulo",): ("%", 2), ("%",): ("%", 2), ("modulus",): ("%", 2),
    ("**",): ("**", 3), ("to", "the", "power", "of"): ("**", 3), ("raised", "to", "the", "power", "of"): ("**", 3),
    ("to", "the", "power"): ("**", 3), ("raised", "to"): ("**", 3),
}  # fmt: skip
_OPERATORS = frozenset(words[0] for words in _BINARY if words != ("to", "the", "power")) - {"to"}
_FRACTIONS = {"half": 2, "third": 3, "quarter": 4, "fifth": 5, "tenth": 10}
_PLURAL_FRACTIONS = {"halves": 2, "thirds": 3, "quarters": 4, "fifths": 5, "tenths": 10}
_MULTIPLES = {"twice": 2, "thrice": 3, "double": 2, "triple": 3}
_LISTS = {
    ("sum", "of"): "+", ("total", "of"): "+", ("product", "of"): "*", ("average", "of"): "average",
    ("mean", "of"): "average", ("maximum", "of"): "max", ("minimum", "of"): "min", ("largest", "of"): "max",
    ("smallest", "of"): "min", ("max", "of"): "max", ("min", "of"): "min",
    ("difference", "between"): "-", ("difference", "of"): "-", ("quotient", "of"): "/",
    ("ratio", "of"): "/", ("remainder", "of"): "%", ("sum", ":"): "+", ("average", ":"): "average",
}  # fmt: skip
_TRANSPARENT = {
    ("result", "of"), ("value", "of"), ("answer", "to"), ("answer", "of"), ("outcome", "of"), ("calculation",),
    ("expression",), ("number",), ("following", ":"), ("following", "expression", ":"), ("expression", ":"),
    ("figure",), ("sum",),
}  # fmt: skip
_PAIRS = frozenset({"-", "/", "%"})
BACK_NUMBERS = word_set(
    "result results answer output outcome value number total sum product difference quotient count average ratio "
    "remainder"
)


TWO_ORDERS = "may be calculated in more than one order: use brackets, or one instruction for each step"
_SIGN_OR_BULLET = "begins with a mark that may be a minus or a bullet: put a minus directly before its number"
_WHICH_WAY = 'is ambiguous: say which number is to be subtracted from which, as in "10 minus 3"'


def holds_operator(tokens: Sequence[Token]) -> bool:
    """Return whether these tokens join operands, as in `4 times 2`. Brackets make one operand, and so does `1/3`."""
    words = [token.key for token in tokens if token.key != "the"]
    if tuple(words[:2]) in _TRANSPARENT:
        return False
    depth = 0
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        depth += (before.key == "(") - (token.key == ")")
        glued = before.end == token.start and token.end == after.start
        is_share = token.key == "%" and after.key == "of"
        if not depth and token.key in _OPERATORS and before.key not in _OPERATORS and not glued and not is_share:
            return True
    return False


def read_number(
    tokens: Sequence[Token], source: str, doubt: Callable[[Sequence[Token], str], None] = lambda _, __: None
) -> Value | None:
    """Read all these tokens as a number, a calculation or a reference; return None if they are none.

    `doubt` is called with an ambiguous part and the reason.
    """
    while tokens and tokens[-1].key in {"=", "?"}:
        tokens = tokens[:-1]
    reader = _Reader(tokens)
    value = reader.sum(1)
    if value is None or reader.at < len(tokens):
        if reader.doubt:
            doubt(*reader.doubt)
        return None
    signs_only = all(token.kind in {"number", "punct"} or token.key == "x" for token in tokens)
    if signs_only and isinstance(value, Operation):
        text = source[tokens[0].start : tokens[-1].end]
        return Formula(" ".join(text.translate(str.maketrans("", "", "$€£")).split()))
    return value


def read_numbers(tokens: Sequence[Token]) -> tuple[Value, ...] | None:
    """Read two or more numbers, with commas and `and` between them."""
    reader = _Reader(tokens)
    values = reader.list()
    return values if values and len(values) > 1 and reader.at == len(tokens) else None


def read_count(tokens: Sequence[Token]) -> int | None:
    """Read a small whole number in digits or words, such as a number of lines."""
    value = _Reader(tokens).number() if tokens else None
    whole = value is not None and value.text.isdecimal() and len(value.text) < 7
    if not whole or value is None:
        return None
    reader = _Reader(tokens)
    reader.number()
    return int(value.text) if reader.at == len(tokens) else None


def read_numeral(token: Token) -> str | None:
    """Read one token as a number without sign, in digits or in one word, and return its digits."""
    value = _Reader((token,)).number()
    return value.text if value else None


class _Reader:
    """Reads by precedence climbing. A method that cannot read on returns None, and leaves `at` anywhere."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._depth = 0
        self.at = 0
        self._open = -1
        self.doubt: tuple[Sequence[Token], str] | None = None

    def _key(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self._tokens[place].key if place < len(self._tokens) else ""

    def _take(self, *keys: str) -> bool:
        if any(self._key(k) != key for k, key in enumerate(keys)):
            return False
        self.at += len(keys)
        return True

    def sum(self, lowest: int) -> Value | None:
        self._depth += 1
        begin = self.at
        left = self._read_signed() if self._depth <= _DEPTH else None
        while left is not None:
            found = self._read_operator()
            if self._key() == "of" and _is_fraction(left):
                found = ("*", 2, 1)
            if found is None or found[1] < lowest:
                break
            if self._open == self.at:
                self._depth -= 1
                self.doubt = (self._tokens[begin:], TWO_ORDERS)
                return None
            op, level, size = found
            before = self.at
            self.at += size
            right = self.sum(level + (op != "**"))
            if right is None:
                self.at = before
                break
            left = Operation(op, (left, right))
        self._depth -= 1
        return left

    def _read_operator(self) -> tuple[str, int, int] | None:
        for size in (5, 4, 3, 2, 1):
            found = _BINARY.get(tuple(self._key(k) for k in range(size)))
            if found:
                return found[0], found[1], size
        return None

    def list(self) -> tuple[Value, ...] | None:
        """Read values with commas and `and` between them. Words after the last one may belong to all of them."""
        values: list[Value] = []
        begin = self.at
        while True:
            start = self.at
            value = self.sum(1)
            if value is None:
                return None
            values.append(value)
            before = self.at
            while self._key() in {",", "and", "with", "&"}:
                self.at += 1
            if self.at == before or self.at >= len(self._tokens):
                self.at = before
                if len(values) > 1 and holds_operator(self._tokens[start:before]):
                    self.doubt = (self._tokens[begin:before], TWO_ORDERS)
                    return None
                return tuple(values)

    def _read_signed(self) -> Value | None:
        if self._key() in {"-", "minus", "negative"}:
            self.at += 1
            if self._key(-1) == "-" and self._key() and self._tokens[self.at - 1].end < self._tokens[self.at].start:
                self.doubt = (self._tokens[self.at - 1 :], _SIGN_OR_BULLET)
                return None
            self._depth += 1
            value = self._read_signed() if self._depth <= _DEPTH else None
            self._depth -= 1
            if isinstance(value, Number):
                return Number("-" + value.text) if not value.text.startswith("-") else Number(value.text[1:])
            return None if value is None else Operation("-", (Number("0"), value))
        value = self._read_atom()
        while value is not None and self._key() in {"squared", "cubed"}:
            value = Operation("**", (value, Number("2" if self._key() == "squared" else "3")))
            self.at += 1
        return value

    def _read_atom(self) -> Value | None:
        if self._take("("):
            value = self.sum(1)
            return value if value is not None and self._take(")") else None
        start = self.at
        number = self.number()
        if number is not None:
            return self._read_share(number)
        self.at = start
        if self._key() in {"the", "a", "an", "one", "that", "this"} and self._key(1):
            self.at += 1
        return self._read_described() or self._read_reference(start)

    def _read_share(self, number: Number) -> Value | None:
        """Return the number, or the share that it begins: `15% of 80`, `two thirds of 9`."""
        key = self._key()
        if (key in {"%", "percent"} and self._key(1) == "of") or (key == "per" and self._key(1) == "cent"):
            self.at += 2 if key != "per" else 3
            whole = self._read_whole()
            return None if whole is None else Operation("*", (Operation("/", (number, Number("100"))), whole))
        if key in _PLURAL_FRACTIONS and self._key(1) == "of":
            self.at += 2
            whole = self._read_whole()
            share = Number(str(_PLURAL_FRACTIONS[key]))
            return None if whole is None else Operation("/", (Operation("*", (whole, number)), share))
        return number

    def _read_described(self) -> Value | None:
        """Read `half of X`, `twice X`, `the square root of X`, `the sum of X and Y` or `the result of X`."""
        first, second = self._key(), self._key(1)
        if first in _FRACTIONS and (second == "of" or first == "half"):
            self.at += 2 if second == "of" else 1
            return self._apply_to_next("/", Number(str(_FRACTIONS[first])))
        if first in _MULTIPLES:
            self.at += 2 if second == "of" else 1
            return self._apply_to_next("*", Number(str(_MULTIPLES[first])))
        if first == "sqrt" or (first, second, self._key(2)) == ("square", "root", "of"):
            self.at += 3 if first == "square" else 2 if second == "of" else 1
            value = self._read_whole()
            return None if value is None else Operation("sqrt", (value,))
        if first in {"square", "cube"} and second == "of":
            self.at += 2
            return self._apply_to_next("**", Number("2" if first == "square" else "3"))
        if (first, second) in _LISTS:
            self.at += 2
            begin = self.at
            values = self.list()
            if values and first == "difference" and not _is_larger_first(values):
                self.doubt = (self._tokens[begin : self.at], _WHICH_WAY)
                return None
            return None if values is None else _combine(_LISTS[first, second], values)
        for size in (3, 2, 1):
            if tuple(self._key(k) for k in range(size)) in _TRANSPARENT and self._key(size):
                before = self.at
                self.at += size
                value = self.sum(1)
                is_range = first == "sum" and isinstance(value, Operation) and value.op == "-"
                if value is not None and not is_range:  # `sum 1-10` may mean all the numbers between
                    return value
                self.at = before
        return None

    def _apply_to_next(self, op: str, right: Value) -> Value | None:
        value = self._read_whole()
        return None if value is None else Operation(op, (value, right))

    def _read_whole(self) -> Value | None:
        """Read the operand of `half of` and the like. If another operator follows, the grouping is ambiguous."""
        value = self._read_signed()
        self._open = self.at if self._tokens[self.at - 1].key != ")" else -1
        return value

    def _read_reference(self, start: int) -> Value | None:
        """Read `it`, `the result` or `that number`."""
        said = self._key()
        if self.at == start and said in {"it", "that", "this", "them"}:
            self.at += 1
            return Back("any" if said != "them" else "number", said)
        if self.at > start:
            while self._key() in {"final", "previous", "last", "above", "resulting"}:
                self.at += 1
            if self._key() in BACK_NUMBERS:
                self.at += 1
                return Back("number", " ".join(token.key for token in self._tokens[start : self.at]))
            self.at = start
            if self._key() in {"that", "this"}:
                self.at += 1
                return Back("any", self._tokens[start].key)
        return None

    def number(self) -> Number | None:
        """Read a number in digits or in words, with its scale."""
        token = self._tokens[self.at] if self.at < len(self._tokens) else None
        if token is not None and token.kind == "number":
            self.at += 1
            scale = _SCALES.get(self._key())
            if scale and token.text.isdecimal() and len(token.text) < 13:
                self.at += 1
                return Number(str(int(token.text[:30]) * scale))
            return Number(token.text)
        return self._read_words()

    def _read_words(self) -> Number | None:
        total, group, seen = 0, 0, False
        while True:
            parts = self._key().split("-")
            if seen and self._key() == "and" and group % 1000 >= 100 and self._read_small(self._key(1).split("-")):
                self.at += 1
                continue
            small = self._read_small(parts)
            scale = _SCALES.get(parts[0])
            if small is not None and (not seen or _fits(group, small)):
                group += small
            elif parts == ["hundred"] and seen and 0 < group < 10:
                group *= 100
            elif scale and seen and group:
                total, group = total + group * scale, 0
            elif parts == ["a"] and not seen and (self._key(1) in {"hundred", "dozen"} or self._key(1) in _SCALES):
                group = 1
            elif parts == ["dozen"] and seen:
                group *= 12
            else:
                break
            seen = True
            self.at += 1
        return Number(str(total + group)) if seen else None

    @staticmethod
    def _read_small(parts: Sequence[str]) -> int | None:
        """Return a number below a hundred that is one word: `seven`, `forty`, `twenty-seven`."""
        if len(parts) == 1:
            return _UNITS.get(parts[0], _TENS.get(parts[0]))
        if len(parts) == 2 and parts[0] in _TENS and 0 < _UNITS.get(parts[1], 0) < 10:
            return _TENS[parts[0]] + _UNITS[parts[1]]
        return None


def _is_larger_first(values: tuple[Value, ...]) -> bool:
    """Return whether a difference has the same value by both readings: from the first number on, and
    without its sign.
    """
    numbers = [float(value.text) for value in values if isinstance(value, Number)]
    return len(numbers) == len(values) and numbers == sorted(numbers, reverse=True)


def _is_fraction(value: Value) -> bool:
    """Return whether this is a fraction such as `3/4`, so that `of` may follow."""
    return isinstance(value, Operation) and value.op == "/" and all(isinstance(each, Number) for each in value.operands)


def _fits(group: int, small: int) -> bool:
    """Return whether a word can continue a number, as in `twenty seven` and `two hundred five`, not `five six`."""
    rest = group % 100
    return (group > 0 and rest == 0) or (rest in _TENS.values() and 0 < small < 10) or group == 0


def _combine(op: str, values: tuple[Value, ...]) -> Value | None:
    if len(values) < 2 or (op in _PAIRS and len(values) != 2):
        return None
    if op == "average":
        return Operation("/", (Operation("+", values), Number(str(len(values)))))
    return Operation(op, values)
