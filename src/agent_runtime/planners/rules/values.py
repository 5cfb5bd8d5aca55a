"""The table of things that can be had: noun phrases first, then questions."""

from collections.abc import Callable
from typing import Any

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


def _how_many_lines(of: m.Value = IT, *, query: str) -> m.Value:
    return m.HowMany(m.LinesWith(of, query))


def _in_folder(folder: m.Folder) -> m.Value:
    return m.Listing(folder)


def _search(pattern: str = "*", folder: m.Folder = m.ROOT, content: str | None = None) -> m.Value:
    return m.Search(pattern, folder, content)


def _round(value: m.Value, places: int = 0) -> m.Value:
    return m.Operation("round", (value, m.Number(str(places))) if places else (value,))


def _share(part: m.Value, whole: m.Value) -> m.Value:
    return m.Operation("*", (m.Operation("/", (part, m.Number("100"))), whole))


_OPERATORS = [("plus|+", "+"), ("minus|-", "-"), ("times|multiplied_by|*", "*"), ("divided_by|over|/", "/")]
"""The operators between two things of which one has to be counted or looked up first."""


def _joined(op: str) -> Callable[[m.Value, m.Value], m.Value | None]:
    """One operation; sums among its operands would leave open which comes first."""

    def build(a: m.Value, b: m.Value) -> m.Value | None:
        plain = m.Number | m.Back | m.Count | m.HowMany | m.Contents
        counted = any(isinstance(each, m.Count | m.HowMany | m.Contents) for each in (a, b))
        return m.Operation(op, (a, b)) if counted and isinstance(a, plain) and isinstance(b, plain) else None

    return build


_CONTENTS: list[Row] = [
    ("$the? $short? $contents $in <file>", m.Contents),
    ("everything|all|what|whatever is? in|inside|from <file>", m.Contents),
    ("<file> 's $short? $contents", m.Contents),
    ("its|their $short? $contents", lambda: _TEXT),
    ("what it|that|this|the_file|that_file says|contains|holds|say", lambda: _TEXT),
    ("the|that|this|those $short? $contents", lambda: m.Back("text", "the contents")),
]
_SUMMARIES: list[Row] = [
    (
        (
            "$the? $short? $summary of|for <of=text> in|with|of|using at_most? <sentences=count> short? "
            "sentences|sentence"
        ),
        m.Summary,
    ),
    ("$the? $short? <sentences=count> sentence $short? $summary of|for <of=text>", m.Summary),
    ("$the? one-sentence|single-sentence $summary of|for <of=text>", lambda of: m.Summary(of, 1)),
    ("$the? two-sentence $summary of|for <of=text>", lambda of: m.Summary(of, 2)),
    ("$the? three-sentence $summary of|for <of=text>", lambda of: m.Summary(of, 3)),
    ("$the? $short? $summary of|for <of=text>", m.Summary),
    ("<of=text> 's $summary", m.Summary),
    ("its|their $short? $summary", lambda: m.Summary(IT)),
    ("a|an|some $short? $summary", lambda: m.Summary(IT)),
    ("$the? $short? $summary", lambda: m.Back("summary", "the summary")),
]
_COUNTS: list[Row] = [
    ("$the? $short? $number of $the? <measure> in|of|from|inside|within|for <of=text>", _count),
    ("$the? $short? $number of $the? <measure> <of=text> has|contains|have|contain|holds", _count),
    ("$the? $short? $number of lines|line $in <of=text> $containing <query>", _how_many_lines),
    ("$the? $short? $number of lines|line $containing <query> $in <of=text>", _how_many_lines),
    ("the|that $short? <measure> count|total", lambda measure: m.Count(IT, measure, known=True)),
    ("the|that $short? number of <measure>", lambda measure: m.Count(IT, measure, known=True)),
    ("$the? $short? $number of <of=things>", m.HowMany),
    ("$the? $short? $number of <measure>", _count),
    ("$the? $short? <measure> count|counts|total of|for|in|from <of=text>", _count),
    ("<of=text> 's <measure> count", _count),
    ("its|their <measure> count", _count),
    ("its|their number of <measure>", _count),
    ("a $short? <measure> count", _count),
    ("how many <measure> are|is there|contained? in|inside|within|on? <of=text>", _count),
    ("how many <measure> are_there|there_are|are|is|in? in|inside|within <of=text>", _count),
    ("how many <measure> does|do|did <of=text> have|contain|hold|has", _count),
    ("how many <measure> <of=text> has|have|contains|contain|holds", _count),
    ("how many lines|line are_there|are|there_are? $in <of=text> $containing <query>", _how_many_lines),
    ("how many lines|line $in <of=text> $containing <query>", _how_many_lines),
    ("how many lines|line $containing <query>", _how_many_lines),
    ("how many <of=things> are|is|do|exist there|there_are|i_have|we_have|have_i?", m.HowMany),
    ("how many <of=things> i|we have", m.HowMany),
    ("how many <of=kinds> are|is|exist there? <folder=where>", lambda of, folder: m.HowMany(_placed(of, folder))),
    ("how many <of=things>", m.HowMany),
    ("how many <measure> are|is|does there|in_it|in_there|it_have?", _count),
    ("how many <measure> it|that|the_file|this has|contains|have|holds", _count),
    ("how many <measure> there_are|are_there in_it|in_there|in_that_file|in_the_file?", _count),
    ("how many <measure>", _count),
]


