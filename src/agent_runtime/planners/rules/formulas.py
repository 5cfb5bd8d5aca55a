"""Writes numbers and expressions for the calculator."""

from collections.abc import Sequence

from agent_runtime.domain.references import references_in
from agent_runtime.domain.values import JsonValue

_DIGITS = 15
"""The decimal digits that a double holds exactly. Longer numbers go into expressions, as text."""
_FUNCTIONS = frozenset({"sqrt", "round", "min", "max", "abs"})


def to_number(text: str) -> JsonValue:
    """Return a JSON number if it is exact, else the digits as text."""
    if sum(char.isdigit() for char in text) > _DIGITS:
        return text
    return float(text) if {".", "e"} & {*text} else int(text)


def is_plain(operand: JsonValue) -> bool:
    """Return whether a tool for numbers can take the operand: a number, or a whole reference to one."""
    return not isinstance(operand, str) or (
        operand.startswith("${") and operand.endswith("}") and operand.count("${") == 1
    )


def build_expression(op: str, operands: Sequence[JsonValue]) -> str:
    """Return the operands joined by the operator. References are in brackets, because a value may be negative."""
    parts = [_add_brackets(each) for each in operands]
    if op in _FUNCTIONS:
        return f"{op}({', '.join(map(_strip_brackets, parts))})"
    return f" {op} ".join(parts)


def _add_brackets(operand: JsonValue) -> str:
    text = str(operand)
    negative = text.startswith("-")
    return f"({text})" if negative or text.startswith("${") else text


def _strip_brackets(text: str) -> str:
    whole = text.startswith("(") and text.endswith(")") and text.count("(") == 1
    return text[1:-1] if whole else text


def show_expression(template: str) -> str:
    """Return an expression as it is shown in a title."""
    for reference in references_in(template):
        text = str(reference)
        template = template.replace(f" ({text})", " the result").replace(text, "the result")
    return template.replace("(the result) ", "the result ").replace("$${", "${")
