"""Checks the grammar of the offline planner against its corpus: every row must be needed by a sentence."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.tools import Tool
from agent_runtime.planners.rules.conditions import CONDITIONS
from agent_runtime.planners.rules.frames import TABLE
from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.patterns import Frame, Reader
from agent_runtime.planners.rules.revising import WISHES
from agent_runtime.planners.rules.values import QUESTIONS, VALUES
from unit.planners.corpus import ACCEPTED, FETCHED, REVISED, Steps
from unit.planners.planning import FETCH, all_tools, revise, steps_of

ROWS = [*TABLE.rows, *VALUES.rows, *QUESTIONS.rows, *CONDITIONS.rows, *WISHES.rows]
Said = tuple[str, ...]
"""A prompt, and what is said about its plan."""
MOST_ROWS = 233
"""The grammar stays small: decision 18."""


class Watch:
    """Notes which rows match while prompts are planned, and can disable one row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.matched: set[Frame] = set()
        self.left_out: Frame | None = None
        match = Frame.match

        def watch_match(row: Frame, tokens: Sequence[Token], read: Reader) -> Any:
            meaning = None if row is self.left_out else match(row, tokens, read)
            if meaning is not None:
                self.matched.add(row)
            return meaning

        monkeypatch.setattr(Frame, "match", watch_match)

    async def changes(self, row: Frame, expected: dict[Said, Steps], tools: list[Tool]) -> bool:
        """Return whether one of these prompts is planned differently without the row."""
        self.left_out = row
        for (prompt, *feedback), steps in expected.items():
            try:
                if steps_of(await revise(prompt, feedback, tools)) != steps:
                    return True
            except PlanningError:
                return True
        return False


def has_verbs_alone(row: Frame) -> bool:
    """Return whether no other row begins with the verbs of this one, so that it marks the beginnings of
    instructions.
    """
    rows_of = Counter(opening for each in TABLE.rows for opening in each.openings)
    return None not in row.openings and all(rows_of[opening] == 1 for opening in row.openings)


@pytest.mark.slow
async def test_every_row_of_the_grammar_is_needed_by_a_sentence_of_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = [*await all_tools(), *FETCH]
    watch = Watch(monkeypatch)
    matches: dict[Frame, dict[Said, Steps]] = {row: {} for row in ROWS}
    said = {(prompt,): steps for prompt, steps in [*ACCEPTED, *FETCHED]} | {(a, *b): steps for a, b, steps in REVISED}
    for (prompt, *feedback), expected in said.items():
        watch.matched.clear()
        assert steps_of(await revise(prompt, feedback, tools)) == expected
        for row in watch.matched:
            matches[row][prompt, *feedback] = expected
    unmatched = [row.pattern for row in ROWS if not matches[row]]
    needless = [
        row.pattern
        for row in ROWS
        if matches[row] and not has_verbs_alone(row) and not await watch.changes(row, matches[row], tools)
    ]
    assert (unmatched, needless) == ([], [])


def test_the_grammar_stays_small() -> None:
    assert len(ROWS) <= MOST_ROWS
