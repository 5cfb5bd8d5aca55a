"""The table of values: noun phrases first, then questions."""

from collections.abc import Callable
from typing import Any, Literal

from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.patterns import Table
from agent_runtime.planners.rules.vocabulary import WORDS

IT = m.Back("any", "it")
_TEXT = m.Back("text", "its contents")
Row = tuple[str, Callable[..., Any]]


def _todos(status: m.Status) -> Callable[[], m.Value]:
    return lambda: m.Todos(status)


def _count(measure: m.Measure, of: m.Value = IT) -> m.Value:
    return m.Count(of, measure)


def _in_folder(folder: m.Folder) -> m.Value:
    return m.Listing(folder)


def _search(pattern: str = "*", folder: m.Folder = m.ROOT, content: str | None = None) -> m.Value:
    return m.Search(pattern, folder, content)


_OPERATORS = [("plus|+", "+"), ("minus|-", "-"), ("times|multiplied_by|*", "*"), ("divided_by|over|/", "/")]
"""The operators between two values of which one must be counted or read first."""


def _build_operation(op: str) -> Callable[[m.Value, m.Value], m.Value | None]:
    """Return the builder of one operation. Sums as operands are not taken, because the order would be ambiguous."""

    def build(a: m.Value, b: m.Value) -> m.Value | None:
        plain = m.Number | m.Back | m.Count | m.HowMany | m.Contents
        counted = any(isinstance(each, m.Count | m.HowMany | m.Contents) for each in (a, b))
        return m.Operation(op, (a, b)) if counted and isinstance(a, plain) and isinstance(b, plain) else None

    return build


_CONTENTS: list[Row] = [
    ("$the? $short? $contents $in <file=holder>", m.Contents),
    ("what it|that|this|the_file|that_file says|contains|holds|say", lambda: _TEXT),
]
_SUMMARIES: list[Row] = [
    (
        (
            "$the? $short? $summary of|for <of=text> in|with|of|using at_most? <sentences=count> short? "
            "sentences|sentence"
        ),
        m.Summary,
    ),
    ("$the? $short? $summary of|for <of=text>", m.Summary),
    ("a|an|one|some $short? $summary", lambda: m.Summary(IT)),
]
_COUNTS: list[Row] = [
    ("$the? $short? $number of $the? <measure> in|of|from|inside|within|for <of=text>", _count),
    ("the|that $short? <measure> count|total", lambda measure: m.Count(IT, measure, known=True)),
    ("the|that $short? number of <measure>", lambda measure: m.Count(IT, measure, known=True)),
    ("$the? $short? $number of <of=things>", m.HowMany),
    ("$the? $short? <measure> count|counts|total of|for|in|from <of=text>", _count),
    ("its|their <measure> count", _count),
    (
        (
            "how_many <measure> are_there|there_are|are|is? in|inside|within <of=text> "
            "together|altogether|in_total|combined?"
        ),
        _count,
    ),
    ("how_many <measure> does|do|did|has|have <of=text> have|contain|hold|has|got", _count),
    ("how_many <measure> <of=text> has|have|contains|contain|holds", _count),
    ("how_many <of=things> are|is|do|exist there|there_are|i_have|we_have|have_i|i_have_left|i_still_have?", m.HowMany),
    ("how_many <of=kinds> are|is|exist there? <folder=where>", lambda of, folder: m.HowMany(_search_in(of, folder))),
    ("how_many <of=things>", m.HowMany),
    ("how_many <measure> it|that|the_file|this has|contains|have|holds", _count),
    ("how_many <measure> are_there|there_are|are_in_it|does_it_have?", _count),
]


def _search_in(of: m.Value, folder: m.Folder) -> m.Value:
    return m.Search(of.pattern, folder, of.content) if isinstance(of, m.Search) else of


_ENDS: list[tuple[str, Literal["head", "tail"]]] = [
    ("first|top|initial|opening", "head"),
    ("last|final|bottom|closing", "tail"),
]


def _take_lines(end: Literal["head", "tail"]) -> Callable[..., m.Value]:
    return lambda of=IT, lines=1: m.SomeLines(of, lines, end)


def _find_each(of: m.Value, query: str) -> m.Value:
    return m.LinesWith(of, query, each=True)


def _count_each(of: m.Value, query: str) -> m.Value:
    return m.HowMany(_find_each(of, query))


