"""The service as a client in the same process sees it: its requests are answered here, without HTTP.

A command that runs the service itself uses it, so that it needs neither the web framework nor a connection.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic_core import to_json

from agent_runtime.api import bodies
from agent_runtime.api.catalogue import tools_page
from agent_runtime.api.decisions import DECISIONS
from agent_runtime.api.event_pages import read_event_page
from agent_runtime.api.plan_views import diff_view, planning_view
from agent_runtime.api.problems import problem_of
from agent_runtime.api.searching import read_page
from agent_runtime.api.service_views import changes_view, models_view, status_views
from agent_runtime.api.submissions import RepeatKey, digest_body, make_submission
from agent_runtime.api.views import created_view, page_view, task_view
from agent_runtime.bootstrap import Runtime
from agent_runtime.client import Client
from agent_runtime.client.errors import read_error
from agent_runtime.client.frames import END, Frame, FrameReader
from agent_runtime.client.requests import Request, Url
from agent_runtime.client.retries import Retries
from agent_runtime.domain.approval import Decision, Edit
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import AgentRuntimeError
from agent_runtime.services.task_manager import RerunSubmission

if TYPE_CHECKING:
    from agent_runtime.api.stream import Request as Stream

Answer = TypeVar("Answer")


class LocalClient(Client):
    """Calls a service that runs on another thread of this process, whose event loop is `loop`.

    `url` is where other programs reach the same service. The caller has all scopes.
    """

    def __init__(self, url: Url, runtime: Runtime, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(url)
        self._runtime = runtime
        self._loop = loop

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Do the work on the event loop of the service, and return its result. Raises: ApiError."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except AgentRuntimeError as error:
            refusal = problem_of({}, error)  # raises an error that the request has not caused
            retry_after = refusal.headers.get("Retry-After")
            raise read_error("", refusal.status_code, retry_after, bytes(refusal.body)) from error

    def _read_answer(self, shape: type[Answer], request: Request) -> Answer:  # noqa: ARG002 - for the type checker
        answer: Answer = json.loads(self._wait(_answer(self._runtime, request)))
        return answer

    def _frames(self, task_id: str, last: str, retries: Retries) -> Generator[Frame]:
        retries.restart()
        wanted = self._wait(self._begin(task_id, last))
        if wanted is None:
            yield END
            return
        pieces: SimpleQueue[bytes | None] = SimpleQueue()
        pump = asyncio.run_coroutine_threadsafe(self._pump(wanted, pieces), self._loop)
        reader = FrameReader()
        try:
            while (piece := pieces.get()) is not None:
                yield from reader.read(piece)
        finally:
            pump.cancel()

    async def _begin(self, task_id: str, last: str) -> "Stream | None":
        from agent_runtime.api.stream import read_request  # noqa: PLC0415 - many commands follow no task

        return read_request(await self._runtime.tasks.get(task_id, ANYBODY), last or None, None, None)

    async def _pump(self, wanted: "Stream", pieces: SimpleQueue[bytes | None]) -> None:
        """Pass the stream on in pieces, and None at its end."""
        from agent_runtime.api.stream import progress_bodies, task_bodies  # noqa: PLC0415 - as above

        runtime = self._runtime

        async def pass_progress_on() -> None:
            async for piece in progress_bodies(runtime.progress, wanted.task.task_id, wanted.view):
                pieces.put(piece)

        try:
            async with asyncio.TaskGroup() as group:
                beside = group.create_task(pass_progress_on())
                async for piece in task_bodies(runtime.tasks, ANYBODY, runtime.settings.limits, wanted):
                    pieces.put(piece)
                beside.cancel()
        finally:
            pieces.put(None)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request: its parts of the path that vary, its query, its body and its headers."""

    runtime: Runtime
    parts: tuple[str, ...]
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]

    @property
    def task_id(self) -> str:
        return self.parts[0]

    @property
    def repeat_key(self) -> RepeatKey:
        return RepeatKey(self.headers.get("Idempotency-Key"), digest_body(self.body))

    async def decide(self, decision: Decision) -> bytes:
        """Make a decision, and return the task."""
        return to_json(task_view(await self.runtime.tasks.decide(self.task_id, decision, ANYBODY)))


async def _answer(runtime: Runtime, request: Request) -> bytes:
    """Return the JSON answer to a request of the client. Raises: AgentRuntimeError."""
    url = urlsplit(request.path)
    for method, path, handle in _HANDLERS:
        match = path.fullmatch(url.path)
        if match and method == request.method:
            parts = tuple(unquote(part) for part in match.groups())
            query = dict(parse_qsl(url.query, keep_blank_values=True))
            return await handle(_Asked(runtime, parts, query, request.body or {}, request.headers))
    raise LookupError(f"{request.method} {request.path}")  # a verb of the client that no command uses


