"""The `LanguageModel` port with a model class that the operator names, over the wire."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.errors import ModelError
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest, OfferedTool
from agent_runtime.domain.usage import Usage
from agent_runtime.models.model import OpenAIModel
from agent_runtime.text.redaction import Redactor
from model_server import ModelServer
from model_server.replies import Calls, Fault, Text

KEY = "sk-a-secret-key"
USER = {"role": "user", "content": "Say it in JSON."}
READ = OfferedTool("files__read", "Read a file.", {"type": "object", "properties": {"$path": {"type": "string"}}})


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


async def ask(models: ModelServer, request: ModelRequest, **settings: Any) -> ModelAnswer:
    given = {"base_url": models.base_url, "api_key": KEY, "model": "tiny", "max_retries": 0}
    given |= {"model_class": "plugged_models:make_model"} | settings
    async with OpenAIModel(OpenAISettings.model_validate(given), Redactor([KEY])) as model, asyncio.timeout(10):
        return await model.answer(request)


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_any_model_class_answers_and_goes_on(models: ModelServer, api: str, *, stream: bool) -> None:
    heard: list[str] = []
    models.next(Calls([(READ.name, {"path": "a"})], text=f"Reading with {KEY}."), Text("It says b.", usage=(7, 3)))
    first = await ask(models, ModelRequest("", [USER], [READ], on_text=heard.append), api=api, stream=stream)
    assert (first.text, "".join(heard)) == ("Reading with [redacted].", first.text if stream else "")
    assert first.calls[0].arguments == '{"$path":"a"}'
    output = {"type": "function_call_output", "call_id": first.calls[0].call_id, "output": "b"}
    second = await ask(models, ModelRequest("", [USER, *first.items, output], [READ]), api=api, stream=stream)
    assert (second.text, second.usage) == ("It says b.", Usage(input_tokens=7, output_tokens=3))
    assert [request.stream for request in models.requests] == [stream, stream]
    assert all(request.max_tokens for request in models.requests)


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
async def test_any_model_class_holds_an_answer_to_a_schema(models: ModelServer, api: str) -> None:
    models.levels = {"json_object"}
    models.on("", Text("{}"))
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    await ask(models, ModelRequest("", [USER], schema=schema), api=api)
    formats = [request.format for request in models.requests]
    assert (formats[0], formats[-1]) == ("json_schema", "text")


async def test_errors_of_any_model_class_are_told_as_ours(models: ModelServer) -> None:
    models.next(Fault("wrong_key"), Fault("rate_limited"))
    for code in ("model_key_refused", "model_overloaded"):
        with pytest.raises(ModelError) as caught:
            await ask(models, ModelRequest("", [USER]))
        assert caught.value.code == code


async def test_an_error_of_a_foreign_library_is_read_by_its_status(models: ModelServer) -> None:
    with pytest.raises(ModelError, match="slow down") as caught:
        await ask(models, ModelRequest("", [USER]), model_class="plugged_models:ForeignModel", stream=False)
    assert caught.value.code == "model_overloaded"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no_such_module:make", "no_such_module cannot be imported"),
        ("plugged_models:no_such_name", "no_such_name"),
        ("plugged_models:make_nothing", "returns a NoneType"),
        ("plugged_models:fail", "RuntimeError: no licence"),
    ],
)
async def test_a_model_class_that_makes_no_model_is_named(models: ModelServer, place: str, said: str) -> None:
    with pytest.raises(ModelError, match=r"openai\.model_class") as caught:
        await ask(models, ModelRequest("", [USER]), model_class=place)
    assert (caught.value.code, said in str(caught.value)) == ("model_failed", True)
    assert models.requests == []
