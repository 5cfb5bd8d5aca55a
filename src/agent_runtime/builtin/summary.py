"""Summarizes a text by its own sentences: those with its most frequent words. The same text gives the same summary."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from agent_runtime.builtin.refusals import split_lines

_ABBREVIATIONS = frozenset(
    {"mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "cf", "no", "fig", "approx", "jr", "sr", "inc"}
)
_LONGEST_ABBREVIATION = 10
_BULLET = re.compile(r"\s*(?:[-*+\u2022]|\d{1,3}[.)])\s+")
_RULE = re.compile(r"[-=*_\s]+")
_END = re.compile(r"[.!?][\"')\]\u201d\u2019]*\s+|[\u3002\uff01\uff1f]\s*")
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_COMMON = frozenset(
    _WORD.findall(
        "a about after again all also am an and any are as at be because been before being between both but by can "
        "could did do does doing done down during each few for from further had has have having he her here hers him "
        "his how i if in into is it its itself just me more most my no nor not now of off on once only or other our "
        "ours out over own same she should so some such than that the their theirs them then there these they this "
        "those through to too under until up very was we were what when where which while who whom why will with "
        "would you your yours"
    )
)
"""Words that do not tell what a text is about."""
_FIRST_WEIGHT = 1.2
"""The weight of the first sentence, which often tells what a text is about."""
_LONGEST_HEADING = 80


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, and the number of its paragraph or bullet."""

    text: str
    block: int


def split_into_sentences(text: str) -> list[Sentence]:
    """Return the sentences in order. Every bullet is a block of its own; headings and rules are left out."""
    found: list[Sentence] = []
    for number, block in enumerate(_split_blocks(text)):
        found.extend(Sentence(sentence, number) for sentence in _split_sentences(block))
    return found


def _split_blocks(text: str) -> list[str]:
    blocks: list[list[str]] = [[]]
    lines = [line.strip() for line in split_lines(text)]
    for line, below in pairwise([*lines, ""]):
        bullet = _BULLET.match(line)
        if _is_heading(line, below, alone=not blocks[-1]):
            blocks.append([])
        elif bullet:
            blocks += [[line[bullet.end() :]], []] if not below or _BULLET.match(below) else [[line[bullet.end() :]]]
        else:
            blocks[-1].append(line)
    return [joined for block in blocks if (joined := " ".join(block).strip())]


def _is_heading(line: str, below: str, *, alone: bool) -> bool:
    """Return whether this is an empty line, a rule, or a title: marked as one, or short and alone
    without an end mark.
    """
    if not line or line.startswith("#") or _RULE.fullmatch(line):
        return True
    titled = len(line) <= _LONGEST_HEADING and not below.strip("=-") and alone
    return titled and line[-1] not in ".!?:;,\"')\u3002\uff01\uff1f" and not _BULLET.match(line)


def _split_sentences(block: str) -> list[str]:
    sentences: list[str] = []
    start = 0
    for end in _END.finditer(block):
        last = block[max(start, end.start() - _LONGEST_ABBREVIATION) : end.start()].rpartition(" ")[2]
        last = last.lower().lstrip("(\"'")
        is_initial = len(last) == 1 and last.isalpha() and block[end.start()] == "."
        if block[end.start()] == "." and (last in _ABBREVIATIONS or is_initial):
            continue
        sentences.append(block[start : end.end()].strip())
        start = end.end()
    sentences.append(block[start:].strip())
    return [sentence for sentence in sentences if _WORD.search(sentence)]


def summarize(text: str, count: int) -> tuple[str, int]:
    """Return the `count` weightiest sentences in the order of the text, and their number.

    A text without more sentences than that is returned unchanged.
    """
    sentences = split_into_sentences(text)
    if len(sentences) <= count:
        return text, max(len(sentences), 1)
    words = [_find_telling_words(sentence.text) for sentence in sentences]
    frequency = Counter(word for each in words for word in each)
    weights = [sum(frequency[word] for word in set(each)) / (len(each) + 3) ** 0.5 for each in words]
    weights[0] *= _FIRST_WEIGHT
    chosen = sorted(sorted(range(len(sentences)), key=lambda at: (-weights[at], at))[:count])
    parts = [sentences[chosen[0]].text]
    for before, after in pairwise(chosen):
        parts += [" " if sentences[before].block == sentences[after].block else "\n", sentences[after].text]
    return "".join(parts), count


def _find_telling_words(sentence: str) -> list[str]:
    return [word for word in map(str.lower, _WORD.findall(sentence)) if word not in _COMMON]
