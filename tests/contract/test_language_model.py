"""The `LanguageModel` port with the adapter of openai-agents: over the wire, in both APIs, streamed and not."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal, Self

import pytest
from pydantic import SecretStr

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.errors import ModelError
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest, OfferedTool
from agent_runtime.domain.usage import Usage
from agent_runtime.models.model import OpenAIModel
from agent_runtime.services.ports import LanguageModel
from agent_runtime.text.redaction import Redactor
from model_server import ModelServer, refusals
from model_server.continuing import reply_like_deepseek, reply_like_gemini, reply_like_litellm
from model_server.refusals import (
    Refuse,
    refuse_first,
    refuse_functions_like_gemini,
    refuse_functions_without_a_word,
    refuse_returned_thoughts,
)
from model_server.replies import Answer, Calls, Fault, FaultKind, Raw, Reply, Rule, Text
from model_server.requests import Request, WireError
from waiting import eventually

Api = Literal["responses", "chat_completions"]

USER = {"role": "user", "content": "Say it in JSON."}
READ = OfferedTool("files__read", "Read a file.", {"type": "object", "properties": {"path": {"type": "string"}}})
PLAN = {"type": "object", "properties": {"goal": {"type": "string"}}}
CLOSED = PLAN | {"required": ["goal"], "additionalProperties": False}
KEY = "sk-a-secret-key"


def question(*, tools: tuple[OfferedTool, ...] = (), schema: dict[str, Any] | None = None) -> ModelRequest:
    return ModelRequest("Be brief.", [USER], tools=tools, schema=schema, name="plan")


@dataclass
class Time:
    """A clock that moves only when somebody sleeps."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass(frozen=True)
class Way:
    """One of the ways to talk to an endpoint."""

    api: Api
    stream: bool

    def __str__(self) -> str:
        return f"{self.api}-{'streamed' if self.stream else 'whole'}"


@pytest.fixture(
    params=[Way(api, stream) for api in ("responses", "chat_completions") for stream in (True, False)], ids=str
)
def way(request: pytest.FixtureRequest) -> Way:
    param: Way = request.param
    return param


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        server.on("", Text("done"))
        yield server


@pytest.fixture
def time() -> Time:
    return Time()


@dataclass
class Asker:
    """Makes models at the server, in one way, and closes them at the end."""

    models: ModelServer
    way: Way
    time: Time
    made: list[OpenAIModel] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for model in self.made:
            await model.aclose()

    def model(self, **settings: Any) -> OpenAIModel:
        given = {"base_url": self.models.base_url, "api": self.way.api, "stream": self.way.stream, "api_key": KEY}
        given |= {"model": "tiny", "timeout_s": 5.0} | settings
        chosen = OpenAISettings.model_validate(given)
        redactor = Redactor([KEY])
        redactor.remember_literal("openai.base_url", chosen.base_url or "")
        made = OpenAIModel(chosen, redactor, answer_bytes=20_000, clock=self.time.clock, sleep=self.time.sleep)
        self.made.append(made)
        return made

    async def answer(self, *replies: Reply, request: ModelRequest | None = None, **settings: Any) -> ModelAnswer:
        self.models.next(*replies)
        return await ask_in_time(self.model(**settings), request or question())

    async def error(self, *replies: Reply, request: ModelRequest | None = None, **settings: Any) -> ModelError:
        with pytest.raises(ModelError) as caught:
            await self.answer(*replies, request=request, **settings)
        assert KEY not in str(caught.value)
        return caught.value


async def ask_in_time(model: LanguageModel, request: ModelRequest) -> ModelAnswer:
    async with asyncio.timeout(10):
        return await model.answer(request)


@pytest.fixture
async def ask(models: ModelServer, way: Way, time: Time) -> AsyncIterator[Asker]:
    async with Asker(models, way, time) as asker:
        yield asker


CHAT = pytest.mark.parametrize(
    "way", [Way("chat_completions", stream=True), Way("chat_completions", stream=False)], indirect=True, ids=str
)
STREAMED_CHAT = pytest.mark.parametrize("way", [Way("chat_completions", stream=True)], indirect=True, ids=str)


def status(number: int, message: str = "no", **error: Any) -> Callable[[Request], Text]:
    """Return an error answer with this HTTP status."""

    def refuse(_: Request) -> Text:
        raise WireError(number, message, **error)

    return refuse