def _placed(of: m.Value, folder: m.Folder) -> m.Value:
    return m.Search(of.pattern, folder, of.content) if isinstance(of, m.Search) else of


_LINES: list[Row] = [
    ("$the? first|top|initial|opening <lines=count> $lines of|from|in <of=text>", m.FirstLines),
    ("$the? first|top|opening line of|from|in <of=text>", lambda of: m.FirstLines(of, 1)),
    ("<of=text> 's first <lines=count> lines|line", m.FirstLines),
    ("<of=text> 's first line", lambda of: m.FirstLines(of, 1)),
    ("$the? first|top|initial|opening <lines=count> $lines", lambda lines: m.FirstLines(IT, lines)),
    ("$the? first|top|opening line", lambda: m.FirstLines(IT, 1)),
    ("$the? $lines $containing <query> $in <of=text>", m.LinesWith),
    ("$the? $lines $in <of=text> $containing <query>", m.LinesWith),
    ("$the? occurrences|occurrence|mentions|mention|instances|matches of|for <query> $in <of=text>", m.LinesWith),
    ("$the? <query=keyword> lines|mentions $in <of=text>", m.LinesWith),
    ("$the? $lines $containing <query>", lambda query: m.LinesWith(IT, query)),
    ("the|those|these|that matching? lines|matches found?", lambda: m.Back("lines", "the lines")),
]
_FILES: list[Row] = [
    (
        (
            "$the? $files|file $containing $the? text|word|words|phrase|string? <pattern> in the|their|its? file? "
            "name|names|filename|filenames"
        ),
        _search,
    ),
    ("$the? $files|file $named <pattern> $in <folder>", _search),
    ("$the? $files|file $named <pattern>", _search),
    ("$the? <pattern=type> $files|file $in <folder>", _search),
    ("$the? <pattern=type> $files|file", _search),
    ("$the? <pattern=glob> $in <folder>", _search),
    ("<pattern=glob>", _search),
    ("$the? $files|file $containing $the? text|word|words|phrase|string? <content=query> $in <folder=surely>", _search),
    ("$the? $files|file $in <folder=surely> $containing <content=query>", _search),
    ("$the? $files|file $containing $the? text|word|words|phrase|string? <content=query>", _search),
    ("$the? $short? $files|file|folders|everything that_are|which_are|located|stored? $in <folder>", _in_folder),
    (
        ("$the? $short? list|listing|names|name of $the? $files|file|folders|contents|everything $there? $in <folder>"),
        _in_folder,
    ),
    ("$the? $short? list|listing|names of $the? $files|everything", lambda: m.Listing(None)),
    ("$the? directory|folder|file listing|contents|content|list|structure of|for|in <folder>", _in_folder),
    ("$the? contents|content|listing|list of|in <folder=surely>", _in_folder),
    ("everything|all $in <folder=surely>", _in_folder),
    ("$the? directory|folder|file listing|list", lambda: m.Listing(None)),
    ("the|that|this|its|their list|listing", lambda: m.Back("list", "the list")),
    ("$the? $short? $files $there?", lambda: m.Listing(None)),
    ("$the? $short? files_and_folders|folders_and_files|folders|directories $there?", lambda: m.Listing(None)),
    ("everything", lambda: m.Listing(None)),
    ("$the? $info about|of|on|for|regarding|from <file>", m.Info),
    ("<file> 's $info", m.Info),
    ("its $info", lambda: m.Info(m.FileBack("its"))),
]
_TODOS: list[Row] = [
    ("all|all_my|all_the|all_of_my|every|all_our|all_of_the $todos", _todos("all")),
    ("$the? full|whole|entire|complete $todos", _todos("all")),
    ("$the? $open $todos", _todos("open")),
    ("$the? $done $todos", _todos("done")),
    (
        ("$the? $todos that_are|which_are|i_have|that_i_have|that_have_been|that_is|are|still|that_are_still? $done"),
        _todos("done"),
    ),
    (
        "$the? $todos that_are|which_are|that_is|are|still|that_are_still|which_are_still? $open|to_do|there",
        _todos("open"),
    ),
    ("$the? $todos i_have|that_i_have|i_still_have|on_my_list|we_have?", _todos("open")),
    (
        (
            "what is|are|i_have|we_have still? left|remaining|open|pending|outstanding|unfinished|to_do|undone|"
            "next to_do|over|now?"
        ),
        _todos("open"),
    ),
    ("what i|we have|need|still_have|still_need to do", _todos("open")),
    ("the rest|others|remaining_ones|remainder", _todos("open")),
    ("what remains to_be_done|to_do|open?", _todos("open")),
]
_NUMBERS: list[Row] = [
    ("<value=num> rounded to <places=count> decimals|decimal|decimal_places|decimal_place|places|digits", _round),
    *[(f"<a=last> {said} <b=last>", _joined(op)) for said, op in _OPERATORS],
    ("<value=num> rounded to_the_nearest_integer|to_the_nearest_whole_number|to_an_integer?", _round),
]
VALUES = Table([*_CONTENTS, *_SUMMARIES, *_COUNTS, *_LINES, *_FILES, *_TODOS, *_NUMBERS], WORDS)


