"""One turn of a model, through a model class of openai-agents. It takes about 2 s to import: do that late.

The library's runner is not used: a turn is one request, whose calls come back as data. See decision 22.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

from agents import (
    FunctionTool,
    Model,
    ModelSettings,
    ModelTracing,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    set_tracing_disabled,
)
from openai import AsyncOpenAI, Omit

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.events import ModelCall
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest
from agent_runtime.domain.thoughts import SpokenText, cut_thoughts
from agent_runtime.domain.values import JsonObject
from agent_runtime.models.answer_reader import ResponseInfo
from agent_runtime.models.dialect import Dialect, allows_strict
from agent_runtime.models.endpoint_client import RESPONSE_INFO, open_client, to_failure
from agent_runtime.models.failures import ApiError, Failure, Failures
from agent_runtime.models.finish import read_finish
from agent_runtime.models.functions import FittedFunction, FunctionCache
from agent_runtime.models.items import (
    add_extras,
    calls_of,
    find_extras,
    find_json_in_thoughts,
    prepare_items,
    refusal_of,
    size_of,
    text_of,
    to_sendable,
)
from agent_runtime.models.plugged import NoModelError, OutputForm, ask_plugged, load_model
from agent_runtime.text.redaction import RedactedStream, Redactor

set_tracing_disabled(disabled=True)
logging.getLogger("openai.agents").setLevel(logging.CRITICAL)  # it may log prompts; we report failures ourselves


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
        """Take `model`, one of the library's, to ask in place of the endpoint; for tests.

        Raises: Failure where the settings name a model class, and it makes no model.
        """
        self._settings = settings
        self._failures = failures
        self._redactor = redactor
        self._most = answer_bytes
        self._client = open_client(settings, answer_bytes=answer_bytes)
        self._functions = FunctionCache()
        model = model or self._load_model()
        self._given = model is not None
        client = cast("AsyncOpenAI", self._client)  # as far as the model classes use it
        self._model: Model = model or (
            OpenAIResponsesModel(settings.model, client)
            if settings.api == "responses"
            else OpenAIChatCompletionsModel(settings.model, client)
        )

    def _load_model(self) -> Model | None:
        if self._settings.model_class is None:
            return None
        try:
            return load_model(self._settings.model_class, self._settings)
        except NoModelError as error:
            raise self._failures.make_unusable_class(str(error)) from error

    async def aclose(self) -> None:
        await self._client.aclose()
        await self._model.close()

    async def ask(self, request: ModelRequest, dialect: Dialect, info: ResponseInfo) -> ModelAnswer:
        """Return the model's answer to one request, and fill in the facts about it. Raises: Failure."""
        text = RedactedStream(self._redactor, SpokenText(request.on_text).write)
        info.on_text, info.most = text.write, self._most
        info.returned = find_extras(request.items, self._settings.model) if dialect.returns else {}
        token = RESPONSE_INFO.set(info)
        try:
            functions = self._functions.fit(request.tools, plain=dialect.plain)
            output = await self._ask_model(request, functions, dialect, info)
            text.end()
            answer = self._make_answer(output, info, request)
            return replace(answer, calls=tuple(_restore(answer.calls, functions)))
        except Failure:
            raise
        except Exception as error:
            # The library does not validate values: any field may have any type.
            raise self._failures.make_unreadable(f"{type(error).__name__}: {error}") from error
        finally:
            RESPONSE_INFO.reset(token)

    async def _ask_model(
        self, request: ModelRequest, functions: list[FittedFunction], dialect: Dialect, info: ResponseInfo
    ) -> list[Any]:
        """Return the output items of the model. Raises: Failure."""
        asked: dict[str, Any] = {
            "system_instructions": request.instructions or None,
            "input": to_sendable(request.items),
            "model_settings": self._make_model_settings(request, dialect),
            "tools": list(map(_to_function_tool, functions)),
            "output_schema": self._make_output_form(request, dialect),
            "handoffs": [],
            "tracing": ModelTracing.DISABLED,
            "previous_response_id": None,
            "conversation_id": None,
            "prompt": None,
        }
        try:
            if self._given:
                return await ask_plugged(self._model, info, asked)
            return (await self._model.get_response(**asked)).output
        except Exception as error:
            # Broad, because garbage makes the libraries raise anything: it is an unreadable answer.
            raise self._find_failure(info) or to_failure(error, info, self._failures) from error

    def _make_answer(self, output: list[Any], info: ResponseInfo, request: ModelRequest) -> ModelAnswer:
        if info.final and (unfinished := self._find_failure(info)):
            raise unfinished
        raw = [item.model_dump(mode="json", exclude_unset=True, warnings=False) for item in output]
        add_extras(raw, info.message_extras, info.call_extras)
        # Redacted, because an endpoint may repeat its key, and no key may reach the journal.
        raw = self._redactor.redact_json(raw)
        items = prepare_items(raw, {item["call_id"] for item in request.items if item.get("call_id")})
        if size_of(items) > 2 * self._most:
            raise self._failures.make_too_long()
        text, calls, refusal = text_of(items), calls_of(items), refusal_of(items)
        if request.schema is not None and not text.strip() and not calls:
            text = find_json_in_thoughts(raw)
        finish = read_finish(info.finish)
        told = cut_thoughts(text)
        if told != text:
            info.thinks, info.answers = True, bool(told.strip() or calls)
        if finish == "cut":
            repeats = info.repetition.finds_in(text)
            raise self._failures.make_repetitive() if repeats else self._failures.make_truncated()
        if finish == "broken":
            raise self._failures.make_cut_off(f"its finish reason is {info.finish!r}")
        if refusal is not None or finish == "filtered":
            raise self._failures.make_refused(refusal or "its filter withheld the answer")
        if self._settings.api == "chat_completions" and info.streamed and finish is None and not self._given:
            raise self._failures.make_cut_off("the stream ended before the answer did")
        if len(text.encode()) > self._most:
            raise self._failures.make_too_long()
        if not text.strip() and not calls:
            raise self._failures.make_empty()
        return ModelAnswer(items, text, calls, info.usage)

    def _find_failure(self, info: ResponseInfo) -> Failure | None:
        try:
            return self._read_failure(info)
        except (AttributeError, TypeError, ValueError):  # it reports its failure in an unknown form
            return None

    def _read_failure(self, info: ResponseInfo) -> Failure | None:
        """Return the failure that the endpoint reports for an unfinished answer; None if it is finished."""
        if info.error:
            return self._failures.translate(info.error)
        final = info.final
        if final.get("status") == "incomplete":
            if (final.get("incomplete_details") or {}).get("reason") == "content_filter":
                return self._failures.make_refused("its filter withheld the answer")
            return self._failures.make_truncated()
        if final.get("status") == "failed":
            error = final.get("error") or {}
            return self._failures.translate(ApiError(error.get("message") or "it failed", code=error.get("code") or ""))
        if final.get("status") not in {None, "completed"}:
            return self._failures.make_cut_off(f"its status is {final['status']!r}")
        return self._failures.make_truncated() if read_finish(info.finish) == "cut" else None

    def _make_output_form(self, request: ModelRequest, dialect: Dialect) -> OutputForm | None:
        """Return the schema for a model class of the operator's; None for others, whose requests hold it themselves."""
        if not self._given or request.schema is None or dialect.output != "json_schema":
            return None
        return OutputForm(request.name, request.schema, strict=allows_strict(request.schema))

    def _make_model_settings(self, request: ModelRequest, dialect: Dialect) -> ModelSettings:
        """Return the options of a request. `store: false`: the endpoint need not store anything for the next turn."""
        settings, responses = self._settings, self._settings.api == "responses"
        body: JsonObject = dict(settings.extra_body)
        limit = request.max_tokens
        if self._given:
            return ModelSettings(
                max_tokens=limit,
                temperature=settings.temperature,
                include_usage=dialect.counts,
                extra_body=body or None,
            )
        if request.schema is not None and dialect.output != "prompt":
            described = _make_response_format(request, request.schema, dialect)
            body |= {"text": {"format": _flatten(described)}} if responses else {"response_format": described}
        if dialect.streams:
            body["stream"] = True  # the client reads the stream, and gives the library the whole answer
            if dialect.counts and not responses:
                body["stream_options"] = {"include_usage": True}
        if limit is not None and not responses:
            body[dialect.limit], limit = limit, None
        if responses and not dialect.reasoning:
            body["include"] = Omit()  # the library would send an empty list
        keeps = responses or settings.at_openai
        return ModelSettings(
            max_tokens=limit,
            temperature=settings.temperature if "temperature" in dialect.options else None,
            store=False if keeps and "store" in dialect.options else None,
            response_include=["reasoning.encrypted_content"] if responses and dialect.reasoning else None,
            extra_body=body or None,
        )