@asynccontextmanager
async def raw(*answers: bytes) -> AsyncIterator[str]:
    """Run a server that sends these bytes, one piece for each connection, whatever the request. Yield its base URL."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        writer.write(left.pop(0))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@asynccontextmanager
async def raw_get(answer: bytes) -> AsyncIterator[str]:
    """Run a server that sends these bytes to each request without a body. Yield its base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):  # it may not be read to its end
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def body(content: bytes, kind: str, first: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {first}\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode() + content


# What comes of an answer


async def test_a_text_is_answered_with_what_it_cost(ask: Asker) -> None:
    answer = await ask.answer(Text("Two words.", usage=(11, 3)))
    assert (answer.text, answer.calls, answer.usage) == ("Two words.", (), Usage(input_tokens=11, output_tokens=3))


async def test_the_tokens_of_an_endpoint_that_does_not_count_are_estimated(ask: Asker) -> None:
    ask.models.tells_usage = False
    answer = await ask.answer(Text("word " * 300))
    assert answer.usage.input_tokens > 0
    assert 300 < answer.usage.output_tokens < 1000
    assert [item["type"] for item in answer.items] == ["message"]
    [request] = ask.models.requests
    assert (request.system, request.prompt, request.model) == ("Be brief.", USER["content"], "tiny")
    assert (request.stream, request.headers["authorization"]) == (ask.way.stream, f"Bearer {KEY}")


async def test_text_is_heard_in_pieces_while_it_comes_and_nothing_else_is(ask: Asker) -> None:
    pieces: list[str] = []
    request = ModelRequest("", [USER], tools=[READ], on_text=pieces.append)
    answer = await ask.answer(Calls([(READ.name, {"path": "a"})], text="I will read the file."), request=request)
    assert "".join(pieces) == (answer.text if ask.way.stream else "")
    assert len(pieces) == (2 if ask.way.stream else 0)


async def test_a_key_that_an_endpoint_repeats_is_taken_out_of_its_answer(ask: Asker) -> None:
    pieces: list[str] = []
    request = ModelRequest("", [USER], tools=[READ], on_text=pieces.append)
    said = f"The key is {KEY}, {KEY[:7]}"
    answer = await ask.answer(Calls([(READ.name, {"path": KEY})], text=said), request=request)
    assert answer.text == f"The key is [redacted], {KEY[:7]}"
    assert "".join(pieces) == (answer.text if ask.way.stream else "")
    assert [json.loads(call.arguments) for call in answer.calls] == [{"path": "[redacted]"}]
    assert KEY not in json.dumps(answer.items)


async def test_calls_come_back_in_order_and_none_is_made(ask: Asker) -> None:
    given = [(READ.name, '{"path": "a"}'), (READ.name, '{"path": "b"}')]
    answer = await ask.answer(Calls(given, ids=["c1", "c2"]), request=question(tools=(READ,)))
    assert [(call.name, call.arguments) for call in answer.calls] == given
    assert [call.call_id for call in answer.calls] == ["c1", "c2"]
    assert len(ask.models.requests) == 1


async def test_a_tool_is_offered_with_its_schema_as_it_is(ask: Asker) -> None:
    await ask.answer(Text("ok"), request=question(tools=(READ,)))
    [tool] = ask.models.requests[0].body["tools"]
    tool = tool.get("function", tool)
    assert (tool["name"], tool["description"]) == (READ.name, READ.description)
    assert (tool["parameters"], tool["strict"]) == (READ.input_schema, False)


@pytest.mark.parametrize("call", [("no_such_tool", "{}"), (READ.name, '{"path": '), (READ.name, "[]"), (READ.name, "")])
async def test_what_a_model_makes_up_comes_back_as_data(ask: Asker, call: tuple[str, str]) -> None:
    good = (READ.name, "{}")
    answer = await ask.answer(Calls([call, good]), request=question(tools=(READ,)))
    assert [(one.name, one.arguments) for one in answer.calls] == [call, good]


async def test_a_conversation_goes_on_from_the_items_that_were_kept(ask: Asker) -> None:
    calls = Calls([(READ.name, '{"path": "a"}'), ("made_up", '{"path": ')], text="Reading.", ids=["c1", "c2"])
    first = await ask.answer(calls, request=question(tools=(READ,)))
    outputs = [
        {"type": "function_call_output", "call_id": one.call_id, "output": f"of {one.call_id}"} for one in first.calls
    ]
    resumed = ModelRequest("Be brief.", [USER, *first.items, *outputs], tools=[READ])
    assert (await ask.answer(Text("Read."), request=resumed)).text == "Read."
    request = ask.models.requests[-1]
    assert request.results == {"c1": "of c1", "c2": "of c2"}
    assert [item.kind for item in request.items] == ["system", "user", "assistant", "call", "call", "result", "result"]
    assert [item.text for item in request.items if item.kind == "call"] == [
        '{"path": "a"}',
        '{"malformed_arguments": "{\\"path\\": "}',
    ]


async def test_items_kept_in_one_api_can_be_sent_in_the_other(models: ModelServer, time: Time) -> None:
    for here, there in (("responses", "chat_completions"), ("chat_completions", "responses")):
        ask, other = Asker(models, Way(here, stream=True), time), Asker(models, Way(there, stream=True), time)  # type: ignore[arg-type]
        reading = Calls([(READ.name, {})], text="Reading.", ids=["c1"])
        async with ask, other:
            first = await ask.answer(reading, request=question(tools=(READ,)))
            output = {"type": "function_call_output", "call_id": "c1", "output": "text"}
            await other.answer(Text("ok"), request=ModelRequest("", [USER, *first.items, output], tools=[READ]))
        assert models.requests[-1].results == {"c1": "text"}


@CHAT
@pytest.mark.parametrize("reply", [reply_like_gemini, reply_like_deepseek, reply_like_litellm])
async def test_an_endpoint_gets_back_what_it_sent_with_a_call(ask: Asker, reply: Callable[[Request], Answer]) -> None:
    items: list[dict[str, Any]] = [USER]
    model = ask.model(max_retries=0)
    for turn in range(3):
        ask.models.next(reply if turn == 2 else lambda request: reply(replace(request, items=())))
        request = ModelRequest("", json.loads(json.dumps(items)), tools=[READ])  # as a journal keeps them
        answer = await ask_in_time(model, request)
        items += answer.items
        items += [{"type": "function_call_output", "call_id": one.call_id, "output": "1"} for one in answer.calls]
    assert answer.text == "done"
    assert len({one["call_id"] for one in items if one.get("type") == "function_call"}) == 2


@pytest.mark.parametrize("way", [Way("chat_completions", stream=False)], indirect=True, ids=str)
async def test_another_model_does_not_get_what_one_sent_with_a_call(ask: Asker) -> None:
    first = await ask.answer(reply_like_deepseek, request=question(tools=(READ,)))
    output = {"type": "function_call_output", "call_id": first.calls[0].call_id, "output": "1"}
    await ask.answer(Text("ok"), request=ModelRequest("", [USER, *first.items, output]), model="huge")
    assert "reasoning_content" not in json.dumps(ask.models.requests[-1].body)


async def test_a_tool_is_offered_as_endpoints_accept_it_and_called_as_it_is(ask: Asker) -> None:
    schema = {"properties": {"$filter": {"type": "string"}, "tags": {"type": "array"}, "any": True}}
    tool = OfferedTool("search", "Search.", {"type": "object", "anyOf": [schema, {"required": ["any"]}]})
    replies = Calls([("search", {"filter": "x", "tags": [1]})])
    answer = await ask.answer(replies, request=question(tools=(tool,)))
    assert json.loads(answer.calls[0].arguments) == {"$filter": "x", "tags": [1]}
    assert '"filter"' in json.dumps(answer.items).replace("\\", "")


LABELS = OfferedTool(
    "label",
    "Label it.",
    {"type": "object", "properties": {"labels": {"type": "object", "additionalProperties": {"type": "string"}}}},
)


@pytest.mark.parametrize("refuse", [refuse_functions_like_gemini, refuse_functions_without_a_word])
async def test_functions_are_described_with_few_words_where_an_endpoint_has_no_more(ask: Asker, refuse: Refuse) -> None:
    written = Calls([("label", {"labels": '{"a": "b"}'})])
    ask.models.script([Rule("", (refuse_first(refuse, written),))])
    model = ask.model(max_retries=0)
    answers = [await ask_in_time(model, question(tools=(LABELS,))) for _ in range(2)]
    assert [json.loads(answer.calls[0].arguments) for answer in answers] == [{"labels": {"a": "b"}}] * 2
    assert len(ask.models.requests) == 3


@STREAMED_CHAT
async def test_thoughts_are_left_out_where_the_endpoint_does_not_want_them_back(ask: Asker) -> None:
    model = ask.model(max_retries=0)
    ask.models.script([Rule("", (refuse_first(refuse_returned_thoughts, Text("done")),))])
    ask.models.next(reply_like_deepseek)
    first = await ask_in_time(model, question(tools=(READ,)))
    output = {"type": "function_call_output", "call_id": first.calls[0].call_id, "output": "1"}
    request = ModelRequest("", [USER, *first.items, output], tools=[READ])
    assert (await ask_in_time(model, request)).text == "done"


async def test_nothing_is_left_at_the_endpoint(ask: Asker) -> None:
    await ask.answer(Text("ok"))
    body = ask.models.requests[0].body
    assert body.get("store") is (False if ask.way.api == "responses" else None)
    assert "previous_response_id" not in body


async def test_the_length_of_an_answer_can_be_bounded(ask: Asker) -> None:
    await ask.answer(Text("ok"), request=ModelRequest("", [USER], max_tokens=50))
    assert ask.models.requests[0].max_tokens == 50


# How an answer is held to a schema


@pytest.mark.parametrize(
    ("refused", "reached"),
    [((), "json_schema"), (("json_schema",), "json_object"), (("json_schema", "json_object"), "prompt")],
)
async def test_an_answer_is_held_to_a_schema_as_strictly_as_the_endpoint_can(
    ask: Asker, refused: tuple[str, ...], reached: str
) -> None:
    ask.models.levels = {"json_schema", "json_object"} - set(refused)
    model = ask.model()
    assert model.status().output is None
    await ask_in_time(model, question(schema=PLAN))
    formats = [request.format for request in ask.models.requests]
    assert formats == [*refused, "text" if reached == "prompt" else reached]
    assert model.status().output == reached
    ask.models.requests.clear()
    await ask_in_time(model, question())
    await ask_in_time(model, question(schema=PLAN))
    assert [request.format for request in ask.models.requests] == ["text", formats[-1]]


async def test_a_schema_goes_out_whole_and_strict_where_it_allows_that(ask: Asker) -> None:
    for schema, strict in ((PLAN, False), (CLOSED, True)):
        await ask.answer(Text("{}"), request=question(schema=schema))
        body = ask.models.requests[-1].body
        sent = body["text"]["format"] if ask.way.api == "responses" else body["response_format"]["json_schema"]
        assert (sent["name"], sent["schema"], sent["strict"]) == ("plan", schema, strict)


async def test_a_schema_that_is_refused_says_nothing_of_the_next(ask: Asker) -> None:
    model = ask.model()
    ask.models.next(status(400, "Invalid schema for response_format 'plan'", code="invalid_json_schema"))
    await ask_in_time(model, question(schema=PLAN))
    assert ask.models.requests[-1].format == "json_object"
    assert model.status().output is None


async def test_an_endpoint_that_does_not_stream_is_asked_without(ask: Asker) -> None:
    model = ask.model()
    if ask.way.stream:
        ask.models.next(status(400, "Streaming is not supported by this model", param="stream"))
    ask.models.next(Text("whole"))
    assert (await ask_in_time(model, question())).text == "whole"
    assert not ask.models.requests[-1].stream


@STREAMED_CHAT
@pytest.mark.parametrize(
    ("refuse", "asked", "learned"),
    [
        (refusals.deepseek_format, ["json_schema", "json_object"], "json_object"),
        (refusals.gemini_schema, ["json_schema", "json_object"], None),
        (refusals.gemini_empty_object, ["json_schema", "json_object"], None),
        (refusals.anthropic_schema, ["json_schema", "json_object"], None),
        (refusals.ollama_schema, ["json_schema", "json_object"], None),
        (refusals.vllm_schema, ["json_schema", "json_object"], None),
        (refusals.groq_json, ["json_schema", "json_object", "text"], None),
        (refusals.lm_studio_format, ["json_schema", "json_object", "text"], None),
        (refusals.silent_refusal(400), ["json_schema", "json_object"], None),
        (refusals.silent_refusal(422), ["json_schema", "json_object"], None),
        (refusals.silent_refusal(500), ["json_schema", "json_object"], None),
        (refusals.empty_stream, ["json_schema", "json_object"], None),
    ],
)
async def test_an_endpoint_that_cannot_hold_to_this_schema_is_asked_for_less(
    ask: Asker, refuse: refusals.Refuse, asked: list[str], learned: str | None
) -> None:
    model = ask.model()
    ask.models.script([Rule("", (refuse_first(refuse, Text("{}")),))])
    assert (await ask_in_time(model, question(schema=PLAN))).text == "{}"
    assert [request.format for request in ask.models.requests] == asked
    assert model.status().output == learned
    assert ask.time.slept == []
    ask.models.requests.clear()
    await ask_in_time(model, question(schema=PLAN))
    assert [request.format for request in ask.models.requests] == (asked[1:] if learned else asked)


@CHAT
async def test_an_answer_that_is_empty_under_a_schema_is_asked_for_once_more_without_and_paid_twice(ask: Asker) -> None:
    model = ask.model()
    ask.models.next(Text("  \n", usage=(5, 1)), Text("{}", usage=(5, 2)))
    answer = await ask_in_time(model, question(schema=PLAN))
    assert (answer.text, answer.usage) == ("{}", Usage(10, 3))
    assert [request.format for request in ask.models.requests] == ["json_schema", "json_object"]
    assert model.status().output is None


@CHAT
async def test_a_failure_without_a_known_reason_is_told_in_its_first_words(ask: Asker) -> None:
    error = await ask.error(status(400, "first"), status(422, "second"), request=question(schema=PLAN))
    assert str(error).endswith("(HTTP 400): first")
    assert [request.format for request in ask.models.requests] == ["json_schema", "json_object"]
    empty = await ask.error(Text(" ", usage=(5, 1)), Text("", usage=(5, 2)), request=question(schema=PLAN))
    assert (empty.code, empty.usage) == ("model_answer_empty", Usage(10, 3))


@STREAMED_CHAT
async def test_what_is_known_of_the_second_try_is_told_instead(ask: Asker) -> None:
    error = await ask.error(status(400, "first"), status(401), request=question(schema=PLAN))
    assert error.code == "model_key_refused"


@STREAMED_CHAT
async def test_without_a_schema_nothing_is_tried_with_less(ask: Asker) -> None:
    error = await ask.error(status(400, "first"), request=question(tools=(READ,)))
    assert (str(error).endswith("first"), len(ask.models.requests)) == (True, 1)


@CHAT
async def test_the_limit_of_an_answer_goes_by_the_name_that_the_endpoint_wants(ask: Asker) -> None:
    request = ModelRequest("", [USER], max_tokens=50)
    model = ask.model()
    ask.models.script([Rule("", (refuse_first(refusals.newer_limit, Text("ok")),))])
    for _ in range(2):
        assert (await ask_in_time(model, request)).text == "ok"
    bodies = [request.body for request in ask.models.requests]
    assert [body.get("max_tokens") for body in bodies] == [50, None, None]
    assert [body.get("max_completion_tokens") for body in bodies] == [None, 50, 50]


@CHAT
async def test_an_answer_without_any_limit_is_not_asked_for(ask: Asker) -> None:
    def refuse(request: Request) -> Raw | None:
        return refusals.newer_limit(request) or refusals.older_limit(request)

    ask.models.script([Rule("", (refuse_first(refuse, Text("ok")),))])
    error = await ask.error(request=ModelRequest("", [USER], max_tokens=50))
    assert (error.code, len(ask.models.requests)) == ("model_failed", 2)


async def test_what_an_endpoint_does_not_know_is_left_out_from_then_on(ask: Asker) -> None:
    model = ask.model(temperature=0.2)
    ask.models.script([Rule("", (refuse_first(refusals.few_parameters, Text("ok")),))])
    assert (await ask_in_time(model, question(schema=PLAN))).text == "ok"
    refused = len(ask.models.requests) - 1
    assert refused >= 1
    await ask_in_time(model, question(schema=PLAN))
    assert len(ask.models.requests) == refused + 2
    assert "temperature" in ask.models.requests[0].body
    assert "temperature" not in ask.models.requests[-1].body


async def test_the_temperature_and_the_extra_fields_of_the_settings_are_sent(ask: Asker) -> None:
    await ask.answer(Text("ok"), temperature=0.5, extra_body={"seed": 7, "options": {"num_ctx": 8192}})
    body = ask.models.requests[0].body
    assert (body["temperature"], body["seed"], body["options"]) == (0.5, 7, {"num_ctx": 8192})
    await ask.answer(Text("ok"))
    assert "temperature" not in ask.models.requests[1].body


@STREAMED_CHAT
async def test_a_temperature_that_a_model_does_not_take_is_left_out(ask: Asker) -> None:
    ask.models.script([Rule("", (refuse_first(refusals.fixed_temperature, Text("ok")),))])
    assert (await ask.answer(temperature=0.2)).text == "ok"


@STREAMED_CHAT
async def test_an_extra_field_that_is_refused_is_never_left_out(ask: Asker) -> None:
    error = await ask.error(status(400, "Unknown parameter: 'privacy'."), extra_body={"privacy": "strict"})
    assert "openai.extra_body" in str(error)
    assert len(ask.models.requests) == 1


@STREAMED_CHAT
async def test_an_endpoint_that_takes_no_stream_options_is_asked_without(ask: Asker) -> None:
    ask.models.script([Rule("", (refuse_first(refusals.mistral_stream, Text("ok")),))])
    assert (await ask.answer()).text == "ok"
    assert len(ask.models.requests) == 2


@CHAT
async def test_a_model_without_a_system_message_gets_the_instructions_from_the_user(ask: Asker) -> None:
    model = ask.model()
    ask.models.script([Rule("", (refuse_first(refusals.gemma_template, Text("ok")),))])
    for _ in range(2):
        await ask_in_time(model, question(schema=PLAN))
    assert [request.system for request in ask.models.requests] == ["Be brief.", "", ""]
    assert ask.models.requests[-1].prompt == f"Be brief.\n\n{USER['content']}"


def whole(api: Api, text: str) -> bytes:
    """Return an unstreamed answer of 5 and 2 tokens with nothing but the required fields."""
    part = {"type": "output_text", "text": text}
    answer: dict[str, Any] = {
        "status": "completed",
        "output": [{"role": "assistant", "type": "message", "content": [part]}],
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }
    if api == "chat_completions":
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        answer = {"choices": [{"finish_reason": "stop", "message": message}], "usage": usage}
    return body(json.dumps(answer).encode(), "application/json")


async def test_an_endpoint_that_answers_whole_although_a_stream_was_asked_for_is_asked_without(ask: Asker) -> None:
    sent = whole(ask.way.api, "whole")
    async with raw(sent, sent, sent) as base_url:
        model = ask.model(base_url=base_url)
        assert [(await ask_in_time(model, question())).text for _ in range(2)] == ["whole", "whole"]


async def test_reasoning_is_not_asked_for_of_a_model_that_has_none(ask: Asker) -> None:
    model = ask.model()
    if ask.way.api == "responses":
        ask.models.next(status(400, "Encrypted content is not supported with this model.", param="include"))
        await ask_in_time(model, question())
        assert ask.models.requests[0].body["include"] == ["reasoning.encrypted_content"]
    await ask_in_time(model, question())
    assert not ask.models.requests[-1].body.get("include")


# What goes wrong


@STREAMED_CHAT
@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (refusals.GEMINI_KEY, "model_key_refused", "openai.api_key"),
        (refusals.LITELLM_KEY, "model_key_refused", "openai.api_key"),
        (refusals.GEMINI_MODEL, "model_unknown", "It says: models/tiny is not found for API version"),
        (refusals.LM_STUDIO_UNLOADED, "model_unknown", "It says: Model unloaded."),
        (refusals.AZURE_FILTER, "model_refused", "content management policy"),
        (refusals.CLOUDFLARE, "model_failed", "'Attention Required! | Cloudflare'"),
        (Raw(404, {"detail": "Not Found: /v1/chat"}), "model_unknown", "It says: Not Found: /v1/chat"),
        (Raw(404, "<html><title>No page</title></html>", "text/html"), "model_unknown", "a web page, 'No page'"),
        (refuse_first(refusals.ollama_tools, Text("ok")), "model_failed", "gemma3:1b does not support tools"),
        (refuse_first(refusals.llama_cpp_tools, Text("ok")), "model_failed", "--jinja"),
    ],
)
async def test_what_an_endpoint_says_in_its_own_way_is_understood(
    ask: Asker, reply: Reply, code: str, said: str
) -> None:
    error = await ask.error(reply, request=question(tools=(READ,)))
    assert error.code == code
    assert said in str(error)
    assert len(ask.models.requests) == 1


