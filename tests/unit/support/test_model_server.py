"""The test model server, with the client of OpenAI. Other tests depend on it."""

import asyncio
import json
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from model_server import MODEL, ModelServer
from model_server.replies import Calls, Fault, Text, anywhere, by_turn

SUPPORT = Path(__file__).parents[2] / "support"
PATIENCE_S = 20.0
WAYS = [(api, stream) for api in ("responses", "chat") for stream in (False, True)]
ways = pytest.mark.parametrize(("api", "stream"), WAYS)
apis = pytest.mark.parametrize("api", ["responses", "chat"])
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with asyncio.timeout(3 * PATIENCE_S), ModelServer() as server:
        yield server


@pytest.fixture
async def client(models: ModelServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=models.base_url, api_key="k", max_retries=0, timeout=PATIENCE_S) as opened:
        yield opened


class Answered:
    """An answer of either API: its text, its calls as (name, arguments), its end, and its tokens."""

    def __init__(self) -> None:
        self.text = self.refusal = ""
        self.calls: list[tuple[str, str]] = []
        self.pieces = 0
        self.ended: str | None = None
        self.usage: tuple[int, int] | None = None


async def ask(client: AsyncOpenAI, api: str, prompt: Any, *, stream: bool = False, **more: Any) -> Answered:
    """Send a request in one of the four ways, and read the whole answer."""
    answered, sdk = Answered(), _responses if api == "responses" else _chat
    async with asyncio.timeout(PATIENCE_S):
        await sdk(client, prompt, answered, stream=stream, more=more)
    return answered


async def _responses(client: AsyncOpenAI, prompt: Any, found: Answered, *, stream: bool, more: dict[str, Any]) -> None:
    response: Any = None
    pieces: list[str] = []
    if stream:
        numbers = []
        async for event in await client.responses.create(model=MODEL, input=prompt, stream=True, **more):
            numbers.append(event.sequence_number)
            match event.type:
                case "response.output_text.delta" | "response.refusal.delta":
                    pieces.append(event.delta)
                case "response.completed" | "response.incomplete" | "response.failed":
                    response = event.response
                case "error":
                    found.ended = f"error {event.code}"
        assert numbers == list(range(len(numbers)))
        found.pieces = len(pieces)
    else:
        response = await client.responses.create(model=MODEL, input=prompt, **more)
    if response is None:
        return
    found.text, found.ended = response.output_text, response.status
    for item in response.output:
        if item.type == "function_call":
            found.calls.append((item.name, item.arguments))
        elif item.content[0].type == "refusal":
            found.refusal = item.content[0].refusal
    assert not stream or "".join(pieces) == found.text + found.refusal
    if response.usage:
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
        found.usage = response.usage.input_tokens, response.usage.output_tokens


async def _chat(client: AsyncOpenAI, prompt: Any, found: Answered, *, stream: bool, more: dict[str, Any]) -> None:
    messages: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not stream:
        whole: Any = await client.chat.completions.create(model=MODEL, messages=messages, **more)
        said = whole.choices[0].message
        found.text, found.refusal, found.ended = said.content or "", said.refusal or "", whole.choices[0].finish_reason
        found.calls = [(call.function.name, call.function.arguments) for call in said.tool_calls or ()]
        found.usage = (whole.usage.prompt_tokens, whole.usage.completion_tokens) if whole.usage else None
        return
    chunks: Any = await client.chat.completions.create(
        model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}, **more
    )
    async for chunk in chunks:
        if chunk.usage:
            found.usage = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
        for choice in chunk.choices:
            found.text += choice.delta.content or ""
            found.refusal += choice.delta.refusal or ""
            found.pieces += bool(choice.delta.content)
            found.ended = choice.finish_reason or found.ended
            for call in choice.delta.tool_calls or ():
                if call.function.name:
                    found.calls.append((call.function.name, ""))
                name, arguments = found.calls[call.index]
                found.calls[call.index] = name, arguments + call.function.arguments


