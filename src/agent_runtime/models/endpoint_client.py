"""The HTTP client of an endpoint, which stands in for the openai library's, with bounds and with readers of its own.

openai-agents reports neither that an answer was cut at its limit nor that a stream ended too soon, and nothing bounds
what an endpoint may send. So the client reads each answer itself, notes what it saw in a `ResponseInfo`, and stops
reading an answer that is too long.
"""

import json
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import httpx2
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    DefaultAsyncHttpxClient,
    NotGiven,
    Omit,
)
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic_core import to_json

from agent_runtime.config import OpenAISettings
from agent_runtime.config.settings import OPENAI_URL, PLACEHOLDER_KEY
from agent_runtime.domain.retry_after import parse_retry_after
from agent_runtime.domain.values import JsonObject
from agent_runtime.models.answer_reader import (
    AnswerError,
    ChatReader,
    CutOffError,
    EmptyStreamError,
    NotAnAnswerError,
    NotStreamedError,
    OverLimitError,
    Reader,
    RepetitiveError,
    ResponseInfo,
    ResponsesReader,
    TooLongError,
    make_not_an_answer,
    read_error,
)
from agent_runtime.models.event_stream import read_events
from agent_runtime.models.failures import ApiError, Failure, Failures

_CONNECT_S = 10.0
_NO_KEY = "unused"
"""The key to send if none is set: most local servers want some key, and accept any."""

_ON_WIRE = 8
"""How many bytes on the wire one byte of an answer may take: escapes, and the same text twice."""

_IN_STREAM = 16
"""How many times as much a stream may take, which sends each token in its own event."""


_CHAT, _RESPONSES, _MODELS = "/chat/completions", "/responses", "/models"
_NOT_IN_BODY = frozenset({"extra_headers", "extra_query", "extra_body", "timeout"})
_ACCOUNT = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
_FIRST_EVENT = re.compile(r"(?:(?:event:[^\n]*|:[^\n]*|)\r?\n)*data:([^\n]*)")

RESPONSE_INFO: ContextVar[ResponseInfo] = ContextVar("response_info")
"""The facts about the request that this context makes."""


