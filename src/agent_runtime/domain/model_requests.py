"""Values of one exchange with a language model: the request, the answer and the status of the endpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agent_runtime.domain.events import ModelCall
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject

LARGER_CONTEXT = (
    "give the model a larger context at its endpoint (OLLAMA_CONTEXT_LENGTH for Ollama, --ctx-size for llama.cpp, "
    "--max-model-len for vLLM), or show it fewer tools (openai.catalogue_tokens)"
)
"""The remedies where a question is longer than the model can read."""


def ignore_text(_: str) -> None:
    """Ignore the text of an answer."""
    return


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as a model sees it: function name (1 to 64 letters, digits, `_`, `-`), description and JSON Schema."""

    name: str
    description: str
    input_schema: JsonObject


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request to a language model.

    `items`: the conversation, oldest first, in the format of the Responses API whatever API the endpoint has: messages
    (`role`, `content`), the model's own items unchanged, and `function_call_output` items.
    `schema`: the JSON Schema that the answer should match; `name` is its title. It is enforced as strictly as the
    endpoint supports, so the text may still not match.
    `max_tokens`: the limit of the answer; a model has one of its own too, and the lower counts.
    `model`: the name of the only model that may answer; None: the one that is configured.
    `on_text`: receives the text in pieces as it arrives; from the start again if the request is repeated.
    """

    instructions: str
    items: Sequence[JsonObject]
    tools: Sequence[OfferedTool] = ()
    schema: JsonObject | None = None
    name: str = "answer"
    max_tokens: int | None = None
    model: str | None = None
    on_text: Callable[[str], None] = ignore_text


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One answer of a language model: its items as JSON, their text, and the calls that it proposes.

    `usage` is an estimate if the endpoint reports none, so that every answer counts against the budget; `counted` is
    False then.
    `read_tokens` is set if the endpoint seems to have cut the question without a word: the tokens that the model read.
    """

    items: tuple[JsonObject, ...]
    text: str
    calls: tuple[ModelCall, ...]
    usage: Usage
    read_tokens: int | None = None
    counted: bool = True


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The known status of a model's endpoint; getting it sends no request.

    `model`: its name; None until it was found out at the endpoint, where the settings name none.
    `output`: how strictly the endpoint can enforce a schema; None until known.
    `circuit`: `open` while no requests are sent because too many failed, `half_open` while one request tests it.
    `last_error`: why the latest request failed.
    """

    endpoint: str
    model: str | None
    api: Literal["responses", "chat_completions"]
    circuit: Literal["closed", "half_open", "open"]
    output: Literal["json_schema", "json_object", "prompt"] | None
    last_error: str | None
