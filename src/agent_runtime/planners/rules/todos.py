"""Reads todos: the text of new ones, and which existing ones are meant."""

from collections.abc import Sequence
from typing import NamedTuple

from agent_runtime.planners.rules import literals, names, numbers
from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.slot_reading import Reading, read_quotation, split_parts
from agent_runtime.planners.rules.vocabulary import CONTENT_WORDS, SEPARATORS, keys_of, word_set

_PLURAL = word_set("todos tasks reminders")
_TODO = word_set("todo task reminder todos tasks")
_BACKS = {("it",), ("that",), ("this",)} | {(a, b) for a in ("the", "that", "this") for b in _TODO}
_NO_TEXT = word_set(
    "it its and or in on of to the this that with about called named saying what how . , : what my your"
)
_WORDS = 6
"""The most words of a todo that the prompt does not call a todo."""
_LISTS = word_set("list lists items entries file files folder folders directory")
_ABOUT = word_set(
    "about called named to saying for regarding with of : containing mentioning titled number no id # item the"
)
_PARTLY = word_set("about for regarding with of containing mentioning")
"""Words before something that a todo is about, which need not be its text."""
_NOT_ONE = word_set(
    "all every everything last first next second third both each any some i i've we we've you that which"
)
_BEFORE_NAME = word_set("the my a that this open new")
_ANNOUNCING = word_set("to : that saying")
_NO_START = word_set("down to for from on : with called named saying titled about")
_WHOLE_LISTS = frozenset(
    tuple(f"{before} list".split())
    for whose in ("my", "the", "our")
    for before in (
        *(f"{whose} {size} {kind}" for size in ("whole", "entire", "complete") for kind in ("todo", "task")),
        *(
            f"{every} {place} {whose} {kind}"
            for every in ("everything", "all")
            for place in ("on", "in", "from")
            for kind in ("", "todo", "task")
        ),
    )
)
"""Names of the list of todos, where all of them are meant."""
_MANY = word_set("each every all both these those")
_SHORTEST_OF_SEVERAL = 5
_SEVERAL_ABOUT = word_set("about called named regarding mentioning containing saying :")
_NO_VERBS = CONTENT_WORDS | {"new", "another", "one"}
_PAST = word_set("gave told sent made wrote got said had did was were forgot took found left")
_SHORTEST_PAST = 4
_ID_DIGITS = 15
"""The most digits of an id; longer ones would not be exact in JSON."""


def read_todo_text(reading: Reading, tokens: Sequence[Token], *, tail: bool = True) -> str | None:
    """Read the text of one new todo."""
    while len(tokens) > 1 and tokens[0].key in _ANNOUNCING:
        tokens = tokens[1:]
    said = read_quotation(tokens)
    if said is not None:
        return said
    if tail and len(tokens) == 1 and tokens[0].kind == "file":
        reading.doubt(tokens, f"may mean a file to write to: {literals.QUOTE_IT}")
        return None
    if tokens[0].key in _MANY:
        reading.doubt(tokens, f"may mean several todos: put each in quotes, or {literals.QUOTE_IT}")
        return None
    if any(token.key in {"todo", "todos"} for token in tokens[1:]) and not tail:
        reading.doubt(tokens, f"may be two instructions: {literals.QUOTE_IT}")
        return None
    joined = [at + 1 for at, token in enumerate(tokens[:-1]) if token.key in SEPARATORS]
    if any(tokens[at].key in {"to", tokens[0].key} for at in joined):
        reading.doubt(tokens, "may be one todo or several: put each in quotes")
        return None
    if any(tokens[at].key not in _NO_VERBS and reading.knows(tokens, at) for at in joined):
        reading.doubt(tokens, f"may be a todo and another instruction: {literals.QUOTE_IT}")
        return None
    if tokens[0].key in _NO_START or not any(char.isalnum() for char in reading.cut(tokens)):
        return None
    found = reading.read_literal(tokens, "said", tail=tail, todo=True)
    return found.text if found else None


