"""Reads the answers of both APIs as plain JSON: whole ones, and the events of a stream to one whole answer.

Servers that only resemble OpenAI number and name the calls of a stream in their own ways; `StreamedCalls` tells them
apart.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent_runtime.domain.model_requests import ignore_text
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject
from agent_runtime.models.failures import ApiError
from agent_runtime.models.repetition import RepetitionDetector

_MOST_TOKENS = 2**40
_RETURNED_TEXTS = ("reasoning_content", "reasoning")
_RETURNED = ("reasoning_details", "thinking_blocks", "extra_content")
_RETURNED_WITH_CALL = ("extra_content", "provider_specific_fields")
RETURNED_FIELDS = frozenset((*_RETURNED_TEXTS, *_RETURNED, *_RETURNED_WITH_CALL))
"""The fields that endpoints need back on the next turn, with the calls of a message. `reasoning_content`: DeepSeek and
Kimi; `reasoning`, `reasoning_details`: OpenRouter; `thinking_blocks`, `provider_specific_fields`: LiteLLM;
`extra_content`: Gemini, whose signature of a thought is in it.
"""

_TEXTS = ("content", "refusal", *_RETURNED_TEXTS)
"""The texts of a message of a chat completion; the last two are not OpenAI's."""

_PART_TEXTS = ("text", "summary", "thinking")
"""The texts in a part of a returned field, which come in pieces."""


class AnswerError(Exception):
    """The endpoint sent no answer, or one that was not read to its end."""


class TooLongError(AnswerError):
    """The endpoint sent more than an answer may hold."""


class NotAnAnswerError(AnswerError):
    """The endpoint sent something that the API does not define."""


class NotStreamedError(AnswerError):
    """A stream was requested, and something else came."""


class CutOffError(AnswerError):
    """A stream ended before the answer did."""


class EmptyStreamError(AnswerError):
    """A stream held no event at all."""


class OverLimitError(AnswerError):
    """A stream went on far beyond the limit of tokens that the endpoint was given."""


class RepetitiveError(AnswerError):
    """A stream repeats itself without end."""


@dataclass(slots=True)
class ResponseInfo:
    """The facts about the response to one request, and who hears its text while it comes.

    `finish` is a chat completion's finish reason, `final` the status of a response of the Responses API (`status`,
    `error` and `incomplete_details`). `most` is the number of characters that an answer may have, `limit` the number
    that its limit of tokens can give at most. `thinks`: it holds thoughts; `answers`: it holds something else.
    `message_extras` and `call_extras` are the fields of a chat completion that the endpoint needs back on the next
    turn; `returned` has, by `call_id`, those of earlier turns. `repetition` finds out that it repeats itself.
    """

    streamed: bool
    on_text: Callable[[str], None] = ignore_text
    most: int = sys.maxsize
    began: bool = False
    finish: str | None = None
    final: JsonObject = field(default_factory=dict)
    error: ApiError | None = None
    usage: Usage = Usage()  # noqa: RUF009 - frozen
    length: int = 0
    message_extras: JsonObject = field(default_factory=dict)
    call_extras: list[JsonObject] = field(default_factory=list)
    returned: Mapping[str, JsonObject] = field(default_factory=dict)
    limit: int = sys.maxsize
    thinks: bool = False
    answers: bool = False
    repetition: RepetitionDetector = field(default_factory=RepetitionDetector)

    def take(self, piece: str, *, shown: bool = False, thought: bool = False) -> None:
        """Count a piece of a stream, and pass it on if it is text.

        Raises: TooLongError, OverLimitError, RepetitiveError.
        """
        if not piece:
            return
        self.length += len(piece)
        self.note(thought=thought)
        if self.length > self.most:
            raise TooLongError
        if self.length > self.limit:
            raise OverLimitError
        if self.repetition.write(piece):
            raise RepetitiveError
        if shown:
            self.on_text(piece)

    @property
    def only_thinks(self) -> bool:
        """Return whether there are thoughts so far, and nothing else."""
        return self.thinks and not self.answers

    def note(self, *, thought: bool) -> None:
        """Take note that the answer holds thoughts, or something else."""
        self.thinks |= thought
        self.answers |= not thought


class Reader(Protocol):
    """Reads one answer of one API. Garbage may make it raise anything."""

    def add(self, event: JsonObject) -> None:
        """Read the next event of a stream. Raises: as `ResponseInfo.take`."""

    def end(self) -> JsonObject:
        """Return the whole answer of the stream. Raises: CutOffError."""

    def read(self, answer: JsonObject) -> JsonObject:
        """Return an answer with nothing but what matters. Raises: NotAnAnswerError where it is none."""


