"""The HTTP client of an endpoint: one client of the openai library, with bounds and with readers of its own.

openai-agents reports neither that an answer was cut at its limit nor that a stream ended too soon, and nothing bounds
what an endpoint may send. So the client reads each answer itself and notes what it saw in a `ResponseInfo`, and the
HTTP layer stops reading an answer that is too long.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, cast

import httpx2
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AsyncStream,
    DefaultAsyncHttpxClient,
)
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from agent_runtime.config import OpenAISettings
from agent_runtime.config.settings import OPENAI_URL, PLACEHOLDER_KEY
from agent_runtime.domain.retry_after import parse_retry_after
from agent_runtime.domain.values import JsonObject
from agent_runtime.models.answer_reader import (
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
from agent_runtime.models.failures import ApiError, Failure, Failures

_CONNECT_S = 10.0
_NO_KEY = "unused"
"""The key to send if none is set: most local servers want some key, and accept any."""

_ON_WIRE = 8
"""How many bytes on the wire one byte of an answer may take: escapes, and the same text twice."""

_IN_STREAM = 16
"""How many times as much a stream may take, which sends each token in its own event."""


_FIRST_EVENT = re.compile(r"(?:(?:event:[^\n]*|:[^\n]*|)\r?\n)*data:([^\n]*)")

RESPONSE_INFO: ContextVar[ResponseInfo] = ContextVar("response_info")
"""The facts about the request that this context makes."""


class Client(AsyncOpenAI):
    """The openai client, which reads answers itself: as plain JSON, and streams to their end.

    Its callers get whole answers only; `ResponseInfo.on_text` hears the text of a stream. The libraries make typed
    objects of each piece of a stream, which costs more than all the rest of a turn.
    """

    async def post(self, path: str, *, cast_to: Any, **more: Any) -> Any:
        """Send a request; see the library.

        Raises: NotAnAnswerError, TooLongError, CutOffError, EmptyStreamError.
        """
        info = RESPONSE_INFO.get()
        if cast_to is ChatCompletion:
            _return_extras(more["body"]["messages"], info.returned)
            return ChatCompletion.construct(**await self._read(ChatReader(info), info, path, more))
        if cast_to is Response:
            return Response.construct(**await self._read(ResponsesReader(info), info, path, more))
        return await super().post(path, cast_to=cast_to, **more)

    async def _read(self, reader: Reader, info: ResponseInfo, path: str, more: dict[str, Any]) -> JsonObject:
        if not info.streamed:
            answer = await super().post(path, **{**more, "cast_to": object})
            return reader.read(_check_object(_parse_text(answer) if isinstance(answer, str) else answer))
        asked = {**more, "cast_to": object, "stream": True, "stream_cls": AsyncStream[object]}
        stream: AsyncStream[object]
        empty = True
        async with await super().post(path, **asked) as stream:
            async for event in stream:
                reader.add(_check_object(event))
                empty = False
        if empty:
            raise EmptyStreamError
        return reader.end()


def _return_extras(messages: list[JsonObject], returned: Mapping[str, JsonObject]) -> None:
    """Put what the endpoint sent with its calls into the messages that hold these calls; the library leaves it out."""
    for message in messages if returned else ():
        for call in message.get("tool_calls") or ():
            extras = returned.get(call["id"], {})
            call.update(extras.get("call", {}))
            message.update(extras.get("message", {}))


def _parse_text(text: str) -> Any:
    """Return the JSON of an answer that has another content type; of a stream that nobody asked for, its first event.

    Raises: ValueError.
    """
    event = _FIRST_EVENT.match(text)
    return json.loads(event[1] if event else text)


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

    async def watch(response: httpx2.Response) -> None:
        info = RESPONSE_INFO.get()
        info.began = True
        kind = response.headers.get("content-type", "")
        most = _ON_WIRE * answer_bytes
        stream = info.streamed and response.is_success
        if stream and kind.startswith("text/html"):
            raise NotAnAnswerError("it is an HTML page")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise NotAnAnswerError("it is compressed, although compression was not accepted")
        body = cast("httpx2.AsyncByteStream", response.stream)
        response.stream = _Bounded(body, most=most * _IN_STREAM if stream else most, line=most)
        if stream and kind.startswith("application/json"):
            answer = json.loads(await response.aread())
            if isinstance(answer, dict) and answer.get("error"):
                raise make_not_an_answer(answer, info)
            raise NotStreamedError

    timeout = httpx2.Timeout(settings.timeout_s, connect=min(_CONNECT_S, settings.timeout_s))
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    url, _, query = (settings.base_url or OPENAI_URL).partition("?")
    http = DefaultAsyncHttpxClient(
        params=httpx2.QueryParams(query),  # of each request: the library would put its path behind the query
        timeout=timeout,
        follow_redirects=False,
        event_hooks={"response": [watch]},
    )
    client = Client(
        api_key=key if key not in {"", PLACEHOLDER_KEY} else _NO_KEY,
        base_url=url,
        timeout=timeout,
        max_retries=0,
        http_client=http,
        default_headers={"Accept-Encoding": "identity"},
    )
    if settings.base_url:
        client.organization = client.project = None  # OpenAI's, from the environment: not for other endpoints
    return client


_OWN = (
    TooLongError,
    NotStreamedError,
    NotAnAnswerError,
    CutOffError,
    EmptyStreamError,
    OverLimitError,
    RepetitiveError,
)


def to_failure(error: Exception, info: ResponseInfo, failures: Failures) -> Failure:
    """Translate an exception of the library or of the HTTP layer."""
    chain = list(_walk_causes(error))
    own = _find_first(chain, *_OWN)
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
    after_s = read_retry_after(error.response.headers)
    if isinstance(body, list):  # Gemini's: a list of objects that hold one
        body = next((item.get("error", item) for item in body if isinstance(item, dict)), body)
    if isinstance(body, dict):
        detail = body.get("detail", body.get("error"))
        return read_error(
            body if "message" in body else {"message": detail or json.dumps(body)}, error.status_code, after_s
        )
    return ApiError(str(body or ""), error.status_code, after_s=after_s)


def read_retry_after(headers: httpx2.Headers) -> float | None:
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
