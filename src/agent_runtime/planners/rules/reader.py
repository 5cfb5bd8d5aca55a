"""Turns a prompt into actions, one for each instruction. One part in doubt declines the whole prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from agent_runtime.domain.errors import PlanningError
from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules import names, numbers
from agent_runtime.planners.rules.clauses import Clause, knows_verb, split_clauses, starts_instruction
from agent_runtime.planners.rules.conditions import CONDITIONS
from agent_runtime.planners.rules.frames import TABLE
from agent_runtime.planners.rules.lexer import Token, tokenize
from agent_runtime.planners.rules.refusals import HELP, make_refusal
from agent_runtime.planners.rules.slot_reading import Reading
from agent_runtime.planners.rules.slots import READERS
from agent_runtime.planners.rules.values import QUESTIONS
from agent_runtime.planners.rules.vocabulary import COURTESIES, GENERATIVE, HINTS, NEEDS, UNSUPPORTED, WORDS, keys_of

_NEGATIONS = frozenset(
    [
        "not",
        "never",
        "without",
        "don't",
        "dont",
        "won't",
        "can't",
        "cannot",
        "cant",
        "shouldn't",
        "mustn't",
        "doesn't",
        "didn't",
        "isn't",
        "wouldn't",
        "couldn't",
        "aren't",
    ]
)
_CONDITIONS = frozenset(
    ["if", "unless", "otherwise", "else", "when", "whenever", "until", "while", "once", "whether", "provided", "except"]
)
_SAY_IF = (
    "Conditions come first, as in 'If notes.txt has more than 100 words, summarize it', 'If notes.txt contains milk, "
    "...' or 'If notes.txt exists, ...'"
)
_CONDITIONS_AFTER = frozenset({"if", "unless"})
_CHANGING = frozenset({"replace", "change", "substitute", "swap", "exchange"})
_TIME_OF_DAY = frozenset({("the", "time"), ("time", "is"), ("current", "time")})
_WRITING = frozenset(["write", "create", "make", "generate", "compose", "tell", "give", "invent"])
_PAST = {("was",), ("were",), ("is",), ("has",), ("did",)}
_SAY_IN_ORDER = "is to be done first, and comes after another instruction: write the instructions in their order"
_CHECKED_LINES = 200
_HELP = {
    tuple(said.split())
    for said in (
        "help", "help me", "usage", "commands", "examples", "what can you do", "what do you understand",
        "what can i do", "what can i say", "what can i ask", "what do you do", "how do you work", "how does it work",
        "show help", "show me help", "show me what you can do", "tell me what you can do", "man",
    )
}  # fmt: skip
_HALVES = 8
"""The most actions that share one verb, and the most ends of each that are tried."""


def read(source: str) -> Iterator[tuple[str, m.Action]]:
    """Yield each instruction's text and action, in the order of the prompt.

    Raises: PlanningError for the first part that is not understood without doubt.
    """
    tokens = tokenize(source)
    scope = _Scope()
    begun = False
    for clause in split_clauses(source, tokens, lambda clause: _takes_block(source, clause)):
        actions = _find_meanings(source, clause)
        scope.take(clause.text(source), clause, actions)
        if clause.tokens and clause.tokens[-1].kind == "block":
            _check_block(clause)
        does = [action for action in actions if not isinstance(action, m.Nothing)]
        if does and clause.is_first and begun:
            raise make_refusal(clause.text(source), _SAY_IN_ORDER)
        begun = begun or bool(does)
        for action in does:
            yield clause.text(source), action
    scope.close()


class _Scope:
    """Checks that a condition stands alone at the beginning of the last sentence, so that it is clear what it covers.

    Raises: PlanningError in both methods.
    """

    def __init__(self) -> None:
        self._condition = ""
        self._waits = False
        self._closed = False

    def take(self, part: str, clause: Clause, actions: Sequence[m.Action]) -> None:
        """Check the next instruction."""
        if all(isinstance(action, m.Nothing) for action in actions):
            return
        if self._closed:
            raise make_refusal(
                part, "follows a sentence with a condition, which may or may not cover it: put the condition last"
            )
        if isinstance(actions[0], m.If | m.IfExists):
            if self._condition:
                raise make_refusal(part, "is a second condition, and only one can be planned")
            self._condition = part
        self._waits = isinstance(actions[-1], m.If | m.IfExists)
        self._closed = bool(self._condition) and clause.ends

    def close(self) -> None:
        """Check that something follows the condition."""
        if self._waits:
            raise make_refusal(self._condition, f"is a condition, and nothing follows it. {_SAY_IF}")


def _takes_block(source: str, clause: Clause) -> bool:
    try:
        return not isinstance(_find_meaning(source, clause), m.Nothing)
    except PlanningError:
        return False


def _find_meanings(source: str, clause: Clause) -> list[m.Action]:
    """Return the actions of an instruction: one, or several that share a verb.

    `write hello to x.txt and bye to y.txt` counts as several if each half is understood by itself.
    """
    try:
        return [_find_meaning(source, clause)]
    except PlanningError:
        several = _split_condition(source, clause) or _split_shared_verb(source, clause)
        if several is None:
            raise
        return several


def _split_condition(source: str, clause: Clause) -> list[m.Action] | None:
    """Read a condition and an instruction with no comma between them: `if a.txt exists read it`."""
    tokens = clause.tokens
    if not tokens or tokens[0].key != "if":
        return None
    found: list[list[m.Action]] = []
    for at in [at for at in range(2, len(tokens)) if starts_instruction(tokens, at)][:_HALVES]:
        condition = _read_condition(source, Clause(tokens[:at]))
        if condition and tokens[at].key != "if":
            rest = replace(clause, tokens=tokens[at:], whole=clause.whole[at:])
            found.append([condition, *_find_meanings(source, rest)])
    return found[0] if len(found) == 1 else None


def _split_shared_verb(source: str, clause: Clause) -> list[m.Action] | None:
    verb, rest = clause.tokens[:1], clause.tokens[1:]
    found: list[m.Action] = []
    while rest and len(found) < _HALVES:
        one = None
        for at in [*(at for at, token in enumerate(rest) if token.key in {",", "and"}), len(rest)][:_HALVES]:
            half = Clause((*verb, *rest[:at])) if at < len(rest) else replace(clause, tokens=(*verb, *rest), whole=())
            alike = keys_of(half.tokens[1:4]) == keys_of(clause.tokens[1:4])
            one = _read_half(source, half, found, alike=alike)
            if one is not None:
                break
        if one is None:
            return None
        if isinstance(one, m.Write) and any(
            set(one.files) & set(each.files) for each in found if isinstance(each, m.Write)
        ):
            return None  # only the last of them would remain
        found.append(one)
        rest = rest[at:]
        while rest and rest[0].key in {",", "and"}:
            rest = rest[1:]
    return found if not rest and len(found) > 1 else None


def _read_half(source: str, half: Clause, before: Sequence[m.Action], *, alike: bool) -> m.Action | None:
    """Read one of several writes, or of todos that begin alike; none with a reference to another one, or
    without text.
    """
    try:
        action = _find_meaning(source, half)
    except PlanningError:
        return None
    match action:
        case m.Write(m.Back() | m.Literally("")):
            return None
        case m.Write() if not before or isinstance(before[0], m.Write):
            return action
        case m.Transfer() if not before or isinstance(before[0], m.Transfer):
            return action
        case m.AddTodos() if alike:
            return action
        case _:
            return None


def _find_meaning(source: str, clause: Clause) -> m.Action:
    tokens = clause.tokens
    if not tokens or " ".join(keys_of(tokens)) in COURTESIES:
        return m.Nothing()
    if tokens[0].key == "if" and (condition := _read_condition(source, clause)):
        return condition
    said = next((token for token in tokens if token.key in _NEGATIONS), None)
    if said is not None:
        raise make_refusal(
            clause.text(source), f"says what not to do ({said.text!r}), and only what to do can be planned"
        )
    if tokens[0].key in _CONDITIONS and (tokens[0].key != "when" or keys_of(tokens[1:2]) not in _PAST):
        raise make_refusal(clause.text(source), f"is a condition that is not understood. {_SAY_IF}")
    reading = Reading(
        source, READERS, starts_instruction, knows_verb, clause.courtesy, "" if clause.courtesy else clause.ending
    )
    action = _match(tokens, reading)
    if clause.courtesy and not reading.torn and (action is None or _uses_earlier_value(action)):
        # `with the message OK`: the supposed courtesy is the whole text.
        whole = Reading(source, READERS, starts_instruction, knows_verb, "", clause.ending)
        action = _keep_literal_write(_match(clause.whole, whole)) or action
    unread = {token.text for token in tokens if token.kind == "url"}.difference(m.urls_in(action))
    if unread and not reading.doubts:
        raise make_refusal(clause.text(source), NEEDS["web"])
    if action is None or unread:
        raise _explain_refusal(source, clause, reading)
    return action


def _read_condition(source: str, clause: Clause) -> m.Action | None:
    reading = Reading(source, READERS, starts_instruction, knows_verb, clause.courtesy, "")
    found: m.Action | None = CONDITIONS.match(clause.tokens[1:], reading.read)
    return found


def _match(tokens: Sequence[Token], reading: Reading) -> m.Action | None:
    action: m.Action | None = TABLE.match(tokens, reading.read)
    if isinstance(action, m.Write) and _may_be_shown(action.content) and reading.read("values", tokens[1:]):
        reading.doubt(tokens, "may mean to show this, or to write it to the file: say 'to' before the file, or 'show'")
        return None
    if any(why == numbers.TWO_ORDERS for _, why in reading.doubts):
        return None  # another matching row would only choose one of them
    if action is None:
        answer = QUESTIONS.match(tokens, reading.read) or reading.read("derived", tokens)
        action = m.Show(answer if isinstance(answer, tuple) else (answer,)) if answer else None
    return action


def _may_be_shown(content: m.Value) -> bool:
    """Return whether a file after `in` may be what this is made of, as in `the number of lines in notes.txt`."""
    return isinstance(content, m.Count | m.SomeLines | m.LinesWith | m.Summary) and isinstance(content.of, m.Back)


def _uses_earlier_value(action: m.Action) -> bool:
    return isinstance(action, m.Write) and not isinstance(action.content, m.Literally)


def _keep_literal_write(action: m.Action | None) -> m.Action | None:
    return action if isinstance(action, m.Write) and isinstance(action.content, m.Literally) else None


def _explain_refusal(source: str, clause: Clause, reading: Reading) -> PlanningError:
    words = keys_of(clause.tokens)
    if words in _HELP:
        return make_refusal(clause.text(source), HELP)
    text = clause.text(source)
    name = names.find_doubtful_name(clause.tokens)
    if name and name[0] is clause.tokens[0] and words[0] in UNSUPPORTED:
        return make_refusal(text, NEEDS[UNSUPPORTED[words[0]]])
    if name:
        part = source[name[0].start : name[-1].end]
        return make_refusal(part, "may be a name with spaces, or only its end may be the name: put the name in quotes")
    if words[0] in _CHANGING and words[-2:-1] == ("in",) and clause.tokens[-1].kind == "file":
        return make_refusal(text, NEEDS["file"])
    if reading.doubts:
        part, why = reading.doubts[-1]
        return make_refusal(part, why)
    made_up = next((word for word in words if word in GENERATIVE), None)
    if words[0] in _WRITING and made_up:
        return make_refusal(text, f"asks for a text to be made up ({made_up}), which takes a language model")
    if not _TIME_OF_DAY.isdisjoint(pairwise(words)):
        return make_refusal(text, NEEDS["time"])
    if _CONDITIONS_AFTER & set(words[1:]):
        return make_refusal(text, f"has its condition at the end. {_SAY_IF}")
    if words[0] in HINTS:
        return make_refusal(text, HINTS[words[0]])
    if words[0] in UNSUPPORTED:
        return make_refusal(text, NEEDS[UNSUPPORTED[words[0]]])
    if words[0] in WORDS["save"].split("|") + WORDS["append"].split("|") and not any(
        t.kind == "file" for t in clause.tokens
    ):
        return make_refusal(text, "is not understood: it names no file or list that the text should go to")
    return make_refusal(text, "is not understood")


def _check_block(clause: Clause) -> None:
    """Check that a block of text contains no line that could be the next instruction.

    Raises: PlanningError naming the line.
    """
    block = clause.tokens[-1].text
    checked = 0
    for line in block.splitlines()[1:]:
        words = line.split(maxsplit=1)
        if not words or words[0][0] in "-*•>#" or words[0][0].isdigit() or checked >= _CHECKED_LINES:
            continue
        try:
            tokens = tokenize(line)
            if not starts_instruction(tokens, 0):
                continue
            checked += 1
            joined = words[0].lower().strip(",") in {"then", "finally", "afterwards", "next", "after"}
            understood = joined or any(True for _ in read(line))
        except PlanningError:
            continue
        if understood:
            raise make_refusal(line, "may be the last lines of the text or another instruction: put the text in quotes")
