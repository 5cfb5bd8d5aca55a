"""The table of instructions: the form of each sentence, and its action. The first row that matches counts."""

from collections.abc import Callable
from typing import Literal

from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.patterns import Table
from agent_runtime.planners.rules.sums import SUMS, show
from agent_runtime.planners.rules.transfers import TRANSFERS, transfer
from agent_runtime.planners.rules.values import IT, Row
from agent_runtime.planners.rules.vocabulary import WORDS

Op = Callable[..., m.Action]


def _write(content: m.Value, files: tuple[m.File, ...] = (), file: m.File | None = None) -> m.Action:
    return m.Write(content, (file,) if file else files)


def _append(content: m.Value, files: tuple[m.File, ...]) -> m.Action:
    return m.Write(content, files, append=True)


def _save(content: m.Value, files: tuple[m.File, ...]) -> m.Action:
    return m.Write(content, files)


def _write_in_folder(content: m.Value, file: m.File, folder: m.Folder) -> m.Action | None:
    if not isinstance(file, m.NamedFile) or file.folder != m.ROOT:
        return None
    return m.Write(content, (m.NamedFile(file.path, folder),))


def _write_page(page: m.WebPage, files: tuple[m.File, ...]) -> m.Action:
    return m.Write(page, files)


def _copy(content: m.Value, files: tuple[m.File, ...]) -> m.Action | None:
    match content, files:
        case m.Contents(file=m.NamedFile() as file, outright=False), (m.NamedFile() as to,):
            return m.Transfer("copy_file", (file,), to)
        case m.Back(sort="any", said="it" | "this" | "that" as said), (m.NamedFile() as to,):
            return m.Transfer("copy_file", (m.FileBack(said),), to)
    unclear = m.Literally | m.Number | m.Listing | m.Search  # of files, their names or what they hold may be meant
    return None if isinstance(content, unclear) else m.Write(content, files)


def _join(files: tuple[m.File, ...], file: m.File) -> m.Action | None:
    """Take several files and another one. Reading one that has been written before would give more than it held."""
    return m.Join(files, file) if len(files) > 1 and file not in files else None


def _make_folder(folder: m.Folder, inside: m.Folder = m.ROOT) -> m.Action | None:
    if folder.path is None or folder == m.ROOT:
        return None
    return m.MakeFolders((folder,), inside)


def _make_folders(folders: tuple[m.Folder, ...]) -> m.Action | None:
    return None if any(each.path is None or each == m.ROOT for each in folders) else m.MakeFolders(folders)


def _make_files(files: tuple[m.File, ...]) -> m.Action:
    """Make files by appending nothing, so that an existing file keeps its content."""
    return m.Write(m.Literally(""), files, append=True)


def _make_empty(files: tuple[m.File, ...]) -> m.Action:
    return m.Write(m.Literally(""), files)


def _read(file: m.File) -> m.Action:
    return show(m.Contents(file))


def _readable(values: tuple[m.Value, ...]) -> m.Action | None:
    return None if any(isinstance(value, m.Number) for value in values) else m.Show(values)


def _todo(t: str) -> m.Action:
    return m.AddTodos((t,))


def _unannounced_todo(t: str) -> m.Action | None:
    """Take `add task call Bob` for a todo, and not `make a todo list`."""
    return None if t.lower().startswith(("list", "item")) else _todo(t)


def _todos(t: tuple[str, ...]) -> m.Action:
    return m.AddTodos(t)


def _another(t: str) -> m.Action:
    return m.AddTodos((t,), another=True)


def _end(tool: Literal["complete", "delete"]) -> Op:
    return lambda t: m.EndTodos(tool, t)


def _to_be_read(values: tuple[m.Value, ...]) -> m.Action | None:
    """Show values, but no listing of files: files are read one by one."""
    return None if any(isinstance(value, m.Listing | m.Search) for value in values) else _readable(values)


