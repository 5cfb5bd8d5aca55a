"""The resources: `task://ID` is a task as over REST, `audit://ID` is its audit export. Both are JSON."""

import asyncio
import json
import re

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)
from pydantic_core import to_json

from agent_runtime.api.problems import status_of
from agent_runtime.api.scopes import describe_missing
from agent_runtime.api.views import task_view
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.audit_export import export
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import AgentRuntimeError
from agent_runtime.domain.stored_journal import StoredJournal
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import LARGE_BYTES
from agent_runtime.text.escaping import cut, one_line

_URI = re.compile(r"(?P<kind>task|audit)://(?P<task_id>[A-Za-z0-9_-]{1,100})/?")
_JSON = "application/json"
_PAGE = 50
_LONGEST_AUDIT = 4 * 1024 * 1024

TEMPLATES = (
    ResourceTemplate(
        name="task",
        title="A task",
        uri_template="task://{task_id}",
        description="The task with its plan, steps, decisions, open questions and result.",
        mime_type=_JSON,
    ),
    ResourceTemplate(
        name="audit",
        title="The audit of a task",
        uri_template="audit://{task_id}",
        description="The prompt, the plan, its approvals, every call, and the journal with the hashes that prove them.",
        mime_type=_JSON,
    ),
)


def _encode_task(task: Task) -> str:
    return to_json(task_view(task)).decode()


class TaskResources:
    """The resources of a running service. `whole_journals` is held while a whole journal is read."""

    def __init__(self, runtime: Runtime, whole_journals: asyncio.Semaphore) -> None:
        self._tasks = runtime.tasks
        self._whole_journals = whole_journals

    async def list(self, caller: Caller, cursor: str | None) -> ListResourcesResult:
        """Return a page of tasks, newest first. Raises: MCPError."""
        _check_scope(caller)
        try:
            page = await self._tasks.page(caller, None, _PAGE, cursor)
        except AgentRuntimeError as error:
            raise _make_refusal(error) from error
        resources = [
            Resource(
                name=task.task_id,
                title=one_line(task.prompt, 80),
                uri=f"task://{task.task_id}",
                description=f"The task is {task.status}.",
                mime_type=_JSON,
            )
            for task in page.tasks
        ]
        return ListResourcesResult(resources=resources, next_cursor=page.next_cursor)

    def list_templates(self, caller: Caller) -> ListResourceTemplatesResult:
        """Return the templates of all resources. Raises: MCPError."""
        _check_scope(caller)
        return ListResourceTemplatesResult(resource_templates=list(TEMPLATES))

    async def read(self, caller: Caller, uri: str) -> ReadResourceResult:
        """Return a resource. Raises: MCPError if there is none, or if it is too long for one message."""
        _check_scope(caller)
        match = _URI.fullmatch(uri)
        if match is None:
            raise _make_not_found(uri, "Resources are task://ID and audit://ID, with the id of a task.")
        try:
            text = await (self._audit if match["kind"] == "audit" else self._task)(match["task_id"], caller)
        except AgentRuntimeError as error:
            raise _make_refusal(error, uri) from error
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=_JSON, text=text)])

    async def _task(self, task_id: str, caller: Caller) -> str:
        task = await self._tasks.get(task_id, caller)
        large = task.journal_bytes > LARGE_BYTES
        return await asyncio.to_thread(_encode_task, task) if large else _encode_task(task)

    async def _audit(self, task_id: str, caller: Caller) -> str:
        async with self._whole_journals:
            kept = await self._tasks.load_stored_journal(task_id, caller)
            text = await asyncio.to_thread(_encode, kept)
        if len(text) > _LONGEST_AUDIT:
            where = f"GET /v1/tasks/{task_id}/audit or `agent-runtime audit export {task_id}`"
            raise MCPError(INVALID_PARAMS, f"The audit has {len(text)} bytes, too many for one message: use {where}.")
        return text


def _encode(kept: StoredJournal) -> str:
    return json.dumps(export(kept))  # escapes bytes of a broken journal that are not UTF-8


def _check_scope(caller: Caller) -> None:
    if not caller.may("read"):
        raise MCPError(INVALID_PARAMS, describe_missing(caller, ("read",), "resources need"))


def _make_not_found(uri: str, why: str) -> MCPError:
    return MCPError(INVALID_PARAMS, f"There is no resource {cut(uri, 200)!r}. {why}", {"uri": cut(uri, 200)})


def _make_refusal(error: AgentRuntimeError, uri: str | None = None) -> MCPError:
    """Return a refusal as an error of the protocol. Raises: the error itself if the caller did not cause it."""
    status_of(error)
    return MCPError(INVALID_PARAMS, cut(str(error), 4000), {"uri": uri} if uri else None)
