"""One turn of one openai-agents run. Only this module imports that library; it takes about 2 s, so import it late.

The library runs the turn and carries out nothing: every tool needs an approval that it never gets, so the model's calls
come back as data. For the same reason it does not matter if a run fails after the model has answered (a function that
was not offered, arguments that are no JSON).
"""

import logging
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import urlsplit

from agents import (
    Agent,
    FunctionTool,
    Model,
    ModelResponse,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    ToolExecutionConfig,
    set_tracing_disabled,
)
from agents.items import TResponseStreamEvent
from agents.usage import Usage as LibraryUsage
from openai.types.responses import Response

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest, OfferedTool
from agent_runtime.domain.values import JsonObject
from agent_runtime.models.dialect import Dialect, allows_strict
from agent_runtime.models.endpoint_client import (
    RESPONSE_INFO,
    ResponseInfo,
    TooLongError,
    open_client,
    read_error,
    read_usage,
    to_failure,
)
from agent_runtime.models.failures import ApiError, Failure, Failures
from agent_runtime.models.items import calls_of, prepare_items, refusal_of, size_of, text_of, to_sendable
from agent_runtime.text.redaction import RedactedStream, Redactor

set_tracing_disabled(disabled=True)
logging.getLogger("openai.agents").setLevel(logging.CRITICAL)  # it may log prompts; we report failures ourselves

_RUN = RunConfig(tracing_disabled=True, trace_include_sensitive_data=False, tool_execution=ToolExecutionConfig())


class Endpoint:
    """A model at an endpoint. Makes one request at a time, in the dialect that the caller chooses, without retries."""

    def __init__(
        self,
        settings: OpenAISettings,
        failures: Failures,
        redactor: Redactor,
        *,
        answer_bytes: int,
        model: Model | None = None,
    ) -> None:
        """Take `model`, one of the library's, to ask in place of the endpoint; for tests."""
        self._settings = settings
        self._failures = failures
        self._redactor = redactor
        self._most = answer_bytes
        self._client = open_client(settings, answer_bytes=answer_bytes)
        self._model: Model = model or (
            OpenAIResponsesModel(settings.model, self._client)
            if settings.api == "responses"
            else OpenAIChatCompletionsModel(settings.model, self._client)
        )
        host = urlsplit(settings.endpoint).hostname or ""
        self._openai = host.endswith((".openai.com", ".openai.azure.com"))
        _ = self._client.chat.completions, self._client.responses.with_streaming_response  # imported on first use

    async def aclose(self) -> None:
        await self._client.close()

    async def ask(self, request: ModelRequest, dialect: Dialect) -> ModelAnswer:
        """Return the model's answer to one request. Raises: Failure."""
        info = ResponseInfo(streamed=dialect.streams)
        text = RedactedStream(self._redactor, request.on_text)
        turn = _Turn(self._model, info, text.write, self._failures, self._most)
        agent: Agent[None] = Agent(
            name="agent",
            instructions=request.instructions,
            tools=[_to_function_tool(tool) for tool in request.tools],
            model=turn,
            model_settings=self._make_model_settings(request, dialect),
        )
        token = RESPONSE_INFO.set(info)
        try:
            await self._run(agent, request, turn)
            text.end()
            return self._answer(turn, info)
        except Failure as failure:
            failure.usage = info.usage
            raise
        except Exception as error:
            # The library does not validate values: any field may have any type.
            unreadable = self._failures.make_unreadable(f"{type(error).__name__}: {error}")
            unreadable.usage = info.usage
            raise unreadable from error
        finally:
            RESPONSE_INFO.reset(token)

    async def _run(self, agent: Agent[None], request: ModelRequest, turn: "_Turn") -> None:
        try:
            await Runner.run(agent, input=to_sendable(request.items), max_turns=1, run_config=_RUN)  # type: ignore[arg-type]
        except Exception as error:
            # If there is an answer, it does not matter what the library makes of it: it is judged next.
            if turn.failure or turn.response is None:
                raise (turn.failure or self._failures.make_unreadable(str(error))) from error

    def _answer(self, turn: "_Turn", info: ResponseInfo) -> ModelAnswer:
        assert turn.response is not None  # noqa: S101 - the run neither failed nor ended without asking
        raw = [item.model_dump(mode="json", exclude_unset=True, warnings=False) for item in turn.response.output]
        # Redacted, because an endpoint may repeat its key, and no key may reach the journal.
        items = prepare_items(self._redactor.redact_json(raw))
        if size_of(items) > 2 * self._most:
            raise self._failures.make_too_long()
        text, calls, refusal = text_of(items), calls_of(items), refusal_of(items)
        if info.finish == "length":
            raise self._failures.make_truncated()
        if refusal is not None or info.finish == "content_filter":
            raise self._failures.make_refused(refusal or "its filter withheld the answer")
        if self._settings.api == "chat_completions" and info.streamed and info.finish is None:
            raise self._failures.make_cut_off("the stream ended before the answer did")
        if len(text.encode()) > self._most:
            raise self._failures.make_too_long()
        if not text.strip() and not calls:
            raise self._failures.make_empty()
        return ModelAnswer(items, text, calls, info.usage)

    def _make_model_settings(self, request: ModelRequest, dialect: Dialect) -> ModelSettings:
        """Return the options of a request. `store: false`: the endpoint need not store anything for the next turn."""
        responses = self._settings.api == "responses"
        body: JsonObject = {}
        limit = request.max_tokens
        if request.schema is not None and dialect.output != "prompt":
            described = _make_response_format(request, request.schema, dialect)
            body = {"text": {"format": _flatten(described)}} if responses else {"response_format": described}
        if limit is not None and self._openai and not responses:
            body["max_completion_tokens"], limit = limit, None  # OpenAI's newer models refuse max_tokens
        return ModelSettings(
            max_tokens=limit,
            store=False if responses or self._openai else None,
            include_usage=True if dialect.counts else None,
            response_include=["reasoning.encrypted_content"] if responses and dialect.reasoning else None,
            extra_body=body or None,
        )


