"""The readers of the gaps, by the names that the tables use for them."""

from collections.abc import Mapping, Sequence

from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules import names, numbers, phrases, todos
from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.reading import Reader, Reading, parts, quoted
from agent_runtime.planners.rules.vocabulary import keys

_MEASURES: dict[str, m.Measure] = {
    "word": "words", "words": "words", "character": "characters", "characters": "characters",
    "chars": "characters", "line": "lines", "lines": "lines", "rows": "lines",
}  # fmt: skip


def _measure(reading: Reading, tokens: Sequence[Token]) -> m.Measure | None:
    if tokens[0].key in {"letter", "letters"}:
        reading.doubt(tokens[:1], 'cannot be counted apart from other signs: say "characters" if these are meant')
    return _MEASURES.get(tokens[0].key) if len(tokens) == 1 else None


def _new_file(reading: Reading, tokens: Sequence[Token]) -> m.File | None:
    found = _files(reading, tokens)
    return found[0] if found and len(found) == 1 and isinstance(found[0], m.NamedFile) else None


def _new_files(reading: Reading, tokens: Sequence[Token]) -> tuple[m.File, ...] | None:
    found = _files(reading, tokens)
    return found if found and all(isinstance(file, m.NamedFile) for file in found) else None


def _files(reading: Reading, tokens: Sequence[Token]) -> tuple[m.File, ...] | None:
    """Files to be written: what is only quoted, and neither called a file nor named like one, may be anything."""
    found = names.read_files(tokens)
    called = names.FILE_NOUNS & set(keys(tokens))
    if found and not called and any(t.kind == "quoted" and not phrases.looks_like_file(t.text) for t in tokens):
        reading.doubt(tokens, 'may be something else than a file: say "the file" before its name')
        return None
    return found


def _file_name(_: Reading, tokens: Sequence[Token]) -> str | None:
    found = names.read_file(tokens)
    said = quoted(tokens)
    named = (
        isinstance(found, m.NamedFile) and found.folder == m.ROOT and (said is None or phrases.looks_like_file(said))
    )
    return found.path if named and isinstance(found, m.NamedFile) else None


def _formula(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    found = phrases.number(reading, tokens)
    return found if isinstance(found, m.Formula) else None


def _named_folder(reading: Reading, tokens: Sequence[Token]) -> m.Folder | None:
    """A folder where something else could be meant: `in the fridge`."""
    found = names.read_folder(tokens)
    if found is None and names.read_folder(tokens, sure=True):
        reading.doubt(tokens, 'may be a folder or something else: say "folder" after its name')
    return found


def _place(_: Reading, tokens: Sequence[Token]) -> m.Folder | None:
    """A folder with its preposition."""
    return names.read_folder(tokens[1:], sure=True) if tokens[0].key in {"in", "inside", "under"} else None


def _folders(tokens: Sequence[Token], *, sure: bool) -> tuple[m.Folder, ...] | None:
    found = [names.read_folder(part, sure=sure) for part in parts(tokens)]
    return tuple(each for each in found if each) if found and all(found) else None


def _placed_text(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """A text; of several, each may have its own preposition: `in a.txt and in b.txt`."""
    has_place = tokens[0].key in {"in", "of", "from"} and len(tokens) > 1
    return phrases.text(reading, tokens[1:] if has_place else tokens)


def _quotation(_: Reading, tokens: Sequence[Token]) -> m.Literally | None:
    said = quoted(tokens)
    return None if said is None else m.Literally(said)


READERS: Mapping[str, Reader] = {
    "file": lambda _, tokens: names.read_file(tokens),
    "files": _files,
    "newfile": _new_file,
    "newfiles": _new_files,
    "filename": _file_name,
    "page": lambda _, tokens: names.read_page(tokens),
    "folder": lambda _, tokens: names.read_folder(tokens, sure=True),
    "surely": lambda _, tokens: names.read_folder(tokens),
    "where": _place,
    "namedfolder": _named_folder,
    "oneword": lambda _, tokens: names.read_folder(tokens, sure=True) if len(tokens) == 1 else None,
    "folders": lambda _, tokens: _folders(tokens, sure=True),
    "newfolders": lambda _, tokens: _folders(tokens, sure=False),
    "pattern": lambda _, tokens: names.read_pattern(tokens),
    "name": lambda _, tokens: names.read_pattern(tokens),
    "type": lambda _, tokens: names.read_type(tokens),
    "glob": lambda _, tokens: tokens[0].text if len(tokens) == 1 and tokens[0].kind == "glob" else None,
    "count": lambda _, tokens: numbers.count_of(tokens) or None,
    "measure": _measure,
    "number": phrases.number,
    "formula": _formula,
    "num": phrases.operand,
    "last": phrases.last_operand,
    "lastnumber": phrases.last_number,
    "nums": phrases.operands,
    "text": phrases.text,
    "texts": lambda reading, tokens: reading.several(tokens, lambda part: _placed_text(reading, part)),
    "values": phrases.question,
    "derived": phrases.derived,
    "made": phrases.made,
    "things": phrases.things,
    "kinds": phrases.things,
    "query": phrases.query,
    "keyword": phrases.keyword,
    "content": phrases.content,
    "bounded": phrases.bounded,
    "worded": phrases.worded,
    "given": phrases.given,
    "givenbounded": lambda reading, tokens: phrases.given(reading, tokens, tail=False),
    "replacing": phrases.replacing,
    "marked": phrases.marked,
    "quoted": _quotation,
    "todo_text": todos.todo_text,
    "todo_items": todos.todo_items,
    "todo_list": todos.todo_list,
    "todos": todos.which_todos,
    "named_todos": todos.named_todos,
}
