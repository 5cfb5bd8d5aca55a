"""What may stand in the gaps of a frame: one reader for each kind of gap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.services.rules import literals, names, numbers, values
from agent_runtime.services.rules import meaning as m
from agent_runtime.services.rules.lexer import Token
from agent_runtime.services.rules.vocabulary import DETERMINERS, keys

_LONGEST = 60
"""A phrase of more tokens than this is no name, number or description."""
_DEPTH = 5
"""`the summary of the contents of the first file` is three deep."""
_MEASURES: dict[str, m.Measure] = {
    "word": "words", "words": "words", "character": "characters", "characters": "characters", "letters": "characters",
    "chars": "characters", "letter": "characters", "line": "lines", "lines": "lines", "rows": "lines",
}  # fmt: skip
_BACKS: dict[str, m.Sort] = {
    "it": "any", "this": "any", "that": "any", "them": "any", "these": "any", "those": "any", "result": "any",
    "results": "any", "output": "any", "answer": "any", "outcome": "any", "value": "any", "response": "any",
    "count": "number", "number": "number", "sum": "number", "product": "number", "total": "number",
    "difference": "number", "quotient": "number", "average": "number", "figure": "number", "numbers": "number",
    "contents": "text", "content": "text", "text": "text", "summary": "summary", "list": "list", "listing": "list",
    "lines": "lines", "matches": "lines", "names": "list",
}  # fmt: skip
_POINTING = frozenset({"the", "that", "this", "its", "these", "those", "their"})
_FILLERS = frozenset(
    "final last previous above whole resulting full entire word line file short new current matching result same".split()
)
_ALONE = frozenset({"it", "this", "that", "them", "these", "those", "result", "results"})


@dataclass(slots=True)
class Reading:
    """The reading of one instruction: the prompt it stands in, and the doubts that came up on the way.

    `courtesy`: what was taken off its end. `ending`: the punctuation after it that belongs to it.
    """

    source: str
    courtesy: str = ""
    ending: str = ""
    doubts: list[tuple[str, str]] = field(default_factory=list)
    _depth: int = 0

    def read(self, slot: str, tokens: Sequence[Token]) -> Any:
        """What these tokens are as this slot; None where they are no such thing."""
        if not tokens or (len(tokens) > _LONGEST and slot not in _LONG) or self._depth >= _DEPTH:
            return None
        self._depth += 1
        try:
            return _READERS[slot](self, tokens)
        finally:
            self._depth -= 1

    def cut(self, tokens: Sequence[Token]) -> str:
        """The prompt's own text of these tokens."""
        return self.source[tokens[0].start : tokens[-1].end]

    def doubt(self, tokens: Sequence[Token], why: str) -> None:
        """Remember why this was not read; the first doubt is the one that is told."""
        self.doubts.append((self.cut(tokens), why))

    # Values

    def value(self, tokens: Sequence[Token]) -> m.Value | None:
        """Anything that can be had, described or pointed at; never literal text."""
        number = self.number(tokens)
        if isinstance(number, m.Operation | m.Formula):
            return number
        found: m.Value | None = values.VALUES.match(tokens, self.read) if len(tokens) <= _LONGEST else None
        if found is not None:
            return found
        back = self.back(tokens)
        if back is not None:
            return back
        file = names.read_file(tokens)
        if file is not None and not isinstance(file, m.FileBack):
            return m.Contents(file, outright=False)
        if isinstance(file, m.FileBack):
            return m.Contents(file)
        return number

    def back(self, tokens: Sequence[Token]) -> m.Back | None:
        words = list(keys(list(tokens)))
        said = " ".join(words)
        pointing = words[0] in _POINTING and len(words) > 1
        rest = words[1:] if pointing else words
        while len(rest) > 1 and rest[0] in _FILLERS:
            rest = rest[1:]
        if len(rest) != 1 or rest[0] not in _BACKS or not (pointing or rest[0] in _ALONE):
            return None
        return m.Back(_BACKS[rest[0]], said)

    def number(self, tokens: Sequence[Token]) -> m.Value | None:
        return numbers.read_number(tokens, self.source) if len(tokens) <= 4 * _LONGEST else None

    def operand(self, tokens: Sequence[Token]) -> m.Value | None:
        """A number, or something that is one: a count, a sum, the result."""
        found = self.number(tokens)
        if found is not None:
            return found
        value = self.value(tokens)
        if isinstance(value, m.Back) and value.sort in {"any", "number"}:
            return value
        countable = isinstance(value, m.Count | m.HowMany | m.Operation | m.Formula)
        in_a_file = isinstance(value, m.Contents) and value.outright and isinstance(value.file, m.NamedFile)
        return value if countable or in_a_file else None

    def operands(self, tokens: Sequence[Token]) -> tuple[m.Value, ...] | None:
        return numbers.read_numbers(tokens)

    def text(self, tokens: Sequence[Token]) -> m.Value | None:
        """A text to work on: a file's, one that came before, or a quoted one."""
        if (
            len(tokens) == 1
            and tokens[0].kind == "quoted"
            and names.read_pattern(tokens)
            and not _looks_like_file(tokens[0])
        ):
            return m.Literally(tokens[0].text)
        rest, sure = literals.unmarked(tokens)
        if sure and len(rest) == 1 and rest[0].kind in {"quoted", "block"}:
            return m.Literally(rest[0].text)
        if sure == "said":
            return self.literal(rest, sure, tail=True, courteous=True)
        if len(tokens) == 1 and tokens[0].kind == "block":
            return m.Literally(tokens[0].text)
        value = self.value(tokens)
        if isinstance(value, m.Listing | m.Search) and not {"list", "listing", "names"} & set(keys(list(tokens))):
            return self._refused(tokens, "speaks of several files at once: name each of them")
        return None if isinstance(value, m.Number | m.Operation | m.Formula | m.Info) else value

    def several(self, tokens: Sequence[Token], read: Callable[[Sequence[Token]], Any]) -> tuple[Any, ...] | None:
        """One value, or several with commas and `and` between them."""
        one = read(tokens)
        if one is not None:
            return (one,)
        found: list[Any] = []
        for part in _parts(tokens):
            value = read(part)
            if value is None:
                return None
            found.append(value)
        return tuple(found) if len(found) > 1 else None

    def question(self, tokens: Sequence[Token]) -> tuple[m.Value, ...] | None:
        """`what is in notes.txt`, `how many words it has`, and any noun phrase."""
        found = values.QUESTIONS.match(tokens, self.read)
        if found is not None:
            return found if isinstance(found, tuple) else (found,)
        return self.several(tokens, self._answerable)

    def _answerable(self, tokens: Sequence[Token]) -> m.Value | None:
        value = self.value(tokens)
        return None if isinstance(value, m.Number) else value

    def derived(self, tokens: Sequence[Token]) -> tuple[m.Value, ...] | None:
        """What has to be made from something else: a summary, a count, a list, a sum; not a bare file or `it`."""
        found = self.several(tokens, self.value)
        plain = m.Contents | m.Back | m.Number
        return None if found is None or any(isinstance(value, plain) for value in found) else found

    def made(self, tokens: Sequence[Token]) -> tuple[m.Value, ...] | None:
        """As `derived`, without files to be found: who says `create a file with X` wants to write."""
        found = self.derived(tokens)
        return None if found is None or any(isinstance(value, m.Search) for value in found) else found

    def things(self, tokens: Sequence[Token]) -> m.Value | None:
        """What can be counted one by one."""
        value = self.value(tokens)
        if isinstance(value, m.Listing):
            return m.Search("*", value.folder or m.ROOT)
        return value if isinstance(value, m.Search | m.Todos | m.LinesWith) else None

    # Literal text

    def content(self, tokens: Sequence[Token], *, tail: bool = True) -> m.Value | None:
        """What to write: described, pointed at, or word by word."""
        if len(tokens) == 1 and tokens[0].kind in {"quoted", "block"}:
            return m.Literally(tokens[0].text)
        rest, sure = literals.unmarked(tokens)
        if sure and len(rest) == 1 and rest[0].kind in {"quoted", "block"}:
            return m.Literally(rest[0].text)
        if sure != "said":
            value = self.value(tokens) if len(tokens) <= _LONGEST else None
            if isinstance(value, m.Formula) or (isinstance(value, m.Operation) and tokens[0].key not in DETERMINERS):
                return self._refused(tokens, "may mean these characters or their result: put the characters in quotes, "
                                     'or say "the result of" before them')  # fmt: skip
            assumed = isinstance(value, m.Contents) and not value.outright and sure
            if value is not None and not isinstance(value, m.Number) and not assumed:
                return value
        return self.literal(rest, sure, tail=tail)

    def literal(self, tokens: Sequence[Token], sure: str, *, tail: bool, courteous: bool = False) -> m.Literally | None:
        why = literals.doubt_about(tokens, sure, tail=tail, files=not courteous)
        if self.back(tokens) is not None:
            why = f"may speak of something that came before: {literals.QUOTE_IT}"
        if tail and self.courtesy and not courteous:
            why = why or f"may or may not end with {self.courtesy!r}: {literals.QUOTE_IT}"
        if why:
            return self._refused(tokens, why)
        return m.Literally(self.cut(tokens) + (self.ending if tail and not courteous else ""))

    def _refused(self, tokens: Sequence[Token], why: str) -> None:
        self.doubt(tokens, why)

    def bounded(self, tokens: Sequence[Token]) -> m.Value | None:
        """Content that other words follow, so that its end is plain."""
        return self.content(tokens, tail=False)

    def marked(self, tokens: Sequence[Token]) -> m.Literally | None:
        """The exact text after words that announce it."""
        if len(tokens) == 1 and tokens[0].kind in {"quoted", "block"}:
            return m.Literally(tokens[0].text)
        return self.literal(tokens, "named", tail=True)

    def worded(self, tokens: Sequence[Token]) -> m.Value | None:
        """Bounded content after a verb such as `write`, which takes words: a bare file name there is in doubt."""
        value = self.bounded(tokens)
        if isinstance(value, m.Contents) and not value.outright:
            return self._refused(
                tokens, f'may mean the name or what the file holds: say "the contents of", or {literals.QUOTE_IT}'
            )
        return value

    def folders(self, tokens: Sequence[Token], *, sure: bool) -> tuple[m.Folder, ...] | None:
        """Several folders; where nothing before them says so, each must call itself one."""
        found = [names.read_folder(part, sure=sure) for part in _parts(tokens)]
        return tuple(each for each in found if each) if found and all(found) else None

    def todo_text(self, tokens: Sequence[Token], *, tail: bool = True) -> str | None:
        if len(tokens) == 1 and tokens[0].kind in {"quoted", "block"}:
            return tokens[0].text
        while len(tokens) > 1 and tokens[0].key in {"to", ":", "that", "saying"}:
            tokens = tokens[1:]
        if len(tokens) == 1 and tokens[0].kind in {"quoted", "block"}:
            return tokens[0].text
        found = self.literal(tokens, "said", tail=tail, courteous=True) if _can_be_todo(tokens) else None
        return found.text if found else None

    def todo_items(self, tokens: Sequence[Token]) -> tuple[str, ...] | None:
        """Todos that other words follow: quoted ones, or the words of a single one."""
        if any(token.kind == "quoted" for token in tokens):
            quoted = self.several(
                tokens, lambda part: part[0].text if len(part) == 1 and part[0].kind == "quoted" else None
            )
            return tuple(quoted) if quoted else None
        if any(token.key == "," for token in tokens):
            return self._refused(tokens, f"may be one todo or several: {literals.QUOTE_IT}, one by one")
        rest, _ = literals.unmarked(tokens)
        text = self.todo_text(rest, tail=False)
        return (text,) if text else None

    def todo_list(self, tokens: Sequence[Token]) -> tuple[str, ...] | None:
        """Several todos, with commas and `and` between them, or one on a line."""
        if len(tokens) == 1 and tokens[0].kind == "block":
            lines = [line.strip().lstrip("-*•").strip() for line in tokens[0].text.splitlines()]
            return tuple(_without_number(line) for line in lines if line) or None
        return self.several(tokens, self._one_of_list)

    def _one_of_list(self, tokens: Sequence[Token]) -> str | None:
        if any(token.key in {",", "and"} for token in tokens):
            return None
        return self.todo_text(tokens)

    def query(self, tokens: Sequence[Token]) -> str | None:
        """What to look for: a quotation, or the words themselves."""
        rest = tokens
        if rest[0].key in {"the", "a"} and len(rest) > 1:
            rest = rest[1:]
        while len(rest) > 1 and rest[0].key in {
            "word",
            "words",
            "text",
            "phrase",
            "string",
            "term",
            "line",
            "lines",
            "name",
        }:
            rest = rest[1:]
        if len(rest) == 1 and rest[0].kind == "quoted":
            return rest[0].text or None
        plain = all(token.kind in {"word", "number", "punct"} for token in rest) and len(rest) <= 10  # noqa: PLR2004
        pointing = self.back(tokens) is not None or any(token.key in {"it", "them"} for token in rest)
        return self.cut(rest) if plain and not pointing else None

    def keyword(self, tokens: Sequence[Token]) -> str | None:
        """One word to look for that is no word about lines."""
        about_lines = {
            "last",
            "final",
            "first",
            "other",
            "next",
            "same",
            "longest",
            "shortest",
            "empty",
            "blank",
            "new",
        }
        return (
            self.query(tokens)
            if len(tokens) == 1 and tokens[0].key not in about_lines and tokens[0].kind != "number"
            else None
        )

    # Todos that exist

    def which_todos(self, tokens: Sequence[Token]) -> tuple[m.WhichTodo, ...] | None:
        """Todos by number, by a part of their text, or the one that was spoken of last."""
        found = self._todo(tokens)
        if found:
            return (found,)
        rest = tokens[1:] if tokens[0].key in {"the", "my"} else tokens
        rest = rest[1:] if rest and rest[0].key in {"todos", "tasks", "todo", "items"} else rest
        rest = rest[1:] if rest and rest[0].key in {"number", "numbers"} else rest
        ids = self.several(rest, _todo_id) if rest else None
        return tuple(m.WhichTodo(id=each) for each in ids) if ids else None

    def _todo(self, tokens: Sequence[Token]) -> m.WhichTodo | None:
        words = keys(list(tokens))
        if words in {("it",), ("that",), ("this",)} or words in {
            (a, b) for a in ("the", "that", "this") for b in _TODO
        }:
            return m.WhichTodo()
        rest = tokens
        determined = False
        while len(rest) > 1 and rest[0].key in {"the", "my", "a", "that", "this", "open", "new"}:
            rest, determined = rest[1:], True
        noun = rest[0].key in _TODO
        if noun:
            rest = rest[2:] if len(rest) > 2 and rest[1].key in {"item", "entry"} else rest[1:]  # noqa: PLR2004
            while len(rest) > 1 and (rest[0].key in _ABOUT or keys(list(rest[:2])) == ("that", "says")):
                rest = rest[2:] if rest[0].key == "that" else rest[1:]
        elif rest[-1].key in _TODO and len(rest) > 1:
            rest, noun = rest[:-1], True
            if rest[-1].key == "todo" and len(rest) > 1:
                rest = rest[:-1]
        number = _todo_id(rest) if rest else None
        if number is not None:
            return m.WhichTodo(id=number)
        if noun and rest and rest[0].key in {"list", "lists", "items", "entries"}:
            return None
        if rest and rest[0].key in _NOT_ONE:
            return self._refused(tokens, "does not name one todo: give its number or its text")
        if not rest or (determined and not noun and rest[0].kind != "quoted"):
            return None
        if len(rest) == 1 and rest[0].kind == "quoted":
            return m.WhichTodo(text=rest[0].text)
        if len(rest) > 1 and rest[-1].key in {"one", "item"}:
            rest = rest[:-1]
        found = self.literal(rest, "said", tail=False, courteous=True) if rest[0].kind != "number" else None
        if found is None or (noun and any(token.key in {"and", ","} for token in rest)):
            return self._refused(rest, f"may mean one todo or several: {literals.QUOTE_IT}")
        return m.WhichTodo(text=found.text)

    def named_todos(self, tokens: Sequence[Token]) -> tuple[m.WhichTodo, ...] | None:
        """As `which_todos`, where something else than a todo could be meant too: the word must be there."""
        words = keys(list(tokens))
        if any(word in _TODO for word in words) or words in {("it",), ("that",), ("this",)}:
            return self.which_todos(tokens)
        return None