async def test_the_words_of_a_list_of_errors_are_told_as_any_other(ask: Asker) -> None:
    error = await ask.error(refusals.GEMINI_QUOTA, max_retries=0)
    assert (error.code, str(error)[-30:]) == ("model_overloaded", "quota, please check your plan.")


@pytest.mark.parametrize("answer", [refusals.error_as_answer, refusals.error_as_stream])
async def test_an_error_that_comes_as_a_success_is_told_in_its_words(
    ask: Asker, answer: Callable[[str, int], Raw]
) -> None:
    error = await ask.error(answer("The provider is overloaded", 502), max_retries=0)
    assert (error.code, str(error).endswith("It says: The provider is overloaded")) == ("model_overloaded", True)
    assert len(ask.models.requests) == 1


async def test_an_answer_that_a_filter_cut_is_a_refusal(ask: Asker) -> None:
    error = await ask.error(Fault("filtered", "I would"))
    assert (error.code, "filter" in str(error)) == ("model_refused", True)


async def test_a_query_in_the_base_url_goes_with_each_request(ask: Asker) -> None:
    answer = await ask.answer(Text("ok"), base_url=f"{ask.models.base_url}/?api-version=preview&a=1&a=2")
    assert answer.text == "ok"
    assert [request.query for request in ask.models.requests] == ["api-version=preview&a=1&a=2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (status(401, f"Incorrect API key: {KEY}", code="invalid_api_key"), "model_key_refused", "OPENAI_API_KEY"),
        (status(403, f"{KEY} may not"), "model_key_refused", "openai.api_key"),
        (status(404, "The model `tiny` does not exist", code="model_not_found"), "model_unknown", "'tiny'"),
        (status(404, "Not Found"), "model_unknown", "openai.base_url"),
        (status(400, "too long", code="context_length_exceeded"), "model_context_overflow", "openai.model"),
        (status(400, f"no such thing as {KEY}"), "model_failed", "no such thing"),
        (status(307), "model_failed", "openai.base_url"),
        (Fault("wrong_key"), "model_key_refused", "OPENAI_API_KEY"),
        (Fault("unknown_model"), "model_unknown", "'tiny'"),
        (Fault("context_overflow"), "model_context_overflow", "openai.model"),
        (Fault("out_of_quota"), "model_overloaded", "quota"),
        (Fault("refusal", "I will not."), "model_refused", "I will not."),
        (Fault("empty"), "model_answer_empty", "openai.model"),
        (Fault("truncated"), "model_answer_truncated", "tokens"),
        (Fault("truncated", ""), "model_answer_truncated", "tokens"),
        (Fault("huge", size=30_000), "model_answer_unreadable", "20000 bytes"),
    ],
)
async def test_what_asking_again_cannot_mend_is_told_at_once(ask: Asker, fault: Any, code: str, said: str) -> None:
    error = await ask.error(fault)
    assert error.code == code
    assert said in str(error)
    assert len(ask.models.requests) == 1
    assert ask.made[0].status().last_error == str(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("rate_limited"), "model_overloaded"),
        (Fault("server_error"), "model_overloaded"),
        (Fault("unavailable"), "model_overloaded"),
        (Fault("bad_gateway"), "model_overloaded"),
        (Fault("drop"), "model_unreachable"),
        (Fault("cut_stream"), "model_answer_unreadable"),
        (Fault("unfinished_stream"), "model_answer_unreadable"),
        (Fault("stream_error"), "model_overloaded"),
        (Fault("garbage"), "model_answer_unreadable"),
    ],
)
async def test_what_may_pass_is_asked_again_and_told_when_it_does_not(ask: Asker, fault: Any, code: str) -> None:
    answer = await ask.answer(fault, fault, Text("At last."))
    assert answer.text == "At last."
    assert len(ask.time.slept) == 2
    assert 0 < ask.time.slept[0] < ask.time.slept[1] < 5
    assert ask.made[-1].status().last_error is None
    error = await ask.error(fault, fault, fault)
    assert error.code == code
    assert len(ask.models.requests) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        body(b"<html>Welcome</html>", "text/html"),
        body(b"not JSON", "text/event-stream"),
        body(b"not JSON", "application/json"),
        body(b"data: [1]\n\n", "text/event-stream"),
        body(b'data: {"type": "response.completed", "response": 7, "choices": 7}\n\n', "text/event-stream"),
        body(b'{"output": 7, "choices": 7}', "application/json"),
        body(b'{"object": "list"}', "application/json"),
        body(b"[7]", "application/json"),
        body(b"", "application/json", "204 No Content"),
        body(b"x" * 1000, "text/plain") + b"\r\n" * 200_000,
        body(b"x" * 200_000, "application/octet-stream"),
    ],
)
async def test_what_is_no_answer_of_the_api_is_told_so(ask: Asker, answer: bytes) -> None:
    async with raw(answer, answer) as base_url:
        error = await ask.error(base_url=base_url, max_retries=0)
    assert error.code == "model_answer_unreadable"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "server_error", "message": "boom"}, "model_overloaded"),
        ({"code": "context_length_exceeded", "message": "too long"}, "model_context_overflow"),
        ({"code": 500, "type": "InternalServerError", "message": "EngineCore died"}, "model_overloaded"),
    ],
)
async def test_an_error_within_a_stream_is_told_as_any_other(ask: Asker, error: dict[str, Any], code: str) -> None:
    if ask.way.api == "responses":
        event = {"type": "error", "sequence_number": 0} | {"code": error["code"], "message": error["message"]}
    else:
        event = {"error": error}
    sent = body(f"data: {json.dumps(event)}\n\n".encode(), "text/event-stream")
    async with raw(sent) as base_url:
        failure = await ask.error(base_url=base_url, max_retries=0, stream=True)
    assert failure.code == code