class _Turn(Model):
    """The library's model for one request, streamed or not, with its outcome."""

    def __init__(
        self, model: Model, info: ResponseInfo, on_text: Callable[[str], None], failures: Failures, most: int
    ) -> None:
        self._model = model
        self._info = info
        self._on_text = on_text
        self._failures = failures
        self._most = most
        self.response: ModelResponse | None = None
        self.failure: Failure | None = None

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        ask = self._stream if self._info.streamed else self._model.get_response
        try:
            self.response = await ask(*args, **kwargs)
        except Exception as error:
            # Broad, because garbage makes the libraries raise anything: it is an unreadable answer.
            told = error if isinstance(error, Failure) else to_failure(error, self._info, self._failures)
            self.failure = self._find_failure() or told
            raise self.failure from error
        return self.response

    def stream_response(self, *_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError("runs are not streamed: get_response streams")

    async def _stream(self, *args: Any, **kwargs: Any) -> ModelResponse:
        length = 0
        final: Response | None = None
        events = cast("AsyncGenerator[TResponseStreamEvent]", self._model.stream_response(*args, **kwargs))
        async with aclosing(events):
            async for event in events:
                delta = getattr(event, "delta", None)
                if isinstance(delta, str):
                    length += len(delta)
                    if length > self._most:
                        raise TooLongError
                    if event.type == "response.output_text.delta":
                        self._on_text(delta)
                elif event.type in {"response.completed", "response.incomplete", "response.failed"}:
                    final = event.response
                    self._info.response = final
                    if final.usage:
                        self._info.usage = read_usage(final.usage)
                elif getattr(event, "message", None) and not event.type.startswith("response."):
                    self._info.error = read_error(
                        {name: getattr(event, name, None) for name in ("code", "message", "param")}
                    )
        if final is None:
            raise self._failures.make_cut_off("the stream ended before the answer did")
        return ModelResponse(output=final.output, usage=LibraryUsage(requests=1), response_id=final.id)

    def _find_failure(self) -> Failure | None:
        try:
            return self._read_failure()
        except (AttributeError, TypeError, ValueError):  # it reports its failure in an unknown form
            return None

    def _read_failure(self) -> Failure | None:
        """Return the failure that the endpoint reports for an unfinished answer; None if it is finished."""
        if self._info.error:
            return self._failures.translate(self._info.error)
        response, finish = self._info.response, self._info.finish
        if response is not None and response.status == "incomplete":
            reason = response.incomplete_details.reason if response.incomplete_details else None
            if reason == "content_filter":
                return self._failures.make_refused("its filter withheld the answer")
            return self._failures.make_truncated()
        if response is not None and response.status == "failed":
            error = response.error
            return self._failures.translate(
                ApiError(error.message, code=error.code) if error else ApiError("it failed")
            )
        return self._failures.make_truncated() if finish == "length" else None


def _make_response_format(request: ModelRequest, schema: JsonObject, dialect: Dialect) -> JsonObject:
    if dialect.output == "json_object":
        return {"type": "json_object"}
    name = re.sub(r"[^A-Za-z0-9_-]", "_", request.name)[:64] or "answer"
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": allows_strict(schema)}}


def _flatten(described: JsonObject) -> JsonObject:
    """Return a chat completion's `response_format` in the form of the Responses API."""
    return {"type": described["type"], **described.get("json_schema", {})}


def _to_function_tool(tool: OfferedTool) -> FunctionTool:
    return FunctionTool(
        name=tool.name,
        description=tool.description,
        params_json_schema=tool.input_schema,
        on_invoke_tool=_refuse_call,
        strict_json_schema=False,
        needs_approval=True,
    )


async def _refuse_call(*_: Any) -> Any:
    raise RuntimeError("a model's call is made by the broker only")
