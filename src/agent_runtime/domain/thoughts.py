"""Cuts the thoughts off the answer of a language model, which some endpoints leave in the text.

Thoughts stand between an opening and a closing *mark*: `<think>`, `<thinking>`, `<thought>`, `<reasoning>` and
`<seed:think>` as tags, `[THINK]`, `◁think▷`, `<|START_THINKING|>`, `<|begin_of_thought|>` and `<unused94>`, in upper or
lower case. The rules, for a text that is to be shown or stored:

* *opened*: an opening mark counts where it begins the text or a line, or follows the end of a sentence. The thoughts
  end with the next closing mark, of whatever kind, or else with the text;
* *not opened*: many templates write the opening mark themselves, so that the answer holds the closing one alone. It
  counts where it begins a line, where it follows the end of a sentence, and where it follows a word and white space or
  the end follows it. All that stands before it are thoughts;
* *mentioned*: an opening mark elsewhere in a line is text, and so is the closing mark after it;
* *channels*: of a text with the channels of the harmony format, the last message in `final` is the answer; without one
  all of it are thoughts. `analysis...assistantfinal...` is what is left of them where an endpoint drops the tokens;
* *quoted*: a mark in a block of code (between lines of three or more backticks or tildes) or between backticks on one
  line is text.
"""

import re
from collections.abc import Callable, Iterable

_TAGS = ("think", "thinking", "thought", "reasoning", "seed:think")
_OPENING = (
    *(f"<{tag}>" for tag in _TAGS),
    "[think]",
    "◁think▷",
    "<|start_thinking|>",
    "<|begin_of_thought|>",
    "<unused94>",
)
_CLOSING = (
    *(f"</{tag}>" for tag in _TAGS),
    "[/think]",
    "◁/think▷",
    "<|end_thinking|>",
    "<|end_of_thought|>",
    "<unused95>",
)


def _match_any(texts: Iterable[str]) -> str:
    return f"(?ai:{'|'.join(map(re.escape, texts))})"


MARK = _match_any((*_OPENING, *_CLOSING))
"""The pattern of every mark, in upper or lower case."""

_MARK = re.compile(MARK)
_OPENS = re.compile(_match_any(_OPENING))
_CLOSES = re.compile(_match_any(_CLOSING))
_LONGEST_MARK = max(map(len, _CLOSING))
_IN_TEXT = re.compile(rf"^[ \t]*+(?P<fence>`{{3,8}}|~{{3,8}})[^\n]*+|`[^`\n]++`|(?P<mark>{MARK})", re.MULTILINE)
_INDENT = 64
"""How much white space may stand before a mark that begins a line."""

_AFTER_WORD = re.compile(r"[\w.!?…:)}\]]\Z")
_AFTER_SENTENCE = re.compile(r"[.!?…] ?\Z")

_CHANNEL = re.compile(r"<\|channel\|>\s*+(?P<name>\w+)[^<]*+(?:<\|constrain\|>[^<]*+)?<\|message\|>")
_CHANNELS = re.compile(r"(?:\A|^|<\|end\|>)\s*+(?:<\|start\|>assistant\s*+)?<\|channel\|>", re.MULTILINE)
_MESSAGE_ENDS = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_BARE_CHANNELS = re.compile(r"\A\s*+analysis(?=[^\sa-z]).*?assistantfinal", re.DOTALL)


def cut_thoughts(text: str) -> str:
    """Return the text without its thoughts; unchanged where it has none. It is empty if it has nothing else."""
    answer = take_final_channel(text)
    if not _MARK.search(answer):
        return answer
    kept: list[str] = []
    unclosed: set[str] = set()
    begin = position = 0
    quoted = False
    while mark := _find_mark(answer, position, unclosed):
        position = mark.end()
        if is_closing(mark):
            if not quoted and closes_thoughts(answer, mark):
                kept.clear()
                begin = position
            quoted = False
        elif opens_thoughts(answer, mark):
            kept.append(answer[begin : mark.start()])
            position = begin = find_closing(answer, position) or len(answer)
        else:
            quoted = True
    if begin == 0:
        return answer
    kept.append(answer[begin:].lstrip())
    return "".join(kept).strip()


class SpokenText:
    """Passes on the text of a stream without the thoughts that it begins with, if their marks are written.

    What may be the beginning of a mark is held back. Thoughts whose opening mark is not written are passed on, and so
    are those after other text.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._held = ""
        self._thinks = self._speaks = False

    def write(self, piece: str) -> None:
        """Add the next piece of text."""
        self._held += piece
        while not self._speaks:
            if self._thinks:
                end = find_closing(self._held, 0)
                if end is None:
                    self._held = self._held[-_LONGEST_MARK:]
                    return
                self._thinks, self._held = False, self._held[end:]
            text = self._held.lstrip("\ufeff \t\r\n")
            if opening := _OPENS.match(text):
                self._thinks, self._held = True, text[opening.end() :]
            elif any(mark.startswith(text.lower()) for mark in _OPENING):
                return
            else:
                self._speaks = True
        if self._held:
            self._write(self._held)
        self._held = ""


def is_closing(mark: re.Match[str]) -> bool:
    """Return whether this match of `MARK` is a closing mark."""
    return _CLOSES.fullmatch(mark[0]) is not None


def find_closing(text: str, position: int) -> int | None:
    """Return the position after the next closing mark; None if there is none."""
    found = _CLOSES.search(text, position)
    return found.end() if found else None


def opens_thoughts(text: str, mark: re.Match[str]) -> bool:
    """Return whether an opening mark stands where thoughts begin (rule *opened*)."""
    return _begins_line(text, mark) or bool(_AFTER_SENTENCE.search(text[max(0, mark.start() - 2) : mark.start()]))


def closes_thoughts(text: str, mark: re.Match[str]) -> bool:
    """Return whether a closing mark that nothing opened ends thoughts (rule *not opened*)."""
    before = text[max(0, mark.start() - 2) : mark.start()]
    if _begins_line(text, mark) or _AFTER_SENTENCE.search(before):
        return True
    return bool(_AFTER_WORD.search(before)) and not text[mark.end() : mark.end() + 1].strip()


def take_final_channel(text: str) -> str:
    """Return the answer of a text in the harmony format (rule *channels*); any other text unchanged."""
    if bare := _BARE_CHANNELS.match(text):
        return text[bare.end() :]
    if "<|channel|>" not in text or not _CHANNELS.search(text):
        return text
    finals = [found.end() for found in _CHANNEL.finditer(text) if found["name"] == "final"]
    if not finals:
        return ""
    end = _MESSAGE_ENDS.search(text, finals[-1])
    return text[finals[-1] : end.start() if end else len(text)]


def _begins_line(text: str, mark: re.Match[str]) -> bool:
    before = text[max(0, mark.start() - _INDENT) : mark.start()]
    _, newline, indent = before.rpartition("\n")
    return (bool(newline) or mark.start() < _INDENT) and not indent.strip("\ufeff \t\r")


def _find_mark(text: str, position: int, unclosed: set[str]) -> re.Match[str] | None:
    """Return the next mark outside of code. `unclosed` collects the fences that no line closes any more, so that each
    is searched for once.
    """
    while (found := _IN_TEXT.search(text, position)) and not found["mark"]:
        position = found.end()
        fence = found["fence"]
        if fence and fence not in unclosed:
            end = re.compile(rf"^[ \t]*+{fence}[`~]*+[ \t]*+$", re.MULTILINE).search(text, position)
            if end:
                position = end.end()
            else:
                unclosed.add(fence)
    return found