async def test_an_answer_without_an_end_is_not_read_to_it(ask: Asker) -> None:
    endless = body(b" " * 3_000_000, "text/event-stream" if ask.way.stream else "application/json")
    async with raw(endless) as base_url:
        error = await ask.error(base_url=base_url)
    assert (error.code, "20000 bytes" in str(error)) == ("model_answer_unreadable", True)


async def test_a_stream_is_left_as_soon_as_it_is_too_long(ask: Asker) -> None:
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "sequence_number": 1}
    events: list[dict[str, Any]] = []
    for piece in (f"{number:>100}" for number in range(201)):
        event: dict[str, Any] = {"type": "response.output_text.delta", "delta": piece, "logprobs": []} | at
        if ask.way.api == "chat_completions":
            event = {"id": "1", "model": "tiny", "choices": [{"index": 0, "delta": {"content": piece}}]}
        events.append(event)
    sent = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    async with raw(body(sent, "text/event-stream")) as base_url:
        error = await ask.error(base_url=base_url, stream=True)
    assert "grew beyond 20000 bytes" in str(error)


async def test_what_a_failed_answer_cost_is_told(ask: Asker) -> None:
    cost = Usage(input_tokens=7, output_tokens=2)
    request = ModelRequest("", [USER], max_tokens=20)
    error = await ask.error(Text("word " * 100, usage=(7, 2)), request=request)
    assert (error.code, error.usage) == ("model_answer_truncated", cost)