class ResponsesReader:
    """Reads the answers of the Responses API, whose last event holds the whole answer."""

    def __init__(self, info: ResponseInfo) -> None:
        self._info = info
        self._final: JsonObject | None = None
        self._items: list[JsonObject] = []

    def add(self, event: JsonObject) -> None:
        kind, delta = event.get("type"), event.get("delta")
        if isinstance(delta, str):
            shown, thought = kind == "response.output_text.delta", str(kind).startswith("response.reasoning")
            self._info.take(delta, shown=shown, thought=thought)
        elif kind in {"response.completed", "response.incomplete", "response.failed"}:
            self._final = event["response"]
        elif kind == "response.output_item.done":
            self._items.append(event["item"])
        elif kind == "error":
            self._info.error = read_error(event)

    def end(self) -> JsonObject:
        if self._final is None:
            raise CutOffError("the stream ended before the answer did")
        return self.read({**self._final, "output": self._final.get("output") or self._items})

    def read(self, answer: JsonObject) -> JsonObject:
        self._info.usage = read_usage(answer.get("usage"))
        self._info.final = {name: answer.get(name) for name in ("status", "error", "incomplete_details")}
        if "output" not in answer:
            raise make_not_an_answer(answer, self._info)
        for item in answer["output"]:
            self._info.note(thought=item.get("type") == "reasoning")
        return {"id": answer.get("id"), "output": answer["output"], "usage": None, "status": answer.get("status")}


class ChatReader:
    """Reads chat completions. Of several choices, it reads the first."""

    def __init__(self, info: ResponseInfo) -> None:
        self._info = info
        self._id: object = None
        self._texts: dict[str, list[str]] = {}
        self._returned: JsonObject = {}
        self._calls = StreamedCalls()

    def add(self, event: JsonObject) -> None:
        self._id = self._id or event.get("id")
        if usage := event.get("usage"):
            self._info.usage = read_usage(usage)
        for choice in event.get("choices") or ():
            if not choice.get("index"):
                self._info.finish = choice.get("finish_reason") or self._info.finish
                self._add_delta(choice.get("delta") or choice.get("message") or {})

    def _add_delta(self, delta: JsonObject) -> None:
        for name in _TEXTS:
            if piece := _join_texts(delta.get(name)):
                self._info.take(piece, shown=name == "content", thought=name in _RETURNED_TEXTS)
                self._texts.setdefault(name, []).append(piece)
        for name in _RETURNED:
            if value := delta.get(name):
                self._info.take(json.dumps(value), thought=True)
                self._returned[name] = _join_parts(self._returned.get(name), value)
        if pieces := delta.get("tool_calls"):
            self._info.take(self._calls.add(pieces))

    def end(self) -> JsonObject:
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        return self._make_answer(self._id, texts, self._calls.calls)

    def read(self, answer: JsonObject) -> JsonObject:
        self._info.usage = read_usage(answer.get("usage"))
        if answer.get("error") or "choices" not in answer:
            raise make_not_an_answer(answer, self._info)
        choice: JsonObject = next(iter(answer["choices"]), {})
        self._info.finish = choice.get("finish_reason")
        message = choice.get("message") or {}
        calls = [extend_call(start_call(), call) for call in message.get("tool_calls") or ()]
        self._returned = {name: message[name] for name in _RETURNED if message.get(name)}
        return self._make_answer(answer.get("id"), {name: _join_texts(message.get(name)) for name in _TEXTS}, calls)

    def _make_answer(self, answer_id: object, texts: JsonObject, calls: list[JsonObject]) -> JsonObject:
        for name in (*(name for name, text in texts.items() if text), *("tool_calls" for _ in calls)):
            self._info.note(thought=name in _RETURNED_TEXTS)
        self._info.call_extras = [
            {name: call[name] for name in _RETURNED_WITH_CALL if call.get(name)} for call in calls
        ]
        self._info.message_extras = self._returned | {name: texts[name] for name in _RETURNED_TEXTS if texts.get(name)}
        message = {"role": "assistant", "content": None, "tool_calls": calls or None}
        message |= {name: text for name, text in texts.items() if text}
        choice = {"index": 0, "finish_reason": self._info.finish, "message": message}
        return {"id": answer_id, "choices": [choice], "usage": None}