_LINES: list[Row] = [
    *[
        (f"$the? {said} {rest}", _take_lines(end))
        for said, end in _ENDS
        for rest in (
            "<lines=count> $lines of|from|in <of=text>",
            "line of|from|in <of=text>",
            "<lines=count> $lines",
            "line",
        )
    ],
    ("the top|beginning|start of|from <of=text>", lambda of: m.SomeLines(of, 10)),
    ("the end|bottom of|from <of=text>", lambda of: m.SomeLines(of, 10, "tail")),
    ("$the? $occurrences <query> $in <of=text>", _find_each),
    ("how_many $occurrences <query> are_there|there_are|are|is? $in <of=text>", _count_each),
    (
        (
            "how_often|how_many_times|the_number_of_times does|do|is|are|did? $the? word|text|phrase? <query> $occur "
            "$in <of=text>"
        ),
        _count_each,
    ),
    ("$the? $lines $containing <query> $in <of=text>", m.LinesWith),
    ("$the|every|each? $lines $in <of=text> $containing <query> in_it|in_them?", m.LinesWith),
    ("$the? <query=keyword> lines|mentions $in <of=text>", m.LinesWith),
    ("$the? $lines $containing <query>", lambda query: m.LinesWith(IT, query)),
]
_FILES: list[Row] = [
    (
        "$the? $files|file $containing $the? $term? <pattern> in the|their|its? file? name|names|filename|filenames",
        _search,
    ),
    ("$the? $files|file $named <pattern> $in <folder>", _search),
    ("$the? $files|file $named <pattern>", _search),
    ("$the|every|each? <pattern=type> $files|file $in <folder>", _search),
    ("$the|every|each? <pattern=type> $files|file", _search),
    ("$the|every|each? <pattern=glob> $in <folder>", _search),
    ("$the|$which? <pattern=type> $files|file $in <folder> $containing $the? $term? <content=query>", _search),
    ("$the|$which? <pattern=type> $files|file $containing $the? $term? <content=query>", _search),
    ("$the|$which? $files|file $in <folder> $containing $the? $term? <content=query>", _search),
    ("<pattern=glob>", _search),
    ("$the|$which? $files|file $containing $the? $term? <content=query> $in <folder=searched>", _search),
    ("$the|$which? $files|file $containing $the? $term? <content=query>", _search),
    ("$the? $short? $files|file|everything that_are|which_are|located|stored? $in <folder>", _in_folder),
    (
        "$the? $short? list|listing|names|name of $the? $files|file|contents|everything $there? $in <folder>",
        _in_folder,
    ),
    ("$the? $short? list|listing|names of $the? $files|everything", lambda: m.Listing(None)),
    ("$the? contents|content|listing|list of|in <folder=surely>", _in_folder),
    ("$the? directory|folder|file listing|list", lambda: m.Listing(None)),
    ("$the? $short? $files $there?", lambda: m.Listing(None)),
    ("everything", lambda: m.Listing(None)),
    ("$the? $info about|of|on|for|regarding|from <file> in_bytes?", m.Info),
]
_TODOS: list[Row] = [
    ("all|all_my|all_the|all_of_my|every|all_our|all_of_the $todos", _todos("all")),
    ("$the? $open $todos", _todos("open")),
    ("$the? $done $todos", _todos("done")),
    ("all|all_my|all_the|the|my $todos that|which are $done", _todos("done")),
    ("$the? $todos i_have|that_i_have|i_still_have|on_my_list|we_have|left|left_to_do?", _todos("open")),
    (
        (
            "what is|are|i_have|we_have still? left|remaining|open|pending|outstanding|unfinished|to_do|undone|"
            "next to_do|over|now? on_my_list|on_the_list|on_my_todo_list|on_the_todo_list?"
        ),
        _todos("open"),
    ),
]
_DATES: list[Row] = [("$the? today's|current? date of_today|today?", m.Today)]
_NUMBERS: list[Row] = [
    ("$the? remainder when|if|of|from <a=num> is? divided_by <b=last>", lambda a, b: m.Operation("%", (a, b))),
    *[(f"<a=last> {said} <b=last>", _build_operation(op)) for said, op in _OPERATORS],
]
VALUES = Table([*_CONTENTS, *_SUMMARIES, *_COUNTS, *_LINES, *_FILES, *_TODOS, *_DATES, *_NUMBERS], WORDS)


