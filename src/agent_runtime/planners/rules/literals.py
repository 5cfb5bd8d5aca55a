"""Text to store exactly as it stands in the prompt, and the doubts that forbid taking it so.

A quotation is always literal. Words without quotation marks are literal only if they can be nothing else: no
description of a text, no other instruction, no reference to something earlier.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.vocabulary import (
    CONDITIONS,
    CONTENT_WORDS,
    DETERMINERS,
    FINITE,
    GENERATIVE,
    MARKS,
    NEGATIONS,
    ORDER,
    PARTICLES,
    POINTING_ON,
    PRONOUNS,
    QUESTION_WORDS,
    SAYING,
    SEPARATORS,
    UNSUPPORTED,
    keys_of,
    word_set,
)

_OPTION = re.compile(r"--?[A-Za-z][\w-]*(=.*)?")
QUOTE_IT = "put the exact text in quotes if that is what you mean"
_SAID_ALONE = {("saying",), (":",)}
_BACKS = frozenset({"it", "them", "its"})
_NEW_START = _BACKS | {"todo", "todos", "task", "tasks", "reminder", "reminders"}
_HOW_OFTEN = word_set("repeatedly twice thrice backwards reversed uppercase lowercase uppercased capitalized")
_HOW = word_set(
    "utf-8 utf8 utf-16 utf16 ascii latin-1 unicode binary hex root admin administrator sudo "
    "uppercase lowercase capitals caps bold italics italic reverse french german spanish italian english latin "
    "japanese chinese markdown json yaml csv html base64 morse"
)
_BEFORE_HOW = (["in"], ["as"], ["using"])
_NO_TEXTS = MARKS | word_set("in to into on at of for from with me us you him her here there now")
_BEFORE_MARK = DETERMINERS | word_set("new short simple exact exactly only just following single")
_BROKEN_OFF = SEPARATORS | word_set("to into in on of with the a an or")
"""Words that no text of its own ends with."""
_AFTER_THAT = DETERMINERS - {"that"} | word_set("i i'm i'll you he she we we're they it's there")
"""Words after which `that` can only report what is said; before others, as in `that is all`, it may be of the text."""
_MOMENTS = word_set("time date datetime timestamp today tomorrow yesterday weekday day month year clock")
_AROUND_MOMENTS = _MOMENTS | word_set("current and the a of local this exact precise now")
_NAMES_OF_TEXTS = word_set(
    "file files folder directory copy backup output input changes progress notes note log logs screenshot conversation "
    "chat history title headline header heading footer signature comment comments detail details documentation "
    "test tests username password user weather news version hostname entry entries newline blank space settings "
    "data information info feedback"
)
"""Nouns that name a text rather than are one: `save changes to x.txt`."""
_NAME_AT_MOST = 2
_NOW = word_set("current latest")
_NUMBERED = word_set("todo task reminder item file document result")
_DESCRIBING = word_set("about regarding for of on explaining describing concerning to with from in that which like")


def strip_markers(tokens: Sequence[Token]) -> tuple[Sequence[Token], str]:
    """Return the text without the words that announce it, and how clearly they announce exact text.

    That is `said` if the prompt says so (`a message saying X`), `named` if it only names it (`the text X`), else "".
    """
    rest = tokens
    at = 0
    while at < len(rest) and rest[at].key in _BEFORE_MARK:
        at += 1
    noun = at < len(rest) and rest[at].key in MARKS
    after = at + 1 if noun else at
    if noun and at + 1 < len(rest) and rest[at + 1].key in {"text", "message", "content", "contents", "line"}:
        after += 1
    for size in (3, 2, 1):
        said = keys_of(rest[after : after + size])
        begins_text = noun and after < len(rest) and rest[after].text[:1].isupper() and rest[after - 1].text.islower()
        if said in SAYING and len(rest) > after + size and not begins_text and (noun or said in _SAID_ALONE):
            return rest[after + size :], "said"
    named = noun and at > 0 and len(rest) > after
    if named or (noun and len(rest) == after + 1 and rest[after].kind == "quoted"):
        return rest[after:], "named"
    if at > 0 and len(rest) == at + 1 and rest[at].kind == "quoted":
        return rest[at:], "named"
    return rest, ""


def strip_that(tokens: Sequence[Token]) -> Sequence[Token]:
    """Return the text without the `that` of reported speech, as in `saying that the shop is closed`."""
    reported = len(tokens) > 1 and tokens[0].text == "that" and tokens[1].key in _AFTER_THAT
    return tokens[1:] if reported else tokens


def find_doubt(tokens: Sequence[Token], sure: str, *, tail: bool, files: bool = True) -> str | None:
    """Return why these words cannot be taken literally, or None. `tail`: only the end of the instruction ends them.

    `files`: the name of a file in them is a doubt too.
    """
    words = [token.key for token in tokens]
    if any(token.kind in {"quoted", "block"} for token in tokens):
        return f"mixes words inside and outside of quotation marks: {QUOTE_IT}"
    if is_only_reference(words) or (sure == "named" and tuple(words) in SAYING):
        return f"does not say what the text is: {QUOTE_IT}"
    if files and (manner := _find_manner(words)):
        return f"holds {manner!r}, which may be how to write it: {QUOTE_IT}"
    option = next((token.text for token in tokens if _OPTION.fullmatch(token.text)), None)
    if option:
        return f"holds {option!r}, which may be an option of a command: {QUOTE_IT}"
    negations = NEGATIONS | ({"no"} if tail else frozenset())
    said = next((word for word in words if word in negations or word in CONDITIONS), None)
    if said:
        return f"holds the word {said!r}, which may be a condition on the instruction: {QUOTE_IT}"
    if len(words) > 1 and words[-1] in _BROKEN_OFF:
        return f"breaks off with {words[-1]!r}: {QUOTE_IT}"
    if files and any(token.kind in {"file", "glob"} for token in tokens):
        return f"may mean a file and not its name: {QUOTE_IT}"
    if any(word in _BACKS and at + 1 == len(words) for at, word in enumerate(words)) or _joins_reference(words):
        return f"may speak of something that came before: {QUOTE_IT}"
    if tail and (reason := _find_other_instruction(words)):
        return reason
    if words[0] == "that" and len(words) > 1 and tokens[0].text.islower():
        return f"may or may not begin with 'that': {QUOTE_IT}"
    return None if sure == "said" else _find_description(tokens, words, sure)


def is_only_reference(words: Sequence[str]) -> bool:
    """Return whether the words only refer to something else, as `both`, `all three` or `each of them` do."""
    begins = PRONOUNS.issuperset(words[:1]) or (len(words) > 1 and words[0] == "the")
    return begins and PRONOUNS.union(POINTING_ON).issuperset(words)


def _find_manner(words: Sequence[str]) -> str | None:
    """Return words that may say how to write the text, as in `hello 3 times` and `hello in uppercase`; None without
    any.
    """
    if len(words) > 1 and words[-1] in _HOW_OFTEN:
        return words[-1]
    if len(words) > 1 and (words[1] in {"times", "copies"} or words[0] in {"twice", "thrice"}):
        return " ".join(words[:2])
    if words[-2:-1] == ["x"] and words[-1].isdecimal():
        return " ".join(words[-2:])
    ends = words[-1] in {"times", "caps", "letters"} or (words[-1] in _HOW and words[-2:-1] in _BEFORE_HOW)
    if ends and len(words) > 2:  # noqa: PLR2004 (a text, and two words after it)
        return " ".join(words[-2:])
    return None


def _joins_reference(words: Sequence[str]) -> bool:
    """Return whether plain words are joined with a reference to something earlier, as in `hello and the result`."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word in SEPARATORS or word == "+":
            parts.append([])
        else:
            parts[-1].append(word)
    backs = {"result", "results", "summary", "contents", "list", "count", "answer", "output", "sum", "file", "number"}
    return len(parts) > 1 and any(
        part[-1:] and (part[-1] in _BACKS or (part[-1] in backs and part[0] in {"the", "that", "this", "its"}))
        for part in parts
    )