class StreamedCalls:
    """Puts the calls of a stream of chat completions together, which come in pieces.

    OpenAI gives each call an index, which each of its pieces repeats; id and name are in the first piece only. Other
    servers send all calls with one index or with none, leave ids out or repeat them, and repeat the name in each piece.
    So a piece with a name begins a call where it cannot be a part of the call that it seems to belong to.
    """

    def __init__(self) -> None:
        self.calls: list[JsonObject] = []
        self._indices: list[object] = []

    def add(self, pieces: list[JsonObject]) -> str:
        """Add the pieces of one event. Return the text of their arguments."""
        before = len(self.calls)
        texts = []
        for piece in pieces:
            call = self._find(piece, before)
            if call is None:
                call = start_call()
                self.calls.append(call)
                self._indices.append(piece.get("index"))
            extend_call(call, piece)
            texts.append(_read_function(piece)[1])
        return "".join(texts)

    def _find(self, piece: JsonObject, before: int) -> JsonObject | None:
        """Return the call that a piece continues; None if it begins one. The first `before` are of earlier events."""
        index, call_id = piece.get("index"), piece.get("id")
        numbered = isinstance(index, int)
        if numbered:
            seeming = [at for at, known in enumerate(self._indices) if known == index]
        else:
            seeming = [at for at, call in enumerate(self.calls) if call_id and call["id"] == call_id]
            seeming = seeming or list(range(len(self.calls)))
        if not seeming:
            return None
        call = self.calls[seeming[-1]]
        name, arguments = _read_function(piece)
        known_id, known = call["id"], call["function"]
        if not name:
            return call
        if (call_id and known_id and call_id != known_id) or (known["name"] and name != known["name"]):
            return None
        if _is_object(known["arguments"]):
            repeats = call_id and arguments in {"", known["arguments"]}
            return call if repeats or (numbered and not arguments) else None
        return call if numbered or call_id or seeming[-1] < before else None


def start_call() -> JsonObject:
    """Return a call of a chat completion without a content."""
    return {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}


def extend_call(call: JsonObject, piece: JsonObject) -> JsonObject:
    """Add a piece to its call, and return the call."""
    name, arguments = _read_function(piece)
    function = call["function"]
    call["id"] = call["id"] or piece.get("id") or ""
    function["name"] = function["name"] or name
    call.update({name: piece[name] for name in _RETURNED_WITH_CALL if isinstance(piece.get(name), dict)})
    if arguments != function["arguments"] or not _is_object(arguments):  # else it is the whole call again
        function["arguments"] += arguments
    return call


def _read_function(piece: JsonObject) -> tuple[str, str]:
    """Return name and arguments of a piece of a call; some servers send the arguments as an object."""
    function = piece.get("function") or {}
    arguments = function.get("arguments")
    if arguments is None:
        arguments = ""
    return function.get("name") or "", arguments if isinstance(arguments, str) else json.dumps(arguments)


def _is_object(text: str) -> bool:
    if not text.rstrip().endswith("}"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _join_texts(content: Any) -> str:
    """Return a text of a message, which some servers send as a list of parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)


def _join_parts(known: Any, piece: Any) -> Any:
    """Return a field that is not a text with its next piece: an object, or a list of parts that come in pieces."""
    if isinstance(known, dict) and isinstance(piece, dict):
        return known | piece
    if not isinstance(known, list) or not isinstance(piece, list):
        return piece
    joined = list(known)
    for part in piece:
        if joined and _continues(joined[-1], part):
            last = joined[-1]
            texts = {name: (last.get(name) or "") + part[name] for name in _PART_TEXTS if part.get(name)}
            left_out = {name for name in part if part[name] is None or name in _PART_TEXTS}
            joined[-1] = last | {name: part[name] for name in part.keys() - left_out} | texts
        else:
            joined.append(part)
    return joined


def _continues(last: Any, part: Any) -> bool:
    """Return whether a part of a list is the next piece of the last one: of its kind, and without its own end."""
    if not isinstance(last, dict) or not isinstance(part, dict) or last.get("data"):
        return False
    return all(last.get(name) == part.get(name) for name in ("type", "index")) and not last.get("signature")


def make_not_an_answer(answer: JsonObject, info: ResponseInfo) -> NotAnAnswerError:
    """Return the error for an object that is no answer, and note the error that it holds."""
    if error := answer.get("error"):  # some gateways send an error with the status 200
        info.error = read_error(error if isinstance(error, dict) else {"message": error})
    return NotAnAnswerError("it has neither output nor choices")


def read_usage(usage: Any) -> Usage:
    """Return the tokens of a usage of either API; 0 for a count that is missing or invalid."""
    if not isinstance(usage, dict):
        return Usage()
    return Usage(
        input_tokens=_read_count(usage.get("input_tokens", usage.get("prompt_tokens"))),
        output_tokens=_read_count(usage.get("output_tokens", usage.get("completion_tokens"))),
    )


def _read_count(tokens: Any) -> int:
    return tokens if type(tokens) is int and 0 <= tokens <= _MOST_TOKENS else 0


def read_error(body: dict[str, Any], status: int | None = None, after_s: float | None = None) -> ApiError:
    """Read the error object of either API. Some servers put the HTTP status into its `code`, as a number or a text."""
    code = body.get("code")
    if status is None and re.fullmatch(r"[1-5]\d\d", str(code)):
        status = int(str(code))
    words = [str(part) for part in (code, body.get("type"), body.get("status")) if part not in (None, "error")]
    message = body.get("message") or ""
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    numbers = " ".join(f"{name}={body[name]}" for name in ("n_ctx", "n_prompt_tokens") if name in body)
    return ApiError(text, status, " ".join(words), str(body.get("param") or ""), after_s, numbers)