def _exists(name: str, folder: m.Folder = m.ROOT) -> m.Value:
    return m.Search(name, folder)


_IS_FILE = "$the? $new? $file|files called|named|with_the_name|by_the_name_of"
_ABOUT_FILES: list[Row] = [
    ("what is|are there|written|stored|contained? in|inside|on|within <file>", m.Contents),
    ("what is|are there|stored|contained? in|inside|on|within <folder=namedfolder>", _in_folder),
    ("what does|do|did <file> say|contain|hold|read|include|have_in_it|look_like", m.Contents),
    (
        (
            "what|which files|documents|file|things $in <folder> $contain|contain_the_word|contain_the_text "
            "<content=query>"
        ),
        _search,
    ),
    (
        (
            "what|which files|documents|file $contain|contain_the_word|contain_the_text <content=query> $in "
            "<folder=surely>"
        ),
        _search,
    ),
    ("what|which files|documents|file $contain|contain_the_word|contain_the_text <content=query>", _search),
    (
        (
            "what|which $files|folders are|is|exist|do_i_have|do_we_have|do_you_see|can_you_see|live there|"
            "available|stored|present? $in|on|at <folder>"
        ),
        _in_folder,
    ),
    ("what|which $files|folders does <folder> contain|have|hold", _in_folder),
    (
        (
            "what|which $files|folders are|is|exist|do_i_have|do_we_have|do_you_see|do_you_have there|"
            "available|here|present|in_there?"
        ),
        lambda: m.Listing(m.ROOT),
    ),
    ("what does|do <folder=surely> contain|have|hold", _in_folder),
    ("what|which $lines $in <of=text> $contain|have|has <query>", m.LinesWith),
    ("what|which $lines $contain <query> $in <of=text>", m.LinesWith),
    ("what|which $lines $contain <query>", lambda query: m.LinesWith(IT, query)),
    ("where|which_lines|where_in_it|on_which_lines does|do|is|are <of=text> mention|contain|say <query>", m.LinesWith),
    ("where is|are <query> mentioned|found? in <of=text>", m.LinesWith),
    (
        ("does|do|if|whether <of=text> contain|contains|mention|mentions|include|includes|have|has|say|says <query>"),
        m.LinesWith,
    ),
    ("is|if|whether <query> is? mentioned|contained|found|present? in|inside <of=text>", m.LinesWith),
    ("is|are|if|whether there|there_is|there_are? " + _IS_FILE + " <name> in|inside|within|under <folder>", _exists),
    ("is|are|if|whether there|there_is|there_are? " + _IS_FILE + " <name>", _exists),
    (
        "is|if|whether there|there_is? the|a|an|any? $file? <name=filename> $file? in|inside|within|under <folder>",
        _exists,
    ),
    ("is|if|whether there|there_is? the|a|an|any? $file? <name=filename> $file?", _exists),
    ("is|are|if|whether there any|a <name=type> files|file", _exists),
    ("do i|we|you have|see the|a|an|any? $file|files called|named? <name=filename>", _exists),
    ("does|do|if|whether the|a|an|any? $file called|named? <name=filename> exist|exists already|yet|there?", _exists),
    ("does|if|whether <name=filename> exist|exists already|yet|there?", _exists),
    ("is|if|whether <name=filename> there|present|here|available", _exists),
    ("where is|are|can_i_find the|a|an|any? $file? called|named? <name=filename>", _exists),
    ("how big|large is|are <file>", m.Info),
    (
        ("when was|is|were|has|did <file> last? been|get? last? modified|changed|updated|edited|written|touched last?"),
        m.Info,
    ),
]
_ABOUT_TODOS: list[Row] = [
    (
        (
            "what do|must|should|can|have|else_do i|we|you have|need|still_have|still_need|got|left to? do|"
            "complete|finish|left? today?"
        ),
        _todos("open"),
    ),
    ("what do|must|should i|we|have do|to|left? to? do? today|next|now?", _todos("open")),
    ("what is|are on|in $the? open? $todolist", _todos("open")),
    (
        (
            "what|which|how_many? $todos is|are|do_i_have|have_i|have_been|has_been|did_i|have already|still|i|"
            "we? $done|finish|complete"
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
    ("what is|are|was <part=num> percent|% of <whole=last>", _share),
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
_PLAIN: list[Row] = [("what|whats|which|who is|are|was <values>", lambda values: values)]
QUESTIONS = Table([*_ABOUT_FILES, *_ABOUT_TODOS, *_ABOUT_NUMBERS, *_PLAIN], WORDS)
