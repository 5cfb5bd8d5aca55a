"""The stream of a task over a WebSocket: the frames of `frames` as JSON messages, and decisions on the way back (G8).

The client may send JSON objects with a `type`: `resume` as its first message, and decisions. Each decision is answered
once, by a message with the event `reply`; `to` is the `id` that the client gave it.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import structlog
from fastapi import WebSocket, WebSocketDisconnect
from pydantic_core import to_json

from agent_runtime.api.auth import Authenticator, caller_of
from agent_runtime.api.bodies import Body, ShortText
from agent_runtime.api.closing import ENDED, STOPPING, STOPS, TOO_LARGE, UNSUPPORTED, close_code, close_reason
from agent_runtime.api.decisions import DECISIONS
from agent_runtime.api.edge import too_large
from agent_runtime.api.frames import View, frames_after, json_message, piece_frames
from agent_runtime.api.json_bodies import off_loop, parse_json
from agent_runtime.api.problems import BadRequestError, Refusal, problem_of, status_of
from agent_runtime.api.scopes import require_scope
from agent_runtime.api.stream import Request, Streams, read_request
from agent_runtime.api.task_ids import known_form
from agent_runtime.api.views import root_path_of
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import AgentRuntimeError, TaskNotFoundError
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.text.escaping import cut

log = structlog.get_logger()

_FIRST_MESSAGE_S = 0.25
"""Seconds for which the first frame waits for a message `resume`, unless the URL says where to begin."""

_LONGEST_ID = 256


class _ResumeMessage(Body):
    after: ShortText


class _GoneError(Exception):
    """The client is gone, or the connection is closed already."""


class _ClosingError(Exception):
    """Closes the connection. Arguments: code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.end = (code, reason)


async def follow_task(websocket: WebSocket, task_id: str) -> None:
    """Serve the stream of a task on a WebSocket until the task ends, the client goes or the service stops."""
    await websocket.accept()
    try:
        end = await _TaskSocket(websocket, task_id).serve()
        if end is not None:
            await websocket.close(*end)
    except (_GoneError, WebSocketDisconnect, RuntimeError) as error:
        # A RuntimeError: uvicorn has closed the connection already, after a mistake of the client.
        log.debug("client_gone", path=websocket.scope["path"], error=str(error))