def read_todo_items(reading: Reading, tokens: Sequence[Token]) -> tuple[str, ...] | None:
    """Read new todos that other words follow: quoted ones, or the words of a single one."""
    if any(token.kind == "quoted" for token in tokens):
        return reading.read_several(tokens, read_quotation)
    if any(token.key == "," for token in tokens):
        reading.doubt(tokens, "may be one todo or several: put each in quotes")
        return None
    if reading.read("made", tokens):
        reading.doubt(tokens, f"may mean what it describes: {literals.QUOTE_IT}")
        return None
    pieces = split_parts(tokens)
    if len(pieces) > 1 and any(len(piece) == 1 and piece[0].kind == "number" for piece in pieces):
        reading.doubt(tokens, f"may mean a sum, one todo or several: {literals.QUOTE_IT}")
        return None
    rest, _ = literals.strip_markers(tokens)
    text = read_todo_text(reading, rest, tail=False)
    return (text,) if text else None


def read_todo_list(reading: Reading, tokens: Sequence[Token]) -> tuple[str, ...] | None:
    """Read several new todos, with commas and `and` between them, or each on its own line."""
    if len(tokens) == 1 and tokens[0].kind == "block":
        lines = [line.strip().lstrip("-*•").strip() for line in tokens[0].text.splitlines()]
        return tuple(_strip_number(line) for line in lines if line) or None
    found = [read_quotation(part) or read_todo_text(reading, part) for part in split_parts(tokens)]
    return tuple(each for each in found if each) if found and all(found) else None


def _strip_number(line: str) -> str:
    head, _, rest = line.partition(" ")
    return rest.strip() if rest and head[:-1].isdecimal() and head[-1] in ".)" else line


def read_todos(reading: Reading, tokens: Sequence[Token]) -> tuple[m.WhichTodo, ...] | None:
    """Read existing todos by number, by a part of their text, or as the one mentioned last."""
    several = _read_all(reading, tokens) or _read_several(reading, tokens)
    if several:
        return several
    found = _read_one(reading, tokens)
    if found:
        return (found,)
    rest = tokens[1:] if tokens[0].key in {"the", "my"} else tokens
    rest = rest[1:] if rest and rest[0].key in {"todos", "tasks", "todo", "items"} else rest
    rest = rest[1:] if rest and rest[0].key in {"number", "numbers"} else rest
    ids = reading.read_several(rest, _read_number) if rest else None
    return tuple(m.WhichTodo(id=each) for each in ids) if ids else None


def _read_all(reading: Reading, tokens: Sequence[Token]) -> tuple[m.WhichTodo, ...] | None:
    """Read `all todos`, `all my open todos`, `the completed todos`, `my whole todo list`, `everything on my list`."""
    if keys_of(tokens) in _WHOLE_LISTS:
        return (m.WhichTodo(every="all"),)
    found = reading.read("things", tokens) if not _PLURAL.isdisjoint(keys_of(tokens)) else None
    if not isinstance(found, m.Todos) or (found.status != "done" and tokens[0].key != "all"):
        return None
    return (m.WhichTodo(every=found.status),)


def _read_several(reading: Reading, tokens: Sequence[Token]) -> tuple[m.WhichTodo, ...] | None:
    """Read `the todos about milk and Anna`: the plural says that there are several."""
    rest = tokens[1:] if tokens[0].key in {"the", "my"} else tokens
    if len(rest) < _SHORTEST_OF_SEVERAL or rest[0].key not in _PLURAL or rest[1].key not in _SEVERAL_ABOUT:
        return None
    found = reading.read_several(rest[2:], lambda part: _read_one(reading, (rest[0], rest[1], *part)))
    return found if found and len(found) > 1 else None


def read_named_todos(reading: Reading, tokens: Sequence[Token]) -> tuple[m.WhichTodo, ...] | None:
    """Read as `read_todos`, where something else could be meant too, so that a word for todo is required."""
    said = keys_of(tokens)
    calls_it_so = _strip_noun(tokens).noun or said[0] in _TODO or said[-1] in _TODO
    return read_todos(reading, tokens) if calls_it_so or said in _BACKS | _WHOLE_LISTS else _read_all(reading, tokens)