@ways
async def test_a_text_is_answered_in_pieces_where_a_stream_is_asked_for(
    models: ModelServer, client: AsyncOpenAI, api: str, *, stream: bool
) -> None:
    text = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich."
    models.on("pangram", Text(text))
    answered = await ask(client, api, "Say a pangram", stream=stream)
    assert (answered.text, answered.ended) == (text, "completed" if api == "responses" else "stop")
    assert answered.pieces > 2 or not stream


@ways
async def test_several_tools_are_called_in_one_turn(
    models: ModelServer, client: AsyncOpenAI, api: str, *, stream: bool
) -> None:
    models.on("", Calls([("read", {"path": "a.txt", "note": "x" * 40}), ("write", "{broken")], text="Let me see."))
    answered = await ask(client, api, "Go", stream=stream)
    assert answered.calls == [("read", json.dumps({"path": "a.txt", "note": "x" * 40})), ("write", "{broken")]
    assert (answered.text, answered.ended) == ("Let me see.", "completed" if api == "responses" else "tool_calls")


@ways
async def test_tokens_are_counted_unless_the_server_is_one_that_does_not(
    models: ModelServer, client: AsyncOpenAI, api: str, *, stream: bool
) -> None:
    models.on("", Text("12345678"), Text("as told", usage=(700, 30)))
    counted = await ask(client, api, "1234", stream=stream)
    told = await ask(client, api, "1234", stream=stream)
    models.tells_usage = False
    silent = await ask(client, api, "1234", stream=stream)
    assert (counted.usage, told.usage, silent.usage) == ((1, 2), (700, 30), None)


@ways
async def test_a_conversation_with_results_of_tools_goes_on(
    models: ModelServer, client: AsyncOpenAI, api: str, *, stream: bool
) -> None:
    models.on("sum", by_turn(Calls([("add", {"a": 1}), ("add", {"a": 2})]), Text("three")))
    first = await ask(client, api, "sum", stream=stream)
    ids = [f"call_0_{number}" for number in range(2)]
    second = await ask(client, api, conversation(api, first.calls, ids), stream=stream)
    assert (len(first.calls), second.text) == (2, "three")
    assert models.requests[1].results == {"call_0_0": "result 0", "call_0_1": "result 1"}
    assert models.requests[1].turn == 1


def conversation(api: str, calls: list[tuple[str, str]], ids: list[str]) -> list[dict[str, Any]]:
    """Return a conversation with these calls and their results."""
    pairs = list(zip(ids, calls, strict=True))
    if api == "responses":
        made = [{"type": "function_call", "call_id": i, "name": call[0], "arguments": call[1]} for i, call in pairs]
        results = [
            {"type": "function_call_output", "call_id": i, "output": f"result {place}"} for place, i in enumerate(ids)
        ]
        return [{"role": "user", "content": "sum"}, *made, *results]
    said = [{"id": i, "type": "function", "function": {"name": call[0], "arguments": call[1]}} for i, call in pairs]
    answers = [{"role": "tool", "tool_call_id": i, "content": f"result {place}"} for place, i in enumerate(ids)]
    return [{"role": "user", "content": "sum"}, {"role": "assistant", "tool_calls": said}, *answers]


async def test_rules_are_tried_in_their_order_and_the_last_reply_repeats(
    models: ModelServer, client: AsyncOpenAI
) -> None:
    models.on(anywhere("secret"), Text("found"))
    models.on(lambda request: request.model == "other", Text("never"))
    models.on("twice", Text("one"), Text("two"))
    models.on("", lambda request: Text(request.prompt.upper()))
    said = [(await ask(client, "responses", prompt)).text for prompt in ("twice", "twice", "twice", "echo")]
    assert said == ["one", "two", "two", "ECHO"]
    assert (await ask(client, "responses", "twice", instructions="a secret")).text == "found"
    models.next(Text("first"))
    assert [(await ask(client, "responses", "twice")).text for _ in range(2)] == ["first", "two"]


