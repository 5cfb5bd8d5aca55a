"""Plans over REST, before they are approved: another one asked for. See docs/api.md."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from agent_runtime.api.auth import actor_of
from agent_runtime.api.bodies import ReviseRequest
from agent_runtime.api.deps import TaskId, decode, known_form, read_json, runtime_of
from agent_runtime.api.openapi import body_of, refusals
from agent_runtime.api.shapes import TaskView
from agent_runtime.api.views import answer, task_view
from agent_runtime.domain.approval import Revise

plans = APIRouter(prefix="/v1/tasks", tags=["Plans"])


@plans.post(
    "/{task_id}/revise",
    status_code=202,
    responses={
        202: {"model": TaskView, "description": "It is planned again; the task as it stands"},
        **refusals(400, 404, 409, 413, 415, 422, 503),
    },
    openapi_extra=body_of(ReviseRequest),
)
async def revise_plan(request: Request, task_id: TaskId) -> Response:
    """Have the task planned again with what should be different. The next revision awaits approval like the first."""
    runtime = runtime_of(request)
    known_form(task_id)
    body = decode(ReviseRequest, await read_json(request, runtime.settings.limits))
    decision = Revise(feedback=body.feedback, actor=actor_of(request.scope))
    return answer(task_view(await runtime.tasks.decide(task_id, decision)), 202)
