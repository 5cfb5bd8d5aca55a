"""The calls of the tools: each reads its arguments, calls a verb of the task manager and encodes what it returns.

A call that needs a person returns the questions, and is repeated with the answers. So the calls keep nothing, whatever
the client speaks.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import structlog
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    TextContent,
)
from pydantic import BeforeValidator, Field, StringConstraints

from agent_runtime.api.bodies import Body, Comment, TaskRequest
from agent_runtime.api.catalogue import tools_page
from agent_runtime.api.mcp_server.definitions import (
    LONGEST_WAIT_S,
    PATIENCE_META_KEY,
    SUBMIT_WAIT_S,
    TASK_META_KEY,
    TOOLS,
    WAIT_S,
)
from agent_runtime.api.mcp_server.questions import UnclearAnswerError, open_questions
from agent_runtime.api.problems import status_of
from agent_runtime.api.scopes import require_scope
from agent_runtime.api.submissions import RepeatKey, digest_body, make_submission
from agent_runtime.api.task_ids import known_form
from agent_runtime.api.views import page_of, page_view, task_view
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Cancel
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import (
    AgentRuntimeError,
    TaskNotFoundError,
)
from agent_runtime.domain.log_lines import log_line
from agent_runtime.domain.status import WAITING, TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import LARGE_BYTES, JsonObject
from agent_runtime.text.escaping import cut, one_line

log = structlog.get_logger()

REPORT_S = 10.0
"""Seconds without an event after which a call that waits reports that it still does."""

MOST_ROUNDS = 8
"""The number of times that one call asks a person. Clients give up after ten."""

_LONGEST_RESULT = 64 * 1024
_LONGEST_REFUSAL = 4000

Report = Callable[[str], Awaitable[None]]
"""Tells the client, in one line, what happens while it waits."""

_Wait = Annotated[float, Field(ge=0, le=LONGEST_WAIT_S)]
_Cursor = Annotated[str, StringConstraints(max_length=500)]
_Key = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")]


def _parse_status(text: object) -> object:
    """Return the status of this name; any other value as it is, for pydantic to refuse."""
    return next((status for status in TaskStatus if status == text), text)


class Submit(TaskRequest):
    approval: Literal["manual"] = "manual"
    idempotency_key: _Key | None = None
    wait_s: _Wait = SUBMIT_WAIT_S


class TaskArguments(Body):
    task_id: str


class WaitArguments(TaskArguments):
    wait_s: _Wait = WAIT_S
    until: Literal["person_needed", "ended"] = "person_needed"


class CancelArguments(TaskArguments):
    reason: Comment | None = None


class ListArguments(Body):
    status: Annotated[TaskStatus, BeforeValidator(_parse_status)] | None = None
    limit: int = Field(default=50, ge=1, le=200)
    cursor: _Cursor | None = None


class ListToolsArguments(Body):
    limit: int = Field(default=100, ge=1, le=500)
    cursor: _Cursor | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """The client of one call: its caller, the URL at which it reaches the service, and whether it can ask a person."""

    caller: Caller
    address: str
    can_ask: bool

    @property
    def may_decide(self) -> bool:
        """True if a person is asked in the client: it can, and its caller may read what is shown, and approve."""
        return self.can_ask and self.caller.may("approve") and self.caller.may("read")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool, or its repetition with the answers of a person and the state that came with the questions."""

    name: str
    arguments: JsonObject
    answers: Mapping[str, ElicitResult] | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class _Round:
    """The state of a call between two rounds: its task, and how often a person was asked."""

    task_id: str
    asked: int

    def write(self) -> str:
        return json.dumps({"task_id": self.task_id, "asked": self.asked})

    @staticmethod
    def read(text: str) -> "_Round":
        """Parse what a client sends back, which may be anything. Raises: MCPError."""
        try:
            value = json.loads(text[:1000])
            asked = value["asked"]
            if type(asked) is int and 0 <= asked <= MOST_ROUNDS:
                return _Round(known_form(value["task_id"]), asked)
        except (ValueError, KeyError, TypeError, RecursionError, TaskNotFoundError):
            pass
        raise MCPError(INVALID_PARAMS, "The requestState is not one of this service: repeat the call without it.")