_ID_DIGITS = 16
_TODO = frozenset({"todo", "task", "reminder", "todos", "tasks", "to-do"})
_ABOUT = frozenset(
    {
        "about",
        "called",
        "named",
        "to",
        "saying",
        "for",
        "regarding",
        "with",
        "of",
        ":",
        "containing",
        "mentioning",
        "titled",
    }
    | {"number", "no", "id", "#", "item", "the"}
)
_NOT_ONE = frozenset("all every everything last first next second third both each any some".split())
_LONG = frozenset(
    {
        "content",
        "bounded",
        "worded",
        "marked",
        "todo_text",
        "todo_items",
        "todo_list",
        "values",
        "question",
        "num",
        "nums",
        "number",
    }
)


def _parts(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """The pieces between commas and `and`."""
    parts: list[Sequence[Token]] = []
    start = 0
    for at in range(len(tokens) + 1):
        if at == len(tokens) or tokens[at].key in {",", "and", "both", "also", "then"}:
            if at > start:
                parts.append(tokens[start:at])
            start = at + 1
    return parts


def _can_be_todo(tokens: Sequence[Token]) -> bool:
    return tokens[0].key not in {"to", "for", "from", "on", ":"} and any(
        char.isalnum() for token in tokens for char in token.text
    )


def _todo_id(tokens: Sequence[Token]) -> int | None:
    if len(tokens) == 1 and tokens[0].key.startswith("#") and tokens[0].key[1:].isdecimal():
        return int(tokens[0].key[1:10])
    while len(tokens) > 1 and tokens[0].key in {"#", "number", "no", "id"}:
        tokens = tokens[1:]
    if (
        len(tokens) == 1
        and tokens[0].kind == "number"
        and tokens[0].text.isdecimal()
        and len(tokens[0].text) < _ID_DIGITS
    ):
        return int(tokens[0].text) or None
    return numbers.count_of(tokens) or None


def _without_number(line: str) -> str:
    head, _, rest = line.partition(" ")
    return rest.strip() if rest and head[:-1].isdecimal() and head[-1] in ".)" else line


def _looks_like_file(token: Token) -> bool:
    text = token.text.strip()
    stem, dot, ending = text.rpartition(".")
    return bool(dot and stem and ending.isalnum() and not ending.isdecimal() and len(ending) < 6 and "\n" not in text)  # noqa: PLR2004


def _count(_: Reading, tokens: Sequence[Token]) -> int | None:
    return numbers.count_of(tokens) or None


def _measure(_: Reading, tokens: Sequence[Token]) -> m.Measure | None:
    return _MEASURES.get(tokens[0].key) if len(tokens) == 1 else None


def _new_file(_: Reading, tokens: Sequence[Token]) -> m.File | None:
    found = names.read_file(tokens)
    return found if isinstance(found, m.NamedFile) else None


def _file_name(_: Reading, tokens: Sequence[Token]) -> str | None:
    found = names.read_file(tokens)
    bare_quote = len(tokens) == 1 and tokens[0].kind == "quoted" and not _looks_like_file(tokens[0])
    return found.path if isinstance(found, m.NamedFile) and found.folder == m.ROOT and not bare_quote else None


_READERS: dict[str, Callable[[Reading, Sequence[Token]], Any]] = {
    "file": lambda _, tokens: names.read_file(tokens),
    "files": lambda _, tokens: names.read_files(tokens),
    "newfile": _new_file,
    "filename": _file_name,
    "folder": lambda _, tokens: names.read_folder(tokens, sure=True),
    "surely": lambda _, tokens: names.read_folder(tokens),
    "where": lambda _, tokens: (
        names.read_folder(tokens[1:], sure=True) if tokens[0].key in {"in", "inside", "under"} else None
    ),
    "pattern": lambda _, tokens: names.read_pattern(tokens),
    "name": lambda _, tokens: names.read_pattern(tokens),
    "type": lambda _, tokens: names.read_type(tokens),
    "glob": lambda _, tokens: tokens[0].text if len(tokens) == 1 and tokens[0].kind == "glob" else None,
    "count": _count,
    "measure": _measure,
    "num": Reading.operand,
    "number": Reading.number,
    "nums": Reading.operands,
    "text": Reading.text,
    "texts": lambda reading, tokens: reading.several(tokens, reading.text),
    "values": Reading.question,
    "derived": Reading.derived,
    "made": Reading.made,
    "marked": Reading.marked,
    "things": Reading.things,
    "kinds": Reading.things,
    "content": Reading.content,
    "bounded": Reading.bounded,
    "worded": Reading.worded,
    "folders": lambda reading, tokens: reading.folders(tokens, sure=True),
    "newfolders": lambda reading, tokens: reading.folders(tokens, sure=False),
    "quoted": lambda _, tokens: (
        m.Literally(tokens[0].text) if len(tokens) == 1 and tokens[0].kind in {"quoted", "block"} else None
    ),
    "todo_text": Reading.todo_text,
    "todo_items": Reading.todo_items,
    "todo_list": Reading.todo_list,
    "todos": Reading.which_todos,
    "named_todos": Reading.named_todos,
    "query": Reading.query,
    "keyword": Reading.keyword,
}
