"""The code is written in plain English: functions are verbs, docstrings start with the result, and None is called None.

CONTRIBUTING.md has the rules. This checks the three habits that a word list can find.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "benchmarks", "container", "docs")

PARTICIPLE = re.compile(
    r"""
    [a-z]+(ed|(?<!th)ing|en)
    |begun|bound|bought|brought|built|came|caught|come|dealt|done|drawn|felt|found|gave|gone|got|grown|heard|held|hung
    |kept|known|laid|led|left|lent|lost|made|meant|met|paid|said|sent|shown|sold|spent|stood|struck|stuck|swept|sworn
    |taught|thought|thrown|told|took|torn|understood|went|won|worn|wound|wrote
    """,
    re.VERBOSE,
)
VERB = re.compile(
    r"bring|embed|exceed|fasten|feed|flatten|happen|heed|lengthen|listen|need|open|ping|proceed|ring|seed|shed|shorten|"
    r"sing|speed|spread|string|succeed|weed|widen"
)
"""Verbs in the imperative that end like a participle."""

QUESTION = re.compile(r"(what|whether|who|whose|whom|how|which|where|when|why)\b", re.IGNORECASE)
PYTHON_NULL = re.compile(r"(?<![`\w])null(?![`\w])")
"""Python's value is None. The null of JSON stands in code quotes."""


class Definition(NamedTuple):
    """A function, class or module. The name is empty for values: modules, classes and properties."""

    place: str
    name: str
    docstring: str


@cache
def definitions() -> tuple[Definition, ...]:
    files = (file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")))
    return tuple(found for file in files for found in definitions_in(file))


def definitions_in(file: Path) -> Iterator[Definition]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            continue
        name = ""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            is_value = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
            name = "" if is_value else node.name
        place = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"
        yield Definition(place, name, ast.get_docstring(node) or "")


def is_lone_participle(name: str) -> bool:
    word = name.lstrip("_")  # `__len__` stays itself
    return bool(PARTICIPLE.fullmatch(word)) and not VERB.fullmatch(word)


def test_a_function_is_named_by_what_it_does() -> None:
    assert [f"{one.place} {one.name}" for one in definitions() if is_lone_participle(one.name)] == []


def test_a_docstring_starts_with_the_result_and_not_with_a_question() -> None:
    starts = ((one.place, one.docstring.partition("\n")[0]) for one in definitions())
    assert [f"{place} {start}" for place, start in starts if QUESTION.match(start)] == []


def test_docstrings_call_none_by_its_name() -> None:
    lines = ((one.place, line.strip()) for one in definitions() for line in one.docstring.splitlines())
    assert [f"{place} {line}" for place, line in lines if PYTHON_NULL.search(line)] == []