class TaskTools:
    """The tools on a running service."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._tasks = runtime.tasks

    async def call(self, call: Call, client: Client, report: Report) -> CallToolResult | InputRequiredResult:
        """Call a tool. A refusal is a result with `is_error`, for the model to read.

        Raises: MCPError for an unknown tool or a foreign state.
        """
        definition = TOOLS.get(call.name)
        if definition is None:
            known = ", ".join(TOOLS)
            raise MCPError(INVALID_PARAMS, f"There is no tool {cut(call.name, 80)!r}; the tools are {known}.")
        try:
            self._check_scope(call.name, definition.scopes, client.caller)
            return await self._call(call, client, report)
        except AgentRuntimeError as error:
            status_of(error)  # raises what the caller has not caused
            return _make_refusal(error)

    def _check_scope(self, name: str, needed: tuple[str, ...], caller: Caller) -> None:
        if not caller.may(*needed):
            log.info("caller_refused", method="MCP", path=name, reason="scope_missing", actor=caller.name)
        require_scope(caller, needed, f"{name} needs")

    async def _call(self, call: Call, client: Client, report: Report) -> CallToolResult | InputRequiredResult:
        match call.name:
            case "submit_task":
                return await self._submit(call, client, report)
            case "wait_for_task":
                given = WaitArguments.read(call.arguments)
                task = await self._tasks.get(known_form(given.task_id), client.caller)
                return await self._settle(task, call, client, report, given.wait_s, ends=given.until == "ended")
            case "get_task":
                task_id = TaskArguments.read(call.arguments).task_id
                task = await self._tasks.get(known_form(task_id), client.caller)
                return await self._answer(task, client)
            case "cancel_task":
                cancel = CancelArguments.read(call.arguments)
                decision = Cancel(reason=cancel.reason)
                task = await self._tasks.decide(known_form(cancel.task_id), decision, client.caller)
                return await self._answer(task, client)
            case "list_tasks":
                wanted = ListArguments.read(call.arguments)
                page = page_view(await self._tasks.page(client.caller, wanted.status, wanted.limit, wanted.cursor))
                lines = [
                    f"{task['task_id']}  {task['status']}  {one_line(task['prompt'], 100)}" for task in page["tasks"]
                ]
                return _make_result(dict(page), "\n".join(lines) or "There are no tasks.")
            case _:
                return self._list_tools(ListToolsArguments.read(call.arguments))

    async def _submit(self, call: Call, client: Client, report: Report) -> CallToolResult | InputRequiredResult:
        given = Submit.read(call.arguments)
        if call.state is not None and client.may_decide:  # the answers to questions about the task that was submitted
            task = await self._tasks.get(_Round.read(call.state).task_id, client.caller)
        else:
            key = RepeatKey()
            if given.idempotency_key is not None:
                body = {name: value for name, value in call.arguments.items() if name not in _NOT_OF_THE_TASK}
                key = RepeatKey(given.idempotency_key, digest_body(body))
            task = await self._tasks.submit(make_submission(given, key), client.caller)
        if not client.caller.may("read"):
            return await self._answer(task, client)
        return await self._settle(task, call, client, report, given.wait_s)

    def _list_tools(self, given: ListToolsArguments) -> CallToolResult:
        page = json.loads(tools_page(self._runtime.registry, given.limit, given.cursor))
        shown = [{name: tool[name] for name in _SHOWN_OF_TOOLS} for tool in page["tools"]]
        lines = [f"{one['server']}.{one['tool']} ({one['effect'] or one['status']})" for one in shown]
        text = "\n".join(lines) or "There are no tools."
        return _make_result({"tools": shown, "next_cursor": page["next_cursor"]}, text)

    # Waiting and asking

    async def _settle(
        self, task: Task, call: Call, client: Client, report: Report, wait_s: float, *, ends: bool = False
    ) -> CallToolResult | InputRequiredResult:
        """Wait for the task, and have a person asked if that is possible. Raises: AgentRuntimeError, MCPError."""
        asked = 0
        notes: list[str] = []
        if call.state is not None:
            last = _Round.read(call.state)
            if last.task_id != task.task_id:
                raise MCPError(INVALID_PARAMS, "The requestState belongs to another task.")
            asked = last.asked
            if client.may_decide:
                task, notes = await self._decide(task, call.answers or {}, client.caller)
        refused = bool(notes)
        if not refused:
            task = await self._wait(task, client, report, wait_s, ends=ends and not client.may_decide)
        questions = open_questions(task) if client.may_decide and not refused and asked < MOST_ROUNDS else {}
        if not questions:
            return await self._answer(task, client, notes)
        requests = {
            key: ElicitRequest(params=ElicitRequestFormParams(message=asking.message, requested_schema=asking.schema))
            for key, asking in questions.items()
        }
        state = _Round(task.task_id, asked + 1).write()
        meta = {TASK_META_KEY: task.task_id, PATIENCE_META_KEY: self._runtime.settings.limits.mcp_question_s}
        return InputRequiredResult(input_requests=requests, request_state=state, _meta=meta)

    async def _decide(self, task: Task, answers: Mapping[str, ElicitResult], caller: Caller) -> tuple[Task, list[str]]:
        """Make the decisions of the answers. Return the task, and notes on answers that decided nothing."""
        notes: list[str] = []
        questions = open_questions(task)
        for key, answer in answers.items():
            question = questions.get(key)
            if question is None:
                notes.append(f"The answer came too late: that question is closed, and the task is {task.status}.")
                continue
            try:
                decision = question.decide(answer)
                if decision is None:
                    notes.append("The person has not decided in the client; the question is still open.")
                else:
                    task = await self._tasks.decide(task.task_id, decision, caller)
            except UnclearAnswerError as error:
                notes.append(str(error))
            except AgentRuntimeError as error:
                status_of(error)
                notes.append(f"The answer was refused: {_describe(error)}")
                task = await self._tasks.get(task.task_id, caller)
        if not answers:
            notes.append("The client sent no answer of a person; the question is still open.")
        return task, notes

    async def _wait(self, task: Task, client: Client, report: Report, wait_s: float, *, ends: bool) -> Task:
        """Return the task once it ends or, unless `ends`, needs a person; at the latest after `wait_s` seconds."""
        if task.terminal or (_needs_person(task) and not ends):
            return task
        caller, told = client.caller, task.version
        try:
            async with asyncio.timeout(wait_s):
                follow = self._tasks.follow(task.task_id, caller, task.version, idle_s=REPORT_S)
                async with aclosing(follow) as batches:
                    async for records in batches:
                        for line in filter(None, map(log_line, records)):
                            await report(line)
                        if not records:
                            await report(f"The task is {task.status}.")
                        told = records[-1].seq if records else told
                        task = await self._tasks.get(task.task_id, caller)
                        if told >= task.version and (task.terminal or (_needs_person(task) and not ends)):
                            break
        except TimeoutError:
            pass
        return await self._tasks.get(task.task_id, caller)

    async def wait_until_closed(self, caller: Caller, state: str, key: str) -> None:
        """Return when the question is no longer open, because somebody has answered it elsewhere."""
        task_id = _Round.read(state).task_id
        task = await self._tasks.get(task_id, caller)
        async with aclosing(self._tasks.follow(task_id, caller, task.version)) as batches:
            while key in open_questions(task):
                await anext(batches, None)
                task = await self._tasks.get(task_id, caller)

    # Results

    async def _answer(self, task: Task, client: Client, notes: list[str] | None = None) -> CallToolResult:
        if task.journal_bytes > LARGE_BYTES:
            return await asyncio.to_thread(_make_task_result, task, client, notes or [])
        return _make_task_result(task, client, notes or [])


_NOT_OF_THE_TASK = frozenset({"idempotency_key", "wait_s"})
_SHOWN_OF_TOOLS = ("server", "tool", "title", "description", "effect", "idempotent", "status", "detail")
_SHOWN_OF_TASKS = ("prompt", "plan", "plan_revision", "plan_digest", "error", "attention", "waiting_for", "usage")
_SHOWN_OF_STEPS = ("id", "title", "status", "output", "error")


def _needs_person(task: Task) -> bool:
    return task.status in WAITING and not task.cancel_requested


def _make_task_result(task: Task, client: Client, notes: list[str]) -> CallToolResult:
    shown: dict[str, Any] = {
        "task_id": task.task_id,
        "status": task.status,
        "terminal": task.terminal,
        "decide": _decide_at(task, client) if _needs_person(task) else None,
        "notes": notes,
    }
    if client.caller.may("read"):
        view: Mapping[str, Any] = task_view(task)
        result = view["result"]
        shown |= {name: view[name] for name in _SHOWN_OF_TASKS}
        shown["steps"] = [{name: step[name] for name in _SHOWN_OF_STEPS} for step in view["steps"]]
        shown["result"] = result
        if result is not None and len(result) > _LONGEST_RESULT:
            shown["result"] = cut(result, _LONGEST_RESULT)
            notes.append(f"The result is cut; the resource task://{task.task_id} has all of it.")
    return _make_result(shown, _describe_task(shown))


def _decide_at(task: Task, client: Client) -> dict[str, str]:
    """Return where a person decides: the page of the task, and a command for a terminal."""
    named = f"approve {task.task_id} --digest {task.plan_digest}"
    command = named if task.status is TaskStatus.AWAITING_APPROVAL else f"show {task.task_id}"
    return {"page": page_of(client.address, task.task_id), "command": f"agent-runtime {command}"}


def _describe_task(shown: Mapping[str, Any]) -> str:
    """Return the task as text, for clients that show no structured content."""
    lines = [f"Task {shown['task_id']} is {shown['status']}."]
    if shown.get("plan") and not shown["terminal"]:
        lines.append(f"Plan:\n{shown['plan']}")
    if shown.get("result"):
        lines.append(str(shown["result"]))
    if shown["decide"]:
        where = shown["decide"]
        lines.append(f"A person must decide, at {where['page']} or with: {where['command']}")
    lines += shown["notes"]
    return "\n".join(lines)


def _make_result(structured: dict[str, Any], text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], structured_content=structured)


def _make_refusal(error: AgentRuntimeError) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=_describe(error))], is_error=True)


def _describe(error: AgentRuntimeError) -> str:
    return cut(str(error), _LONGEST_REFUSAL)