def _find_other_instruction(words: Sequence[str]) -> str | None:
    for before, word in pairwise(words):
        if word in ORDER and before in SEPARATORS:
            return f"may be two instructions, joined by {word!r}: {QUOTE_IT}"
        if before in SEPARATORS and word in UNSUPPORTED and word not in CONTENT_WORDS:
            return f"may be two instructions, the second to {word!r}: {QUOTE_IT}"
    for word in words[1:]:
        if word in {"then", "afterwards", "finally", "subsequently"}:
            return f"may be two instructions, joined by {word!r}: {QUOTE_IT}"
    after_separator = False
    for word in words:
        after_separator = after_separator or word in SEPARATORS
        if after_separator and word in _NEW_START:
            return f"may be two instructions: {QUOTE_IT}"
    return None


def _find_description(tokens: Sequence[Token], words: Sequence[str], sure: str) -> str | None:
    """Return why these words may describe a text instead of being one, or None."""
    made_up = next((word for word in words if word in GENERATIVE), None)
    if made_up and not sure:
        return f"asks for a text to be made up ({made_up}), which takes a language model; {QUOTE_IT}"
    if sure:
        if words[0] in _DESCRIBING and words[0] != "to":
            return f"describes a text that would have to be made up, which takes a language model; {QUOTE_IT}"
        return None
    if words[0] in PARTICLES and (tokens[0].text.islower() or (tokens[1:2] and tokens[1].text[:1].isupper())):
        return f"may begin with a word of the verb ({words[0]}): {QUOTE_IT}"
    if len(words) == 1 and words[0] in _NO_TEXTS and tokens[0].text.islower():
        return f"does not say what the text is: {QUOTE_IT}"
    if _AROUND_MOMENTS.issuperset(words) and _MOMENTS & set(words) and tokens[0].text.islower():
        return f"may mean these words, or the time when the plan runs: only today's date can be looked up; {QUOTE_IT}"
    if len(words) == 2 and words[0] in _NUMBERED and tokens[1].kind == "number":  # noqa: PLR2004
        return f"may mean these words, or what it names: {QUOTE_IT}"
    named = len(words) <= _NAME_AT_MOST and words[-1] in _NAMES_OF_TEXTS
    if (named or words[0] in _NOW) and tokens[0].text.islower():
        return f"may name a text instead of being it: {QUOTE_IT}"
    if {"each", "every"} & set(words):
        return f"may speak of several things to be changed: {QUOTE_IT}"
    if {"above", "below", "before", "after", "between", "beneath"} & set(words[1:-1]) and tokens[0].text.islower():
        return f"may say where in the file the text should go: {QUOTE_IT}"
    is_sentence = any(word in FINITE for word in words[1:]) and not {"that", "which", "who"} & set(words[1:])
    lowered = any(token.text[:1].islower() for token in tokens[1:])
    capital = tokens[0].text[:1].isupper() and lowered
    if words[0] in MARKS and len(words) > 1:
        return f"does not say where the text begins: {QUOTE_IT}"
    if words[0] in QUESTION_WORDS and not capital:
        return f"does not say what the text is: {QUOTE_IT}"
    is_one_word = all(before.end == after.start for before, after in pairwise(tokens))
    if words[0] in DETERMINERS and len(words) > 1 and not is_sentence and not capital and not is_one_word:
        return f"may describe a text instead of being it: {QUOTE_IT}"
    if tokens[0].kind == "number" and any(word in {"words", "items", "numbers", "lines"} for word in words):
        return f"does not say what the text is: {QUOTE_IT}"
    return None