async def test_all_that_an_answer_cost_is_counted_with_what_could_not_be_read(ask: Asker) -> None:
    async with raw(whole(ask.way.api, "\ud800"), whole(ask.way.api, "legible")) as base_url:
        answer = await ask_in_time(ask.model(base_url=base_url, stream=False), question())
    assert (answer.text, answer.usage) == ("legible", Usage(input_tokens=10, output_tokens=4))


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        (7, (7, 7)),
        (3600, (30, 30)),
        (format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), (30, 30)),
        (format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True), (0, 0)),
        ("soon", (0.5, 1)),
    ],
    ids=["seconds", "many seconds", "a date", "a date that is past", "no time"],
)
async def test_the_endpoint_says_how_long_to_wait_within_reason(
    ask: Asker, asked: float | str, waits: tuple[float, float]
) -> None:
    await ask.answer(Fault("rate_limited", retry_after=asked), Text("ok"))
    assert waits[0] <= ask.time.slept[0] <= waits[1]


async def test_a_prompt_is_not_sent_on_to_where_an_endpoint_points(ask: Asker) -> None:
    path = "responses" if ask.way.api == "responses" else "chat/completions"
    there = f"307 Elsewhere\r\nlocation: {ask.models.base_url}/{path}"
    async with raw(body(b"", "text/plain", there)) as base_url:
        error = await ask.error(base_url=base_url)
    assert (error.code, ask.models.requests) == ("model_failed", [])
    assert "openai.base_url" in str(error)


