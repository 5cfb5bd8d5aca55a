"""Reads noun phrases: values to show, count, calculate with or write."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from agent_runtime.planners.rules import literals, names, numbers, values
from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.slot_reading import LONGEST, Reading, read_quotation
from agent_runtime.planners.rules.vocabulary import (
    ATTRIBUTES,
    DETERMINERS,
    PRONOUNS,
    QUESTION_WORDS,
    keys_of,
    word_set,
)

_LONGEST_SUM = 4 * LONGEST
_LISTS = word_set("list listing names")
_FILES = word_set("files documents everything")
_BEFORE_QUERY = word_set("for word words text phrase string term line lines")
_NAME_OR_CONTENTS = f'may mean the name or what the file holds: say "the contents of" first, or {literals.QUOTE_IT}'
_ADDRESS_OR_PAGE = f'may mean the address or what the page holds: say "the page at" first, or {literals.QUOTE_IT}'
_NO_QUERY = (
    DETERMINERS
    | PRONOUNS
    | QUESTION_WORDS
    | word_set(
        "line lines word words in of from name names filename filenames title titles text content contents file files "
        "out"
    )
)
_FOUND = {
    ("them",): m.Back("any", "them"),
    ("those",): m.Back("any", "those"),
    ("these",): m.Back("any", "these"),
    ("how", "many", "there", "are"): m.Back("any", "them"),
    ("how", "many", "match"): m.Back("any", "them"),
    ("how", "many", "lines", "match"): m.Back("lines", "the matches"),
    ("the", "matches"): m.Back("lines", "the matches"),
    ("the", "matching", "lines"): m.Back("lines", "the matches"),
}
"""Phrases for things that were found just before, where they are counted."""
_QUERY = re.compile(r"[\w#@][\w#@.'/&-]*")
_ENDING_AT_MOST = 5


def read_value(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read any value that is described or referred to; never literal text."""
    found_number = read_number(reading, tokens)
    if isinstance(found_number, m.Operation | m.Formula):
        return found_number
    found: m.Value | None = values.VALUES.match(tokens, reading.read) if len(tokens) <= LONGEST else None
    found = found or names.read_back(tokens)
    if found is not None:
        return found
    file = names.read_file(tokens)
    if file is not None:
        return m.Contents(file, outright=isinstance(file, m.FileBack))
    return names.read_page(tokens) or found_number


