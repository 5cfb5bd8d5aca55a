"""The calculator server: exact arithmetic, without side effects.

Alone on standard streams: `python -m agent_runtime.builtin.calculator`.
"""

import argparse
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated

from pydantic import Field, WithJsonSchema

from agent_runtime.builtin import arithmetic
from agent_runtime.builtin.toolbox import READS, Answer, Output, Toolbox, make_tool, make_toolbox

Number = Annotated[int | Annotated[float, Field(allow_inf_nan=False)], WithJsonSchema({"type": "number"})]


class Result(Output):
    """A number; as text where JSON readers would lose digits: integers beyond 2**53 - 1, and beyond any float."""

    result: Annotated[int | float | str, WithJsonSchema({"type": ["number", "string"]})]


Left = Annotated[Number, Field(description="The number on the left.")]
Right = Annotated[Number, Field(description="The number on the right.")]


def add(a: Left, b: Right) -> Answer[Result]:
    """Add two numbers: a + b."""
    return _answer(arithmetic.add(arithmetic.to_fraction(a), arithmetic.to_fraction(b)))


def subtract(a: Left, b: Right) -> Answer[Result]:
    """Subtract b from a: a - b."""
    return _answer(arithmetic.subtract(arithmetic.to_fraction(a), arithmetic.to_fraction(b)))


def multiply(a: Left, b: Right) -> Answer[Result]:
    """Multiply two numbers: a * b."""
    return _answer(arithmetic.multiply(arithmetic.to_fraction(a), arithmetic.to_fraction(b)))


def divide(a: Left, b: Right) -> Answer[Result]:
    """Divide a by b, which is not 0: a / b."""
    return _answer(arithmetic.divide(arithmetic.to_fraction(a), arithmetic.to_fraction(b)))


def evaluate(
    expression: Annotated[
        str, Field(max_length=arithmetic.MAX_LENGTH, description='An expression, such as "2 * (3 + 4)".')
    ],
) -> Answer[Result]:
    """Evaluate an expression exactly.

    It has + - * / // % ** ^, brackets, numbers such as 1,000 and 1.5e3, percentages such as 15% of 200, sqrt, abs,
    round (halves away from zero), min, max, pi and e.
    """
    return _answer(arithmetic.evaluate(expression))


def _answer(value: Fraction) -> Answer[Result]:
    return Answer(arithmetic.to_text(value), Result(result=arithmetic.to_number(value)))


def create_server() -> Toolbox:
    """Return the calculator."""
    return make_toolbox(
        "calculator",
        "Exact arithmetic: 0.1 + 0.2 is 0.3.",
        [
            make_tool(add, READS, inline=True),
            make_tool(subtract, READS, inline=True),
            make_tool(multiply, READS, inline=True),
            make_tool(divide, READS, inline=True),
            make_tool(evaluate, READS),
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the calculator on standard streams until they close."""
    argparse.ArgumentParser(prog="agent_runtime.builtin.calculator", description=__doc__).parse_args(arguments)
    create_server().serve()


if __name__ == "__main__":
    main()