@pytest.mark.parametrize("silence", ["hang", "stall_stream"])
async def test_an_endpoint_that_falls_silent_is_not_waited_for(ask: Asker, silence: FaultKind) -> None:
    error = await ask.error(Fault(silence), max_retries=0, timeout_s=0.1)
    assert (error.code, "openai.timeout_s" in str(error)) == ("model_unreachable", True)


async def test_an_answer_may_take_so_long_in_all(ask: Asker) -> None:
    error = await ask.error(Fault("stall_stream"), answer_timeout_s=0.1)
    assert (error.code, "openai.answer_timeout_s" in str(error)) == ("model_unreachable", True)


async def test_an_endpoint_that_is_not_there_is_named_without_its_credentials(ask: Asker) -> None:
    error = await ask.error(base_url="http://user:p%40ssword@127.0.0.1:9/v1?key=hush", max_retries=0)
    assert error.code == "model_unreachable"
    assert "http://127.0.0.1:9/v1 " in str(error)
    assert not [secret for secret in ("p%40ss", "p@ss", "hush") if secret in str(error)]
    assert ask.made[0].status().endpoint == "http://127.0.0.1:9/v1"


async def test_an_endpoint_that_fails_too_often_is_left_alone_and_tried_again_later(ask: Asker) -> None:
    model = ask.model(max_retries=1)
    ask.models.next(*[status(500)] * 6)
    for _ in range(3):
        with pytest.raises(ModelError):
            await ask_in_time(model, question())
    assert (len(ask.models.requests), model.status().circuit) == (5, "open")
    for _ in range(2):
        with pytest.raises(ModelError, match=r"tried again in \d+ s\. The latest failure: http.*HTTP 500") as caught:
            await ask_in_time(model, question())
    assert (caught.value.code, len(ask.models.requests)) == ("model_unavailable", 5)
    ask.time.now += 31
    with pytest.raises(ModelError) as caught:
        await ask_in_time(model, question())
    assert (caught.value.code, len(ask.models.requests)) == ("model_overloaded", 6)
    ask.time.now += 31
    assert (await ask_in_time(model, question())).text == "done"
    assert model.status().circuit == "closed"