class Client:
    """The part of the openai library's client that the model classes of openai-agents use: `create` of both APIs.

    It sends what they make, reads answers as plain JSON, and streams to their end: its callers get whole answers only,
    and `ResponseInfo.on_text` hears the text of a stream. The library itself looks at every part of a request again,
    and makes typed objects of each piece of a stream; both together cost more than all the rest of a turn.
    """

    def __init__(
        self, http: httpx2.AsyncClient, url: httpx2.URL, headers: Mapping[str, str], *, answer_bytes: int
    ) -> None:
        self._http = http
        self._headers = dict(headers)
        self._most = _ON_WIRE * answer_bytes
        path, mark, query = url.raw_path.partition(b"?")
        path = path.rstrip(b"/")
        self._paths = {
            name: url.copy_with(raw_path=path + name.encode() + mark + query) for name in (_CHAT, _RESPONSES, _MODELS)
        }
        self.base_url = url.copy_with(raw_path=path + b"/")
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create_completion))
        self.responses = SimpleNamespace(create=self._create_response)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def list_models(self, info: ResponseInfo) -> Any:
        """Return the answer to `GET /models` as JSON. Raises: APIStatusError, ValueError, and what HTTPX raises."""
        request = httpx2.Request("GET", self._paths[_MODELS], headers=self._headers)
        async with self._send(request, info) as response:
            await response.aread()
            return _parse_body(response)

    async def _create_completion(self, **asked: Any) -> ChatCompletion:
        info = RESPONSE_INFO.get()
        _return_extras(asked["messages"], info.returned)
        return ChatCompletion.construct(**await self._ask(_CHAT, asked, ChatReader(info), info))

    async def _create_response(self, **asked: Any) -> Response:
        info = RESPONSE_INFO.get()
        return Response.construct(**await self._ask(_RESPONSES, asked, ResponsesReader(info), info))

    async def _ask(self, path: str, asked: dict[str, Any], reader: Reader, info: ResponseInfo) -> JsonObject:
        """Return the whole answer. Raises: as the readers, EmptyStreamError, APIStatusError, and what HTTPX raises."""
        async with self._send(self._make_request(path, asked), info) as response:
            if not info.streamed:
                await response.aread()
                return reader.read(_check_object(_parse_body(response)))
            empty = True
            async with aclosing(read_events(response)) as events:
                async for event in events:
                    if _check_object(event).get("error"):
                        raise make_not_an_answer(event, info)
                    reader.add(event)
                    empty = False
            if empty:
                raise EmptyStreamError
            return reader.end()

    @asynccontextmanager
    async def _send(self, request: httpx2.Request, info: ResponseInfo) -> AsyncIterator[httpx2.Response]:
        """Yield the response with its head checked, and close it. Raises: as `_check_head`, and what HTTPX raises."""
        response = await self._http.send(request, stream=True)
        info.began = True
        try:
            await self._check_head(response, info)
            yield response
        finally:
            await response.aclose()

    def _make_request(self, path: str, asked: dict[str, Any]) -> httpx2.Request:
        """Return the request with these arguments of `create`, and with the fields of `extra_body` over them."""
        body = {**asked, **(asked.get("extra_body") or {})}
        content = to_json(
            {
                name: value
                for name, value in body.items()
                if name not in _NOT_IN_BODY and not isinstance(value, Omit | NotGiven)
            }
        )
        headers = {**self._headers, **(asked.get("extra_headers") or {})}
        return httpx2.Request("POST", self._paths[path], headers=headers, content=content)

    async def _check_head(self, response: httpx2.Response, info: ResponseInfo) -> None:
        """Bound the body of a response. Raises: APIStatusError, or what else its head tells that it is no answer."""
        stream = info.streamed and response.is_success
        kind = response.headers.get("content-type", "")
        if stream and kind.startswith("text/html"):
            raise NotAnAnswerError("it is an HTML page")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise NotAnAnswerError("it is compressed, although compression was not accepted")
        body = cast("httpx2.AsyncByteStream", response.stream)
        response.stream = _Bounded(body, most=self._most * _IN_STREAM if stream else self._most, line=self._most)
        if not response.is_success:
            raise await _read_refusal(response)
        if stream and kind.startswith("application/json"):
            answer = json.loads(await response.aread())
            if isinstance(answer, dict) and answer.get("error"):
                raise make_not_an_answer(answer, info)
            raise NotStreamedError


def _return_extras(messages: list[JsonObject], returned: Mapping[str, JsonObject]) -> None:
    """Put what the endpoint sent with its calls into the messages that hold these calls; the library leaves it out."""
    for message in messages if returned else ():
        for call in message.get("tool_calls") or ():
            extras = returned.get(call["id"], {})
            call.update(extras.get("call", {}))
            message.update(extras.get("message", {}))


def _parse_body(response: httpx2.Response) -> Any:
    """Return the JSON of an answer; of a stream that nobody asked for, its first event. Raises: ValueError."""
    if response.headers.get("content-type", "").partition(";")[0].endswith("json"):
        return json.loads(response.content)
    event = _FIRST_EVENT.match(response.text)
    return json.loads(event[1] if event else response.text)


async def _read_refusal(response: httpx2.Response) -> APIStatusError:
    """Return the error of a response that is no success, with its error object, JSON or text as `body`."""
    await response.aread()
    body: Any = response.text.strip()
    with suppress(ValueError, RecursionError):
        body = json.loads(body)
    if isinstance(body, dict):
        body = body.get("error", body)
    return APIStatusError(f"HTTP {response.status_code}", response=response, body=body)


def _check_object(value: Any) -> JsonObject:
    if not isinstance(value, dict):
        raise NotAnAnswerError("it is no JSON object")
    return value


class _Bounded(httpx2.AsyncByteStream):
    """A response body that raises TooLongError beyond `most` bytes, or `line` bytes without an end of line."""

    def __init__(self, body: httpx2.AsyncByteStream, *, most: int, line: int) -> None:
        self._body = body
        self._most = most
        self._line = line

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = line = 0
        async for part in self._body:
            total += len(part)
            end = part.rfind(b"\n")
            line = line + len(part) if end < 0 else len(part) - end - 1
            if total > self._most or line > self._line:
                raise TooLongError
            yield part

    async def aclose(self) -> None:
        await self._body.aclose()