_TODOS: list[Row] = [
    (
        (
            "$append|create|make|write|put|set|new|need|schedule|enter|start and? another|another_one|"
            "another_todo|another_task|one_more|one_more_todo|one_more_task $saying <t=todo_text>"
        ),
        _another,
    ),
    ("another|one|another_one|another_todo|another_task|one_more $saying <t=todo_text>", _another),
    (
        (
            "add|create|make|put|set_up|enter $the? following? two|three|four|five|new|more? todos|tasks|"
            "reminders|todo_items to_my_list|to_the_list|to_my_todo_list|to_the_todo_list|on_my_todo_list? :|"
            "to|for|called|saying? <t=todo_list>"
        ),
        _todos,
    ),
    (
        (
            "add|create|make|put|set|set_up|enter|new $one? $new? $todo to|on|in|onto my|the|our todo|task? list "
            "$saying <t=todo_text>"
        ),
        _todo,
    ),
    (
        ("add|create|make|set|set_up|enter|new|need $one? $new? $todo for_me|for_myself|for_us? $saying <t=todo_text>"),
        _todo,
    ),
    ("add|create|make|new $one? $new? $todo <t=todo_text>", _unannounced_todo),
    ("$append|put|write|enter|save <t=todo_items> to|on|onto|in|into $one? $todolist", _todos),
    ("$append|put|write|enter|save <t=todo_items> as $one? $new? $todo", _todos),
    ("remind me|us|myself to|about|of|that <t=todo_text>", _todo),
    ("$one? todo|task|reminder :|to|about|called|saying|that_says <t=todo_text>", _todo),
    ("mark|set|tick|check|flag|report <t=todos> $finished", _end("complete")),
    ("$finish <t=todos> today|off?", _end("complete")),
    ("cross|strike|tick|check <t=todos> off my|the todo|task? list", _end("complete")),
    ("<t=named_todos> is|are $finished", _end("complete")),
    ("i'm|i_am? done_with <t=named_todos>", _end("complete")),
    ("i|we|i've|we've have? finished|completed|done|did <t=named_todos>", _end("complete")),
    ("$delete <t=todos> from|off|on|out_of|in $one $todolist", _end("delete")),
    ("$delete <t=named_todos> from_my_list|from_the_list|off_my_list|off_the_list?", _end("delete")),
]


def _made_with(holding: str, content: str, bounded: str) -> list[Row]:
    """Return the rows for new files with content. `containing X` says that X is text; `with X` may mean
    something else.
    """
    return [
        (f"$make <file=newfile> {holding} <content={bounded}> $at <folder=surely>", _write_in_folder),
        (f"$at <folder=surely> ,? $make <file=newfile> {holding} <content={content}>", _write_in_folder),
        (f"$make <file=newfile> {holding} <content={content}>", _write),
    ]