def read_number(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    return numbers.read_number(tokens, reading.source, reading.doubt) if len(tokens) <= _LONGEST_SUM else None


def read_last_operand(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read an operand that ends the instruction. In `add 1 and 2 times 3` the order of operations is ambiguous."""
    found = read_operand(reading, tokens)
    if found is not None and numbers.holds_operator(tokens):
        reading.doubt(tokens, numbers.TWO_ORDERS)
        return None
    return found


def read_last_number(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read as `read_last_operand`, but numbers only."""
    return None if read_number(reading, tokens) is None else read_last_operand(reading, tokens)


def read_operand(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read a number, or a value that is one: a count, a sum, the result, the content of a file."""
    found = read_number(reading, tokens) or read_value(reading, tokens)
    match found:
        case m.Number() | m.Operation() | m.Formula() | m.Count() | m.HowMany():
            return found
        case m.Back(sort="any" | "number"):
            return found
        case m.Contents(file=m.NamedFile(), outright=True):
            return found
        case _:
            return None


def read_operands(_: Reading, tokens: Sequence[Token]) -> tuple[m.Value, ...] | None:
    return numbers.read_numbers(tokens) if len(tokens) <= _LONGEST_SUM else None


def read_text(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read a text to work on: of a file, an earlier one, or a quoted one."""
    page = names.read_page(tokens)
    if page is not None:
        return page
    said = read_quotation(tokens)
    if said is not None and not looks_like_file(said):
        return m.Literally(said)
    rest, sure = literals.strip_markers(tokens)
    announced = read_quotation(rest) if sure else None
    if announced is not None:
        return m.Literally(announced)
    if sure == "said":
        if any(token.kind in {"file", "path", "glob"} for token in rest):
            reading.doubt(rest, f"may be a text or the name of a file: {literals.QUOTE_IT}")
            return None
        return reading.read_literal(rest, sure, tail=True, todo=True)
    found = read_value(reading, tokens)
    if _LISTS.isdisjoint(keys_of(tokens)):
        every = _as_all_contents(tokens, found)
        if every is not None and tokens[0].key == "every":
            reading.doubt(tokens, "may mean each file, or all as one text: name each of them, or say 'all files'")
            return None
        if every is not None:
            return every
        if isinstance(found, m.Listing | m.Search):
            reading.doubt(tokens, "speaks of several files at once: name each of them")
            return None
    return None if isinstance(found, m.Number | m.Operation | m.Formula | m.Info) else found


def read_all_files(reading: Reading, tokens: Sequence[Token]) -> m.AllContents | None:
    """Read all text files of a folder: `all files`, `every file in docs`, `the files`."""
    return _as_all_contents(tokens, read_value(reading, tokens) if _FILES & set(keys_of(tokens)) else None)


def _as_all_contents(tokens: Sequence[Token], value: m.Value | None) -> m.AllContents | None:
    """Return the contents of all files that a phrase speaks of. `value`: what else the phrase may be."""
    if keys_of(tokens[:2]) in {("every", "file"), ("every", "document")}:
        folder = names.read_folder(tokens[3:]) if keys_of(tokens[2:3]) == ("in",) else m.ROOT
        return m.AllContents(folder) if folder and (folder != m.ROOT or len(tokens) == 2) else None  # noqa: PLR2004
    if ("text", "files") in pairwise(keys_of(tokens)) and isinstance(value, m.Search) and value.content is None:
        return m.AllContents(value.folder)
    if not isinstance(value, m.Listing) or _FILES.isdisjoint(keys_of(tokens)):
        return None
    return m.AllContents(value.folder or m.ROOT)


def read_question(reading: Reading, tokens: Sequence[Token]) -> tuple[m.Value, ...] | None:
    """Read `what is in notes.txt`, `how many words it has`, and any noun phrases."""
    found = values.QUESTIONS.match(tokens, reading.read)
    if found is not None:
        return found if isinstance(found, tuple) else (found,)

    def answer(part: Sequence[Token]) -> m.Value | None:
        one = read_placed(reading, part)
        return None if isinstance(one, m.Number) else one

    return _apply_to_each(reading.read_several(tokens, answer))


def read_placed(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read as `read_value`; each of several files may have its own preposition: `in a.txt and in b.txt`."""
    file = names.read_file(tokens[1:]) if tokens[0].key in {"in", "inside", "of", "from"} else None
    return m.Contents(file, outright=False) if isinstance(file, m.NamedFile) else read_value(reading, tokens)


def _apply_to_each(values: tuple[m.Value, ...] | None) -> tuple[m.Value, ...] | None:
    """Apply the description of the first file to the bare files after it: `the summary of a.txt and b.txt`."""
    if values is None:
        return None
    found: list[m.Value] = []
    for one in values:
        before = found[-1] if found else None
        if isinstance(one, m.Contents) and isinstance(one.file, m.NamedFile) and not one.outright:
            if isinstance(before, m.Summary | m.Count | m.SomeLines | m.LinesWith):
                found.append(replace(before, of=one))
                continue
            if isinstance(before, m.Info):
                found.append(m.Info(one.file))
                continue
            if isinstance(before, m.HowMany | m.Operation | m.Formula):
                return None
        found.append(one)
    return tuple(found)


def read_derived(reading: Reading, tokens: Sequence[Token]) -> tuple[m.Value, ...] | None:
    """Read values made from something else: a summary, a count, a list, a sum; no bare file, and not `it`."""
    found = _apply_to_each(reading.read_several(tokens, lambda part: read_placed(reading, part)))
    plain = m.Contents | m.Back | m.Number
    return None if found is None or any(isinstance(one, plain) for one in found) else found


def read_makeable(reading: Reading, tokens: Sequence[Token]) -> tuple[m.Value, ...] | None:
    """Read as `read_derived`, without existing files and todos: `create a file with X` asks for writing."""
    found = read_derived(reading, tokens)
    is_list = not _LISTS.isdisjoint(keys_of(tokens))
    existing = m.Search | m.Todos if is_list else m.Search | m.Listing | m.Todos
    return None if found is None or any(isinstance(one, existing) for one in found) else found


def read_things(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read items that can be counted one by one."""
    found = read_value(reading, tokens)
    if isinstance(found, m.Listing):
        return m.Search("*", found.folder or m.ROOT)
    if isinstance(found, m.HowMany):
        return found.of
    return found if isinstance(found, m.Search | m.Todos | m.LinesWith) else None


def read_found(_: Reading, tokens: Sequence[Token]) -> m.Back | None:
    """Read a reference to things that were found before, to count them."""
    return _FOUND.get(keys_of(tokens))


def read_content(reading: Reading, tokens: Sequence[Token], *, tail: bool = True) -> m.Value | None:
    """Read content to write: described, referred to, or literal."""
    rest, sure = literals.strip_markers(tokens)
    said = read_quotation(tokens)
    if said is None and sure:
        said = read_quotation(rest)
    if said is not None:
        return m.Literally(said)
    if literals.is_only_reference(keys_of(tokens)) and names.read_back(tokens) is None:
        reading.doubt(tokens, f"does not say what the text is: {literals.QUOTE_IT}")
        return None
    structure = read_json(reading, rest)
    if structure is not None:
        return structure
    if not sure and not tail and reading.begins(tokens, 0):
        reading.doubt(tokens, f"begins like an instruction: {literals.QUOTE_IT}")
        return None
    if sure != "said":
        found = read_value(reading, tokens) if len(tokens) <= LONGEST else None
        if isinstance(found, m.Formula) or (
            isinstance(found, m.Operation) and (tokens[0].key not in DETERMINERS or numbers.read_numeral(tokens[0]))
        ):
            why = (
                'may mean these characters or their result: put the characters in quotes, or say "the result of" first'
            )
            reading.doubt(tokens, why)
            return None
        if isinstance(found, m.WebPage) and not found.outright:
            reading.doubt(tokens, _ADDRESS_OR_PAGE)
            return None
        if isinstance(found, m.Contents) and not found.outright and (tail or sure):
            reading.doubt(tokens, _NAME_OR_CONTENTS)
            return None
        if isinstance(found, m.Listing) and tokens[0].key == "everything":
            reading.doubt(tokens, 'may mean the files or their names: say "the list of files", or name each of them')
            return None
        if found is not None and not isinstance(found, m.Number):
            return found
    return reading.read_literal(rest, sure, tail=tail)


def read_json(reading: Reading, tokens: Sequence[Token]) -> m.Literally | None:
    """Read a JSON object or array as literal text: its brackets delimit it as quotation marks would."""
    if tokens[0].key[:1] not in {"{", "["} or tokens[-1].key[-1:] not in {"}", "]"}:
        return None
    text = reading.cut(tokens)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    return m.Literally(text)


def read_bounded(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read content that other words follow, so that its end is clear."""
    return read_content(reading, tokens, tail=False)


def read_given(reading: Reading, tokens: Sequence[Token], *, tail: bool = True) -> m.Value | None:
    """Read content after `create X with`, which may also be a property of the file: `with mode 600`."""
    found = read_content(reading, tokens, tail=tail)
    return None if _is_attribute(reading, tokens, found, plain=len(tokens) == 1) else found


def read_replacement(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read content after `overwrite X with`, unless it is a property of the file."""
    found = read_content(reading, tokens)
    return None if _is_attribute(reading, tokens, found, plain=True) else found


def _is_attribute(reading: Reading, tokens: Sequence[Token], found: m.Value | None, *, plain: bool) -> bool:
    """Return whether these words may be a property of the file: nothing announces a text, and they are not plain."""
    announced = (
        literals.strip_markers(tokens)[1]
        or read_quotation(tokens) is not None
        or read_json(reading, tokens) is not None
    )
    if not isinstance(found, m.Literally) or announced or (plain and ATTRIBUTES.isdisjoint(keys_of(tokens))):
        return False
    why = 'may be the text or something else about the file: say "with the text" before it, or '
    reading.doubt(tokens, why + literals.QUOTE_IT)
    return True


def read_worded(reading: Reading, tokens: Sequence[Token]) -> m.Value | None:
    """Read bounded content after a verb such as `write`, where a bare file name is ambiguous."""
    found = read_bounded(reading, tokens)
    if isinstance(found, m.Contents) and not found.outright:
        reading.doubt(tokens, _NAME_OR_CONTENTS)
        return None
    return found


def read_marked(reading: Reading, tokens: Sequence[Token]) -> m.Literally | None:
    """Read the exact text after words that announce it."""
    said = read_quotation(tokens)
    if said is not None:
        return m.Literally(said)
    return read_json(reading, tokens) or reading.read_literal(tokens, "named", tail=True)


def read_query(reading: Reading, tokens: Sequence[Token]) -> str | None:
    """Read the text to search for: a quotation, or one word. Of several words, some may belong to the instruction."""
    rest = tokens[1:] if tokens[0].key == "the" and len(tokens) > 1 else tokens
    while len(rest) > 1 and rest[0].key in _BEFORE_QUERY:
        rest = rest[1:]
    said = read_quotation(rest)
    if said is not None:
        return said or None
    if len(rest) > 1:
        reading.doubt(rest, f"may not all be what to look for: {literals.QUOTE_IT}")
        return None
    (word,) = rest
    is_plain = word.kind in {"word", "number"} and _QUERY.fullmatch(word.text) and word.key not in _NO_QUERY
    return word.text if is_plain and names.read_back(rest) is None else None


def read_keyword(reading: Reading, tokens: Sequence[Token]) -> str | None:
    """Read one word to search for, in quotes or in capitals: `the sorted lines` does not search for a word."""
    one = len(tokens) == 1 and (tokens[0].kind == "quoted" or tokens[0].text.isupper())
    return read_query(reading, tokens) if one else None


def looks_like_file(said: str) -> bool:
    """Return whether a quotation is more likely the name of a file than a text."""
    stem, dot, ending = said.strip().rpartition(".")
    return bool(
        dot
        and stem
        and ending.isalnum()
        and not ending.isdecimal()
        and len(ending) <= _ENDING_AT_MOST
        and "\n" not in stem
    )
