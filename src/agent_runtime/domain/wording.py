"""Values, references and conditions of a plan in words that a reader without programming can judge.

Every text from a plan is quoted or bare, on one line, with hidden characters escaped, so that it cannot pass for words
of this service.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agent_runtime.domain.conditions import Condition, read_condition, read_operand
from agent_runtime.domain.references import Reference, as_text, is_whole, join_literal, parse_template
from agent_runtime.domain.values import JsonValue
from agent_runtime.text.escaping import clear_name, exact_line

_LONGEST_TEXT = 80
_LONGEST_NAME = 120
_MOST_NAMES = 4
_MOST_PARTS = 4
_COMPARED = {
    ast.Eq: "is",
    ast.NotEq: "is not",
    ast.Lt: "is less than",
    ast.LtE: "is at most",
    ast.Gt: "is more than",
    ast.GtE: "is at least",
    ast.In: "is in",
    ast.NotIn: "is not in",
}
_WORDS = {True: "yes", False: "no", None: "nothing"}


@dataclass(frozen=True, slots=True)
class Wording:
    """Puts parts of one plan into words. `numbers`: the position of each step in the plan, from 1, by its id."""

    numbers: Mapping[str, int]

    def describe_value(self, value: JsonValue) -> str:
        """Return a value of the plan in words: a quoted text, a number, or `the result of step 2`."""
        match value:
            case str():
                return self._describe_text(value)
            case bool() | None:
                return _WORDS[value]
            case int() | float():
                return exact_line(as_text(value), _LONGEST_TEXT)
            case Mapping():
                names = [name_thing(str(name)) for name in list(value)[:_MOST_NAMES]]
                more = [*names, *(["…"] if len(value) > _MOST_NAMES else [])]
                return f"{count_things(len(value), 'value')} ({', '.join(more)})" if value else "no values"
            case list() | tuple() if 0 < len(value) <= _MOST_NAMES and all(map(_is_scalar, value)):
                return join_words([self.describe_value(item) for item in value])
            case list() | tuple():
                return f"a list of {count_things(len(value), 'item')}" if value else "an empty list"
            case _:
                return quote_text(as_text(value))

    def _describe_text(self, text: str) -> str:
        try:
            template = parse_template(text)
        except ValueError:
            return quote_text(text)
        literal = join_literal(template)
        if literal is not None:
            return quote_text(literal)
        if len(template) <= _MOST_PARTS:
            return " followed by ".join(
                self.describe_reference(part) if isinstance(part, Reference) else quote_text(part) for part in template
            )
        taken = dict.fromkeys(self.describe_reference(part) for part in template if isinstance(part, Reference))
        return f"a text with {join_words(list(taken))} in it"

    def describe_reference(self, reference: Reference) -> str:
        """Return a reference in words, as in `the "count" in the result of step 2`."""
        whole = f"the result of {self.name_step(reference.step)}"
        return f"the {quote_text('.'.join(reference.path))} in {whole}" if reference.path else whole

    def describe_path(self, value: JsonValue) -> str:
        """Return the path of a file in words: bare, or quoted if it could be read as more than a path."""
        if not isinstance(value, str):
            return self.describe_value(value)
        try:
            template = parse_template(value)
        except ValueError:
            return name_thing(value)
        if is_whole(template):
            return f"the path given by {self.describe_value(value)}"
        literal = join_literal(template)
        return f"the path {self.describe_value(value)}" if literal is None else name_thing(literal)

    def name_step(self, step_id: str) -> str:
        """Return `step 2`; the id of the step if the plan has none of that name."""
        return f"step {self.numbers.get(step_id, step_id)}"

    def describe_condition(self, text: str) -> str:
        """Return a condition in words, as in `the "count" in the result of step 1 is more than 3`."""
        try:
            condition = read_condition(text)
        except ValueError:
            return quote_text(text)
        return self._describe_node(condition.tree, condition)

    def _describe_node(self, node: ast.expr, condition: Condition) -> str:
        match node:
            case ast.BoolOp(op=op, values=values):
                word = " and " if isinstance(op, ast.And) else " or "
                return word.join(self._bracket(inner, condition) for inner in values)
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                return f"not ({self._describe_node(inner, condition)})"
            case ast.Call(args=[argument]):
                return f"{self._describe_node(argument, condition)} exists"
            case ast.Compare(left=left, ops=ops, comparators=others):
                operands = pairwise([self._describe_node(inner, condition) for inner in (left, *others)])
                return " and ".join(
                    f"{one} {_COMPARED[type(op)]} {other}" for op, (one, other) in zip(ops, operands, strict=True)
                )
            case _:
                operand = read_operand(node, condition)
                if isinstance(operand, Reference):
                    return self.describe_reference(operand)
                return self.describe_value(operand)

    def _bracket(self, node: ast.expr, condition: Condition) -> str:
        text = self._describe_node(node, condition)
        return f"({text})" if isinstance(node, ast.BoolOp) else text


def quote_text(text: str) -> str:
    """Return a text in quotation marks on one line; of a long text its beginning, and how long it is."""
    quoted = exact_line(json.dumps(text[:_LONGEST_TEXT], ensure_ascii=False), 6 * _LONGEST_TEXT)
    if len(text) <= _LONGEST_TEXT:
        return quoted
    return f"a text of {count_things(len(text), 'character')} that begins {quoted}"


def name_thing(name: str) -> str:
    """Return a name or path on one line, quoted if it could be read as more than one name."""
    return exact_line(clear_name(name), _LONGEST_NAME)


def count_things(count: int, noun: str) -> str:
    """Return the count with its noun: `1 byte`, `2,048 bytes`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def join_words(words: Sequence[str]) -> str:
    """Return the words as in `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _is_scalar(value: JsonValue) -> bool:
    return not isinstance(value, Mapping | list | tuple)