_SEP = ":|,_:|as_follows_:|the_following_:|the_following_text_:|the_following_lines_:|the_following_content_:"
_SAID = (
    f"{_SEP}|the_text|the_message|the_words|the_word|the_line|that_says|that_reads|that_say|that|saying|with|"
    "with_the_text|containing|with_content"
)
_WRITING: list[Row] = [
    ("$copy <content=bounded> to|into|as|in|onto|under|over <files>", _copy),
    ("$copy <files=sources> into|inside <to=plainfolder>", transfer("copy_file")),
    (
        (
            "make|create|save|take a copy|backup|duplicate of <content=bounded> called|named|and_call_it|and_name_it|"
            "as|in|at|to|into|under <files>"
        ),
        _copy,
    ),
    ("combine|concatenate|join|merge|put_together <files=sources> into|in|to|as <file=newfile>", _join),
    ("$make <file=newfile> with|and content|contents|text|message|body :|set_to|of? <content=marked>", _write),
    (
        "$at <folder=surely> ,? $make <file=newfile> with|and content|contents|text|message|body :? <content=marked>",
        _write_in_folder,
    ),
    ("$make <file=newfile> $with <content=givenbounded> in_it|inside|inside_it", _write),
    *[
        row
        for holding, content, bounded in (("$holding", "content", "bounded"), ("$with", "given", "givenbounded"))
        for row in _made_with(holding, content, bounded)
    ],
    ("$make <file=newfile> : <content>", _write),
    (
        "$at <folder=surely> ,? $make <file=newfile>",
        lambda file, folder: _make_files((m.NamedFile(file.path, folder),)) if file.folder == m.ROOT else None,
    ),
    ("create|make|write|add|new|start|prepare|set_up|generate $the? empty|blank <files=newfiles>", _make_empty),
    ("create|make|touch|generate <files=newfiles>", _make_files),
    ("create|make|touch|add $the? two|three|four|following? $new? files called|named|:? <files=newfiles>", _make_files),
    ("overwrite|replace <files> with|by <content=replacing>", _save),
    ("overwrite|replace|set|change|update $the? $contents|what_is of|in|inside <files> with|to|by <content>", _save),
    ("$word|insert <content=worded> $end <files>", _append),
    ("add|log|note|note_down|jot_down|record <content=worded> $onto <files>", _append),
    ("append|attach <content=bounded> $onto <files>", _append),
    ("$append|add $onto <files> " + _SAID + " <content>", _append),
    ("add|append $the? following text|lines|line|content|message? $onto <files> : <content>", _append),
    ("$append|add $onto <files>", lambda files: _append(IT, files)),
    (
        (
            "$save <content=bounded> to|in|into|inside|under <folder=surely> as|under_the_name|called|named|"
            "in_a_file_called <file=newfile>"
        ),
        _write_in_folder,
    ),
    ("$save $the? following|this|these text|lines|line|content|message? $into <files> : <content>", _save),
    ("$word <content=worded> $into <files>", _save),
    ("$keep <content=bounded> $into <files>", _save),
    ("$save $into <files> <content=quoted>", _save),
    ("$save $into <files> " + _SAID + " <content>", _save),
    ("write|save|store|put|export|dump $into <files>", lambda files: _save(IT, files)),
]
_FOLDERS: list[Row] = [
    (
        (
            "create|make|add|new|set_up|mkdir $the? $new? folder|directory|subfolder|dir called|named? "
            "<folder> in|inside|within|under|of <inside=folder>"
        ),
        _make_folder,
    ),
    ("mkdir <folder=oneword>", _make_folder),
    ("create|make|add|new|set_up|mkdir $the? $new? folders|directories|dirs called|named|:? <folders>", _make_folders),
    (
        (
            "create|make|add|new|set_up $the? two|three|four|following folders|directories|dirs called|named|:|,? "
            "<folders>"
        ),
        _make_folders,
    ),
    ("create|make|add|new|set_up|mkdir <folders=newfolders>", _make_folders),
]
_TEXTS: list[Row] = [
    (
        "$summarize <of=text> in|with|into|to|using|as at_most? $the? <sentences=count> short? sentences|sentence",
        lambda of, sentences: show(m.Summary(of, sentences)),
    ),
    ("$summarize <values=texts>", lambda values: m.Show(tuple(m.Summary(value) for value in values))),
    ("summarize|summarise|recap", lambda: show(m.Summary(IT))),
    (
        (
            "count how_many|the_number_of? $the? $short? <measures> there_are|are? in|of|from|inside|within|for? "
            "<values=texts>"
        ),
        lambda measures, values: m.Show(tuple(m.Count(value, each) for value in values for each in measures)),
    ),
    (
        "count its|their|the|all_the|all|how_many? <measures>",
        lambda measures: show(*(m.Count(IT, each) for each in measures)),
    ),
    ("count <of=things>", lambda of: show(m.HowMany(of))),
    ("count <of=found>", lambda of: show(m.HowMany(of))),
    ("head <file>", lambda file: show(m.SomeLines(m.Contents(file), 10))),
    ("tail <file>", lambda file: show(m.SomeLines(m.Contents(file), 10, "tail"))),
    (
        "find|search_for|look_for|locate <name=filename> in|inside|within|under <folder=surely>",
        lambda name, folder: show(m.Search(name, folder)),
    ),
    (
        "find|search_for|look_for|locate the|a|an|any? $file? <name=filename> $anywhere?",
        lambda name: show(m.Search(name)),
    ),
    (
        (
            "search|look|scan|grep|check|find in|inside|through|within? <folder=searched> for "
            "files_containing|files_mentioning|all_files_containing|all_files_mentioning|$anything_with? "
            "<content=query>"
        ),
        lambda folder, content: show(m.Search("*", folder, content)),
    ),
    (
        (
            "search|look|scan|check in|inside|through|within? <folder> for $the? $files $containing $the? "
            "word|text|phrase|string? <content=query>"
        ),
        lambda folder, content: show(m.Search("*", folder, content)),
    ),
    (
        (
            "$scan in|inside|through|within? <of=text> for $the? lines|line|occurrences_of|$anything_with? "
            "$containing? word|text|phrase? <query>"
        ),
        lambda of, query: show(m.LinesWith(of, query)),
    ),
    (
        (
            "search_for|look_for|grep|search $the? word|text|phrase|string? <query> in|inside|within|through "
            "<folder=searched>"
        ),
        lambda query, folder: show(m.Search("*", folder, query)),
    ),
    (
        "in|inside|within <of=text> ,? find|search_for|look_for|locate $the? $lines? $containing? word|text? <query>",
        lambda of, query: show(m.LinesWith(of, query)),
    ),
    (
        (
            "find|search_for|look_for|look_up|grep|search|locate $the? word|text|phrase|string? <query> in|inside|"
            "within|through <of=text>"
        ),
        lambda of, query: show(m.LinesWith(of, query)),
    ),
    ("grep <query> <of=text>", lambda of, query: show(m.LinesWith(of, query))),
]
_PAGES: list[Row] = [
    (
        "$fetch $me? <page> to|into|as|in|and_save_it_to|and_save_it_as <files>",
        _write_page,
    ),
    ("$fetch <page>", lambda page: m.Show((page,))),
]
_SHOWING: list[Row] = [
    ("tell $me? about <file>", lambda file: show(m.Info(file))),
    ("ls|dir", lambda: show(m.Listing(m.ROOT))),
    ("ls|dir <folder=oneword>", lambda folder: show(m.Listing(folder))),
    ("list $me? <values>", _readable),
    ("list <folder=oneword>", lambda folder: show(m.Listing(folder))),
    ("read|open|load|cat <files=allfiles>", lambda files: m.Show((files,))),
    ("print everything in <folder>", lambda folder: m.Show((m.AllContents(folder),))),
    ("$read $me? <file> out_loud|aloud|out|back|again|to_me|for_me?", _read),
    ("$read $me? <values> out_loud|aloud|out|back|again|to_me|for_me?", _to_be_read),
    (
        "read|load|open|show|cat it|this|that back|again|aloud|back_to_me|to_me|out|back_out?",
        lambda: _read(m.FileBack("it")),
    ),
    ("$show|list|search_for|look_for|find $me? <values>", _readable),
    ("$show|open|list $me? <folder=surely>", lambda folder: show(m.Listing(folder))),
    (
        (
            "make|create|write|generate|produce|prepare|do|provide|list|extract|take|build|calculate|compute|"
            "determine|find|work_out|run|collect|pull|pull_out|grab|pick_out $me? <values=made>"
        ),
        m.Show,
    ),
]
TABLE = Table([*_TODOS, *TRANSFERS, *SUMS, *_WRITING, *_FOLDERS, *_PAGES, *_TEXTS, *_SHOWING], WORDS)
