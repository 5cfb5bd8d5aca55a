"""The operations: each decodes its arguments, checks the scopes, and calls the verbs of the service."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import structlog
from ag_ui.core import ResumeEntry

from agent_runtime.api.agents import AGENT_DESCRIPTION, AGENT_ID, NAMES
from agent_runtime.api.agui_answers import Answers, is_taken
from agent_runtime.api.bodies import MOST_THREAD_CHARACTERS
from agent_runtime.api.copilotkit_graphql.errors import (
    CopilotError,
    make_error,
    make_unexpected,
    make_unknown_agent,
)
from agent_runtime.api.copilotkit_graphql.messages import TASK, Narrator, as_json, describe_task
from agent_runtime.api.copilotkit_graphql.turns import Turn, make_empty
from agent_runtime.api.json_bodies import parse_json
from agent_runtime.api.scopes import require_scope
from agent_runtime.api.threads import list_thread
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Revise
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import (
    AgentRuntimeError,
    DecisionRefusedError,
    Fault,
    InvalidInputError,
    TaskNotFoundError,
)
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import JsonObject, JsonValue, digest
from agent_runtime.services.task_manager import PAGE_OF_RECORDS, Submission
from agent_runtime.states.saved import allow_any, require_revision

log = structlog.get_logger()

_SHOWN_TASKS = 10
"""How many tasks of a thread `loadAgentState` shows as messages."""

_NO_CHAT = frozenset({"Suggestion", "TextareaCompletion", "TextareaPopover"})
"""Requests for texts that help to write; the service has none, and never makes a task of them."""

Operation = Callable[[Any, "Call"], Awaitable[Any]]


@dataclass(slots=True)
class Call:
    """A request: its caller, and the tasks of asyncio that work for it. `group` is set before the first.

    `journals` is held while a whole journal is read.
    """

    runtime: Runtime
    caller: Caller
    request_id: str
    journals: asyncio.Semaphore
    group: asyncio.TaskGroup | None = None
    _started: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Have this done while the request lasts."""
        assert self.group is not None  # noqa: S101 - as said above
        self._started.append(self.group.create_task(work))

    def end(self) -> None:
        """Cancel what is still being done."""
        for task in self._started:
            task.cancel()

    def expect(self, *scopes: str) -> None:
        """Check that the caller has one of these scopes. Raises: ScopeMissingError."""
        require_scope(self.caller, scopes, "this takes")


def make_root(call: Call) -> dict[str, Any]:
    """Return the root value of an execution: the operations by their names."""
    return {
        name: partial(_resolve, operation, call)
        for name, operation in (
            ("hello", _hello),
            ("availableAgents", _list_agents),
            ("loadAgentState", _load_state),
            ("saveAgentState", _save_state),
            ("generateCopilotResponse", _generate),
        )
    }


async def _resolve(operation: Operation, call: Call, _: Any, **arguments: Any) -> Any:
    """Run an operation. Raises: CopilotError, whatever happens."""
    try:
        return await operation(arguments.get("data"), call)
    except CopilotError:
        raise
    except AgentRuntimeError as error:
        raise make_error(error) from error
    except Exception as error:  # the edge of an operation: the caller gets an answer in any case (G13)
        log.exception("request_failed", path="/copilotkit")
        raise make_unexpected(call.request_id) from error


async def _hello(_: Any, call: Call) -> str:
    call.expect("read")
    return "Hello World"


async def _list_agents(_: Any, call: Call) -> JsonObject:
    call.expect("read")
    return {"agents": [{"id": AGENT_ID, "name": AGENT_ID, "description": AGENT_DESCRIPTION}]}