async def test_one_request_alone_tries_an_endpoint_again(ask: Asker) -> None:
    model = ask.model(max_retries=0, timeout_s=5.0)
    ask.models.next(*[status(500)] * 5, Fault("hang"))
    for _ in range(5):
        with pytest.raises(ModelError):
            await ask_in_time(model, question())
    ask.time.now += 31
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        trial = tasks.create_task(model.answer(question()))
        await asyncio.to_thread(ask.models.wait_for_requests, 6)
        assert model.status().circuit == "half_open"
        with pytest.raises(ModelError, match="tried again just now") as caught:
            await model.answer(question())
        assert caught.value.code == "model_unavailable"
        trial.cancel()
    assert model.status().circuit == "open"
    assert (await ask_in_time(model, question())).text == "done"


async def test_refusals_of_a_request_do_not_open_the_circuit(ask: Asker) -> None:
    model = ask.model(max_retries=0)
    ask.models.next(*[status(401), status(400), status(404), status(429)] * 3)
    for _ in range(12):
        with pytest.raises(ModelError):
            await ask_in_time(model, question())
    assert model.status().circuit == "closed"


@pytest.mark.parametrize("silence", ["hang", "stall_stream"])
async def test_cancelling_a_question_closes_its_request(ask: Asker, silence: FaultKind) -> None:
    model = ask.model()
    ask.models.next(Fault(silence))
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(model.answer(question()))
        await asyncio.to_thread(ask.models.wait_for_requests, 1)
        asking.cancel()
        await eventually(lambda: ask.models.abandoned)
    assert asking.cancelled()
    assert (await ask_in_time(model, question())).text == "done"


async def test_questions_side_by_side_get_their_own_answers(ask: Asker) -> None:
    model = ask.model()
    heard: dict[int, list[str]] = {number: [] for number in range(20)}
    requests = [ModelRequest("", [USER], on_text=heard[number].append) for number in heard]
    ask.models.next(*(Text(f"answer {number}", usage=(number, 1)) for number in heard))
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*map(model.answer, requests))
    assert {answer.text for answer in answers} == {f"answer {number}" for number in heard}
    assert all(answer.text == f"answer {answer.usage.input_tokens}" for answer in answers)
    if ask.way.stream:
        assert ["".join(pieces) for pieces in heard.values()] == [answer.text for answer in answers]


async def test_without_a_key_a_local_endpoint_gets_some_key(ask: Asker) -> None:
    await ask.answer(Text("ok"), api_key=None)
    assert ask.models.requests[0].headers["authorization"] == "Bearer unused"


async def test_what_is_said_of_a_model_before_it_is_asked() -> None:
    status = OpenAIModel(OpenAISettings(api_key=SecretStr(KEY)), Redactor()).status()
    assert (status.endpoint, status.model, status.api) == ("https://api.openai.com/v1", "gpt-5-mini", "responses")
    assert (status.circuit, status.output, status.last_error) == ("closed", None, None)


# Which model there is


async def test_the_model_that_the_endpoint_lists_is_asked_where_the_settings_name_none(ask: Asker) -> None:
    ask.models.known = {"text-embedding-a", "qwen"}
    model = ask.model(model="")
    assert model.status().model is None
    for _ in range(2):
        await ask_in_time(model, question())
    assert [(request.path[-7:], request.model) for request in ask.models.requests[:1]] == [("/models", "")]
    assert [request.model for request in ask.models.requests[1:]] == ["qwen", "qwen"]
    assert ask.models.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert model.status().model == "qwen"


@STREAMED_CHAT
async def test_a_model_that_was_found_stays_until_the_endpoint_lists_it_no_more(ask: Asker) -> None:
    model = ask.model(model="")
    found = []
    for known in ({"b"}, {"a", "b"}, {"a", "c"}):
        ask.models.known = known
        found.append(await model.identify())
        await ask_in_time(model, question())
    assert found == ["b", "b", "a"]
    assert [request.model for request in ask.models.find_requests()] == ["b", "b", "a"]