@apis
async def test_a_request_without_a_rule_is_refused_in_so_many_words(client: AsyncOpenAI, api: str) -> None:
    with pytest.raises(openai.BadRequestError, match=r"no rule for this request; its prompt is: 'Hello\?'"):
        await ask(client, api, "Hello?")


async def test_every_request_is_kept_with_its_body_and_headers(models: ModelServer, client: AsyncOpenAI) -> None:
    models.on("", Text("ok"))
    await client.models.list()
    await ask(client, "chat", "the needle", temperature=0.5)
    assert [request.path for request in models.requests] == ["/v1/models", "/v1/chat/completions"]
    (request,) = models.find_requests("needle")
    assert (request.index, request.body["temperature"], request.headers["authorization"]) == (1, 0.5, "Bearer k")
    assert models.find_requests("thread") == []


async def test_the_models_are_listed(models: ModelServer, client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    models.known = {"b", "a"}
    assert [model.id async for model in client.models.list()] == ["a", "b"]


STATUSES: list[tuple[Any, type[openai.APIStatusError], str | None]] = [
    ("rate_limited", openai.RateLimitError, "rate_limit_exceeded"),
    ("out_of_quota", openai.RateLimitError, "insufficient_quota"),
    ("server_error", openai.InternalServerError, None),
    ("unavailable", openai.InternalServerError, None),
    ("bad_gateway", openai.InternalServerError, None),
    ("wrong_key", openai.AuthenticationError, "invalid_api_key"),
    ("unknown_model", openai.NotFoundError, "model_not_found"),
    ("context_overflow", openai.BadRequestError, "context_length_exceeded"),
    ("no_json_schema", openai.BadRequestError, None),
]


@ways
@pytest.mark.parametrize(("kind", "error", "code"), STATUSES)
async def test_a_fault_with_a_status_is_the_error_that_the_client_has_for_it(
    models: ModelServer,
    client: AsyncOpenAI,
    api: str,
    *,
    stream: bool,
    kind: Any,
    error: type[openai.APIStatusError],
    code: str | None,
) -> None:
    models.on("", Fault(kind), Text("well again"))
    with pytest.raises(error) as raised:
        await ask(client, api, "Go", stream=stream)
    assert raised.value.code == code
    assert (await ask(client, api, "Go", stream=stream)).text == "well again"


@apis
async def test_the_client_waits_as_long_as_retry_after_says(models: ModelServer, api: str) -> None:
    models.next(*[Fault("rate_limited", retry_after=0.01)] * 2)
    models.on("", Text("at last"))
    async with AsyncOpenAI(base_url=models.base_url, api_key="k", max_retries=2) as patient:
        began = time.monotonic()
        assert (await ask(patient, api, "Go")).text == "at last"
    assert time.monotonic() - began < 1.0  # two of its own back-offs would take longer
    assert len(models.requests) == 3


@ways
@pytest.mark.parametrize("kind", ["cut_stream", "drop"])
async def test_a_connection_that_is_cut_is_an_error_of_the_connection(
    models: ModelServer, client: AsyncOpenAI, api: str, *, stream: bool, kind: Any
) -> None:
    models.on("", Fault(kind), Text("well again"))
    with pytest.raises(openai.APIConnectionError):
        await ask(client, api, "Go", stream=stream)
    assert (await ask(client, api, "Go", stream=stream)).text == "well again"


@ways
async def test_garbage_is_not_json(models: ModelServer, client: AsyncOpenAI, api: str, *, stream: bool) -> None:
    models.on("", Fault("garbage"))
    with pytest.raises((json.JSONDecodeError, openai.APIError)):
        await ask(client, api, "Go", stream=stream)


@apis
async def test_an_unfinished_stream_ends_as_if_nothing_was_missing(
    models: ModelServer, client: AsyncOpenAI, api: str
) -> None:
    models.on("", Fault("unfinished_stream"))
    answered = await ask(client, api, "Go", stream=True)
    assert (answered.ended, answered.usage) == (None, None)


async def test_a_stream_can_end_with_an_error(models: ModelServer, client: AsyncOpenAI) -> None:
    models.on("", Fault("stream_error"))
    assert (await ask(client, "responses", "Go", stream=True)).ended == "error server_error"
    assert (await ask(client, "responses", "Go")).ended == "failed"
    with pytest.raises(openai.APIError, match="had an error"):
        await ask(client, "chat", "Go", stream=True)
    with pytest.raises(openai.InternalServerError):
        await ask(client, "chat", "Go")


@ways
async def test_an_answer_may_be_empty_refused_truncated_or_huge(
    models: ModelServer, client: AsyncOpenAI, api: str, *, stream: bool
) -> None:
    kinds: list[Any] = ["empty", "refusal", "truncated", "huge"]
    models.on("", *(Fault(kind, text="half of", size=300_000) for kind in kinds))
    empty, refused, truncated, huge = [await ask(client, api, "Go", stream=stream) for _ in kinds]
    assert (empty.text, empty.calls, empty.refusal) == ("", [], "")
    assert (refused.text, refused.refusal) == ("", "half of")
    assert (truncated.text, truncated.ended) == ("half of", "incomplete" if api == "responses" else "length")
    assert len(huge.text) == 300_000


@apis
async def test_a_text_ends_at_the_limit_of_tokens_that_is_asked_for(
    models: ModelServer, client: AsyncOpenAI, api: str
) -> None:
    models.on("", Text("x" * 100))
    limit: dict[str, Any] = {"max_output_tokens": 20} if api == "responses" else {"max_completion_tokens": 20}
    answered = await ask(client, api, "Go", **limit)
    assert (len(answered.text), answered.ended) == (80, "incomplete" if api == "responses" else "length")


@ways
async def test_a_model_that_hangs_answers_once_it_is_released(
    models: ModelServer, client: AsyncOpenAI, api: str, *, stream: bool
) -> None:
    models.on("", Fault("hang", text="there"))
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(ask(client, api, "Go", stream=stream))
        await asyncio.to_thread(models.wait_for_requests, 1)
        models.release()
    assert asked.result().text == "there"


@ways
async def test_a_client_that_goes_is_noticed(
    models: ModelServer, client: AsyncOpenAI, api: str, *, stream: bool
) -> None:
    models.on("", Fault("hang"))
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(ask(client, api, "Go", stream=stream))
        await asyncio.to_thread(models.wait_for_requests, 1)
        asked.cancel()
    await asyncio.to_thread(models.wait_for_abandoned, 1)
    assert models.abandoned == models.requests


async def test_a_stream_that_stalls_has_said_half_of_it(models: ModelServer, client: AsyncOpenAI) -> None:
    models.on("", Fault("stall_stream", text="word " * 40))
    said = ""
    async with asyncio.timeout(PATIENCE_S):
        async for event in await client.responses.create(model=MODEL, input="Go", stream=True):
            if event.type == "response.output_text.delta":
                said += event.delta
                models.release()
    assert said == "word " * 40


@apis
async def test_a_server_that_was_stopped_refuses_connections_until_it_starts_again(
    models: ModelServer, client: AsyncOpenAI, api: str
) -> None:
    models.on("", Text("back"))
    await models.stop()
    with pytest.raises(openai.APIConnectionError):
        await ask(client, api, "Go")
    await models.start()
    assert (await ask(client, api, "Go")).text == "back"


async def test_it_thinks_as_long_as_it_is_told_to(models: ModelServer, client: AsyncOpenAI) -> None:
    models.on("slow", Fault("slow", text="slowly", delay_s=0.05))
    models.on("", Text("ok"))
    models.delay_s = 0.05
    began = time.monotonic()
    assert (await ask(client, "chat", "slow")).text == "slowly"
    assert time.monotonic() - began > 0.1


@apis
async def test_only_the_right_key_known_models_and_short_inputs_are_let_in(
    models: ModelServer, client: AsyncOpenAI, api: str
) -> None:
    models.on("", Text("ok"))
    models.context_tokens = 10
    with pytest.raises(openai.BadRequestError, match="context window"):
        await ask(client, api, "x" * 41)
    models.known = {"another"}
    with pytest.raises(openai.NotFoundError, match="`test-model` does not exist"):
        await ask(client, api, "Go")
    models.key = "the key"
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
        await ask(client, api, "Go")


def format_body(api: str, kind: str, **more: Any) -> dict[str, Any]:
    """Return the part of a request that asks for this format."""
    if api == "responses":
        return {"text": {"format": {"type": kind, **more}}}
    return {"response_format": {"type": kind, **({kind: more} if more else {})}}


@apis
async def test_formats_are_taken_at_the_levels_that_the_endpoint_has(
    models: ModelServer, client: AsyncOpenAI, api: str
) -> None:
    models.on("", Text('{"a": 1}'))
    schema = format_body(api, "json_schema", name="answer", schema=SCHEMA, strict=True)
    assert (await ask(client, api, "Go", **schema)).text == '{"a": 1}'
    models.levels = {"json_object"}
    with pytest.raises(openai.BadRequestError, match="'json_schema' is not supported"):
        await ask(client, api, "Go", **schema)
    assert (await ask(client, api, "In JSON", **format_body(api, "json_object"))).text == '{"a": 1}'
    models.levels = set()
    with pytest.raises(openai.BadRequestError, match="'json_object' is not supported"):
        await ask(client, api, "In JSON", **format_body(api, "json_object"))
    assert (await ask(client, api, "Go")).text == '{"a": 1}'


@apis
async def test_a_format_that_openai_would_refuse_is_refused(models: ModelServer, client: AsyncOpenAI, api: str) -> None:
    models.on("", Text("{}"))
    open_schema = {**SCHEMA, "additionalProperties": True}
    optional = {**SCHEMA, "required": []}
    refused = [
        (format_body(api, "json_object"), "must contain the word 'json'"),
        (format_body(api, "json_schema", name="a", schema=open_schema, strict=True), "'additionalProperties' is requ"),
        (format_body(api, "json_schema", name="a", schema=optional, strict=True), "Missing 'a'"),
        (format_body(api, "json_schema", name="a", schema={"type": "array"}), "got 'type: \"array\"'"),
        (format_body(api, "json_schema", name="a b", schema=SCHEMA), "does not match pattern"),
        (format_body(api, "json_schema", schema=SCHEMA), "Missing required parameter"),
    ]
    for given, match in refused:
        with pytest.raises(openai.BadRequestError, match=match):
            await ask(client, api, "Go", **given)
    loose = format_body(api, "json_schema", name="a", schema=open_schema)
    assert (await ask(client, api, "Go", **loose)).text == "{}"


USER = {"role": "user", "content": "Go"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "x"}
CALLING = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]}
MALFORMED: list[tuple[str, Any, dict[str, Any], str]] = [
    ("responses", [USER, OUTPUT], {}, "No tool call found for function call output with call_id c"),
    ("responses", [USER, CALL], {}, "No tool output found for function call c"),
    ("responses", [USER, {**CALL, "id": "call_1"}, OUTPUT], {}, "begins with 'fc'"),
    ("responses", [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}], {}, "Supported values"),
    ("responses", "Go", {"tools": [{"type": "function", "function": {"name": "f"}}]}, r"'tools\[0\].name'"),
    ("responses", "Go", {"max_output_tokens": 3}, "integer below minimum value"),
    ("responses", "Go", {"previous_response_id": "resp_9"}, "'resp_9' not found"),
    ("chat", [USER, {"role": "tool", "tool_call_id": "c", "content": "x"}], {}, "must be a response to a preceeding"),
    ("chat", [USER, CALLING], {}, "Missing required parameter: .*arguments"),
    ("chat", [USER, {"role": "assistant", "content": None}], {}, "Invalid type for 'messages.1..content'"),
    ("chat", [], {}, "empty array"),
    ("chat", "Go", {"tools": []}, "empty array"),
    ("chat", "Go", {"tool_choice": "auto"}, "only allowed when 'tools'"),
    ("chat", "Go", {"stream_options": {"include_usage": True}}, "only allowed when 'stream'"),
    ("chat", "Go", {"tools": [{"type": "function", "function": {"name": "a.b"}}]}, "does not match pattern"),
    ("chat", "Go", {"tools": [{"type": "function", "function": {"name": "f"}}] * 129}, "array too long"),
    ("chat", [{"role": "robot", "content": "x"}], {}, "Invalid value: 'robot'"),
    ("chat", [{"role": "user", "content": [["x"]]}], {}, "Invalid type"),
    ("responses", ["Go"], {}, "has not the shape"),
    ("chat", ["Go"], {}, r"Invalid type for 'messages.0.'"),
]