class _TaskSocket:
    """One connection. Frames, progress and answers are sent as they come; messages are answered one after the other."""

    def __init__(self, websocket: WebSocket, task_id: str) -> None:
        self._websocket = websocket
        self._task_id = task_id
        self._runtime: Runtime = websocket.app.state.runtime
        self._streams: Streams = websocket.app.state.streams
        self._limits = self._runtime.settings.limits
        self._end: tuple[int, str] | None = None
        self._answering = asyncio.Lock()
        self._first_message = asyncio.Event()
        self._resume: str | None = None

    async def serve(self) -> tuple[int, str] | None:
        """Serve the connection, and return the code and reason to close it with; None if the client is gone."""
        given = self._websocket.headers.get("last-event-id") or self._websocket.query_params.get("after")
        try:
            task, request = await self._read_request(given)
            self._streams.check()
        except AgentRuntimeError as error:
            return _end_of(error)
        if request is None:
            return ENDED, "done"
        async with asyncio.TaskGroup() as group:
            pump = group.create_task(self._send_frames(request, wait=given is None))
            reader = group.create_task(self._read_messages())
            reader.add_done_callback(lambda _: pump.cancel())
            asides = None if task.terminal else group.create_task(self._send_progress(request.view))
            with self._streams.admit(pump):
                await asyncio.wait([pump])
            if asides is not None:
                asides.cancel()
            if self._streams.closed:
                self._end = STOPPING, STOPS
            elif not reader.done():
                await self._finish_answer(reader)
            reader.cancel()
        return self._end

    async def _read_request(self, after: str | None) -> tuple[Task, Request | None]:
        """Return the task, and the stream to send, as `read_request` does. Raises: AgentRuntimeError."""
        caller = caller_of(self._websocket.scope)
        task = await self._runtime.tasks.get(known_form(self._task_id), caller)
        return task, read_request(task, None, after, self._websocket.query_params.get("view"))

    async def _finish_answer(self, reader: "asyncio.Task[None]") -> None:
        """Wait until the message that is being answered has its answer, or the client is gone."""
        finished = asyncio.Event()
        reader.add_done_callback(lambda _: finished.set())

        async with asyncio.TaskGroup() as group:
            answered = group.create_task(self._answering.acquire())
            gone = group.create_task(finished.wait())
            await asyncio.wait([answered, gone], return_when=asyncio.FIRST_COMPLETED)
            answered.cancel()
            gone.cancel()

    # Frames

    async def _send_frames(self, request: Request, *, wait: bool) -> None:
        try:
            self._end = await self._follow(request, wait=wait)
        except _GoneError:
            self._end = None
        except AgentRuntimeError as error:
            self._end = _end_of(error)

    async def _follow(self, request: Request, *, wait: bool) -> tuple[int, str]:
        if wait:
            try:
                async with asyncio.timeout(_FIRST_MESSAGE_S):
                    await self._first_message.wait()
            except TimeoutError:
                pass
            if self._resume is not None:
                _, resumed = await self._read_request(self._resume)
                if resumed is None:
                    return ENDED, "done"
                request = resumed
        self._resume = ""  # too late from here on
        last: EventRecord | None = None
        follow = self._runtime.tasks.follow(self._task_id, caller_of(self._websocket.scope), request.after)
        async with aclosing(follow) as batches:
            async for records in batches:
                for message in frames_after(records, request.seen, request.view, json_message):
                    await self._send(message)
                last = records[-1]
        if last is None or not last.event.ends_task:
            return _end_of(TaskNotFoundError(self._task_id))  # it was deleted
        return ENDED, "done"

    async def _send_progress(self, view: View) -> None:
        try:
            with self._runtime.progress.listen(self._task_id) as listener:
                while True:
                    for piece in await listener.take():
                        for message in piece_frames(self._task_id, piece, view, json_message):
                            await self._send(message)
        except _GoneError:
            return

    async def _send(self, text: str) -> None:
        """Send a message, once the client has read most of what was sent before. Raises: _GoneError."""
        try:
            await self._websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise _GoneError from error

    # Messages of the client

    async def _read_messages(self) -> None:
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                async with self._answering:
                    await self._answer(message)
        except _GoneError:
            return
        except _ClosingError as error:
            self._end = error.end

    async def _answer(self, message: Mapping[str, Any]) -> None:
        """Do what a message says, and send the answer. Raises: _ClosingError, _GoneError."""
        text = message.get("text")
        if text is None:
            raise _ClosingError(UNSUPPORTED, "Send JSON as text, not as bytes.")
        data = text.encode()
        if len(data) > self._limits.body_bytes:
            raise _ClosingError(TOO_LARGE, too_large(self._limits.body_bytes))
        client_id: JsonValue = None
        try:
            parse = lambda: parse_json(data, self._limits.json_depth, "message")  # noqa: E731 - for a thread
            given = await off_loop(self._websocket, len(data), parse)
            kind, client_id, fields = _read_envelope(given)
            if kind == "resume":
                self._note_resume(fields)
                return
            self._first_message.set()
            done = await self._decide(kind, fields)
        except AgentRuntimeError as error:
            self._first_message.set()
            answer = bytes(problem_of(self._websocket.scope, error).body)
            await self._send(_reply(client_id, answer, ok=False))
            return
        await self._send(_reply(client_id, to_json(done), ok=True))

    def _note_resume(self, fields: JsonObject) -> None:
        """Note where to begin. Raises: BadRequestError if frames are being sent already; InvalidInputError."""
        after = _ResumeMessage.read(fields).after
        if self._first_message.is_set() or self._resume is not None:
            raise BadRequestError(
                "Send 'resume' as the first message, at once after the connection opens, or use ?after= in the URL."
            )
        self._resume = after
        self._first_message.set()

    async def _decide(self, kind: str, fields: JsonObject) -> JsonObject:
        """Make a decision of the caller, and return the state of the task. Raises: AgentRuntimeError, _ClosingError."""
        decision = DECISIONS.get(kind)
        if decision is None:
            kinds = ", ".join(map(repr, DECISIONS))
            raise BadRequestError(f"There is no message of type {cut(kind, 40)!r}: use 'resume', {kinds}.")
        caller = await self._authenticate()
        require_scope(caller, decision.scopes, "this decision needs")
        made = decision.read(fields)
        task = await self._runtime.tasks.decide(self._task_id, made, caller)
        return {
            "task_id": task.task_id,
            "status": task.status,
            "plan_revision": task.plan_revision,
            "plan_digest": task.plan_digest if caller.may("read") else None,
        }

    async def _authenticate(self) -> Caller:
        """Return the caller, whose key may have been revoked since the handshake. Raises: _ClosingError."""
        authenticator: Authenticator = self._websocket.app.state.authenticator
        scope = self._websocket.scope
        caller = await authenticator.authenticate({**scope, "path": scope["path"].removeprefix(root_path_of(scope))})
        if isinstance(caller, Refusal):
            raise _ClosingError(close_code(caller.status), close_reason(caller.code, caller.detail))
        return caller


def _read_envelope(given: JsonValue) -> tuple[str, JsonValue, JsonObject]:
    """Return the type, the id and the other fields of a message. Raises: BadRequestError."""
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        raise BadRequestError('The message must be a JSON object with a "type", such as {"type": "approve"}.')
    fields = dict(given)
    kind, client_id = str(fields.pop("type")), fields.pop("id", None)
    numeric = isinstance(client_id, int | float) and not isinstance(client_id, bool)
    if not (client_id is None or numeric or (isinstance(client_id, str) and len(client_id) <= _LONGEST_ID)):
        raise BadRequestError(f"The id of a message must be a number, or a string of at most {_LONGEST_ID} characters.")
    return kind, client_id, fields


def _reply(to: JsonValue, data: bytes, *, ok: bool) -> str:
    said = "true" if ok else "false"
    return f'{{"id":null,"event":"reply","to":{json.dumps(to)},"ok":{said},"data":{data.decode()}}}'


def _end_of(error: AgentRuntimeError) -> tuple[int, str]:
    """Return the code and reason to close with after an error. Raises: the error if the caller did not cause it."""
    return close_code(status_of(error)), close_reason(error.code, str(error))
