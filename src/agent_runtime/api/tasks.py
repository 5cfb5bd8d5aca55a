"""The short addresses `/tasks` and `/api/tasks`: submit a task, read it, and follow it over SSE or a WebSocket.

The tasks are those of `/v1/tasks`; the links of a new task lead there. See docs/reference/short-addresses.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Annotated, Self

from fastapi import APIRouter, Query, Request, WebSocket
from starlette.responses import Response

from agent_runtime.api import stream, websocket
from agent_runtime.api.bodies import StreamQuery, TaskRequest
from agent_runtime.api.deps import CurrentCaller, LastEventId, RequestKey, Service, make_answer
from agent_runtime.api.json_route import JsonRoute, JudgedRequest
from agent_runtime.api.scopes import requires
from agent_runtime.api.submissions import make_submission
from agent_runtime.api.task_ids import TaskId
from agent_runtime.api.views import answer, created_view, root_path_of, task_answer
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.domain.values import JsonValue

router = APIRouter(route_class=JsonRoute, strict_content_type=False, include_in_schema=False)


class DescribedTask(TaskRequest):
    """A new task, whose prompt may be called `description`."""

    @classmethod
    def read(cls, value: JsonValue) -> Self:
        """Return the validated body. Raises: InvalidInputError or InvalidPlanError with every fault."""
        if isinstance(value, dict) and {"description", "prompt"} <= value.keys():
            raise InvalidInputError([Fault("description", "Send 'description' or 'prompt', not both.")])
        if isinstance(value, dict) and "prompt" not in value:
            value = {"prompt" if name == "description" else name: field for name, field in value.items()}
            with _faults_of_description():
                return super().read(value)
        return super().read(value)


@contextmanager
def _faults_of_description() -> Iterator[None]:
    """Name the field `description` in faults of the prompt, as the caller did."""
    try:
        yield
    except InvalidInputError as error:
        faults = [Fault("description", each.message) if each.field == "prompt" else each for each in error.faults]
        raise type(error)(faults) from error


@router.post("/tasks")
@router.post("/api/tasks")
@requires("submit")
async def submit_task(
    request: Request, body: DescribedTask, key: RequestKey, runtime: Service, caller: CurrentCaller
) -> Response:
    """Submit a task. It is planned in the background, and then waits for approval."""
    assert isinstance(request, JudgedRequest)  # noqa: S101 - every `JsonRoute` with a body passes one
    described = isinstance(request.value, dict) and "description" in request.value
    with _faults_of_description() if described else nullcontext():
        task = await runtime.tasks.submit(make_submission(body, key), caller)
    return answer(created_view(task, root_path_of(request)), 202)


@router.get("/tasks/{task_id}")
@router.get("/api/tasks/{task_id}")
@requires("read")
async def get_task(request: Request, task_id: TaskId, runtime: Service, caller: CurrentCaller) -> Response:
    """Return the task."""
    task = await runtime.tasks.get(task_id, caller)
    return await make_answer(request, task, partial(task_answer, task, request))


@router.get("/tasks/{task_id}/stream")
@router.get("/api/tasks/{task_id}/stream")
@requires("read")
async def stream_task(
    request: Request,
    task_id: TaskId,
    runtime: Service,
    caller: CurrentCaller,
    query: Annotated[StreamQuery, Query()],
    last_event_id: LastEventId = None,
) -> Response:
    """Stream the events of the task as Server-Sent Events."""
    return await stream.answer_stream(request.app.state.streams, runtime, caller, task_id, last_event_id, query)


@router.websocket("/tasks/{task_id}/stream")
@router.websocket("/api/tasks/{task_id}/stream")
@requires("read")
async def follow_task(socket: WebSocket, task_id: str) -> None:
    """Serve the stream on a WebSocket, and take decisions on it."""
    await websocket.follow_task(socket, task_id)
