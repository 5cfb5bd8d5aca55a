"""The replies of the test model server: texts, tool calls and faults, and the rules that select them."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from model_server.endless import Endless
from model_server.requests import Request, WireError
from model_server.wire import Turn

FaultKind = Literal[
    "rate_limited",  # 429, with Retry-After if `retry_after` is set
    "out_of_quota",  # 429 insufficient_quota; a retry does not help
    "server_error",  # 500
    "unavailable",  # 503, with Retry-After if `retry_after` is set
    "bad_gateway",  # 502 with the HTML page of a proxy
    "wrong_key",  # 401 invalid_api_key
    "unknown_model",  # 404 model_not_found
    "context_overflow",  # 400 context_length_exceeded
    "no_json_schema",  # 400 for the format; see also ModelServer.levels
    "drop",  # the connection is closed without an answer
    "hang",  # no answer before `release`, then `text`
    "slow",  # `text`, after `delay_s`
    "cut_stream",  # half of the answer `text`, then the connection is closed
    "stall_stream",  # half of the answer `text`, the other half after `release`
    "unfinished_stream",  # half of the answer `text`, then the regular end of the body
    "stream_error",  # half of the answer `text`, then an error in the stream; unstreamed: a failed response or 500
    "garbage",  # half of the events of `text` and then one that is not JSON; unstreamed: a body that is not JSON
    "empty",  # neither text nor calls
    "truncated",  # `text`, marked as cut at the token limit
    "filtered",  # `text`, cut off by a content filter
    "refusal",  # `text` as a refusal
    "huge",  # a text of `size` bytes, whatever the limit of tokens
]
STATUS: dict[str, tuple[int, str, str | None, str]] = {
    "rate_limited": (429, "requests", "rate_limit_exceeded", "Rate limit reached for {model}. Please try again later."),
    "out_of_quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "server_error": (500, "server_error", None, "The server had an error while processing your request. Sorry!"),
    "unavailable": (503, "server_error", None, "The engine is currently overloaded, please try again later."),
    "wrong_key": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "unknown_model": (
        404,
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    "context_overflow": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
    ),
    "no_json_schema": (
        400,
        "invalid_request_error",
        None,
        "Invalid parameter: the format '{format}' is not supported with this model.",
    ),
}


@dataclass(frozen=True)
class Text:
    """A text as answer. `usage` is the number of input and output tokens; the default is to count them.

    `thoughts` come before it and count in the limit; a chat completion has them as `reasoning_content`. `finish` is
    the finish reason of a chat completion, in place of that of OpenAI.
    """

    text: str
    usage: tuple[int, int] | None = None
    thoughts: str = ""
    finish: str = ""


@dataclass(frozen=True)
class Calls:
    """Tool calls in one turn, as (name, arguments). Arguments that are a string are sent unchanged.

    `ids` are the call ids, to simulate careless servers; by default they are unique. `call_fields` and `message_fields`
    go beside them, see `Turn`.
    """

    calls: Sequence[tuple[str, dict[str, Any] | str]]
    text: str = ""
    usage: tuple[int, int] | None = None
    ids: Sequence[str] = ()
    call_fields: Mapping[str, Any] = field(default_factory=dict)
    message_fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """A failure of the model or of a proxy. FaultKind lists the kinds, and the fields that they use."""

    kind: FaultKind
    text: str = "This is what the answer would have been."
    retry_after: float | str | None = None
    delay_s: float = 1.0
    size: int = 1_000_000
    usage: tuple[int, int] | None = None


@dataclass(frozen=True)
class Raw:
    """A response as it is, whatever the request: JSON, or a text with its content type."""

    status: int
    content: Any
    kind: str = "application/json"


Answer = Text | Calls | Fault | Raw | Endless
Reply = Answer | Callable[[Request], Answer | Awaitable[Answer]]
When = str | Callable[[Request], bool]


@dataclass(frozen=True)
class Rule:
    """The first matching request gets the first reply, and so on; the last reply repeats.

    `when` is a predicate, or a text that the last user message must contain; the empty text matches all requests.
    """

    when: When
    replies: tuple[Reply, ...]

    def matches(self, request: Request) -> bool:
        return self.when in request.prompt if isinstance(self.when, str) else self.when(request)


def anywhere(text: str) -> Callable[[Request], bool]:
    """Return a predicate for requests with this text anywhere: in instructions, messages, calls or results."""
    return lambda request: text in request.text


def by_turn(*replies: Answer) -> Callable[[Request], Answer]:
    """Return a reply that depends on the number of turns since the last user message; the last reply repeats.

    It depends on the conversation alone, unlike the replies of a rule, so it works for concurrent and resumed tasks.
    """
    return lambda request: replies[min(request.turn, len(replies) - 1)]


def turn_of(answer: Text | Calls, request: Request) -> Turn:
    """Return the turn of the model: each call gets an id, and the text is cut at the token limit of the request."""
    if isinstance(answer, Calls):
        calls = []
        for number, (name, arguments) in enumerate(answer.calls):
            call_id = answer.ids[number] if number < len(answer.ids) else f"call_{request.index}_{number}"
            calls.append((call_id, name, arguments if isinstance(arguments, str) else json.dumps(arguments)))
        return Turn(
            answer.text,
            tuple(calls),
            usage=answer.usage,
            call_fields=answer.call_fields,
            message_fields=answer.message_fields,
        )
    most = request.max_tokens
    thoughts, text = answer.thoughts, answer.text
    if most is None or len(thoughts) + len(text) <= most * 4:
        return Turn(text, usage=answer.usage, thoughts=thoughts, reason=answer.finish)
    text = text[: max(most * 4 - len(thoughts), 0)]
    return Turn(text, finish="length", usage=answer.usage, thoughts=thoughts[: most * 4])


def error_of(kind: str, request: Request) -> WireError:
    """Return the wire error of a fault in STATUS."""
    status, error_type, code, message = STATUS[kind]
    level = request.format if request.format != "text" else "json_schema"
    return WireError(status, message.format(model=request.model, format=level), kind=error_type, code=code)


def read_rules(file: Path) -> list[Rule]:
    """Read the rules of a JSON file: a list of {"when": TEXT, "in": "prompt", "by": "request", "replies": [...]}.

    `in` may be "anywhere" (see `anywhere`) and `by` "turn" (see `by_turn`). A reply is {"text": ...}, {"calls": [[name,
    arguments], ...]} or {"fault": kind}, with the other fields of Text, Calls or Fault, and "times" to repeat
    it.
    """
    rules = []
    for rule in json.loads(file.read_text(encoding="utf-8")):
        answers = [answer for given in rule["replies"] for answer in _answers_of(given)]
        when = anywhere(rule["when"]) if rule.get("in") == "anywhere" else rule.get("when", "")
        rules.append(Rule(when, (by_turn(*answers),) if rule.get("by") == "turn" else tuple(answers)))
    return rules


def _answers_of(given: dict[str, Any]) -> list[Answer]:
    fields = {name: value for name, value in given.items() if name not in {"fault", "times"}}
    if "usage" in fields:
        fields["usage"] = tuple(fields["usage"])
    answer: Answer
    if "fault" in given:
        answer = Fault(given["fault"], **fields)
    else:
        answer = Calls(**fields) if "calls" in given else Text(**fields)
    return [answer] * given.get("times", 1)
