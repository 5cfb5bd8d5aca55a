"""Answers a request with a GraphQL document: as JSON, or in parts as they come."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Any

from graphql import ExecutionResult, ExperimentalIncrementalExecutionResults, GraphQLError
from graphql.execution import experimental_execute_incrementally
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Send

from agent_runtime.api.auth import caller_of
from agent_runtime.api.copilotkit_graphql.delivery import CONTENT_TYPE, END, format_part, format_whole, list_parts
from agent_runtime.api.copilotkit_graphql.documents import DocumentRefusedError, read_document
from agent_runtime.api.copilotkit_graphql.resolvers import Call, make_root
from agent_runtime.api.copilotkit_graphql.schema import load_schema
from agent_runtime.api.deps import whole_journals
from agent_runtime.api.stream import StreamResponse, Streams, idle_s
from agent_runtime.api.views import answer
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.values import JsonObject

BAD_REQUEST = "BAD_REQUEST"

_STREAMED = ("multipart/mixed", "multipart/*", "*/*")


async def answer_graphql(request: Request, body: JsonObject) -> Response:
    """Return the answer to a body with `query`, and maybe `variables` and `operationName`."""
    query, variables, name = body.get("query"), body.get("variables"), body.get("operationName")
    if not isinstance(query, str) or not isinstance(variables, dict | None) or not isinstance(name, str | None):
        message = "The body must have 'query', a text; it may have 'variables', an object, and 'operationName', a text."
        return refuse(message)
    try:
        document = read_document(query)
    except DocumentRefusedError as error:
        return answer({"errors": [one.formatted for one in error.errors]}, HTTPStatus.BAD_REQUEST)
    runtime: Runtime = request.app.state.runtime
    execution = _Execution(request, runtime, document, variables, name)
    streams: Streams = request.app.state.streams
    if "@defer" not in query and "@stream" not in query:
        return await execution.answer_whole(streams)
    accepted = request.headers.get("accept", "*/*")
    if not any(kind in accepted for kind in _STREAMED):
        return refuse("This operation answers in parts: Accept must allow multipart/mixed.", HTTPStatus.NOT_ACCEPTABLE)
    return _Multipart(streams, execution)


def refuse(message: str, status: int = HTTPStatus.BAD_REQUEST) -> Response:
    """Return an answer with one error of GraphQL."""
    error = GraphQLError(message, extensions={"code": BAD_REQUEST})
    return answer({"errors": [error.formatted]}, status)


async def _wait_for_end(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Multipart(StreamResponse):
    """Sends an answer in parts. Whatever follows a task for it ends with it."""

    media_type = CONTENT_TYPE

    def __init__(self, streams: Streams, execution: "_Execution") -> None:
        super().__init__(streams, execution.stream(), execution.keep_alive())
        self._execution = execution

    async def _run(self, receive: Receive, send: Send) -> None:
        async with self._execution.work():
            await super()._run(receive, send)


class _Execution:
    """One execution of a document."""

    def __init__(
        self, request: Request, runtime: Runtime, document: Any, variables: JsonObject | None, name: str | None
    ) -> None:
        request_id = str(request.scope.get("request_id", ""))
        self._call = Call(runtime, caller_of(request.scope), request_id, whole_journals(request))
        self._receive = request.receive
        self._pause_s = idle_s(runtime.settings.limits)
        self._document, self._variables, self._name = document, variables, name
        self._begun = asyncio.Event()

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Let tasks of asyncio work for the execution while the context lasts."""
        async with asyncio.TaskGroup() as group:
            self._call.group = group
            try:
                yield
            finally:
                self._call.end()

    async def _execute(self) -> ExecutionResult | ExperimentalIncrementalExecutionResults:
        result = experimental_execute_incrementally(
            load_schema(),
            self._document,
            make_root(self._call),
            variable_values=self._variables,
            operation_name=self._name,
            max_coercion_errors=20,
        )
        made = await result if inspect.isawaitable(result) else result
        assert isinstance(made, ExecutionResult | ExperimentalIncrementalExecutionResults)  # noqa: S101
        return made

    async def answer_whole(self, streams: Streams) -> Response:
        """Return the answer as one JSON document. Raises: TooManyStreamsError, ClientDisconnect."""
        streams.check()
        async with self.work(), asyncio.TaskGroup() as group:
            work = group.create_task(self._execute())
            gone = group.create_task(_wait_for_end(self._receive))
            gone.add_done_callback(lambda _: work.cancel())
            with streams.admit(work):
                await asyncio.wait([work])
            gone.cancel()
        if work.cancelled():
            if not streams.closed:
                raise ClientDisconnect
            return refuse("The service stops: send the request again in a moment.", HTTPStatus.SERVICE_UNAVAILABLE)
        result = work.result()
        assert isinstance(result, ExecutionResult)  # noqa: S101 - nothing is deferred
        no_data = result.data is None and not any(error.path for error in result.errors or ())
        return answer(format_whole(result), HTTPStatus.BAD_REQUEST if no_data else HTTPStatus.OK)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the answer in parts."""
        result = await self._execute()
        if isinstance(result, ExecutionResult):
            yield format_part({**format_whole(result), "hasNext": False})
        else:
            async with aclosing(list_parts(result)) as parts:
                async for part in parts:
                    yield format_part(part)
                    self._begun.set()
        yield END

    async def keep_alive(self) -> AsyncGenerator[bytes, None]:
        """Yield a part without content whenever nothing has been sent for a time, once the answer has begun."""
        await self._begun.wait()
        while True:
            await asyncio.sleep(self._pause_s)
            yield format_part({"hasNext": True})
