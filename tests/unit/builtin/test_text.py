from collections.abc import Awaitable, Callable
from datetime import datetime
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.builtin.summary import split_into_sentences, summarize
from agent_runtime.builtin.text import create_server

Ask = Callable[..., Awaitable[Any]]

ARTICLE = """# The plan

The service plans tasks. Dr. Smith approves a plan in 2.5 minutes. The weather was nice!
An approved plan is the plan that the service runs.

Notes

- milk is cheap
- every plan of the service
  needs approval
1. nobody mentioned cats
"""


async def test_a_summary_keeps_the_telling_sentences_in_their_order(ask: Ask) -> None:
    answer = await ask(create_server(), "summarize", text=ARTICLE, sentences=2)
    assert answer.text == (
        "An approved plan is the plan that the service runs.\nevery plan of the service needs approval"
    )
    assert answer.output == {"summary": answer.text, "sentences": 2, "words": 17}


@pytest.mark.parametrize("text", ["Hello world", "One. Two.\n", "# Only a title"])
async def test_a_short_text_is_its_own_summary(text: str, ask: Ask) -> None:
    answer = await ask(create_server(), "summarize", text=text)
    assert answer.text == text
    assert answer.output["sentences"] >= 1


def test_headings_bullets_and_abbreviations_are_understood() -> None:
    assert [sentence.text for sentence in split_into_sentences(ARTICLE)] == [
        "The service plans tasks.",
        "Dr. Smith approves a plan in 2.5 minutes.",
        "The weather was nice!",
        "An approved plan is the plan that the service runs.",
        "milk is cheap",
        "every plan of the service needs approval",
        "nobody mentioned cats",
    ]


async def test_no_text_has_no_summary(ask: Ask) -> None:
    answer = await ask(create_server(), "summarize", text=" \n")
    assert answer.text == "The text is empty: there is nothing to summarize."
    assert answer.output == {"summary": "", "sentences": 0, "words": 0}


@given(st.text(alphabet="ab .!?\n-#1e.g", max_size=60), st.integers(1, 5))
def test_any_summary_is_made_of_the_texts_own_sentences(text: str, count: int) -> None:
    summary, sentences = summarize(text, count)
    assert sentences <= max(count, 1)
    kept = combinations([sentence.text for sentence in split_into_sentences(text)], sentences)
    assert summary == text or summary.split() in [" ".join(some).split() for some in kept]
    assert summarize(text, count) == (summary, sentences)


@pytest.mark.parametrize(
    ("text", "words", "lines"),
    [("", 0, 0), ("one", 1, 1), ("one  two\nthree\n", 3, 2), ("\n\n", 0, 2), ("a\r\nb", 2, 2)],
)
async def test_words_characters_and_lines_are_counted(text: str, words: int, lines: int, ask: Ask) -> None:
    answer = await ask(create_server(), "count_words", text=text)
    assert answer.text == str(words)
    assert answer.output == {"words": words, "characters": len(text), "lines": lines}


async def test_lines_are_found_whatever_their_case(ask: Ask) -> None:
    answer = await ask(create_server(), "find", text="Apple pie\nbanana\nPINEAPPLE", query="apple")
    assert answer.text == "Apple pie\nPINEAPPLE"
    assert answer.output == {
        "matches": [{"line": 1, "text": "Apple pie"}, {"line": 3, "text": "PINEAPPLE"}],
        "count": 2,
        "occurrences": 2,
    }


async def test_nothing_found_is_said(ask: Ask) -> None:
    answer = await ask(create_server(), "find", text="a(b", query="(.*)")
    assert answer.text == "No line contains '(.*)'."
    assert answer.output == {"matches": [], "count": 0, "occurrences": 0}


async def test_many_matches_are_counted_and_cut(ask: Ask) -> None:
    answer = await ask(create_server(), "find", text="x\n" * 1500, query="x")
    assert answer.output["count"] == 1500
    assert len(answer.output["matches"]) == 1000
    assert answer.text.endswith("\n... and 500 more.")


async def test_the_first_lines_are_given(ask: Ask) -> None:
    answer = await ask(create_server(), "head", text="a\nb\nc\n", lines=2)
    assert answer.text == "a\nb"
    assert answer.output == {"lines": ["a", "b"], "total": 3}
    assert (await ask(create_server(), "head", text="")).text == "The text is empty."


async def test_every_occurrence_in_a_line_counts(ask: Ask) -> None:
    answer = await ask(create_server(), "find", text="Milk, milk and buttermilk\neggs\nmilk", query="milk")
    assert (answer.output["count"], answer.output["occurrences"]) == (2, 4)


@pytest.mark.parametrize(("lines", "expected"), [(1, "c"), (2, "b\nc"), (9, "a\nb\nc")])
async def test_the_last_lines_are_given(lines: int, expected: str, ask: Ask) -> None:
    answer = await ask(create_server(), "tail", text="a\nb\nc\n", lines=lines)
    assert (answer.text, answer.output["total"]) == (expected, 3)


async def test_today_is_the_date_of_this_machine(ask: Ask) -> None:
    before = datetime.now().astimezone()
    answer = await ask(create_server(), "today")
    after = datetime.now().astimezone()
    assert answer.text in {before.date().isoformat(), after.date().isoformat()}
    assert answer.output["date"] == answer.text
    assert answer.output["weekday"] in {before.strftime("%A"), after.strftime("%A")}