def _read_one(reading: Reading, tokens: Sequence[Token]) -> m.WhichTodo | None:
    said = keys_of(tokens)
    if said in _BACKS:
        return m.WhichTodo()
    if said[-1] == "as":
        return None  # it belongs to what follows: `as done`
    rest, determined, noun, partly = _strip_noun(tokens)
    number = _read_number(tokens)
    if number is not None:
        return m.WhichTodo(id=number)
    if not rest or (noun and rest[0].key in _LISTS) or rest[0].kind in {"number", "punct"}:
        return None
    which = names.WHICH.issuperset(keys_of(rest)) and read_quotation(rest) is None
    if rest[0].key in _NOT_ONE or which or (tokens[-1].key in _PLURAL and read_quotation(rest) is None):
        reading.doubt(tokens, "does not name one todo: give its number or its text")
        return None
    text = read_quotation(rest)
    if text is not None:
        return m.WhichTodo(text=text, partly=partly)
    if not noun and (determined or len(rest) > _WORDS or not _TODO.isdisjoint(said) or said[0] in _NO_TEXT):
        return None
    if len(rest) > 1 and rest[-1].key in {"one", "item"}:
        rest = rest[:-1]
    if any(token.key in {"and", "or", ","} for token in rest):
        reading.doubt(rest, f"may mean one todo or several: {literals.QUOTE_IT}")
        return None
    follows_noun = rest[0] is not tokens[0] and tokens[len(tokens) - len(rest) - 1].key in _TODO
    if follows_noun and any(_is_past(token.key) for token in rest[1:]):
        reading.doubt(tokens, f"may describe a todo or give its text: {literals.QUOTE_IT}, or give its number")
        return None
    found = reading.read_literal(rest, "said", tail=False, todo=noun)
    return m.WhichTodo(text=found.text, partly=partly) if found else None


def _is_past(word: str) -> bool:
    """Return whether a word may say what somebody did with a todo, as in `the todo Anna gave me`."""
    return word in _PAST or (word.endswith("ed") and not word.endswith("eed") and len(word) > _SHORTEST_PAST)


class _Naming(NamedTuple):
    """The words that name a todo. `determined`: a determiner stood before them. `noun`: the prompt calls it a todo.
    `partly`: they may be a part of its text.
    """

    words: Sequence[Token]
    determined: bool
    noun: bool
    partly: bool


def _strip_noun(tokens: Sequence[Token]) -> _Naming:
    """Return the words that name the todo, without those around them."""
    rest = tokens
    while len(rest) > 1 and rest[0].key in _BEFORE_NAME:
        rest = rest[1:]
    determined = len(rest) < len(tokens)
    if rest[0].key in _TODO:
        rest = rest[2:] if keys_of(rest[1:2]) in {("item",), ("entry",)} and rest[2:] else rest[1:]
        partly = False
        while len(rest) > 1 and (rest[0].key in _ABOUT or keys_of(rest[:2]) == ("that", "says")):
            partly = partly or rest[0].key in _PARTLY
            rest = rest[2:] if rest[0].key == "that" else rest[1:]
        return _Naming(rest, determined, noun=True, partly=partly)
    if rest[-1].key in _TODO and len(rest) > 1:
        return _Naming(rest[:-1], determined, noun=True, partly=True)
    return _Naming(rest, determined, noun=False, partly=False)


def _read_number(tokens: Sequence[Token]) -> int | None:
    """Read the number of a todo: `todo 3`, `#3`, `3`. Before the noun, as in `3 todos`, a number counts
    them instead.
    """
    rest = _strip_noun(tokens).words
    return _read_id(rest) if rest and tokens[-1].key not in _TODO else None


def _read_id(tokens: Sequence[Token]) -> int | None:
    """Read the number of a todo, in digits or words, perhaps after `#` or `number`."""
    while len(tokens) > 1 and tokens[0].key in {"#", "number", "no", "id"}:
        tokens = tokens[1:]
    digits = tokens[0].text.removeprefix("#") if len(tokens) == 1 else ""
    if digits.isascii() and digits.isdecimal():
        return int(digits) or None if len(digits) <= _ID_DIGITS else None
    return numbers.read_count(tokens) or None
