"""One answer of `generateCopilotResponse`: the messages of a task until it ends or asks a person."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import structlog

from agent_runtime.api.agui_interrupts import list_asked
from agent_runtime.api.copilotkit_graphql.messages import (
    SUCCESS,
    Message,
    failed_status,
    state_message,
    status_of,
)
from agent_runtime.api.copilotkit_graphql.texts import LiveMessages
from agent_runtime.api.stream import idle_s
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import AgentRuntimeError
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import JsonObject

log = structlog.get_logger()

_WAITING = 50
"""How many messages may wait for a slow client."""


class Turn:
    """Follows a task after event `after`, from the first moment that somebody reads a part of the answer.

    The fields are read by graphql-core: `messages` and `metaEvents` as they come, and `status` at the end. The task
    goes on when the client leaves. `start` has work done while the request lasts. `saved` is the state that the front
    end has saved.
    """

    def __init__(
        self,
        runtime: Runtime,
        caller: Caller,
        start: Callable[[Coroutine[Any, Any, None]], None],
        task: Task,
        *,
        thread: str,
        agent: str,
        run_id: str,
        saved: JsonObject,
        after: int = 0,
    ) -> None:
        self._runtime = runtime
        self._caller = caller
        self._start = start
        self._task = task
        self._thread, self._agent, self._run_id, self._saved = thread, agent, run_id, saved
        self._after = after
        self._seen = 0
        self._live = LiveMessages(task.task_id, task.version)
        self._telling = asyncio.Lock()
        """Held while messages are made and queued, in order."""
        self._begun = False
        self._messages: asyncio.Queue[Message | None] | None = None
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._status: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def as_response(self) -> dict[str, Any]:
        """Return the `CopilotResponse`."""
        return {
            "threadId": self._thread,
            "runId": self._run_id,
            "extensions": None,
            "messages": self._read_messages,
            "metaEvents": self._read_events,
            "status": self._read_status,
        }

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._start(self._hear())
            self._start(self._run())

    def _read_messages(self, _: Any) -> AsyncIterator[Message]:
        self._begin()
        self._messages = asyncio.Queue(_WAITING)
        return _drain(self._messages)

    def _read_events(self, _: Any) -> AsyncIterator[dict[str, Any]]:
        self._begin()
        return _drain(self._events)

    async def _read_status(self, _: Any) -> dict[str, Any]:
        self._begin()
        return await asyncio.shield(self._status)

    async def _run(self) -> None:
        status = failed_status("The service stops.", "interrupted", "MESSAGE_STREAM_INTERRUPTED")
        try:
            status = await self._follow()
        except AgentRuntimeError as error:
            status = failed_status(str(error), error.code)
        except Exception:  # the edge that owns this task: the client is told that the answer failed
            log.exception("turn_failed", task_id=self._task.task_id)
            status = failed_status("The service failed unexpectedly. The error is logged.", "internal_error")
        finally:
            self._live.end()
            self._status.set_result(status)
            self._events.put_nowait(None)
        if self._messages is not None:
            await self._messages.put(None)

    async def _follow(self) -> dict[str, Any]:
        """Pass on what happens, and return the status of the answer."""
        tasks, task_id = self._runtime.tasks, self._task.task_id
        follow = tasks.follow(task_id, self._caller, idle_s=idle_s(self._runtime.settings.limits))
        async with aclosing(follow) as batches:
            async for records in batches:
                await self._pass_on(records)
                self._task = await tasks.get(task_id, self._caller)
                if records and await self._is_settled():
                    return status_of(self._task)
        self._task = await tasks.get(task_id, self._caller)
        return status_of(self._task) if self._task.terminal else failed_status("The service stops.", "interrupted")

    async def _hear(self) -> None:
        """Pass on what models are writing, until the answer ends."""
        with self._runtime.progress.listen(self._task.task_id) as listener:
            while not self._status.done():
                for piece in await listener.take():
                    async with self._telling:
                        for message in self._live.add_piece(piece):
                            await self._put(message)

    async def _pass_on(self, records: list[EventRecord]) -> None:
        for record in records:
            async with self._telling:
                for message in self._live.add_record(record):
                    if record.seq > self._after:
                        await self._put(message)
            self._seen = record.seq

    async def _is_settled(self) -> bool:
        """Tell the state of the task where all its events are passed on. Return whether the answer ends here."""
        if self._task.version > self._seen:
            return False
        await self._put(state_message(self._task, self._thread, self._agent, self._run_id, self._saved))
        asked = list_asked(self._task, self._runtime.settings.approval.expires_after_s)
        for one in asked:
            shown = one.interrupt.model_dump(mode="json", by_alias=True, exclude_none=True)
            value = {**shown, "metadata": {**shown["metadata"], "after": self._task.version}}
            self._events.put_nowait(
                {
                    "__typename": "LangGraphInterruptEvent",
                    "type": "MetaEvent",
                    "name": "LangGraphInterruptEvent",
                    "value": json.dumps(value, ensure_ascii=False),
                }
            )
        return bool(asked) or self._task.terminal or self._task.journal_change is not None

    async def _put(self, message: Message) -> None:
        if self._messages is not None:
            await self._messages.put(message)


async def _drain(queue: "asyncio.Queue[dict[str, Any] | None]") -> AsyncIterator[dict[str, Any]]:
    while (one := await queue.get()) is not None:
        yield one


def make_empty(thread: str, run_id: str) -> dict[str, Any]:
    """Return a `CopilotResponse` without messages."""
    return {"threadId": thread, "runId": run_id, "messages": [], "metaEvents": [], "status": SUCCESS}
