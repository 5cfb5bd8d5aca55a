"""Tasks over REST: every handler decodes, makes one call and encodes.

See docs/reference/rest.md.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, WebSocket
from starlette.responses import Response

from agent_runtime.api import stream, websocket
from agent_runtime.api.auth import Authenticator
from agent_runtime.api.bodies import (
    AnswerRequest,
    ApproveCallRequest,
    ApproveRequest,
    CallDecisionRequest,
    CancelRequest,
    EventsQuery,
    ListQuery,
    RefreshQuery,
    RejectRequest,
    RerunRequest,
    ResolveRequest,
    StreamQuery,
    TaskRequest,
    ToolsQuery,
)
from agent_runtime.api.catalogue import tools_page
from agent_runtime.api.deps import CurrentCaller, LastEventId, RequestKey, Service, make_answer
from agent_runtime.api.event_pages import read_event_page
from agent_runtime.api.json_route import JsonRoute
from agent_runtime.api.openapi import refusals
from agent_runtime.api.scopes import requires
from agent_runtime.api.searching import read_page
from agent_runtime.api.service_shapes import ModelsStatusView, RegistryChangesView, ServerStatusView, ToolsView
from agent_runtime.api.service_views import changes_view, models_view, status_views
from agent_runtime.api.shapes import Approved, EventsView, PageView, StreamTicket, TaskCreated, TaskView
from agent_runtime.api.submissions import make_submission
from agent_runtime.api.task_ids import TaskId
from agent_runtime.api.views import (
    answer,
    created_view,
    page_view,
    root_path_of,
    task_answer,
    time_of,
)
from agent_runtime.domain.approval import Answer, Approve, ApproveCall, Cancel, Decision, DenyCall, Reject, Resolve
from agent_runtime.domain.images import IMAGE_TYPES
from agent_runtime.domain.task import Task
from agent_runtime.services.task_manager import RerunSubmission

tasks = APIRouter(prefix="/v1/tasks", tags=["Tasks"], route_class=JsonRoute, strict_content_type=False)
tools = APIRouter(prefix="/v1/tools", tags=["Tools"])
models = APIRouter(prefix="/v1/models", tags=["Models"])

_OF_IMAGES = {
    "Cache-Control": "private, max-age=31536000, immutable",  # the digest is in the address
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Vary": "Authorization",
}
_FAULTY_REGISTRY = {**refusals(409)[409], "description": "The tool registry has faults; `errors` names every one"}


async def _decider(
    request: Request, runtime: Service, caller: CurrentCaller
) -> Callable[[str, Decision], Awaitable[Response]]:
    """Return a function that makes a decision of this caller and returns the task."""

    async def decide(task_id: str, decision: Decision) -> Response:
        return await _answer(request, await runtime.tasks.decide(task_id, decision, caller), 202)

    return decide


Decide = Annotated[Callable[[str, Decision], Awaitable[Response]], Depends(_decider)]

DECISION: dict[int | str, dict[str, Any]] = {
    202: {
        "model": TaskView | TaskCreated,
        "description": "Decided. The answer is the task; without the scope `read`, its id and status",
    },
    **refusals(400, 404, 409, 413, 415, 422, 503),
}


@tasks.post(
    "",
    status_code=202,
    responses={202: {"model": TaskCreated, "description": "Accepted"}, **refusals(400, 413, 415, 422, 503)},
)
@requires("submit")
async def submit_task(
    request: Request, body: TaskRequest, key: RequestKey, runtime: Service, caller: CurrentCaller
) -> Response:
    """Submit a task. It is planned, and then waits for approval.

    Requests with the same `Idempotency-Key` and body return the same task.
    """
    task = await runtime.tasks.submit(make_submission(body, key), caller)
    return answer(created_view(task, root_path_of(request)), 202)


@tasks.get("", responses={200: {"model": PageView}, **refusals(422)})
@requires("read")
async def list_tasks(query: Annotated[ListQuery, Query()], runtime: Service, caller: CurrentCaller) -> Response:
    """List the tasks, newest first, in pages; with `q`, those that have all of its words.

    A search looks at 10,000 tasks for one page, which may therefore be short or empty and yet have a `next_cursor`.
    """
    return answer(page_view(await read_page(runtime.tasks, caller, query)))


@tasks.get("/{task_id}", responses={200: {"model": TaskView}, **refusals(404)})
@requires("read")
async def get_task(request: Request, task_id: TaskId, runtime: Service, caller: CurrentCaller) -> Response:
    """Return the task with its plan, its steps and its open questions."""
    return await _answer(request, await runtime.tasks.get(task_id, caller))


@tasks.get(
    "/{task_id}/images/{digest}",
    response_class=Response,
    responses={
        200: {
            "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES},
            "description": "The bytes of the image",
        },
        **refusals(404, 503),
    },
)
@requires("read")
async def get_image(task_id: TaskId, digest: str, runtime: Service, caller: CurrentCaller) -> Response:
    """Return an image in the result of a call, which `tool.returned` names by this digest."""
    image = await runtime.tasks.load_image(task_id, digest, caller)
    name = f"{image.digest.removeprefix('sha256:')[:12]}.{image.media_type.removeprefix('image/')}"
    headers = {**_OF_IMAGES, "Content-Disposition": f'inline; filename="{name}"'}
    return Response(image.data, media_type=image.media_type, headers=headers)


@tasks.delete("/{task_id}", status_code=204, responses=refusals(404, 409, 503))
@requires("admin")
async def delete_task(task_id: TaskId, runtime: Service, caller: CurrentCaller) -> Response:
    """Delete a task that has ended, with its journal."""
    await runtime.tasks.delete(task_id, caller)
    return Response(status_code=204)


@tasks.post(
    "/{task_id}/approve",
    status_code=202,
    responses={
        202: {"model": Approved, "description": "Approved"},
        **refusals(400, 404, 409, 413, 415, 422, 428, 503),
    },
)
@requires("approve")
async def approve_plan(
    task_id: TaskId,
    runtime: Service,
    caller: CurrentCaller,
    body: ApproveRequest = ApproveRequest(),  # noqa: B008 - it is frozen
) -> Response:
    """Approve the plan, which then runs exactly as it was shown. Only the first of concurrent approvals gets 202."""
    decision = Approve(digest=body.plan_digest, comment=body.comment)
    task = await runtime.tasks.decide(task_id, decision, caller)
    approved: Approved = {
        "message": "The plan is approved and will run.",
        "task_id": task_id,
        "status": task.status,
        "plan_revision": task.plan_revision,
        "plan_digest": task.plan_digest if caller.may("read") else None,
    }
    return answer(approved, 202)


@tasks.post(
    "/{task_id}/rerun",
    status_code=202,
    responses={202: {"model": TaskCreated, "description": "Accepted"}, **refusals(400, 404, 409, 413, 415, 422, 503)},
)
@requires("submit")  # and `read`: the new task shows results of the finished one
async def rerun_task(
    request: Request,
    task_id: TaskId,
    key: RequestKey,
    runtime: Service,
    caller: CurrentCaller,
    body: RerunRequest = RerunRequest(),  # noqa: B008 - it is frozen
) -> Response:
    """Run a finished task again, as a new task whose plan awaits approval.

    `repeats` of the new task lists the calls that were made before and may be made again.
    """
    rerun = RerunSubmission(task_id, body.start, body.approval, key.key, key.digest)
    task = await runtime.tasks.rerun(rerun, caller)
    return answer(created_view(task, root_path_of(request)), 202)


@tasks.post(
    "/{task_id}/reject",
    status_code=202,
    responses=DECISION,
)
@requires("approve")
async def reject_plan(task_id: TaskId, decide: Decide, body: RejectRequest = RejectRequest()) -> Response:  # noqa: B008 - it is frozen
    """Reject the plan, which ends the task."""
    return await decide(task_id, Reject(reason=body.reason))


@tasks.post(
    "/{task_id}/resolve",
    status_code=202,
    responses=DECISION,
)
@requires("approve")
async def resolve_step(task_id: TaskId, decide: Decide, body: ResolveRequest) -> Response:
    """Resolve a call of unknown outcome; see `attention` of the task."""
    return await decide(task_id, Resolve(**dict(body)))


@tasks.post(
    "/{task_id}/calls/{call_id}/approve",
    status_code=202,
    responses=DECISION,
)
@requires("approve")
async def approve_call(task_id: TaskId, call_id: str, decide: Decide, body: ApproveCallRequest) -> Response:
    """Approve a call that `attention` shows. The body names its arguments by their digest, and may have it sent with
    others instead.
    """
    return await decide(task_id, ApproveCall(call_id=call_id, **dict(body)))


@tasks.post(
    "/{task_id}/calls/{call_id}/deny",
    status_code=202,
    responses=DECISION,
)
@requires("approve")
async def deny_call(task_id: TaskId, call_id: str, decide: Decide, body: CallDecisionRequest) -> Response:
    """Deny a call that `attention` shows. Its step fails, and steps that need it are skipped."""
    return await decide(task_id, DenyCall(call_id=call_id, **dict(body)))


@tasks.post(
    "/{task_id}/answers/{question_id}",
    status_code=202,
    responses=DECISION,
)
@requires("approve")
async def answer_question(task_id: TaskId, question_id: str, decide: Decide, body: AnswerRequest) -> Response:
    """Answer, decline or dismiss a question of a server that `attention` shows. The server gets the action and the
    content, and nothing else of the task changes.
    """
    return await decide(task_id, Answer(question_id=question_id, **dict(body)))


async def _answer(request: Request, task: Task, status: int = 200) -> Response:
    return await make_answer(request, task, partial(task_answer, task, request, status))


@tasks.post(
    "/{task_id}/cancel",
    status_code=202,
    responses=DECISION,
)
@requires("submit", "approve")  # both may always stop a task
async def cancel_task(task_id: TaskId, decide: Decide, body: CancelRequest = CancelRequest()) -> Response:  # noqa: B008 - it is frozen
    """Cancel the task. No call starts after the answer; an open call gets a few seconds to finish."""
    return await decide(task_id, Cancel(reason=body.reason))


@tasks.post("/{task_id}/stream-ticket", responses={200: {"model": StreamTicket}, **refusals(404)})
@requires("read")
async def make_stream_ticket(request: Request, task_id: TaskId, runtime: Service, caller: CurrentCaller) -> Response:
    """Create a ticket for `EventSource`, which cannot send a key. It opens the stream of this task for a short time."""
    await runtime.tasks.get(task_id, caller)
    authenticator: Authenticator = request.app.state.authenticator
    ticket, expires = authenticator.issue_ticket(request.scope, task_id)
    made: StreamTicket = {
        "ticket": ticket,
        "expires_at": time_of(datetime.fromtimestamp(expires, UTC)),
        "url": f"{root_path_of(request)}/v1/tasks/{task_id}/stream?ticket={ticket}",
    }
    return answer(made)


@tasks.get(
    "/{task_id}/stream",
    response_class=Response,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "Frames `7.0`, `7.1`, ..., and `[DONE]` at the end"},
        204: {"description": "The task has ended, and the client has all frames"},
        **refusals(400, 404, 503),
    },
)
@requires("read")
async def stream_task(
    request: Request,
    task_id: TaskId,
    runtime: Service,
    caller: CurrentCaller,
    query: Annotated[StreamQuery, Query()],
    last_event_id: LastEventId = None,
) -> Response:
    """Stream the events of the task as Server-Sent Events, from its start or after a given frame."""
    return await stream.answer_stream(request.app.state.streams, runtime, caller, task_id, last_event_id, query)


@tasks.websocket("/{task_id}/stream")
@requires("read")
async def follow_task(socket: WebSocket, task_id: str) -> None:
    """Serve the stream on a WebSocket, and take decisions on it; see docs/reference/stream.md."""
    await websocket.follow_task(socket, task_id)


@tasks.get("/{task_id}/events", responses={200: {"model": EventsView}, **refusals(404, 422)})
@requires("read")
async def list_events(
    task_id: TaskId, query: Annotated[EventsQuery, Query()], runtime: Service, caller: CurrentCaller
) -> Response:
    """Return the journal of the task as JSON, in pages.

    A page ends after `limit` events, or with the event that makes it longer than 1 MiB.
    """
    read = partial(runtime.tasks.records, task_id, caller)
    return Response(await read_event_page(read, query.after, query.limit), media_type="application/json")


@tools.get("", responses={200: {"model": ToolsView}, **refusals(422)})
@requires("read")
async def list_tools(query: Annotated[ToolsQuery, Query()], runtime: Service) -> Response:
    """List the tools that plans may use, and unusable tools with the reason, in pages.

    A page ends after `limit` tools, or with the tool that makes it longer than 1 MiB.
    """
    page = tools_page(runtime.registry, query.limit, query.cursor)
    return Response(page, media_type="application/json")


@tools.post("/refresh", responses={200: {"model": list[ServerStatusView]}, **refusals(422)})
@requires("submit")  # it starts servers, as tasks do
async def refresh_tools(query: Annotated[RefreshQuery, Query()], runtime: Service) -> Response:
    """Query the tools of every server again, or of one, for up to `limits.server_start_s`, and return the state of all
    servers.
    """
    await runtime.registry.refresh(runtime.settings.limits.server_start_s, query.server)
    return answer(status_views(runtime.registry, runtime.servers))


@tools.post("/reload", responses={200: {"model": RegistryChangesView}, 409: _FAULTY_REGISTRY})
@requires("admin")
async def reload_tools(runtime: Service) -> Response:
    """Read the tool registry again. A registry with faults is refused, and the current one stays in force."""
    return answer(changes_view(await runtime.reloader.reload()))


@tools.get("/status", responses={200: {"model": list[ServerStatusView]}})
@requires("read")
async def list_servers(runtime: Service) -> Response:
    """List the servers of the tool registry with their state."""
    return answer(status_views(runtime.registry, runtime.servers))


@models.get("/status", responses={200: {"model": ModelsStatusView}})
@requires("read")
async def show_models(runtime: Service) -> Response:
    """Return the planner, and the known state of the language model, without a request to it."""
    return answer(models_view(runtime.planner, runtime.revision_help, runtime.model))