@pytest.mark.parametrize(("api", "prompt", "more", "match"), MALFORMED)
async def test_a_malformed_request_is_refused_as_openai_does_it(
    models: ModelServer, client: AsyncOpenAI, api: str, prompt: Any, more: dict[str, Any], match: str
) -> None:
    models.on("", Text("ok"))
    with pytest.raises(openai.BadRequestError, match=match):
        await ask(client, api, prompt, **more)
    assert models.find_requests() == models.requests


async def test_a_mistake_in_the_script_is_heard_of() -> None:
    models = ModelServer()
    models.on("", lambda request: Text(str(1 // request.index)))
    await models.__aenter__()
    async with AsyncOpenAI(base_url=models.base_url, api_key="k", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError, match="script of the test failed"):
            await ask(client, "chat", "Go")
    with pytest.raises(ZeroDivisionError):
        await models.__aexit__()


def test_a_test_without_a_loop_has_it_in_a_thread() -> None:
    with ModelServer() as models, openai.OpenAI(base_url=models.base_url, api_key="k", timeout=PATIENCE_S) as client:
        models.on("", Text("from a thread"))
        assert client.responses.create(model=MODEL, input="Go").output_text == "from a thread"
    with openai.OpenAI(base_url=models.base_url, api_key="k", max_retries=0) as client:
        with pytest.raises(openai.APIConnectionError):
            client.responses.create(model=MODEL, input="Go")
        with models:
            assert client.responses.create(model=MODEL, input="Go").output_text == "from a thread"


async def test_as_a_process_it_says_where_it_is_and_ends_when_told(tmp_path: Path) -> None:
    rules = [
        {"when": "sum", "by": "turn", "replies": [{"calls": [["add", {"a": 1}]]}, {"text": "one"}]},
        {"when": "here", "in": "anywhere", "replies": [{"text": "anywhere", "usage": [7, 8]}]},
        {"replies": [{"fault": "rate_limited", "retry_after": 3, "times": 2}, {"text": "well again"}]},
    ]
    script = tmp_path / "script.json"
    script.write_text(json.dumps(rules), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "model_server", "--port", "0", "--delay-ms", "1", "--script", script),
        cwd=SUPPORT,
        stdout=PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert process.stdout
            url = (await process.stdout.readline()).decode().strip()
            async with AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
                assert (await ask(client, "chat", "sum")).calls == [("add", '{"a": 1}')]
                assert (await ask(client, "responses", "Go", instructions="here")).usage == (7, 8)
                for _ in range(2):
                    with pytest.raises(openai.RateLimitError) as limited:
                        await ask(client, "responses", "Go")
                    assert limited.value.response.headers["retry-after"] == "3"
                assert (await ask(client, "responses", "Go")).text == "well again"
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
