"""Any other model class of openai-agents, which the operator names as `module:attribute`."""

import importlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import reduce
from typing import Any, cast

from agents import AgentOutputSchemaBase, Model

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject
from agent_runtime.models.answer_reader import CutOffError, ResponseInfo, read_usage


class NoModelError(Exception):
    """The setting `openai.model_class` names nothing that makes a model."""


class OutputForm(AgentOutputSchemaBase):
    """The schema that an answer is held to, as model classes take it. Answers are judged elsewhere."""

    def __init__(self, name: str, schema: JsonObject, *, strict: bool) -> None:
        self._name = name
        self._schema = schema
        self._strict = strict

    def is_plain_text(self) -> bool:
        return False

    def name(self) -> str:
        return self._name

    def json_schema(self) -> JsonObject:
        return self._schema

    def is_strict_json_schema(self) -> bool:
        return self._strict

    def validate_json(self, json_str: str) -> str:
        return json_str


def load_model(place: str, settings: OpenAISettings) -> Model:
    """Return the model that `module:attribute` makes of the settings. Raises: NoModelError."""
    module_name, _, path = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the edge of somebody else's code, which may raise anything
        remedy = "install it where the service is installed, or name its folder in PYTHONPATH"
        raise NoModelError(f"{module_name} cannot be imported ({type(error).__name__}: {error}); {remedy}") from error
    try:
        model = reduce(getattr, path.split("."), module)(settings)  # type: ignore[operator]  # judged below
    except Exception as error:  # likewise
        raise NoModelError(f"it cannot be called with the settings ({type(error).__name__}: {error})") from error
    if not isinstance(model, Model):
        raise NoModelError(f"it returns a {type(model).__name__}, and no Model of openai-agents")
    return model


async def ask_plugged(model: Model, info: ResponseInfo, asked: dict[str, Any]) -> list[Any]:
    """Return the output items of any model; if it streams, its text is heard while it comes."""
    if not info.streamed:
        response = await model.get_response(**asked)
        info.usage = _read_usage(response.usage)
        return cast("list[Any]", response.output)
    final: Any = None
    async with aclosing(cast("AsyncGenerator[Any]", model.stream_response(**asked))) as events:
        async for event in events:
            if isinstance(delta := getattr(event, "delta", None), str):
                info.take(delta, shown=event.type == "response.output_text.delta")
            elif event.type in {"response.completed", "response.incomplete", "response.failed"}:
                final = event.response
    if final is None:
        raise CutOffError("the stream ended before the answer did")
    info.usage = _read_usage(final.usage)
    return cast("list[Any]", final.output)


def _read_usage(usage: Any) -> Usage:
    return read_usage({name: getattr(usage, name, None) for name in ("input_tokens", "output_tokens")})
