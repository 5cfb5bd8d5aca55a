"""No answer of a model holds its task for longer than its bounds, whatever the model writes and the endpoint sends."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_runtime.domain.errors import ModelError
from agent_runtime.domain.model_requests import ModelRequest, OfferedTool
from agent_runtime.domain.usage import Usage
from contract.test_language_model import PLAN, USER, Asker, Time, Way, ask_in_time, question, status
from model_server import ModelServer
from model_server.endless import (
    Endless,
    keep_alive,
    repeat_itself,
    say_nothing,
    think_on,
    write_arguments_on,
    write_on,
)
from model_server.replies import Fault, Reply, Text
from model_server.requests import Request, WireError
from waiting import eventually

pytestmark = pytest.mark.usefixtures("library")

STREAMED = [Way("responses", stream=True), Way("chat_completions", stream=True)]
TOOL = OfferedTool("files__read", "Read a file.", {"type": "object"})


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        server.on("", Text("done"))
        yield server


@pytest.fixture(params=STREAMED, ids=str)
async def ask(request: pytest.FixtureRequest, models: ModelServer) -> AsyncIterator[Asker]:
    async with Asker(models, request.param, Time()) as asker:
        yield asker


@pytest.fixture
async def chat(models: ModelServer) -> AsyncIterator[Asker]:
    async with Asker(models, STREAMED[1], Time()) as asker:
        yield asker


# What is sent without an end


@pytest.mark.parametrize(
    "endless",
    [repeat_itself("and so on, ", '{"goal": "Add", "steps": ['), repeat_itself("\n  "), write_arguments_on()],
    ids=["text", "white space", "arguments"],
)
async def test_a_model_that_repeats_itself_is_stopped_and_charged(ask: Asker, endless: Endless) -> None:
    model = ask.model()
    ask.models.next(endless)
    with pytest.raises(ModelError, match="repeated itself") as caught:
        await ask_in_time(model, question(tools=(TOOL,)))
    assert caught.value.code == "model_answer_repetitive"
    assert caught.value.usage.input_tokens > 0
    assert 300 < caught.value.usage.output_tokens < 5000
    await eventually(lambda: ask.models.abandoned)
    assert (len(ask.models.requests), model.status().circuit) == (1, "closed")


@pytest.mark.parametrize("endless", [write_on(), think_on()], ids=["text", "thoughts"])
async def test_a_limit_that_an_endpoint_ignores_is_kept_all_the_same(ask: Asker, endless: Endless) -> None:
    model = ask.model()
    ask.models.next(endless)
    with pytest.raises(ModelError) as caught:
        await ask_in_time(model, ModelRequest("", [USER], max_tokens=100))
    assert caught.value.code == "model_answer_truncated"
    assert 300 < caught.value.usage.output_tokens < 2000
    await eventually(lambda: ask.models.abandoned)


@pytest.mark.parametrize("endless", [keep_alive(), say_nothing()], ids=["signs of life", "empty pieces"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_signs_of_life_hold_nobody_for_longer_than_an_answer_may_take(
    chat: Asker, endless: Endless, *, stream: bool
) -> None:
    await chat.answer(Text("ok"))  # the first request of a process takes longer, because it imports much
    error = await chat.error(endless, answer_timeout_s=0.3, stream=stream)
    assert (error.code, "openai.answer_timeout_s" in str(error)) == ("model_unreachable", True)
    assert error.usage == Usage()
    await eventually(lambda: len(chat.models.abandoned) == len(chat.models.requests) - 1)


async def test_a_model_that_writes_for_too_long_is_charged_and_not_taken_for_an_endpoint_that_is_down(
    chat: Asker,
) -> None:
    await chat.answer(Text("ok"))
    model = chat.model(answer_timeout_s=1.5, max_retries=0)
    chat.models.next(*[Endless(write_on().pieces, pause_s=0.05)] * 5)
    errors = await asyncio.gather(*[model.answer(question()) for _ in range(5)], return_exceptions=True)
    for error in errors:
        assert isinstance(error, ModelError)
        assert "openai.answer_timeout_s" in str(error)
        assert error.usage.output_tokens > 0
    assert model.status().circuit == "closed"


# Limits of tokens


async def test_every_request_has_a_limit_of_tokens(ask: Asker) -> None:
    for request, limit in (
        (question(), 16_384),
        (question(schema=PLAN), 4096),
        (ModelRequest("", [USER], max_tokens=50), 50),
        (ModelRequest("", [USER], max_tokens=10**6), 16_384),
    ):
        await ask.answer(Text("{}"), request=request)
        assert ask.models.requests[-1].max_tokens == limit
    await ask.answer(Text("{}"), request=question(schema=PLAN), answer_tokens=700)
    assert ask.models.requests[-1].max_tokens == 700


async def test_a_plan_that_was_cut_while_the_model_thought_is_asked_for_with_more_room(chat: Asker) -> None:
    model = chat.model()
    chat.models.next(Text("", thoughts=" ".join(map(str, range(9000)))), Text("{}"), Text("{}"))
    answer = await ask_in_time(model, question(schema=PLAN))
    assert [request.max_tokens for request in chat.models.requests] == [4096, 16_384]
    assert answer.usage.output_tokens > 4096
    await ask_in_time(model, question(schema=PLAN))
    assert chat.models.requests[-1].max_tokens == 16_384


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_thoughts_in_the_text_count_as_thoughts(chat: Asker, *, stream: bool) -> None:
    model = chat.model(stream=stream)
    chat.models.next(Text(f"<think>{' '.join(map(str, range(9000)))}"), Text("{}"))
    assert (await ask_in_time(model, question(schema=PLAN))).text == "{}"
    assert [request.max_tokens for request in chat.models.requests] == [4096, 16_384]


async def test_a_plan_that_is_all_thoughts_even_so_says_what_to_do(chat: Asker) -> None:
    thoughts = Text("", thoughts=" ".join(map(str, range(9000))))
    error = await chat.error(thoughts, request=question(schema=PLAN), answer_tokens=1000)
    assert error.code == "model_answer_truncated"
    assert "at 1000 tokens, all of them thoughts" in str(error)
    assert "openai.answer_tokens" in str(error)


async def test_a_model_that_was_seen_to_think_gets_more_room(chat: Asker) -> None:
    model = chat.model()
    chat.models.next(Text("{}", thoughts="Hm."), Text("{}"))
    for _ in range(2):
        await ask_in_time(model, question(schema=PLAN))
    assert [request.max_tokens for request in chat.models.requests] == [4096, 16_384]


@pytest.mark.parametrize(
    ("message", "limits"),
    [
        (
            (
                "'max_tokens' or 'max_completion_tokens' is too large: {limit}. This model's maximum context length is "
                "8192 tokens and your request has 4100 input tokens ({limit} > 8192 - 4100)."
            ),
            [16_384, 3836, 16_384],
        ),
        (
            (
                "max_tokens is too large: {limit}. This model supports at most 8192 completion tokens, whereas you "
                "provided {limit}."
            ),
            [16_384, 8192, 8192],
        ),
    ],
    ids=["of the context", "of all answers"],
)
async def test_a_limit_that_the_endpoint_refuses_is_lowered_to_what_it_allows(
    ask: Asker, message: str, limits: list[int]
) -> None:
    model = ask.model()
    ask.models.next(status(400, message.format(limit=limits[0])), Text("ok"), Text("ok"))
    for _ in range(2):
        assert (await ask_in_time(model, question())).text == "ok"
    assert [request.max_tokens for request in ask.models.requests] == limits


async def test_an_endpoint_that_refuses_every_limit_is_not_asked_on_and_on(ask: Asker) -> None:
    def refuse(request: Request) -> Text:
        message = f"This model supports at most {(request.max_tokens or 0) - 1} completion tokens"
        raise WireError(400, message, param="max_tokens")

    error = await ask.error(*[refuse] * 20)
    assert (error.code, len(ask.models.requests)) == ("model_failed", 4)


@pytest.mark.parametrize(
    ("reply", "request_", "said"),
    [
        (
            Text("word " * 30),
            ModelRequest("", [USER], max_tokens=20),
            "all that the budget leaves: allow the task more",
        ),
        (Fault("truncated", usage=(3000, 1096)), question(), "its context of 4096 tokens is full.*--ctx-size"),
        (
            Fault("truncated", usage=(3000, 512)),
            question(),
            "by its endpoint after 512 tokens: raise the endpoint's own",
        ),
        (Fault("truncated", usage=(3000, 16_384)), question(), "limit of 16384 tokens: ask for less.*answer_tokens"),
    ],
    ids=["budget", "context", "endpoint", "limit"],
)
async def test_an_answer_that_was_cut_off_says_where_and_what_to_do(
    ask: Asker, reply: Reply, request_: ModelRequest, said: str
) -> None:
    error = await ask.error(reply, request=request_)
    assert error.code == "model_answer_truncated"
    assert re.search(said, str(error))
    assert error.context_tokens == (4096 if "context" in said else None)
    assert ask.made[0].status().circuit == "closed"


async def test_an_answer_that_repeats_itself_up_to_its_limit_is_known_as_such(chat: Asker) -> None:
    error = await chat.error(Text("and so on, " * 9000), stream=False, answer_tokens=2000)
    assert error.code == "model_answer_repetitive"


# What ends in another way


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_an_answer_that_was_broken_off_is_asked_for_again(chat: Asker, reason: str, *, stream: bool) -> None:
    broken = Text("The answer is forty", finish=reason)
    assert (await chat.answer(broken, Text("The answer is 42"), stream=stream)).text == "The answer is 42"
    error = await chat.error(*[broken] * 3, stream=stream)
    assert (error.code, repr(reason) in str(error)) == ("model_answer_unreadable", True)


@pytest.mark.parametrize(
    ("reason", "code"),
    [("max_tokens", "model_answer_truncated"), ("SAFETY", "model_refused"), ("end_turn", None), ("STOP", None)],
)
async def test_the_finish_reasons_of_other_providers_are_understood(chat: Asker, reason: str, code: str | None) -> None:
    if code is None:
        assert (await chat.answer(Text("ok", finish=reason))).text == "ok"
    else:
        assert (await chat.error(Text("ok", finish=reason))).code == code


# Questions that are too long


@pytest.mark.parametrize(
    "error",
    [
        {"message": "the request exceeds the available context size", "n_prompt_tokens": 5000, "n_ctx": 4096},
        {"message": "This model's maximum context length is 4096 tokens, but the prompt contains 5000 input tokens"},
    ],
    ids=["llama.cpp", "vLLM"],
)
async def test_an_overflow_names_the_sizes_and_the_remedies(ask: Asker, error: dict[str, Any]) -> None:
    failure = await ask.error(status(400, **error))
    assert (failure.code, failure.context_tokens, failure.question_tokens) == ("model_context_overflow", 4096, 5000)
    for remedy in ("OLLAMA_CONTEXT_LENGTH", "--ctx-size", "openai.catalogue_tokens"):
        assert remedy in str(failure)


async def test_a_question_that_was_cut_without_a_word_is_noticed(ask: Asker) -> None:
    long = ModelRequest("", [{"role": "user", "content": "many words " * 2000}])
    assert (await ask.answer(Text("ok", usage=(2050, 1)), request=long)).read_tokens == 2050
    assert (await ask.answer(Text("ok", usage=(5500, 1)), request=long)).read_tokens is None