def _make_response_format(request: ModelRequest, schema: JsonObject, dialect: Dialect) -> JsonObject:
    if dialect.output == "json_object":
        return {"type": "json_object"}
    name = re.sub(r"[^A-Za-z0-9_-]", "_", request.name)[:64] or "answer"
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": allows_strict(schema)}}


def _flatten(described: JsonObject) -> JsonObject:
    """Return a chat completion's `response_format` in the form of the Responses API."""
    return {"type": described["type"], **described.get("json_schema", {})}


def _restore(calls: Iterable[ModelCall], functions: Iterable[FittedFunction]) -> Iterable[ModelCall]:
    """Yield the calls with arguments as the tools' own schemas mean them."""
    changed = {function.name: function for function in functions if function.changes}
    for call in calls:
        restored = changed[call.name].restore(call.arguments) if call.name in changed else call.arguments
        yield call if restored == call.arguments else call.model_copy(update={"arguments": restored})


def _to_function_tool(function: FittedFunction) -> FunctionTool:
    return FunctionTool(
        name=function.name,
        description=function.description,
        params_json_schema=function.schema,
        on_invoke_tool=_refuse_call,
        strict_json_schema=False,
    )


async def _refuse_call(*_: Any) -> Any:
    raise RuntimeError("a model's call is made by the broker only")