async def _load_state(data: Any, call: Call) -> JsonObject:
    """Return the state and the messages of a thread: what a front end has saved, and the tasks."""
    call.expect("read")
    agent, thread = _read_agent(data["agentName"]), _read_thread(data["threadId"])
    tasks = [*reversed(await list_thread(call.runtime, call.caller, thread, _SHOWN_TASKS))]  # oldest first
    saved = await _find_saved(call, agent, thread)
    state = {**(saved or {}), **({TASK: describe_task(tasks[-1])} if tasks else {})}
    messages = [message for task in tasks for message in await _list_messages(call, task)]
    return {
        "threadId": thread,
        "threadExists": bool(tasks) or saved is not None,
        "state": json.dumps(state, ensure_ascii=False),
        "messages": json.dumps(messages, ensure_ascii=False),
    }


async def _save_state(data: Any, call: Call) -> JsonObject:
    call.expect("submit")
    agent, thread = _read_agent(data["agentName"]), _read_thread(data["threadId"])
    revision = data.get("revision")
    condition = allow_any if revision is None else require_revision(revision)
    value = _parse(call, "state", data["state"])
    state = await call.runtime.states.save(agent, thread, _without_task(value), call.caller, condition)
    return {"threadId": thread, "agentName": agent, "revision": state.revision}


async def _generate(data: Any, call: Call) -> JsonObject:
    """Answer interrupts, or take the user's message, and return what follows from it as it happens."""
    call.expect("read")
    session = data.get("agentSession") or {}
    agent = _read_agent(session.get("agentName") or AGENT_ID)
    thread = _read_thread(data.get("threadId") or session.get("threadId") or str(uuid4()))
    run_id = data.get("runId") or str(uuid4())
    await _take_states(data, agent, thread, call)
    answers = [event for event in data.get("metaEvents") or () if event.get("response") is not None]
    if answers:
        task, after = await _answer(answers, thread, call)
    elif (data["metadata"].get("requestType") or "Chat") in _NO_CHAT:
        call.expect("submit")
        return make_empty(thread, run_id)
    else:
        task, after = await _take_message(data["messages"], thread, call)
    saved = await _find_saved(call, agent, thread) or {}
    turn = Turn(
        call.runtime,
        call.caller,
        call.start,
        task,
        thread=thread,
        agent=agent,
        run_id=run_id,
        saved=saved,
        after=after,
    )
    return turn.as_response()


_DECLINED: JsonObject = {"cancelled": True, "action": "decline"}


async def _answer(given: list[Mapping[str, Any]], thread: str, call: Call) -> tuple[Task, int]:
    """Answer interrupts. Return the task, and the event after which the client has seen nothing of it."""
    answers = [_read_answer(event, call) for event in given]
    shown, entry = answers[0]
    task = await call.runtime.tasks.get(entry.interrupt_id.partition(":")[0], call.caller)
    if thread not in {task.thread, task.task_id}:
        raise TaskNotFoundError(task.task_id)
    entries = [entry for _, entry in answers]
    answered = await Answers(call.runtime, call.caller, call.journals).give(task, entries, all_at_once=False)
    return answered or task, _read_position(shown, task)


def _read_answer(event: Mapping[str, Any], call: Call) -> tuple[JsonObject, ResumeEntry]:
    """Return the interrupt that a meta event shows, and the answer to it. Raises: InvalidInputError."""
    shown, response = _parse(call, "value", event["value"]), _parse(call, "response", event["response"])
    interrupt_id = shown.get("id") if isinstance(shown, dict) else None
    if not isinstance(shown, dict) or not isinstance(interrupt_id, str):
        raise InvalidInputError([Fault("metaEvents", "The value must be that of the event that is answered.")])
    if response is None:
        raise InvalidInputError([Fault("response", 'It must be an answer, such as {"approved": true}.')])
    if response == {"cancelled": True}:
        return shown, ResumeEntry(interrupt_id=interrupt_id, status="cancelled")
    if response == _DECLINED:
        return shown, ResumeEntry(interrupt_id=interrupt_id, status="cancelled", payload={"action": "decline"})
    payload = {"approved": response} if isinstance(response, bool) else response
    return shown, ResumeEntry(interrupt_id=interrupt_id, status="resolved", payload=payload)


