"""The readers of the gaps, by the names in the tables."""

from collections.abc import Mapping, Sequence

from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules import names, numbers, phrases, todos
from agent_runtime.planners.rules.conditions import read_amount, read_counted_amount, read_measured_amount
from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.slot_reading import Reading, SlotReader, read_quotation, split_parts
from agent_runtime.planners.rules.vocabulary import keys_of

_MEASURES: dict[str, m.Measure] = {
    "word": "words", "words": "words", "character": "characters", "characters": "characters",
    "chars": "characters", "line": "lines", "lines": "lines", "rows": "lines",
}  # fmt: skip


def _read_measure(reading: Reading, tokens: Sequence[Token]) -> m.Measure | None:
    if tokens[0].key in {"letter", "letters"}:
        reading.doubt(tokens[:1], 'cannot be counted apart from other signs: say "characters" if these are meant')
    return _MEASURES.get(tokens[0].key) if len(tokens) == 1 else None


def _read_measures(reading: Reading, tokens: Sequence[Token]) -> tuple[m.Measure, ...] | None:
    """Read one measure, or several, each perhaps with its article: `the words and the lines`."""
    return reading.read_several(
        tokens, lambda part: _read_measure(reading, part[1:] if part[0].key == "the" and len(part) > 1 else part)
    )


def _read_new_file(reading: Reading, tokens: Sequence[Token]) -> m.File | None:
    found = _read_files(reading, tokens)
    return found[0] if found and len(found) == 1 and isinstance(found[0], m.NamedFile) else None


def _read_new_files(reading: Reading, tokens: Sequence[Token]) -> tuple[m.File, ...] | None:
    found = _read_files(reading, tokens)
    return found if found and all(isinstance(file, m.NamedFile) for file in found) else None


def _read_files(reading: Reading, tokens: Sequence[Token]) -> tuple[m.File, ...] | None:
    """Read files to write. A quotation that is not called a file, or named like one, may be anything."""
    found = names.read_files(tokens)
    called = names.FILE_NOUNS & set(keys_of(tokens))
    if found and not called and any(t.kind == "quoted" and not phrases.looks_like_file(t.text) for t in tokens):
        reading.doubt(tokens, 'may be something else than a file: say "the file" before its name')
        return None
    return found


def _read_holder(reading: Reading, tokens: Sequence[Token]) -> m.File | None:
    """Read a file where a folder could stand too: a quotation must be called a file, or be named like one."""
    found = names.read_file(tokens)
    called = names.FILE_NOUNS & set(keys_of(tokens))
    if found and not called and any(t.kind == "quoted" and not phrases.looks_like_file(t.text) for t in tokens):
        reading.doubt(tokens, 'may be a file or a folder: say "the file" or "the folder" before its name')
        return None
    return found


def _read_file_name(_: Reading, tokens: Sequence[Token]) -> str | None:
    found = names.read_file(tokens)
    said = read_quotation(tokens)
    named = (
        isinstance(found, m.NamedFile) and found.folder == m.ROOT and (said is None or phrases.looks_like_file(said))
    )
    return found.path if named and isinstance(found, m.NamedFile) else None


