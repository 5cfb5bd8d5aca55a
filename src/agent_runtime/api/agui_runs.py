"""Runs of AG-UI: a message becomes a task of its thread, `resume` becomes decisions, and the journal becomes events.

The doors `agui.py` and `copilotkit.py` share it. It needs the library of the protocol, so they import it with their
first request. See docs/reference/agui.md.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ag_ui.core import (
    Interrupt,
    Message,
    ResumeEntry,
    RunAgentInput,
    RunErrorEvent,
    RunFinishedEvent,
    RunFinishedSuccessOutcome,
)
from starlette.requests import Request
from starlette.responses import Response

from agent_runtime.api.agui_answers import Answers, is_taken
from agent_runtime.api.agui_events import (
    MESSAGE_ID,
    Conversation,
    encode,
    fail_run,
    name_prompt,
    start_run,
    tell_ended,
)
from agent_runtime.api.agui_input import RunRefusedError, find_prompt, refuse_answers
from agent_runtime.api.agui_interrupts import is_settled, list_asked, scopes_of_decision
from agent_runtime.api.deps import whole_journals
from agent_runtime.api.scopes import require_scope
from agent_runtime.api.stream import KEEP_ALIVE, StreamResponse, Streams, idle_s
from agent_runtime.api.threads import list_thread
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Cancel
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import (
    AgentRuntimeError,
    IllegalTransitionError,
    StoreUnavailableError,
    TaskNotFoundError,
)
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import digest
from agent_runtime.services.task_manager import Submission

_EARLIER_TASKS = 20
"""How many earlier tasks of a thread are told to a client that connects."""


@dataclass(frozen=True, slots=True)
class _Joined:
    """The task that a run tells of. What happened up to event `after` is told as a state, not as events."""

    task: Task
    after: int


async def _list_own(runtime: Runtime, caller: Caller, thread_id: str, limit: int) -> list[Task]:
    """Return the newest tasks of a thread, newest first. A task of another thread is none by its id."""
    tasks = await list_thread(runtime, caller, thread_id, limit)
    return [task for task in tasks if task.thread in {None, thread_id}]


async def _find_current(runtime: Runtime, caller: Caller, thread_id: str) -> Task | None:
    """Return the current task of a thread, its newest; None if it has none."""
    return next(iter(await _list_own(runtime, caller, thread_id, 1)), None)


async def stop_current(runtime: Runtime, caller: Caller, thread_id: str) -> Task | None:
    """Cancel the current task of a thread. Return None if there is nothing to cancel. Raises: ScopeMissingError."""
    require_scope(caller, scopes_of_decision(Cancel()))
    task = await _find_current(runtime, caller, thread_id)
    if task is None or task.terminal:
        return None
    return await runtime.tasks.decide(task.task_id, Cancel(), caller)


async def answer_run(request: Request, runtime: Runtime, caller: Caller, given: RunAgentInput) -> Response:
    """Return the events of a run, which submits the last message or answers interrupts.

    Raises: ScopeMissingError, InvalidInputError, StoreUnavailableError: then nothing has changed.
    """
    return await _Run(request, runtime, caller, given).start()


async def answer_connect(request: Request, runtime: Runtime, caller: Caller, given: RunAgentInput) -> Response:
    """Return the events of a thread so far, and those to come until its task waits or ends. Changes nothing.

    Raises: as `answer_run`.
    """
    return await _Run(request, runtime, caller, given).connect()


@dataclass(slots=True)
class _Told:
    """The part of a task that a run has told. `sending` is held while frames are made and sent, in order.

    `is_live`: the client is told of what happens now, and the run has not finished.
    """

    conversation: Conversation
    is_live: bool
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)

    def add(self, records: list[EventRecord], after: int) -> list[Any]:
        """Fold records, and return the events to send: those after event `after`, and the state as of it."""
        events: list[Any] = []
        for record in records:
            new = self.conversation.add(record)
            if self.is_live:
                events += new
            elif record.seq >= after:
                self.is_live = True
                events += self.conversation.begin()
        return events


class _Run:
    """One run of a client."""

    def __init__(self, request: Request, runtime: Runtime, caller: Caller, given: RunAgentInput) -> None:
        self._request = request
        self._runtime = runtime
        self._caller = caller
        self._given = given
        self._streams: Streams = request.app.state.streams
        self._expires_after_s = runtime.settings.approval.expires_after_s

    async def start(self) -> Response:
        require_scope(self._caller, ("read",))
        self._streams.check()
        try:
            joined = await self._join()
        except RunRefusedError as error:
            return self._refuse(error.code, str(error))
        return self._respond(joined, self._given.messages)

    async def connect(self) -> Response:
        require_scope(self._caller, ("read",))
        tasks = await _list_own(self._runtime, self._caller, self._given.thread_id, _EARLIER_TASKS)
        if not tasks:
            return StreamResponse(self._streams, _send_nothing())
        current, *before = tasks
        earlier = [message for task in reversed(before) for message in tell_ended(task)]
        return self._respond(_Joined(current, current.version), earlier)

    def _refuse(self, code: str, message: str) -> Response:
        async def bodies() -> AsyncGenerator[bytes, None]:
            yield encode([self._begin(), fail_run(message, code)])

        return StreamResponse(self._streams, bodies())

    def _begin(self) -> Any:
        return start_run(self._given.thread_id, self._given.run_id, self._given.parent_run_id)

    # Joining a task

    async def _join(self) -> _Joined:
        """Do what the run asks for, and return the task to tell of.

        Raises: RunRefusedError, InvalidInputError, ScopeMissingError.
        """
        if self._given.resume:
            return await self._resume(self._given.resume)
        current = await _find_current(self._runtime, self._caller, self._given.thread_id)
        return await self._take(current, find_prompt(self._given.messages))

    async def _take(self, current: Task | None, message: tuple[str, str] | None) -> _Joined:
        """Return the task of a message, by its id and text: that which it was said to, or a new one.

        Raises: RunRefusedError while another task of the thread is open, ScopeMissingError, InvalidInputError.
        """
        if message is None:
            if current is None:
                raise RunRefusedError("no_message", "Send a message of a user: it says what is to be done.")
            return _Joined(current, current.version)
        if current is not None and not current.terminal and not _is_known(current, message):
            raise self._make_busy_error(current)
        if current is not None and (not current.terminal or is_taken(current, message[1])):
            return _Joined(current, current.version)
        return await self._submit(*message)

    def _make_busy_error(self, task: Task) -> RunRefusedError:
        asked = [one.interrupt.id for one in list_asked(task)]
        if asked:
            names = ", ".join(asked)
            return RunRefusedError(
                "interrupts_open",
                f"Answer what is open first, with resume, or say something new beside cancelled answers: {names}.",
            )
        return RunRefusedError(
            "task_running", f"Task {task.task_id} of this thread is {task.status}: wait for its end, or cancel it."
        )

    async def _submit(self, message_id: str, prompt: str) -> _Joined:
        """Submit the message as a task; sent again, it is the same. Raises: ScopeMissingError, InvalidInputError."""
        require_scope(self._caller, ("submit",))
        thread = self._given.thread_id
        submission = Submission(
            prompt=prompt,
            thread=thread,
            metadata={MESSAGE_ID: message_id},
            request_key=digest(["ag-ui", thread, message_id]),
            request_digest=digest(prompt),
        )
        task = await self._runtime.tasks.submit(submission, self._caller)
        return _Joined(task, 0 if task.version == 1 else task.version)

    async def _resume(self, entries: list[ResumeEntry]) -> _Joined:
        """Carry out all answers. Raises: RunRefusedError if one cannot be, ScopeMissingError, InvalidInputError.

        What the user says last beside them is feedback on a plan, or the next task of the thread where the task has
        ended. So a client goes on whose user types instead of answering, and one whose run ended with an error.
        """
        task = await self._find_asked(entries)
        message = find_prompt(self._given.messages[-1:])
        if message is not None and _is_known(task, message, is_prompt=True):
            message = None
        answers = Answers(self._runtime, self._caller, whole_journals(self._request))
        try:
            answered = await answers.give(task, entries, message and message[1], all_at_once=True)
        except AgentRuntimeError as error:
            raise refuse_answers(error) from error
        now = answered or task
        if message is not None and (answered is None or now.terminal):
            current = await _find_current(self._runtime, self._caller, self._given.thread_id)
            return await self._take(current, message)
        return _Joined(now, task.version)

    async def _find_asked(self, entries: list[ResumeEntry]) -> Task:
        """Return the task of the thread that has asked what is answered, or the newest. Raises: RunRefusedError."""
        tasks = await _list_own(self._runtime, self._caller, self._given.thread_id, _EARLIER_TASKS)
        if not tasks:
            raise RunRefusedError("interrupt_unknown", "This thread has no task, so nothing was asked in it.")
        owner = entries[0].interrupt_id.partition(":")[0]
        return next((task for task in tasks if task.task_id == owner), tasks[0])

    # Telling of it

    def _respond(self, joined: _Joined, earlier: Iterable[Message]) -> Response:
        told = _Told(Conversation(joined.task.task_id), is_live=joined.after == 0)
        asides = None if joined.task.terminal else self._tell_pieces(told)
        return StreamResponse(self._streams, self._tell(joined, told, earlier), asides)

    async def _tell(self, joined: _Joined, told: "_Told", earlier: Iterable[Message]) -> AsyncGenerator[bytes, None]:
        """Yield the frames of a run until its task waits for a person or has ended."""
        task_id = joined.task.task_id
        yield encode([self._begin()])
        if joined.task.journal_change is not None:
            yield encode([fail_run(joined.task.journal_change.reason, "journal_changed")])
            return
        follow = self._runtime.tasks.follow(task_id, self._caller, idle_s=idle_s(self._runtime.settings.limits))
        try:
            async with aclosing(follow) as batches:
                async for records in batches:
                    async with told.sending:
                        yield encode(told.add(records, joined.after)) or KEEP_ALIVE
                    if told.is_live and await self._is_over(told.conversation.task):
                        async with told.sending:
                            told.is_live = False
                            yield encode(self._finish(told.conversation, earlier))
                        return
            yield encode([fail_run(f"Task {task_id} was deleted.", "task_not_found")])
        except (TaskNotFoundError, IllegalTransitionError) as error:
            yield encode([fail_run(str(error), error.code)])

    async def _tell_pieces(self, told: "_Told") -> AsyncGenerator[bytes, None]:
        """Yield the frames of what models are writing and servers report, in between."""
        with self._runtime.progress.listen(told.conversation.task.task_id) as listener:
            while True:
                pieces = await listener.take()
                async with told.sending:
                    if told.is_live:
                        events = [event for piece in pieces for event in told.conversation.add_piece(piece)]
                        yield encode(events)

    async def _is_over(self, told: Task) -> bool:
        """Return whether nothing more happens to the task now, as far as it is told."""
        if not is_settled(told):
            return False
        try:
            task = await self._runtime.tasks.get(told.task_id, self._caller)
        except StoreUnavailableError:  # asked again with the next keep-alive
            return False
        return task.version == told.version

    def _finish(self, told: Conversation, earlier: Iterable[Message]) -> list[Any]:
        interrupts: list[Interrupt] = [one.interrupt for one in list_asked(told.task, self._expires_after_s)]
        events = told.finish(self._given.thread_id, self._given.run_id, interrupts, earlier)
        if not self._given.resume or not isinstance(events[-1], RunErrorEvent):
            return events
        # Clients keep an interrupt whose run ended with an error, and would let nobody say anything else. The run that
        # carried the answers has done so; the error is that of a run of its own.
        answered = RunFinishedEvent(
            thread_id=self._given.thread_id, run_id=self._given.run_id, outcome=RunFinishedSuccessOutcome()
        )
        failed = start_run(self._given.thread_id, f"{self._given.run_id}-end", self._given.run_id)
        return [*events[:-1], answered, failed, events[-1]]


def _is_known(task: Task, message: tuple[str, str], *, is_prompt: bool = False) -> bool:
    """Return whether the task was made from this message or, unless `is_prompt`, planned again because of it."""
    message_id, text = message
    return name_prompt(task.task_id, dict(task.metadata)) == message_id or (not is_prompt and is_taken(task, text))


async def _send_nothing() -> AsyncGenerator[bytes, None]:
    for body in list[bytes]():
        yield body