def _read_position(shown: JsonObject, task: Task) -> int:
    """Return the event up to which the client has seen the task; 0 if it does not say."""
    metadata = shown.get("metadata")
    after = metadata.get("after") if isinstance(metadata, dict) else None
    return after if isinstance(after, int) and not isinstance(after, bool) and 0 <= after <= task.version else 0


async def _take_message(messages: list[Mapping[str, Any]], thread: str, call: Call) -> tuple[Task, int]:
    """Make a task of the user's message, or feedback on the plan that awaits approval, or find the task again.

    The same message, sent again after a lost connection, finds its task. So does a request that ends with no message of
    the user. Raises: DecisionRefusedError while another task of the thread is at work.
    """
    newest = await list_thread(call.runtime, call.caller, thread, 1)
    current = newest[0] if newest else None
    last = messages[-1] if messages else {}
    said = last.get("textMessage")
    if said is None or said["role"] != "user":
        if current is None:
            raise InvalidInputError([Fault("messages", "The last message must be a text of the user: say what to do.")])
        return current, 0
    text, key = said["content"], f"copilotkit:{digest([thread, last['id']])}"
    if current is not None and is_taken(current, text):
        return current, 0
    if current is None or current.terminal or current.request_key == key:
        call.expect("submit")
        submission = Submission(prompt=text, thread=thread, request_key=key, request_digest=digest(text))
        return await call.runtime.tasks.submit(submission, call.caller), 0
    if current.status is not TaskStatus.AWAITING_APPROVAL:
        raise DecisionRefusedError(
            f"Task {current.task_id} of this thread is {current.status}: wait for its end, answer what it asks, or use "
            "another thread.",
            current.status,
        )
    call.expect("submit", "approve")
    return await call.runtime.tasks.decide(current.task_id, Revise(feedback=text), call.caller), current.version


async def _take_states(data: Any, agent: str, thread: str, call: Call) -> None:
    """Save the state that the front end sends along, if it has changed."""
    given = [*(data.get("agentStates") or ()), *filter(None, [data.get("agentState")])]
    for one in given:
        if one["agentName"] != agent or not call.caller.may("submit"):
            continue
        value = _without_task(_parse(call, "agentStates", one["state"]))
        if value and value != await _find_saved(call, agent, thread):
            await call.runtime.states.save(agent, thread, value, call.caller)


async def _find_saved(call: Call, agent: str, thread: str) -> JsonObject | None:
    try:
        found = await call.runtime.states.find(agent, thread, call.caller)
    except InvalidInputError:  # a thread may be named by any text, a state may not
        return None
    return json.loads(found.data) if found else None


async def _list_messages(call: Call, task: Task) -> list[JsonObject]:
    narrator = Narrator()
    records = await call.runtime.tasks.records(task.task_id, call.caller, 0, PAGE_OF_RECORDS)
    said = [as_json(message) for record in records for message in narrator.tell(record)]
    return [{"id": f"{task.task_id}-prompt", "role": "user", "content": task.prompt}, *said]


def _read_agent(name: str) -> str:
    """Return the name of the agent. Raises: CopilotError if there is no such agent."""
    if name not in NAMES:
        raise make_unknown_agent(name[:100], AGENT_ID)
    return name


def _read_thread(thread: str) -> str:
    if not 0 < len(thread) <= MOST_THREAD_CHARACTERS:
        raise InvalidInputError([Fault("threadId", f"It must have 1 to {MOST_THREAD_CHARACTERS} characters.")])
    return thread


def _parse(call: Call, field: str, text: str) -> JsonValue:
    """Return the JSON value of a text. Raises: InvalidInputError, BadRequestError."""
    if not text.strip():
        raise InvalidInputError([Fault(field, "It must be JSON, and is empty.")])
    return parse_json(text.encode(), call.runtime.settings.limits.json_depth, field)


def _without_task(value: JsonValue) -> JsonValue:
    return {name: part for name, part in value.items() if name != TASK} if isinstance(value, dict) else value