def _read_formula(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    found = phrases.read_number(reading, tokens)
    return found if isinstance(found, m.Formula) else None


def _read_named_folder(reading: Reading, tokens: Sequence[Token]) -> m.Folder | None:
    """Read a folder where something else could be meant: `in the fridge`."""
    found = names.read_folder(tokens)
    if found is None and names.read_folder(tokens, sure=True):
        reading.doubt(tokens, 'may be a folder or something else: say "folder" after its name')
    return found


def _read_searched_folder(reading: Reading, tokens: Sequence[Token]) -> m.Folder | None:
    """Read where a text is searched for: a folder, or all files of one."""
    every = phrases.read_all_files(reading, tokens)
    return every.folder if every else names.read_folder(tokens, sure=tokens[-1].kind == "quoted")


def _read_place(_: Reading, tokens: Sequence[Token]) -> m.Folder | None:
    """Read a folder with its preposition."""
    return names.read_folder(tokens[1:], sure=True) if tokens[0].key in {"in", "inside", "under"} else None


def _read_folders(tokens: Sequence[Token], *, sure: bool) -> tuple[m.Folder, ...] | None:
    found = [names.read_new_folder(part, sure=sure) for part in split_parts(tokens)]
    return tuple(each for each in found if each) if found and all(found) else None


def _read_placed_text(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read a text; each of several may have its own preposition: `in a.txt and in b.txt`."""
    has_place = tokens[0].key in {"in", "of", "from"} and len(tokens) > 1
    return phrases.read_text(reading, tokens[1:] if has_place else tokens)


def _read_quoted(_: Reading, tokens: Sequence[Token]) -> m.Literally | None:
    said = read_quotation(tokens)
    return None if said is None else m.Literally(said)


READERS: Mapping[str, SlotReader] = {
    "file": lambda _, tokens: names.read_file(tokens),
    "holder": _read_holder,
    "files": _read_files,
    "sources": lambda _, tokens: names.read_files(tokens),
    "newfile": _read_new_file,
    "newfiles": _read_new_files,
    "filename": _read_file_name,
    "page": lambda _, tokens: names.read_page(tokens),
    "folder": lambda _, tokens: names.read_folder(tokens, sure=True),
    "surely": lambda _, tokens: names.read_folder(tokens),
    "searched": _read_searched_folder,
    "where": _read_place,
    "namedfolder": _read_named_folder,
    "plainfolder": lambda _, tokens: None if tokens[-1].kind == "file" else names.read_folder(tokens, sure=True),
    "oneword": lambda _, tokens: names.read_folder(tokens, sure=True) if len(tokens) == 1 else None,
    "folders": lambda _, tokens: _read_folders(tokens, sure=True),
    "newfolders": lambda _, tokens: _read_folders(tokens, sure=False),
    "pattern": lambda _, tokens: names.read_pattern(tokens),
    "name": lambda _, tokens: names.read_pattern(tokens),
    "type": lambda _, tokens: names.read_type(tokens),
    "glob": lambda _, tokens: tokens[0].text if len(tokens) == 1 and tokens[0].kind == "glob" else None,
    "count": lambda _, tokens: numbers.read_count(tokens) or None,
    "measure": _read_measure,
    "measures": _read_measures,
    "wordamount": read_measured_amount,
    "thingamount": read_counted_amount,
    "amount": read_amount,
    "number": phrases.read_number,
    "formula": _read_formula,
    "num": phrases.read_operand,
    "last": phrases.read_last_operand,
    "lastnumber": phrases.read_last_number,
    "nums": phrases.read_operands,
    "text": phrases.read_text,
    "allfiles": phrases.read_all_files,
    "texts": lambda reading, tokens: reading.read_several(tokens, lambda part: _read_placed_text(reading, part)),
    "values": phrases.read_question,
    "derived": phrases.read_derived,
    "made": phrases.read_makeable,
    "things": phrases.read_things,
    "kinds": phrases.read_things,
    "found": phrases.read_found,
    "query": phrases.read_query,
    "keyword": phrases.read_keyword,
    "content": phrases.read_content,
    "bounded": phrases.read_bounded,
    "worded": phrases.read_worded,
    "given": phrases.read_given,
    "givenbounded": lambda reading, tokens: phrases.read_given(reading, tokens, tail=False),
    "replacing": phrases.read_replacement,
    "marked": phrases.read_marked,
    "quoted": _read_quoted,
    "todo_text": todos.read_todo_text,
    "todo_items": todos.read_todo_items,
    "todo_list": todos.read_todo_list,
    "todos": todos.read_todos,
    "named_todos": todos.read_named_todos,
}