def _exists(name: str, folder: m.Folder = m.ROOT) -> m.Value:
    return m.Search(name, folder)


_IS_FILE = "$the? $new? $file|files called|named|with_the_name|by_the_name_of"
_ABOUT_FILES: list[Row] = [
    ("what is|are there|stored|contained? in|inside|on|within <folder=namedfolder>", _in_folder),
    ("what does|do|did <file> say|contain|hold|read|include|have_in_it|look_like", m.Contents),
    ("what does|do|did <values=derived> say|contain|hold|read|look_like", lambda values: values),
    ("in $the|what|which? $files|file does|do|is|are $the? $term? <content=query> $occur", _search),
    (
        "is|are|if|whether there? $the? word|text|phrase? <query> mentioned|listed|used|found? in|on <of=text>",
        m.LinesWith,
    ),
    (
        (
            "what|which $files are|is|exist|do_i_have|do_we_have|do_you_see|can_you_see|live there|"
            "available|stored|present? $in|on|at <folder>"
        ),
        _in_folder,
    ),
    (
        (
            "what|which $files are|is|exist|do_i_have|do_we_have|do_you_see|do_you_have stored|there|"
            "available? there|here|present|in_there?"
        ),
        lambda: m.Listing(m.ROOT),
    ),
    ("what|which $lines $in <of=text> $contain|have|has <query> in_it|in_them?", m.LinesWith),
    ("what|which $lines $contain <query>", lambda query: m.LinesWith(IT, query)),
    (
        (
            "does|do|if|whether <of=text> contain|contains|mention|mentions|include|includes|have|has|say|says "
            "anything_about|something_about|anything_on|something_on? <query>"
        ),
        m.LinesWith,
    ),
    (
        (
            "is|are|if|whether there|there_is|there_are? anything|something about|on|with <content=query> $in "
            "<folder=searched>"
        ),
        _search,
    ),
    ("is|are|if|whether there|there_is|there_are? " + _IS_FILE + " <name> in|inside|within|under <folder>", _exists),
    ("is|are|if|whether there|there_is|there_are? " + _IS_FILE + " <name>", _exists),
    ("is|are|if|whether there any|a <name=type> files|file in_here|$there?", _exists),
    ("do i|we|you have|see the|a|an|any? $file|files called|named? <name=filename>", _exists),
    ("does|if|whether <name=filename> exist|exists already|yet|there?", _exists),
    ("is|if|whether <name=filename> there|present|here|available", _exists),
    ("where is|are|can_i_find the|a|an|any? $file? called|named? <name=filename>", _exists),
    ("how big|large is|are <file>", m.Info),
    (
        "when was|is|were|has|did <file> last? been|get? last? modified|changed|updated|edited|written|touched last?",
        m.Info,
    ),
]
_ABOUT_TODOS: list[Row] = [
    ("what date is it|today today?", m.Today),
    (
        "what do|must|should|else_do i|we have|need|still_have|still_need? left? to? do today?",
        _todos("open"),
    ),
    ("what is|are on|in $the? open? $todolist|list", _todos("open")),
    (
        (
            "what|which|the|my $todos is|are|do_i_have|have_i|have_been|has_been|did_i|have|i_have|that_i_have|i've|"
            "that_i've|we_have "
            "already|still|i|we? $done|finish|complete"
        ),
        _todos("done"),
    ),
    (
        (
            "what|which $todos are|is|do_i_have|do_i_still_have|are_there|remain|do_we_have still? $open|there|"
            "to_do|not_done? on_my_list|to_do|to_be_done?"
        ),
        _todos("open"),
    ),
    ("what have|did i|we already? $done|do|finish|complete already|so_far|today?", _todos("done")),
]
_ABOUT_NUMBERS: list[Row] = [
    (
        (
            "what|how_much is|are|was|would|does|do be? <value=number> equal|equal_to|make|give|come_to|be|"
            "in_total|together?"
        ),
        lambda value: value,
    ),
    (
        "what do|does <values=nums> make|equal|add_up_to|sum_to|give|come_to|total",
        lambda values: m.Operation("+", tuple(values)),
    ),
]
_PLAIN: list[Row] = [("what|which is|are written|stored? <values>", lambda values: values)]
QUESTIONS = Table([*_ABOUT_FILES, *_ABOUT_TODOS, *_ABOUT_NUMBERS, *_PLAIN], WORDS)
