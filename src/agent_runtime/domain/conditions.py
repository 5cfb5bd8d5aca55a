"""Conditions: `when` decides from the outputs of earlier steps whether a step runs.

    ${s1.output.count} > 3 and not ${s2.output.found}
    exists(${s1.output.items.0}) or ${s1.text} == "none"

Comparisons (`== != < <= > >= in`, `not in`), `and`, `or`, `not`, brackets, and `exists(...)`, on references, numbers,
strings, `true`, `false` and `null`. Python's parser parses the text; no part of it is ever executed.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from agent_runtime.domain.caching import cache_short
from agent_runtime.domain.errors import ConditionFailedError, ReferenceFailedError
from agent_runtime.domain.references import Reference, as_text, look_up, parse_template
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.values import JsonValue

MOST_CHARACTERS = 1000
"""The maximum length of a condition."""

MOST_REFERENCES = 16
"""The maximum number of references in a condition; each may have a long output to search."""

_REFERENCE = re.compile(r"\$\{[^{}]*\}")
_NAMED = re.compile(r"_ref(\d+)_")
_CONSTANTS: dict[str, JsonValue] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition. In its syntax tree `_ref0_` stands for the first reference, and so on."""

    text: str
    tree: ast.expr
    references: tuple[Reference, ...]


@cache_short(entries=128, characters=MOST_CHARACTERS)
def read_condition(text: str) -> Condition:
    """Parse a condition. Raises: ValueError naming the part that cannot be evaluated."""
    references: list[Reference] = []

    def name(found: re.Match[str]) -> str:
        (reference,) = parse_template(found.group())
        if isinstance(reference, Reference):
            references.append(reference)
        return f" _ref{len(references) - 1}_ "

    if "\\" in text or _NAMED.search(text):
        raise ValueError(f"{text!r} is not a condition: it may hold neither a backslash nor names of the form _ref0_")
    named = _REFERENCE.sub(name, text).strip()
    try:
        tree = ast.parse(named, mode="eval").body
        ast.parse(f"({named})", mode="eval")  # rejects comments
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is not a condition: compare references with == != < <= > >= in") from error
    condition = Condition(text, tree, tuple(references))
    for fault in (*_spelling_faults(tree, named, text), *_faults(tree, condition)):
        raise ValueError(fault)
    return condition