@STREAMED_CHAT
async def test_what_was_learned_of_one_model_is_not_held_against_the_next(ask: Asker) -> None:
    model = ask.model(model="")
    ask.models.known, ask.models.levels = {"a"}, set()
    await ask_in_time(model, question(schema=PLAN))
    ask.models.known, ask.models.levels = {"b"}, {"json_schema"}
    await model.identify()
    await ask_in_time(model, question(schema=PLAN))
    assert [request.format for request in ask.models.find_requests()][-2:] == ["text", "json_schema"]


@STREAMED_CHAT
async def test_only_the_model_that_was_approved_is_asked(ask: Asker) -> None:
    ask.models.known = {"other"}
    approved = ModelRequest("", [USER], model="mine")
    for settings in ({"model": ""}, {"model": "other"}):
        with pytest.raises(ModelError, match="approved with the model 'mine'") as caught:
            await ask_in_time(ask.model(**settings), approved)
        assert caught.value.code == "definition_changed"
    assert ask.models.find_requests() == []
    ask.models.known = {"mine"}
    assert (await ask_in_time(ask.model(model=""), approved)).text == "done"


@STREAMED_CHAT
@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (body(b'{"detail": "Not Found"}', "application/json", "404 Not Found"), "model_unknown", "set openai.model"),
        (body(b'{"data": []}', "application/json"), "model_unknown", "load one there"),
        (body(b"<html>Hello</html>", "text/html"), "model_answer_unreadable", "openai.base_url"),
        (body(b"not JSON", "application/json"), "model_answer_unreadable", "openai.base_url"),
        (body(b'{"error": {"message": "no"}}', "application/json", "401 No"), "model_key_refused", "openai.api_key"),
        (body(b"x" * 9_000_000, "text/plain"), "model_answer_unreadable", "was not read"),
    ],
)
async def test_an_endpoint_that_does_not_say_which_model_it_has_is_told_so(
    ask: Asker, answer: bytes, code: str, said: str
) -> None:
    async with raw_get(answer) as base_url:
        error = await ask.error(model="", base_url=base_url, max_retries=0)
    assert error.code == code
    assert said in str(error)


@STREAMED_CHAT
async def test_an_endpoint_that_lists_nothing_in_time_is_not_waited_for(ask: Asker) -> None:
    ask.models.silent_lists = True
    model = ask.model(model="", max_retries=0, timeout_s=0.1)
    with pytest.raises(ModelError, match=r"sent nothing for 0\.1 s") as caught:
        await model.identify()
    assert caught.value.code == "model_unreachable"
    assert model.status().last_error == str(caught.value)


@STREAMED_CHAT
async def test_an_endpoint_that_is_not_there_is_told_as_unreachable(ask: Asker) -> None:
    error = await ask.error(model="", base_url="http://127.0.0.1:9/v1", max_retries=0)
    assert error.code == "model_unreachable"
    assert error.may_pass


LAZY = """
import asyncio, sys, threading
import agent_runtime.bootstrap, agent_runtime.models.model as adapter
from agent_runtime.config import OpenAISettings
from agent_runtime.domain.model_requests import ModelRequest
from agent_runtime.text.redaction import Redactor
assert not {"agents", "openai"} & set(sys.modules), "imported too early"

async def main():
    model = adapter.OpenAIModel(OpenAISettings(base_url="http://127.0.0.1:9/v1", model=NAME, max_retries=0), Redactor())
    beats = 0
    async def beat():
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1
    heart = asyncio.ensure_future(beat())
    done = await asyncio.gather(*(model.answer(ModelRequest("", [])) for _ in range(3)), return_exceptions=True)
    heart.cancel()
    assert {type(error).__name__ for error in done} == {"ModelError"}, done
    assert beats > 20, beats
    await model.aclose()

asyncio.run(main())
assert ({"agents", "openai"} if NAME else {"openai"}) <= set(sys.modules)
threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
assert not threads, threads
if NAME:
    from agents.tracing import get_trace_provider
    assert get_trace_provider()._disabled
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m", ""], ids=["named", "to be found"])
def test_the_library_is_imported_by_the_first_question_and_off_the_loop(name: str) -> None:
    script = f"NAME = {name!r}\n{LAZY}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


GOAL = '{"goal": "g"}'
PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm {"}]}, {"type": "text", "text": GOAL}]


@CHAT
@pytest.mark.parametrize("fields", [{"reasoning_content": GOAL}, {"reasoning": GOAL}, {"content": PARTS}])
async def test_json_that_comes_as_thoughts_or_in_parts_is_the_answer(ask: Asker, fields: dict[str, Any]) -> None:
    answer = await ask.answer(Calls([], message_fields=fields), request=question(schema=PLAN))
    assert answer.text == GOAL


@CHAT
async def test_thoughts_alone_are_no_answer_to_a_question_in_words(ask: Asker) -> None:
    with pytest.raises(ModelError) as caught:
        await ask.answer(Calls([], message_fields={"reasoning_content": GOAL}), request=question())
    assert caught.value.code == "model_answer_empty"


@CHAT
async def test_after_thoughts_without_json_less_is_asked_for(ask: Asker) -> None:
    model = ask.model()
    ask.models.script([Rule("", (Calls([], message_fields={"reasoning_content": "Hm."}), Text(GOAL)))])
    assert (await ask_in_time(model, question(schema=PLAN))).text == GOAL
    assert [request.format for request in ask.models.requests] == ["json_schema", "json_object"]


@STREAMED_CHAT
async def test_thoughts_that_begin_a_stream_are_not_heard_also_if_it_is_repeated(ask: Asker) -> None:
    pieces: list[str] = []
    request = ModelRequest("", [USER], on_text=pieces.append)
    thoughts = "<think>I write it.</think>\n"
    ask.models.next(Fault("cut_stream", f"{thoughts}It is 4, I th"))
    answer = await ask.answer(Text(f"{thoughts}It is 42."), request=request)
    assert answer.text == f"{thoughts}It is 42."
    heard = "".join(pieces)
    assert heard.endswith("\nIt is 42.")
    assert "I write it" not in heard
