"""Values of one exchange with a language model: the question, the answer, and what is known of the endpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agent_runtime.domain.events import ModelCall
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject


def ignore_text(_: str) -> None:
    """Hear the text of an answer without doing anything with it."""
    return


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as a model sees it: a function's name (letters, digits, `_`, `-`; at most 64), text and JSON Schema."""

    name: str
    description: str
    input_schema: JsonObject


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One question to a language model.

    `items` is the conversation, oldest first, in the words of the Responses API whatever the endpoint speaks: messages
    (`role`, `content`), the model's own items as it gave them, and `function_call_output` items. `schema` is the
    JSON Schema that the answer should follow, and `name` says what it is of: the endpoint is held to it as strictly
    as it can be, and the text may still be anything. `max_tokens` bounds the answer. `on_text` hears the text as it
    comes, in pieces; where a request is sent again, from the start.
    """

    instructions: str
    items: Sequence[JsonObject]
    tools: Sequence[OfferedTool] = ()
    schema: JsonObject | None = None
    name: str = "answer"
    max_tokens: int | None = None
    on_text: Callable[[str], None] = ignore_text


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One answer of a language model: its items as JSON, the text in them, and the calls that it proposes.

    `usage` is an estimate where the endpoint does not count, so that no budget lasts for ever.
    """

    items: tuple[JsonObject, ...]
    text: str
    calls: tuple[ModelCall, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What is known of a model's endpoint without asking it.

    `output` is how strictly it can be held to a schema (None: not known yet); `circuit` is `open` while it is not asked
    because it failed too often, `half_open` while it is tried again. `last_error` is why the latest request failed.
    """

    endpoint: str
    model: str
    api: Literal["responses", "chat_completions"]
    circuit: Literal["closed", "half_open", "open"]
    output: Literal["json_schema", "json_object", "prompt"] | None
    last_error: str | None
