"""One turn of a model, with a scripted model of the library in place of an endpoint."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agents.testing import ScriptedModel, assistant_message, function_call

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest, OfferedTool
from agent_runtime.models.answer_reader import ResponseInfo
from agent_runtime.models.dialect import Dialect
from agent_runtime.models.failures import Failures
from agent_runtime.models.openai_agents import Endpoint
from agent_runtime.text.redaction import Redactor

REDACTOR = Redactor(["sk-of-the-model"])
WHOLE = Dialect(streams=False)
READ = OfferedTool("files__read", "Reads.", {"type": "object", "properties": {"path": {"type": "string"}}})
QUESTION = ModelRequest("Be brief.", [{"role": "user", "content": "Read a."}], [READ])


@asynccontextmanager
async def open_scripted(*turns: Sequence[Any]) -> AsyncIterator[Endpoint]:
    settings = OpenAISettings(base_url="http://127.0.0.1:9/v1")
    endpoint = Endpoint(
        settings,
        Failures(settings, Redactor(), answer_bytes=1000),
        REDACTOR,
        answer_bytes=1000,
        model=ScriptedModel(list(turns)),
    )
    try:
        yield endpoint
    finally:
        await endpoint.aclose()


def proposals_of(answer: ModelAnswer) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in answer.calls]


async def test_what_a_model_proposes_comes_back_and_is_not_carried_out() -> None:
    calls = [function_call("files__read", {"path": name}, call_id=name) for name in ("a", "b")]
    async with open_scripted(calls) as endpoint:
        answer = await endpoint.ask(QUESTION, WHOLE, ResponseInfo(streamed=False))
    assert [name for name, _ in proposals_of(answer)] == ["files__read", "files__read"]
    assert answer.text == ""


async def test_a_function_that_was_not_offered_comes_back_like_any_other() -> None:
    async with open_scripted([function_call("delete_all", "{not json", call_id="x")]) as endpoint:
        answer = await endpoint.ask(QUESTION, WHOLE, ResponseInfo(streamed=False))
    assert proposals_of(answer) == [("delete_all", "{not json")]


async def test_the_items_of_a_turn_are_what_the_next_one_is_asked_with() -> None:
    async with open_scripted(
        [function_call("files__read", {"path": "a"}, call_id="c1")], [assistant_message("It says b.")]
    ) as endpoint:
        first = await endpoint.ask(QUESTION, WHOLE, ResponseInfo(streamed=False))
        (call,) = first.calls
        reply = {"type": "function_call_output", "call_id": call.call_id, "output": "b"}
        second = await endpoint.ask(
            ModelRequest(QUESTION.instructions, [*QUESTION.items, *first.items, reply], [READ]),
            WHOLE,
            ResponseInfo(streamed=False),
        )
    assert (second.text, second.calls) == ("It says b.", ())