def _spelling_faults(tree: ast.expr, named: str, text: str) -> Iterator[str]:
    """Yield a fault for each name in other letters than ASCII: Python reads wide and bold letters as plain ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and ast.get_source_segment(named, node) != node.id:
            yield f"{text!r} is not a condition: write true, false, null and exists with plain letters"


def condition_references(text: str | None) -> frozenset[Reference]:
    """Return the references of a condition; none if it cannot be parsed."""
    if text is None:
        return frozenset()
    try:
        return frozenset(read_condition(text).references)
    except ValueError:
        return frozenset()


def evaluate_condition(text: str, results: Mapping[str, StoredResult]) -> bool:
    """Return whether the condition holds for the stored results of earlier steps.

    Raises: ConditionFailedError if an output is missing or has a type that cannot be compared this way.
    """
    try:
        condition = read_condition(text)
        return _truth(condition.tree, condition, results)
    except (ReferenceFailedError, ValueError) as error:  # an earlier version may have accepted what this one rejects
        raise ConditionFailedError(f"The condition {text!r} cannot be evaluated: {error}") from error


_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)


def _faults(node: ast.expr, condition: Condition, *, value: bool = False) -> Iterator[str]:
    """Yield the faults of this node. `value`: it is an operand of a comparison; otherwise it must be a boolean."""
    match node:
        case ast.BoolOp(values=values) if not value:
            for inner in values:
                yield from _faults(inner, condition)
        case ast.UnaryOp(op=ast.Not(), operand=inner) if not value:
            yield from _faults(inner, condition)
        case ast.Compare(left=left, ops=ops, comparators=others) if not value:
            for inner in (left, *others):
                yield from _faults(inner, condition, value=True)
            if not all(isinstance(op, _COMPARISONS) for op in ops):
                yield f"{condition.text!r}: `is` does not compare; write == or !="
            elif not any(_is_open(inner) for inner in (left, *others)):
                yield f"{condition.text!r} compares nothing with the output of a step"
        case ast.Call(func=ast.Name(id="exists"), args=[ast.Name(id=name)], keywords=[]) if not value:
            if not _NAMED.fullmatch(name):
                yield f"{condition.text!r}: exists() takes one reference"
        case ast.Name(id=name) if _NAMED.fullmatch(name) or (value and name in _CONSTANTS):
            pass
        case ast.Constant(value=str() as text) if value:
            if _NAMED.search(text):
                yield f"{condition.text!r}: write a reference without quotes"
        case (
            ast.Constant(value=int() | float())
            | ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float()))
        ) if value:
            pass
        case _:
            yield (
                f"{condition.text!r} is not a condition: it takes references, numbers, strings in quotes, true, false, "
                "null, comparisons, and, or, not, and exists(reference)"
            )


def _is_open(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and bool(_NAMED.fullmatch(node.id))


def _truth(node: ast.expr, condition: Condition, results: Mapping[str, StoredResult]) -> bool:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_truth(inner, condition, results) for inner in values)
        case ast.BoolOp(values=values):
            return any(_truth(inner, condition, results) for inner in values)
        case ast.UnaryOp(operand=inner):
            return not _truth(inner, condition, results)
        case ast.Call(args=[argument]):
            return _exists(argument, condition, results)
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_value(inner, condition, results) for inner in (left, *others)]
            return all(_compare(op, *pair, condition) for op, pair in zip(ops, pairwise(values), strict=True))
        case _:
            found = _value(node, condition, results)
            if not isinstance(found, bool):
                raise ConditionFailedError(
                    f"The condition {condition.text!r} is {as_text(found)[:80]}, not true or false."
                )
            return found


def _exists(node: ast.expr, condition: Condition, results: Mapping[str, StoredResult]) -> bool:
    try:
        return _value(node, condition, results) is not None
    except ReferenceFailedError:
        return False


def _value(node: ast.expr, condition: Condition, results: Mapping[str, StoredResult]) -> JsonValue:
    operand = read_operand(node, condition)
    return look_up(operand, results) if isinstance(operand, Reference) else operand


def read_operand(node: ast.expr, condition: Condition) -> Reference | JsonValue:
    """Return the reference or the constant that a node of a valid condition stands for."""
    match node:
        case ast.Name(id=name) if found := _NAMED.fullmatch(name):
            return condition.references[int(found[1])]
        case ast.Name(id=name):
            return _CONSTANTS[name]
        case _:
            constant: JsonValue = ast.literal_eval(node)
            return constant


def _compare(op: ast.cmpop, left: JsonValue, right: JsonValue, condition: Condition) -> bool:
    match op:
        case ast.Eq():
            return _equal(left, right)
        case ast.NotEq():
            return not _equal(left, right)
        case ast.In():
            return _contains(right, left, condition)
        case ast.NotIn():
            return not _contains(right, left, condition)
    if not (_is_number(left) and _is_number(right)) and not (isinstance(left, str) and isinstance(right, str)):
        raise _incomparable(left, right, condition)
    match op:
        case ast.Lt():
            return bool(left < right)
        case ast.LtE():
            return bool(left <= right)
        case ast.Gt():
            return bool(left > right)
        case _:
            return bool(left >= right)


def _contains(whole: JsonValue, part: JsonValue, condition: Condition) -> bool:
    if isinstance(whole, list | tuple):
        # Lists may be long, and this blocks the event loop: `in` is a hundred times faster than a search with `_equal`.
        return part in whole and part in [item for item in whole if isinstance(item, bool) is isinstance(part, bool)]
    if isinstance(whole, Mapping) and isinstance(part, str):
        return part in whole
    if isinstance(whole, str) and isinstance(part, str):
        return part in whole
    raise _incomparable(part, whole, condition)


def _equal(left: JsonValue, right: JsonValue) -> bool:
    return isinstance(left, bool) is isinstance(right, bool) and left == right


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _incomparable(left: JsonValue, right: JsonValue, condition: Condition) -> ConditionFailedError:
    pair = " and ".join(as_text(value)[:80] for value in (left, right))
    return ConditionFailedError(f"The condition {condition.text!r} compares {pair}, which are not of one kind.")
