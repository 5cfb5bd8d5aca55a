"""Model classes of openai-agents as an operator would name them in `openai.model_class`."""

from typing import Any

from agents import Model, OpenAIChatCompletionsModel, OpenAIResponsesModel
from openai import AsyncOpenAI

from agent_runtime.config import OpenAISettings


class ChatModel(OpenAIChatCompletionsModel):
    """A model class with a client of its own, which it closes."""

    async def close(self) -> None:
        await self._client.close()


class ResponsesModel(OpenAIResponsesModel):
    """The same for the other API."""

    async def close(self) -> None:
        await self._client.close()


def make_model(settings: OpenAISettings) -> Model:
    """Return a model of the library with the client of the openai library."""
    key = settings.api_key.get_secret_value() if settings.api_key else "unused"
    client = AsyncOpenAI(base_url=settings.base_url, api_key=key, max_retries=0)
    kind = ResponsesModel if settings.api == "responses" else ChatModel
    return kind(settings.model, client)


class ForeignError(Exception):
    """An error of a library that is not ours, such as LiteLLM's."""

    status_code = 429


class ForeignModel(ChatModel):
    """A model whose library has errors of its own."""

    def __init__(self, settings: OpenAISettings) -> None:
        super().__init__(settings.model, AsyncOpenAI(base_url=settings.base_url, api_key="unused"))

    async def get_response(self, *_: Any, **__: Any) -> Any:
        raise ForeignError("slow down")


def make_nothing(_: OpenAISettings) -> None:
    """Return no model."""


def fail(_: OpenAISettings) -> Model:
    raise RuntimeError("no licence")
