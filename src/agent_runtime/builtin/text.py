"""The text server: summaries, counts and lines of a text that is handed to it, and the date; without side effects.

Alone on standard streams: `python -m agent_runtime.builtin.text`.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Annotated

from pydantic import Field

from agent_runtime.builtin.refusals import MAX_TEXT, split_lines
from agent_runtime.builtin.summary import summarize as summarize_text
from agent_runtime.builtin.toolbox import READS, Answer, Output, Toolbox, make_tool, make_toolbox

MAX_MATCHES = 1000
"""The most lines that one search returns."""

Text = Annotated[str, Field(max_length=MAX_TEXT, description="The text itself, at most 1 MiB.")]


class Summary(Output):
    """`sentences` and `words`: how many the summary has."""

    summary: str
    sentences: int
    words: int


class Counts(Output):
    words: int
    characters: int
    lines: int


class Match(Output):
    """`line`: counted from 1."""

    line: int
    text: str


class Found(Output):
    """`count`: how many lines match; at most 1,000 of them are given. `occurrences`: how often the query occurs."""

    matches: list[Match]
    count: int
    occurrences: int


class Lines(Output):
    """`total`: how many lines the text has."""

    lines: list[str]
    total: int


class Date(Output):
    date: str
    weekday: str


def summarize(
    text: Text, sentences: Annotated[int, Field(ge=1, le=20, description="How many sentences to keep at most.")] = 3
) -> Answer[Summary]:
    """Summarize a text by its own most telling sentences, in their order."""
    if not text.strip():
        message = "The text is empty: there is nothing to summarize."
        return Answer(message, Summary(summary="", sentences=0, words=0))
    summary, count = summarize_text(text, sentences)
    return Answer(summary, Summary(summary=summary, sentences=count, words=len(summary.split())))


def count_words(text: Text) -> Answer[Counts]:
    """Count the words of a text, and its characters and lines."""
    words = len(text.split())
    return Answer(str(words), Counts(words=words, characters=len(text), lines=len(split_lines(text))))


def find(
    text: Text,
    query: Annotated[str, Field(min_length=1, max_length=1024, description="What to look for. Case is ignored.")],
) -> Answer[Found]:
    """Find the lines of a text that contain a word or phrase."""
    wanted = query.casefold()
    hits = [(number, line) for number, line in enumerate(split_lines(text), 1) if wanted in line.casefold()]
    shown = [Match(line=number, text=line) for number, line in islice(hits, MAX_MATCHES)]
    said = [match.text for match in shown] or [f"No line contains {query!r}."]
    if len(hits) > MAX_MATCHES:
        said.append(f"... and {len(hits) - MAX_MATCHES} more.")
    occurrences = sum(line.casefold().count(wanted) for _, line in hits)
    return Answer("\n".join(said), Found(matches=shown, count=len(hits), occurrences=occurrences))


LineCount = Annotated[int, Field(ge=1, le=1000, description="How many lines to give at most.")]


def head(text: Text, lines: LineCount = 10) -> Answer[Lines]:
    """Give the first lines of a text."""
    every = split_lines(text)
    return _reply_lines(every[:lines], every)


def tail(text: Text, lines: LineCount = 10) -> Answer[Lines]:
    """Give the last lines of a text."""
    every = split_lines(text)
    return _reply_lines(every[-lines:], every)


def _reply_lines(some: list[str], every: list[str]) -> Answer[Lines]:
    return Answer("\n".join(some) if every else "The text is empty.", Lines(lines=some, total=len(every)))


def today() -> Answer[Date]:
    """Give today's date where the service runs, as in 2026-11-30."""
    now = datetime.now().astimezone()
    return Answer(now.date().isoformat(), Date(date=now.date().isoformat(), weekday=now.strftime("%A")))


def create_server() -> Toolbox:
    """Return the text server."""
    return make_toolbox(
        "text",
        "Works on the text that it is given, never on files: read them first.",
        [make_tool(function, READS) for function in (summarize, count_words, find, head, tail, today)],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the text tools on standard streams until they close."""
    argparse.ArgumentParser(prog="agent_runtime.builtin.text", description=__doc__).parse_args(arguments)
    create_server().serve()


if __name__ == "__main__":
    main()