def open_client(settings: OpenAISettings, *, answer_bytes: int) -> Client:
    """Return the client for all requests to the endpoint. It does not retry, and follows no redirects."""
    timeout = httpx2.Timeout(settings.timeout_s, connect=min(_CONNECT_S, settings.timeout_s))
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Authorization": f"Bearer {key if key not in {'', PLACEHOLDER_KEY} else _NO_KEY}",
        "Content-Type": "application/json",
    }
    if not settings.base_url:  # whose account pays at OpenAI; not for other endpoints
        headers |= {name: os.environ[variable] for name, variable in _ACCOUNT.items() if os.environ.get(variable)}
    http = DefaultAsyncHttpxClient(timeout=timeout, follow_redirects=False)
    return Client(http, httpx2.URL(settings.base_url or OPENAI_URL), headers, answer_bytes=answer_bytes)


def to_failure(error: Exception, info: ResponseInfo, failures: Failures) -> Failure:
    """Translate an exception of the library or of the HTTP layer."""
    chain = list(_walk_causes(error))
    own = _find_first(chain, AnswerError)
    if isinstance(own, TooLongError):
        return failures.make_too_long()
    if isinstance(own, OverLimitError):
        return failures.make_truncated()
    if isinstance(own, RepetitiveError):
        return failures.make_repetitive()
    if isinstance(own, CutOffError):
        return failures.make_cut_off(str(own))
    if isinstance(own, EmptyStreamError):
        return failures.make_silent()
    if isinstance(own, NotStreamedError):
        return Failure(
            "model_failed", failures.make_unreadable("no stream came").message, complaint="stream is not supported"
        )
    if isinstance(own, NotAnAnswerError):
        return failures.make_unreadable(str(own))
    if isinstance(error, APIStatusError):
        return failures.translate(_read_status_error(error))
    if type(status := getattr(error, "status_code", None)) is int:  # of a model class that is not ours
        return failures.translate(ApiError(str(error), status))
    if _find_first(chain, httpx2.ConnectTimeout):
        return failures.make_unreachable("no connection in time")
    if _find_first(chain, APITimeoutError, httpx2.TimeoutException):
        return failures.make_timed_out()
    if lost := _find_first(chain, httpx2.RequestError):
        return (
            failures.make_cut_off(str(lost))
            if info.began
            else failures.make_unreachable(str(lost) or type(lost).__name__)
        )
    if isinstance(error, APIConnectionError) and not info.began:
        return failures.make_unreachable(str(chain[-1]))
    if isinstance(error, APIError) and isinstance(error.body, dict):
        return failures.translate(read_error(error.body))
    root = next((cause for cause in chain if not isinstance(cause, APIConnectionError)), error)
    return failures.make_unreadable(f"{type(root).__name__}: {root}")


def _read_status_error(error: APIStatusError) -> ApiError:
    body = error.body
    after_s = _read_retry_after(error.response.headers)
    if isinstance(body, list):  # Gemini's: a list of objects that hold one
        body = next((item.get("error", item) for item in body if isinstance(item, dict)), body)
    if isinstance(body, dict):
        detail = body.get("detail", body.get("error"))
        return read_error(
            body if "message" in body else {"message": detail or json.dumps(body)}, error.status_code, after_s
        )
    return ApiError(str(body or ""), error.status_code, after_s=after_s)


def _read_retry_after(headers: httpx2.Headers) -> float | None:
    """Return the seconds to wait that the endpoint asks for (RFC 9110 section 10.2.3, and OpenAI's finer header), or
    None.
    """
    fine, coarse = headers.get("retry-after-ms"), headers.get("retry-after")
    in_ms = parse_retry_after(fine, datetime.now(UTC))
    return parse_retry_after(coarse, datetime.now(UTC)) if in_ms is None else in_ms / 1000


def _walk_causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _find_first(chain: list[BaseException], *kinds: type[BaseException]) -> BaseException | None:
    return next((error for error in chain if isinstance(error, kinds)), None)