async def _submit(asked: _Asked) -> bytes:
    submission = make_submission(bodies.TaskRequest.read(asked.body), asked.repeat_key)
    return to_json(created_view(await asked.runtime.tasks.submit(submission, ANYBODY), ""))


async def _rerun(asked: _Asked) -> bytes:
    body, key = bodies.RerunRequest.read(asked.body), asked.repeat_key
    request = RerunSubmission(asked.task_id, body.start, body.approval, key.key, key.digest)
    return to_json(created_view(await asked.runtime.tasks.rerun(request, ANYBODY), ""))


async def _list_tasks(asked: _Asked) -> bytes:
    query = bodies.ListQuery.read(asked.query)
    return to_json(page_view(await read_page(asked.runtime.tasks, ANYBODY, query)))


async def _get_task(asked: _Asked) -> bytes:
    return to_json(task_view(await asked.runtime.tasks.get(asked.task_id, ANYBODY)))


async def _list_events(asked: _Asked) -> bytes:
    query = bodies.EventsQuery.read(asked.query)
    read = partial(asked.runtime.tasks.records, asked.task_id, ANYBODY)
    return await read_event_page(read, query.after, query.limit)


async def _list_attempts(asked: _Asked) -> bytes:
    attempts = await asked.runtime.tasks.list_planning_attempts(asked.task_id, ANYBODY)
    return to_json(planning_view(asked.task_id, attempts))


async def _compare(asked: _Asked) -> bytes:
    query = bodies.DiffQuery.read(asked.query)
    return to_json(diff_view(await asked.runtime.tasks.read_revisions(asked.task_id, ANYBODY), query))


async def _edit(asked: _Asked) -> bytes:
    digest = asked.headers["If-Match"].strip('"')
    return await asked.decide(Edit(plan=bodies.PlanBody.read(asked.body), digests=frozenset([digest])))


def _decide(kind: str, name: str | None = None) -> Callable[[_Asked], Awaitable[bytes]]:
    """Return what makes a decision of this kind. `name`: the field of which the path has the value."""

    async def decide(asked: _Asked) -> bytes:
        named = {} if name is None else {name: asked.parts[1]}
        return await asked.decide(DECISIONS[kind].read({**asked.body, **named}))

    return decide


async def _list_tools(asked: _Asked) -> bytes:
    query = bodies.ToolsQuery.read(asked.query)
    return tools_page(asked.runtime.registry, query.limit, query.cursor)


async def _refresh_tools(asked: _Asked) -> bytes:
    server = bodies.RefreshQuery.read(asked.query).server
    await asked.runtime.registry.refresh(asked.runtime.settings.limits.server_start_s, server)
    return await _list_servers(asked)


async def _list_servers(asked: _Asked) -> bytes:
    return to_json(status_views(asked.runtime.registry, asked.runtime.servers))


async def _show_models(asked: _Asked) -> bytes:
    runtime = asked.runtime
    return to_json(models_view(runtime.planner, runtime.revision_help, runtime.model))


async def _reload_tools(asked: _Asked) -> bytes:
    return to_json(changes_view(await asked.runtime.reloader.reload()))


_TASK = "/v1/tasks/([^/]+)"
_HANDLERS: tuple[tuple[str, re.Pattern[str], Callable[[_Asked], Awaitable[bytes]]], ...] = tuple(
    (method, re.compile(path), handle)
    for method, path, handle in (
        ("POST", "/v1/tasks", _submit),
        ("GET", "/v1/tasks", _list_tasks),
        ("GET", _TASK, _get_task),
        ("POST", f"{_TASK}/rerun", _rerun),
        ("GET", f"{_TASK}/events", _list_events),
        ("GET", f"{_TASK}/planning", _list_attempts),
        ("GET", f"{_TASK}/plan/diff", _compare),
        ("POST", f"{_TASK}/approve", _decide("approve")),
        ("POST", f"{_TASK}/reject", _decide("reject")),
        ("POST", f"{_TASK}/revise", _decide("revise")),
        ("PUT", f"{_TASK}/plan", _edit),
        ("POST", f"{_TASK}/cancel", _decide("cancel")),
        ("POST", f"{_TASK}/resolve", _decide("resolve")),
        ("POST", f"{_TASK}/calls/([^/]+)/approve", _decide("approve_call", "call_id")),
        ("POST", f"{_TASK}/calls/([^/]+)/deny", _decide("deny_call", "call_id")),
        ("POST", f"{_TASK}/answers/([^/]+)", _decide("answer", "question_id")),
        ("GET", "/v1/tools", _list_tools),
        ("POST", "/v1/tools/refresh", _refresh_tools),
        ("GET", "/v1/tools/status", _list_servers),
        ("GET", "/v1/models/status", _show_models),
        ("POST", "/v1/tools/reload", _reload_tools),
    )
)
"""The verbs of the client that commands use, by method and path."""
